"""The best of n by a proxy, against all subsets."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.rewards_pairs import best_of
from rankdiag.rewards import best_of_n


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_it_equals_the_mean_over_all_subsets(n):
    rng = np.random.default_rng(n)
    p, g = rng.normal(size=6), rng.normal(size=6)
    assert best_of_n(p, g, n) == pytest.approx(best_of(p.tolist(), g.tolist(), n), rel=1e-12)


def test_ties_average_gold_inside_their_block():
    assert best_of_n([1.0, 1.0], [0.0, 1.0], 1) == 0.5 == best_of_n([1.0, 1.0], [0.0, 1.0], 2)
    assert best_of_n([1.0, 2.0, 2.0], [9.0, 0.0, 1.0], 2) == pytest.approx(0.5)


def test_the_printed_value_and_huge_rewards():
    assert round(best_of_n([1, 2, 3], [0, 1, 0.5], 2), 6) == 0.666667
    assert best_of_n([1.0, 2.0], [1e308, 1e308], 1) == pytest.approx(1e308)
    assert best_of_n([1.0, np.nan, 2.0], [1.0, 5.0, 3.0], 2) == 3.0


def test_refusals():
    with pytest.raises(ValueError, match="`n` must be at most the number of valid rollouts, 2"):
        best_of_n([1.0, 2.0], [1.0, 2.0], 3)
    with pytest.raises(ValueError, match="align with `proxy`"):
        best_of_n([1.0, 2.0], [1.0], 1)
    with pytest.raises(ValueError, match="`gold` must hold finite"):
        best_of_n([1.0], [np.inf], 1)
