"""Reward models in distribution and beyond: cells, gaps, flips, and differences of models on the same pairs."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_implicit import binomial_two_sided, report
from rankdiag import result_from_json
from rankdiag.rewards import generalisation_report

NAN = math.nan
GROUPS = {"id": "in_distribution", "paraphrase": "token_shift", "french": "token_shift", "code": "domain_shift"}


def draw(seed, n=12, models=("ex", "im")):
    rng = np.random.default_rng(seed)
    sizes = {"id": n, "paraphrase": n, "french": n, "code": n + 3}
    return {
        model: {name: tuple(rng.integers(-2, 3, size=(2, size)) / 4) for name, size in sizes.items()}
        for model in models
    }


def credit(pair):
    return np.array([1.0 if c > r else 0.5 if c == r else 0.0 for c, r in zip(*pair, strict=True)])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_every_figure_is_that_of_its_definition(seed):
    rewards = draw(seed)
    found = generalisation_report(rewards, GROUPS, bootstrap=20, rng=seed)
    assert [(c.model, c.dataset) for c in found] == [(m, d) for m in rewards for d in rewards["ex"]]
    for cell in found.rows:
        pair = rewards[cell.model][cell.dataset]
        plain = report(*(side.tolist() for side in pair))
        assert (cell.accuracy, cell.normalised_margin) == pytest.approx((plain["accuracy"], plain["margin"]), rel=1e-9)
        assert (cell.lower, cell.upper) == pytest.approx(plain["interval"], abs=1e-12)
        if cell.group == "token_shift":
            original = rewards[cell.model]["id"]
            assert cell.flip_rate == pytest.approx(np.abs(credit(pair) - credit(original)).mean())
            assert abs(credit(original).mean() - cell.accuracy) <= cell.flip_rate + 1e-12
        else:
            assert cell.flip_rate is None
    for reading in found.groups:
        accuracies = [
            credit(rewards[reading.model][name]).mean() for name, group in GROUPS.items() if group == reading.group
        ]
        assert reading.accuracy == pytest.approx(np.mean(accuracies))
        assert reading.gap == pytest.approx(credit(rewards[reading.model]["id"]).mean() - np.mean(accuracies))
    for difference in found.differences:
        a, b = (credit(rewards[model][difference.dataset]) for model in ("ex", "im"))
        assert difference.difference == pytest.approx((a - b).mean(), abs=1e-14)
        up, down = int((a > b).sum()), int((a < b).sum())
        assert (difference.first_only, difference.second_only) == (up, down)
        assert difference.p_value == pytest.approx(binomial_two_sided(up, down), rel=1e-10)
        assert difference.lower <= difference.upper


def test_the_bootstrap_draws_pairs_with_replacement():
    rewards = {m: {"id": cells["id"]} for m, cells in draw(1, n=40).items()}
    found = generalisation_report(rewards, {"id": "in_distribution"}, bootstrap=20_000, rng=0).differences[0]
    gain = credit(rewards["ex"]["id"]) - credit(rewards["im"]["id"])
    rng = np.random.default_rng(1)
    means = gain[rng.integers(0, 40, size=(20_000, 40))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.lower, found.upper) == pytest.approx((low, high), abs=0.0126)  # one step of the grid of means, 1 / 80


def test_seeds_repeat_the_intervals():
    one, two = (generalisation_report(draw(2), GROUPS, rng=7) for _ in range(2))
    assert one == two
    assert one.meta.seed == 7
    assert generalisation_report(draw(2), GROUPS, rng=8).differences != one.differences
    none = generalisation_report(draw(2), GROUPS, bootstrap=0)
    assert none.meta.seed is None
    assert all(d.lower is None and d.upper is None for d in none.differences)
    fresh = generalisation_report(draw(2), GROUPS, bootstrap=50)
    assert generalisation_report(draw(2), GROUPS, bootstrap=50, rng=fresh.meta.seed) == fresh


def test_flips_need_an_original():
    several = {**GROUPS, "code": "in_distribution"}
    found = generalisation_report(draw(3), several, rng=0)
    assert all(cell.flip_rate is None for cell in found)
    assert "originals" in found.meta.skipped["flips of french"]
    named = generalisation_report(draw(3), several, originals={"french": "paraphrase"}, rng=0)
    flips = {(c.model, c.dataset): c.flip_rate for c in named}
    pairs = draw(3)["ex"]
    assert flips["ex", "french"] == np.abs(credit(pairs["french"]) - credit(pairs["paraphrase"])).mean()
    assert flips["ex", "paraphrase"] is None
    shorter = {m: {**cells, "french": ([1.0], [0.0])} for m, cells in draw(3).items()}
    found = generalisation_report(shorter, GROUPS, rng=0)
    assert found.meta.skipped == {"flips of french": "not the pairs of id"}


def test_pairs_without_a_reward_leave_cells_flips_and_differences():
    rewards = {
        "a": {"id": ([1, 1, NAN, 1], [0, 0, 0, 0]), "fr": ([0, 1, 1, NAN], [1, 0, 0, 0])},
        "b": {"id": ([0, NAN, 0, 0], [1, 1, 1, 1]), "fr": ([1, NAN, NAN, NAN], [0, 0, 0, 0])},
    }
    found = generalisation_report(rewards, {"id": "in_distribution", "fr": "token_shift"}, rng=0)
    assert [cell.n for cell in found] == [3, 3, 3, 1]
    assert [cell.flip_rate for cell in found][1:4:2] == [0.5, 1.0]
    assert [(d.n, d.difference) for d in found.differences] == [(2, 1.0), (1, -1.0)]
    assert found.meta.skipped["pairs of a on id"] == "1 of 4 hold a NaN"
    apart = {"a": {"id": ([1, NAN], [0, 0])}, "b": {"id": ([NAN, 1], [0, 0])}}
    (none,) = generalisation_report(apart, {"id": "in_distribution"}, rng=0).differences
    assert none.n == 0
    assert none.difference is None
    assert none.p_value == 1.0


def test_token_cues_are_named_only_where_both_signs_show():
    def explained(shifted, spread):
        pair = (np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4))
        rewards = {"im": {"id": pair, "fr": (spread + np.array(shifted), np.array(spread))}}
        return generalisation_report(rewards, {"id": "in_distribution", "fr": "token_shift"}).explanation

    far = np.array([0.0, 10.0, 20.0, 30.0])
    assert "token cues (im)" in explained([-1, -1, 1, 1], far)  # drops, and differences are small beside the spread
    assert "token cues" not in explained([1, 1, 1, 1], far)
    assert "token cues" not in explained([-1, -1, 1, 1], np.zeros(4))
    assert "50.0% below" in explained([-1, -1, 1, 1], far)


def test_extreme_rewards_and_one_pair():
    rewards = {"a": {"id": ([1e308], [0.0]), "fr": ([5e-324], [0.0])}, "b": {"id": ([1.0], [1.0]), "fr": ([0], [1])}}
    found = generalisation_report(rewards, {"id": "in_distribution", "fr": "token_shift"}, rng=0)
    assert found.column("accuracy") == [1.0, 1.0, 0.5, 0.0]
    assert [d.difference for d in found.differences] == [0.5, 1.0]
    with pytest.raises(ValueError, match="'a' on 'id'"):
        generalisation_report({"a": {"id": ([1e308], [-1e308])}}, {"id": "in_distribution"})


PAIR = ([1.0, 0.0], [0.0, 0.0])
ONE = {"id": "in_distribution"}


@pytest.mark.parametrize(
    ("arguments", "kind", "word"),
    [
        (({}, ONE), ValueError, "rewards"),
        (([], ONE), TypeError, "rewards"),
        (({"a": [PAIR]}, ONE), TypeError, "rewards"),
        (({1: {"id": PAIR}}, ONE), TypeError, "rewards"),
        (({"a": {"id": 3}}, ONE), TypeError, "id"),
        (({"a": {"id": ([1.0], [1.0, 2.0])}}, ONE), ValueError, "one length"),
        (({"a": {"id": ([NAN], [1.0])}}, ONE), ValueError, "one pair"),
        (({"a": {"id": ([math.inf], [1.0])}}, ONE), ValueError, "inf"),
        (({"a": {}}, ONE), ValueError, "'id' is missing"),
        (({"a": {"id": PAIR, "fr": PAIR}}, ONE), ValueError, "'fr' has no group"),
        (({"a": {"id": PAIR}, "b": {"id": ([1.0], [0.0])}}, ONE), ValueError, "same pairs"),
        (({"a": {"id": PAIR}}, {"id": "token_shift"}), ValueError, "in_distribution"),
        (({"a": {"id": PAIR}}, {}), ValueError, "in_distribution"),
        (({"a": {"id": PAIR}}, {"id": ["in_distribution"]}), TypeError, "groups"),
        (({"a": {"id": PAIR}}, {"id": "shift"}), ValueError, "groups"),
        (({"a": {"id": PAIR}}, ["id"]), TypeError, "groups"),
    ],
)
def test_refusals(arguments, kind, word):
    with pytest.raises(kind, match=word):
        generalisation_report(*arguments)


@pytest.mark.parametrize(
    ("options", "kind", "word"),
    [
        ({"originals": {"french": "german"}}, ValueError, "originals"),
        ({"originals": {"french": "code"}}, ValueError, "originals"),
        ({"originals": ["french"]}, TypeError, "originals"),
        ({"bootstrap": -1}, ValueError, "bootstrap"),
        ({"bootstrap": 10.0}, TypeError, "bootstrap"),
        ({"rng": "seed"}, TypeError, "rng"),
    ],
)
def test_options_are_refused(options, kind, word):
    with pytest.raises(kind, match=f"`{word}`"):
        generalisation_report(draw(0), GROUPS, **options)


def test_the_report_comes_back_and_shows():
    found = generalisation_report(draw(5), GROUPS, rng=0)
    again = result_from_json(found.to_json())
    assert again == found
    assert again.differences[0].p_value == found.differences[0].p_value
    assert pickle.loads(pickle.dumps(found)) == found
    assert found.verdict == "unknown"
    document = found.document()
    assert [grid.title for grid in document.grids] == ["Groups", "Datasets", "Models on the same pairs"]
    assert [series.label for series in document.plots[0].series] == ["ex", "im"]
    mine = [cell for cell in found if cell.model == "im"]
    drawn = document.plots[0].series[1]
    assert list(zip(drawn.low, drawn.y, drawn.high, strict=True)) == [(c.lower, c.accuracy, c.upper) for c in mine]
    assert list(document.plots[1].series[1].y) == [cell.normalised_margin for cell in mine]
    assert [cell.gap for cell in mine] == [mine[0].accuracy - cell.accuracy for cell in mine]
    assert "paraphrase" in found.summary()
    assert found.to_csv().startswith("model,dataset,group,n,accuracy")
