"""Results of scoring: what they accept, what they count, what a reader sees first, and what rules may compare."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankdiag as rd
from rankdiag.preference import DisplacementScores, PreferenceScores
from rankdiag.preference._evidence import _EVIDENCE, evidence_sentence
from rankdiag.preference._pair_columns import PairText, TokenAttribution

NAN = float("nan")


def make(relative, *, status=None, **more) -> PreferenceScores:
    count = len(relative)
    lengths = {
        "n_chosen": np.full(count, 5.0),
        "n_rejected": 5.0 + np.arange(count),
        "length_gap": np.arange(float(count)),
        "shared_prefix": np.zeros(count),
    }
    options = {name: more.pop(name) for name in list(more) if name not in PreferenceScores.rule_names}
    return PreferenceScores(
        keys=tuple(f"k{i}" for i in range(count)),
        status=("ok",) * count if status is None else status,
        scores={**lengths, "relative": relative, **more},
        **options,
    )


def numbers(result) -> dict[str, object]:
    return {number.label: number.value for number in result.document().key_numbers}


# --- counting ------------------------------------------------------------------------------------------------------


def test_shares_are_over_usable_pairs_and_bounds_belong_to_the_ideal():
    scores = make(
        [0.5, 0.0, -1.0, -1.5, 9.0, NAN],
        status=("ok", "ok", "ok", "ok", "identical", "too_long"),
    )
    assert scores.regime == ["both_fall", "ideal", "ideal", "both_rise", "undefined", "undefined"]
    assert scores.both_fall_fraction == 0.25
    assert scores.unusable_fraction == pytest.approx(2 / 6)
    assert scores.identical_fraction == pytest.approx(1 / 6)
    assert scores.status_counts() == {"ok": 4, "too_long": 1, "identical": 1}
    shown = numbers(scores)
    assert shown["both fall (relative)"] == 0.25
    assert shown["ideal (relative)"] == 0.5
    assert shown["status identical"] == 1


def test_an_identical_pair_is_never_good_and_never_the_worst():
    scores = make([-0.5, -0.1], status=("ok", "identical"), ches=[-3.0, 0.0], ln_ches=[-0.3, 0.0])
    assert scores.worst_pairs(by="ches") == (0,)
    assert scores.usable_values("ches").tolist() == [-3.0]
    (finding,) = scores.flag(["ches >= 0"])
    assert (finding.name, finding.severity) == ("k1", "unknown")
    (low, unknown) = scores.flag(["ches < 1"])
    assert (low.name, low.severity) == ("k0", "alert")
    assert unknown.severity == "unknown"


def test_near_duplicates_are_above_minus_one_twentieth():
    scores = make([0.1] * 4, edit_similarity=[-0.05, -0.049, -0.9, 0.0])
    assert scores.near_duplicate_fraction == 0.5


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=30))
def test_the_rank_correlation_is_that_of_average_ranks(points):
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    found = make([0.1] * len(points), ches=x, ln_ches=y).rank_correlation("ches", "ln_ches")

    def ranks(values):
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    a, b = ranks(x), ranks(y)
    if len(points) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(found)
    else:
        a, b = a - a.mean(), b - b.mean()
        assert found == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)), abs=1e-12)


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(NAN)), min_size=1, max_size=20), st.integers(1, 25), st.data())
def test_the_worst_pairs_are_the_first_of_a_stable_sort(values, n, data):
    status = tuple(data.draw(st.sampled_from(("ok", "too_long", "identical"))) for _ in values)
    scores = make(values, status=status)
    expected = sorted((i for i, v in enumerate(values) if v == v and status[i] == "ok"), key=lambda i: (-values[i], i))
    assert scores.worst_pairs(n, by="relative") == tuple(expected[:n])


# --- what a reader sees --------------------------------------------------------------------------------------------


def test_the_first_sentence_is_the_answer_and_says_how_far_to_trust_it():
    text = make([0.5, -0.5, 0.1, 0.2]).summary()
    first = " ".join(text.split())
    assert "CHES ranks 4 usable pairs" in first
    assert "above 0 for 75% of them, and its sign is often wrong" in first
    assert evidence_sentence("ches") in first
    with_head = " ".join(make([0.5, -0.5], head=[-1.0, -2.0]).summary().split())
    assert "0% of 2 usable pairs have the head-level score above 0" in with_head
    assert evidence_sentence("head") in with_head


def test_every_measured_figure_of_a_shown_score_is_in_the_report():
    text = " ".join(make([0.5, -0.5, 0.1], head=[1.0, -2.0, 3.0], ches=[1.0, 2.0, 3.0]).summary(width=200).split())
    for entry in _EVIDENCE:
        figures = ", ".join(f"{value:.3g}" for value in entry.spearman)
        assert (figures in text) == (entry.score in {"head", "ches"}) or figures in {
            ", ".join(f"{v:.3g}" for v in other.spearman) for other in _EVIDENCE if other.score in {"head", "ches"}
        }


@pytest.mark.parametrize(("order", "warned"), [((0, 1, 2, 3, 4), True), ((2, 0, 4, 1, 3), False)])
def test_a_length_effect_is_named_with_its_number_and_remedy(order, warned):
    scores = make([0.1, 0.2, 0.3, 0.4, 0.5], ches=np.array(order, float))
    notes = " ".join(scores.document().notes)
    correlation = scores.length_correlation
    assert (abs(correlation) > 0.3) == warned
    assert ("Use ln_ches for filtering" in notes) == warned
    if warned:
        assert f"{correlation:.2f}" in notes


def test_single_tokens_are_named_only_where_ches_is_empty():
    lengths = {"n_chosen": [1.0, 5.0], "n_rejected": [1.0, 6.0], "length_gap": [0.0, 1.0]}
    for end, warned in (("given", True), ("implied_eos", False)):
        scores = make([0.1, 0.2], response_end=end, **lengths)
        assert any("responses of one token" in note for note in scores.document().notes) == warned


@pytest.mark.parametrize(("head", "warned"), [([3.0, 2.0, 1.0], True), ([1.0, 2.0, 3.0], False)])
def test_a_cheap_score_that_disagrees_with_the_head_level_is_named(head, warned):
    notes = " ".join(make([0.1] * 3, ln_ches=[1.0, 2.0, 3.0], head=head).document().notes)
    assert ("Use head for filtering" in notes) == warned


def test_an_unreliable_sign_is_named():
    notes = make([0.1, 0.2], ches=[1.0, 2.0], cond=[101.0, float("inf")]).document().notes
    assert any(note.startswith("100% of the usable pairs have cond above 100") for note in notes)


def test_the_conventions_and_every_status_are_stated():
    scores = make(
        [0.1, 0.2, NAN, NAN],
        status=("ok", "ok", "identical", "too_long"),
        layout="packed",
        response_end="implied_eos",
        model={"name": "tiny", "dtype": "bfloat16"},
        data_fingerprint="abc123",
        remarks=("3 pairs were truncated.",),
    )
    text = " ".join(scores.summary(width=200).split())
    for words in ("implied_eos", "packed", "tiny", "bfloat16", "abc123", "3 pairs were truncated."):
        assert words in text
    assert "Skipped 1 of 4 pairs (identical)" in text
    assert "Skipped 1 of 4 pairs (too_long)" in text


def test_the_worst_pairs_stand_highest_first_under_their_keys():
    grid = make([0.1, 0.9, -0.5], ln_ches=[0.1, 0.9, -0.5]).document().grids[0]
    assert [row[0] for row in grid.rows] == ["k1", "k0", "k2"]
    assert grid.columns[1].name == "ln_ches"


def test_quartiles_are_those_of_the_usable_values():
    values = [4.0, 1.0, 3.0, 2.0, 100.0, 5.0]
    scores = make([0.1] * 6, status=("ok",) * 4 + ("identical", "ok"), ches=values)
    grid = next(g for g in scores.document().grids if g.title.startswith("Scores"))
    row = next(row for row in grid.rows if row[0] == "ches")
    assert row[1:] == (1.0, 2.0, 3.0, 4.0, 5.0, 5)


def test_nothing_usable_is_said_and_not_divided_by():
    scores = make([NAN, NAN], status=("too_long", "empty_chosen"))
    assert "No pair can be used" in scores.summary()
    assert np.isnan(scores.both_fall_fraction)
    assert scores.worst_pairs() == ()
    level = DisplacementScores(
        keys=("a",), status=("too_long",), level="full", chosen_sq=[NAN], cross=[NAN], rejected_sq=[NAN]
    )
    assert "No pair can be used" in level.summary()


def test_words_and_tokens_of_a_pair_are_shown_under_its_key():
    scores = make(
        [0.1, 0.9],
        texts=(PairText(key="k1", prompt="a prompt", chosen="yes", rejected="no"),),
        attribution=(TokenAttribution(key="k1", tokens=("y", "es"), contributions=(-2.0, 0.5)),),
    )
    (section,) = scores.document().sections
    assert section.title == "Pair k1"
    assert [row[1] for row in section.grids[0].rows] == ["a prompt", "yes", "no"]
    assert section.grids[1].rows == (("y", 0, -2.0),)
    assert "-1.5" in section.grids[1].note
    assert list(section.plots[0].series[0].y) == [-2.0, 0.5]


def test_no_empty_table_where_no_token_falls():
    rises = TokenAttribution(key="k0", tokens=("y",), contributions=(1.0,))
    (section,) = make([0.1], attribution=(rises,)).document().sections
    assert section.grids == ()
    assert len(section.plots) == 1


def test_hostile_words_are_escaped_in_a_page():
    bad = "<script>alert(1)</script>\x1b[31m"
    scores = make(
        [0.1],
        texts=(PairText(key="k0", prompt=bad, chosen=bad, rejected=bad),),
        attribution=(TokenAttribution(key="k0", tokens=(bad,), contributions=(-1.0,)),),
    )
    page = scores._repr_html_()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("which", range(4))
def test_plots_are_drawn(which):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    make([0.1, 0.2, -0.3], ches=[1.0, 2.0, 3.0], head=[1.0, 2.0, NAN]).plot(ax, which=which)
    assert ax.lines


# --- rules ---------------------------------------------------------------------------------------------------------


def test_a_rule_may_name_a_number_of_the_whole_dataset():
    scores = make([0.5, 0.4, -0.5, -0.4])
    (finding,) = scores.flag(["both_fall_fraction > 0.3"])
    assert (finding.name, finding.severity, finding.value) == ("", "alert", 0.5)
    assert scores.flag(["both_fall_fraction > 0.5"]) == ()
    (unknown,) = scores.flag(["head_positive_fraction > 0"])
    assert unknown.severity == "unknown"


def test_an_unknown_column_is_refused_with_the_list():
    with pytest.raises(ValueError, match=r"both_fall_fraction.*no_such"):
        make([0.5]).flag(["no_such > 0"])


# --- in and out ----------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.floats(allow_infinity=False), st.just(NAN)), min_size=1, max_size=8))
def test_json_brings_everything_back(values):
    scores = make(values, cond=[float("inf")] * len(values), model={"name": "m"}, manifest={"data": "x", "n": [1, 2]})
    again = rd.result_from_json(scores.to_json())
    assert again == scores
    assert type(again) is PreferenceScores
    np.testing.assert_array_equal(again.column("relative"), np.array(values))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_copies_are_equal_and_still_read_only(again):
    scores = again(make([0.5, -0.1]))
    assert scores == make([0.5, -0.1])
    with pytest.raises(ValueError, match="read-only"):
        scores.column("relative")[0] = 0.0
    with pytest.raises(TypeError):
        scores.scores["new"] = np.zeros(2)


def test_the_arrays_are_copies():
    values = np.array([0.5, -0.1])
    scores = make(values)
    values[0] = 9.0
    assert scores.column("relative")[0] == 0.5


def test_rows_for_other_programs():
    scores = make([0.5, NAN], status=("ok", "identical"), cond=[float("inf"), NAN])
    frame = scores.to_pandas()
    assert frame.columns.tolist()[:2] == ["key", "status"]
    assert frame["relative"][0] == 0.5
    rows = list(scores.records())
    assert rows[0]["cond"] is None
    assert rows[1]["relative"] is None
    lines = scores.to_csv().splitlines()
    assert lines[0].split(",")[:2] == ["key", "status"]
    assert lines[2].startswith("k1,identical,")


def test_a_key_is_no_formula_in_csv():
    scores = PreferenceScores(keys=("=1+1",), status=("ok",), scores=dict(make([0.5]).scores))
    assert "'=1+1" in scores.to_csv()
    assert next(scores.records())["key"] == "=1+1"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"keys": ()}, ValueError, "at least one pair"),
        ({"keys": ("a", "a")}, ValueError, "unique"),
        ({"keys": ("a", 3)}, TypeError, "keys"),
        ({"keys": "ab"}, TypeError, "keys"),
        ({"status": ("ok",)}, ValueError, "status"),
        ({"status": ("ok", "fine")}, ValueError, "fine"),
        ({"scores": {}}, ValueError, "n_chosen"),
        ({"scores": [1.0]}, TypeError, "mapping"),
        ({"response_end": "never"}, ValueError, "never"),
        ({"texts": (PairText(key="zz", prompt="", chosen="", rejected=""),)}, ValueError, "zz"),
    ],
)
def test_wrong_fields_are_named(change, error, words):
    good = {"keys": ("a", "b"), "status": ("ok", "ok"), "scores": dict(make([0.1, 0.2]).scores)}
    with pytest.raises(error, match=words):
        PreferenceScores(**{**good, **change})


@pytest.mark.parametrize("column", [[1.0], [[1.0, 2.0]], [1.0, float("inf")], ["a", "b"]])
def test_a_column_of_another_shape_is_refused_by_name(column):
    with pytest.raises((ValueError, TypeError), match=r"scores\['ches'\]"):
        make([0.1, 0.2], ches=column)


# --- levels --------------------------------------------------------------------------------------------------------


def gradients(seed: int, count: int = 7, size: int = 5):
    rng = np.random.default_rng(seed)
    plus, minus = rng.standard_normal((2, count, size))
    level = DisplacementScores(
        keys=tuple(map(str, range(count))),
        status=("ok",) * count,
        level="full",
        chosen_sq=(plus**2).sum(1),
        cross=(plus * minus).sum(1),
        rejected_sq=(minus**2).sum(1),
    )
    return plus, minus, level


@given(st.integers(0, 1000), st.floats(0, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_the_prediction_is_that_of_a_linear_model(seed, lr, up, down):
    # ln pi(y) = <g, theta> is a model whose first order is exact: take the step and look.
    plus, minus, level = gradients(seed)
    step = lr * (up * plus - down * minus)
    found = level.predict_delta(lr, up, down)
    np.testing.assert_allclose(found.delta_chosen, (plus * step).sum(1), atol=1e-12 * (1 + lr) * 100)
    np.testing.assert_allclose(found.delta_rejected, (minus * step).sum(1), atol=1e-12 * (1 + lr) * 100)


def test_signs_of_the_relative_score_are_those_of_the_step():
    plus, minus, level = gradients(3, count=200)
    delta = level.predict_delta(1.0)
    for word, fell, rose in zip(level.regime, delta.delta_chosen < 0, delta.delta_rejected > 0, strict=True):
        assert word == ("both_fall" if fell else "both_rise" if rose else "ideal")
    assert set(level.regime) == {"both_fall", "both_rise", "ideal"}
    np.testing.assert_allclose(level.relative, level.score / ((plus - minus) ** 2).sum(1), rtol=1e-12)


def test_a_given_score_wins_over_the_difference_of_large_numbers():
    level = DisplacementScores(
        keys=("a",), status=("ok",), level="ches", chosen_sq=[1e16], cross=[1e16], rejected_sq=[1e16], score=[0.5]
    )
    assert level.predict_delta(1.0).delta_chosen[0] == -0.5
    assert np.isnan(level.relative[0])


def test_weights_may_differ_from_pair_to_pair():
    _, _, level = gradients(1)
    weights = np.linspace(0, 1, 7)
    found = level.predict_delta(0.1, w_chosen=weights, w_rejected=weights)
    np.testing.assert_allclose(found.delta_chosen, -0.1 * weights * level.score, atol=1e-14)
    with pytest.raises(ValueError, match="w_chosen"):
        level.predict_delta(0.1, w_chosen=[1.0, 2.0])
    with pytest.raises(ValueError, match="lr"):
        level.predict_delta(-0.1)


@pytest.mark.parametrize("level", ["ches", "head", "ufm", "full"])
def test_a_level_says_what_it_is_and_round_trips(level):
    scores = DisplacementScores(
        keys=("a", "b"),
        status=("ok", "ok"),
        level=level,
        chosen_sq=[1.0, 4.0],
        cross=[3.0, 0.0],
        rejected_sq=[9.0, 1.0],
    )
    text = " ".join(scores.summary().split())
    assert f"at level {level}" in text
    assert "50% of 2 usable pairs" in text
    assert evidence_sentence(level) in text
    assert rd.result_from_dict(scores.to_dict()) == scores
    assert scores.flag(["score > 0"])[0].name == "a"


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="deep"):
        DisplacementScores(keys=("a",), status=("ok",), level="deep", chosen_sq=[1], cross=[1], rejected_sq=[1])
