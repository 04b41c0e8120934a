"""What the derivatives accept and refuse, what they keep in memory, and what their results show."""

from __future__ import annotations

import copy
import pickle
import re
import tracemalloc

import numpy as np
import pytest
import torch

from rankdiag import result_from_json
from rankdiag.preference import multi_sample_dynamics, multi_token_dynamics, single_token_dynamics
from rankdiag.report import to_html

W = np.array([[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]])
H = np.array([-0.5, -0.9])
PLUS, MINUS = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]), np.array([[1.0, 2.0], [3.0, -1.0]])


def one(W=W, h=H, chosen=3, rejected=4, weight=0.05):
    return single_token_dynamics(W, h, chosen, rejected, weight)


def several(W=W, plus=PLUS, minus=MINUS, plus_ids=(2, 1, 3), minus_ids=(2, 4), **options):
    return multi_token_dynamics(W, plus, minus, plus_ids, minus_ids, **options)


def samples(W=W, hidden=PLUS, chosen=(0, 1, 2), rejected=(1, 2, 0), weights=0.1):
    return multi_sample_dynamics(W, hidden, chosen, rejected, weights)


def test_every_kind_of_array(xp):
    matrix, h, plus, minus = (xp.asarray(values) for values in (W, H, PLUS, MINUS))
    back = [xp.rounded(values) for values in (W, H, PLUS, MINUS)]
    assert one(matrix, h).rate_all == pytest.approx(one(*back[:2]).rate_all, rel=1e-12)
    assert several(matrix, plus, minus).rate_chosen == pytest.approx(several(back[0], *back[2:]).rate_chosen, rel=1e-12)
    assert samples(matrix, plus).rates == pytest.approx(samples(back[0], back[2]).rates, rel=1e-12)


def test_ids_as_lists_arrays_and_tensors():
    expected = several().rate_chosen
    for kind in (list, np.array, torch.tensor, lambda ids: np.array(ids, dtype=np.uint8)):
        assert several(plus_ids=kind([2, 1, 3]), minus_ids=kind([2, 4])).rate_chosen == expected


def test_odd_layouts_of_the_matrix():
    expected = several().rate_chosen
    odd = {
        "columns first": np.asfortranarray(W),
        "backwards": W[::-1].copy()[::-1],
        "every second": np.repeat(W, 2, axis=0)[::2],
        "a list": W.tolist(),
        "a tensor view": torch.tensor(np.repeat(W, 2, axis=1))[:, ::2],
    }
    for name, matrix in odd.items():
        assert several(matrix).rate_chosen == pytest.approx(expected, rel=1e-12), name


REFUSED = {
    "`rejected`": lambda: one(chosen=3, rejected=3),
    "`chosen` must be an integer >= 0 and <= 5": lambda: one(chosen=6),
    "`h` must have the 2 entries": lambda: one(h=[1.0, 2.0, 3.0]),
    "`W` must be an unembedding matrix": lambda: one(W=[1.0, 2.0]),
    "`W` has 1 non-finite entry": lambda: one(W=np.where(W == -7.5, np.nan, W)),
    "beyond float64": lambda: one(W=W * 1e200),
    "`weight` must be a finite real number": lambda: one(weight=np.inf),
    "one row for each of the 2 tokens of `chosen_ids`": lambda: several(plus_ids=[2, 1]),
    "`rejected_states` must have the 2 entries": lambda: several(minus=np.ones((2, 3))),
    "`rejected_ids` must hold ids from 0 to 5": lambda: several(minus_ids=[2, 6]),
    "got -1 at index 1": lambda: several(minus_ids=[2, -1]),
    "`chosen_ids` must hold at least one": lambda: several(plus_ids=[], plus=PLUS),
    "`n_shared` must be at most 2": lambda: several(n_shared=3),
    "entry 0 of `others`: `states` must have one row": lambda: several(others=[(PLUS, [1])]),
    "3 parts as entry 1": lambda: several(others=[(PLUS[:1], [1]), (PLUS, [1], 2)]),
    "`chosen` must have one id for each of the 3 rows": lambda: samples(chosen=[0, 1]),
    "sample 1 has 2 twice": lambda: samples(chosen=[0, 2, 1]),
    "`weights` must be one number or have shape (3,)": lambda: samples(weights=[1.0, 2.0]),
}
MISTYPED = {
    "`chosen_ids` must hold integers": lambda: several(plus_ids=[2.0, 1.0, 3.0]),
    "`chosen_ids` must be a list of token ids": lambda: several(plus_ids=None),
    "`others` must be a list of pairs": lambda: several(others={"a": 1}),
    "as entry 0": lambda: several(others=[7]),
    "`chosen` must be an integer": lambda: one(chosen=3.0),
}


@pytest.mark.parametrize("text", REFUSED)
def test_wrong_values_are_named(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        REFUSED[text]()


@pytest.mark.parametrize("text", MISTYPED)
def test_wrong_kinds_are_named(text):
    with pytest.raises(TypeError, match=re.escape(text)):
        MISTYPED[text]()


def test_options_are_spelt_right():
    with pytest.raises(TypeError, match="third"):
        several(third=())


def test_shared_states_are_those_of_the_chosen_response():
    off = MINUS.copy()
    off[0] *= 1.01
    d = several(minus=off)
    assert d.rate_chosen == several().rate_chosen
    assert d.meta.details["shared_state_difference"] == pytest.approx(0.01 / 1.01)
    assert several().meta.details["shared_state_difference"] == 0
    assert several(minus=off, n_shared=0).meta.details["shared_state_difference"] == 0


def test_memory_follows_the_block_and_not_the_vocabulary():
    """A matrix of 16 MB in float32 is never held in float64, nor the probabilities of all positions."""
    size, n = 250_000, 60
    matrix = np.zeros((size, 16), dtype=np.float32)
    states = np.ones((n, 16))
    ids = np.arange(n)
    tracemalloc.start()
    try:
        multi_token_dynamics(matrix, states, states, ids, ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * size * n * 0.8  # 120 MB would be the probabilities of one response
    assert peak < 3.2 * 8 * (1 << 22)


def test_verdicts():
    assert one().verdict == "warn"
    assert one(rejected=0).verdict == "ok"
    assert one(weight=0.0).verdict == "unknown"
    assert one(weight=-1.0).thresholds == ()
    assert "Definition 1" in one().thresholds[0].source
    pushed_down = several(w_chosen=-1.0)
    assert pushed_down.verdict == "unknown"
    assert "no displacement" in pushed_down.explanation
    similar = multi_token_dynamics(W, [H], [H], [3], [4])
    assert similar.verdict == "warn"
    assert samples(W, [H, H], [3, 3], [4, 4]).verdict == "warn"
    assert samples(W, [H, H], [3, 3], [4, 4], [1.0, -1.0]).verdict == "unknown"


@pytest.mark.parametrize("make", [one, several, samples], ids=["one", "several", "samples"])
def test_results_show_themselves_and_come_back(make):
    result = make()
    assert result_from_json(result.to_json()) == result
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert twin == result
    document = result.document()
    assert document.key_numbers
    assert document.grids[0].rows
    assert document.plots[0].series[0].y
    assert str(result)
    assert "<svg" in to_html(result)
    for name in ("rate_all", "alpha_plus", "rates"):
        if hasattr(result, name):
            with pytest.raises(ValueError, match="read-only"):
                getattr(result, name)[0] = 0


def test_the_table_attributes_the_rate_to_tokens():
    result = several(others=[(PLUS[:1], [5])])
    rows = result.document().grids[0].rows
    assert [row[:3] for row in rows] == [(1, 2, "shared"), (2, 1, "shared"), (3, 3, "own")]
    assert sum(row[3] for row in rows) == pytest.approx(result.rate_chosen)
    assert "rate of third response 0" in [number.label for number in result.document().key_numbers]


def test_the_table_of_tokens_lists_both_ends():
    rng = np.random.default_rng(0)
    result = single_token_dynamics(rng.normal(size=(60, 4)), rng.normal(size=4), 1, 2)
    rows = result.document().grids[0].rows
    flow = result.probs * result.rate_all
    assert rows[0][0] == int(flow.argmax())
    assert rows[-1][0] == int(flow.argmin())
    assert len({row[0] for row in rows}) == len(rows) == 16


def test_explanations_say_who_is_responsible():
    assert "similarity of W+ and W-" in one().explanation
    aligned = single_token_dynamics([[1.0, 0.0], [-1.0, 0.0], [30.0, 0.0]], [0.1, 0.0], 0, 1)
    assert "alignment of other tokens" in aligned.explanation
    outvoted = samples(np.eye(2), [[2.0, 0.0]] * 3, [0, 1, 1], [1, 0, 0])
    assert "Pushed down by the other samples alone: 1." in outvoted.explanation
    carried = samples(W, [H] * 20, [3] * 20, [4] + [0] * 19)
    assert carried.own[0] < 0 < carried.rates[0]
    assert "Held up by the other samples alone: 1." in carried.explanation
