"""What must hold of readings whatever the rewards: scales, orders and names of outputs, prompts and reward models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdiag.rewards import (
    ResponseStates,
    best_of_n,
    categorize_errors,
    gradient_alignment,
    teacher_report,
    token_cue_share,
)

SEEDS = st.integers(0, 2**32 - 1)
FACTORS = st.floats(0.01, 100.0)


@given(SEEDS, st.integers(2, 9), st.data(), FACTORS)
def test_best_of_n_asks_the_proxy_for_an_order_alone(seed, rollouts, data, factor):
    rng = np.random.default_rng(seed)
    n = data.draw(st.integers(1, rollouts))
    proxy, gold = rng.normal(size=(2, rollouts))
    found = best_of_n(proxy, gold, n)
    assert best_of_n(np.exp(proxy), gold, n) == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert best_of_n(proxy, factor * gold - 1.0, n) == pytest.approx(factor * found - 1.0, rel=1e-9, abs=1e-9)
    order = rng.permutation(rollouts)
    assert best_of_n(proxy[order], gold[order], n) == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert best_of_n(proxy, gold, 1) == pytest.approx(gold.mean(), abs=1e-12)
    assert best_of_n(proxy, gold, rollouts) == pytest.approx(gold[proxy.argmax()])
    assert best_of_n(gold, gold, n) >= found - 1e-12  # no proxy picks better than the truth


@given(SEEDS, st.integers(2, 7), FACTORS, st.floats(-10.0, 10.0))
def test_categories_depend_on_no_scale_and_no_order(seed, outputs, factor, shift):
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.ones(outputs))
    gold = rng.choice(np.arange(11), size=outputs, replace=False) / 10.0
    proxy = np.where(rng.random(outputs) < 0.5, gold, rng.integers(0, 11, outputs) / 10.0 + 0.05)
    found = categorize_errors(policy, proxy, gold)
    assert [r.index for r in found] == np.flatnonzero(proxy != gold).tolist()
    scaled = categorize_errors(policy, factor * proxy + shift, factor * gold + shift)
    assert [(r.index, r.category) for r in scaled] == [(r.index, r.category) for r in found]
    order = rng.permutation(outputs)
    moved = categorize_errors(policy[order], proxy[order], gold[order])
    assert {int(order[r.index]): r.category for r in moved} == {r.index: r.category for r in found}
    gap = gradient_alignment(policy, proxy, gold).rate - gradient_alignment(policy, gold, gold).rate
    assert sum(r.attribution for r in found) == pytest.approx(gap, rel=1e-9, abs=1e-12)


@settings(max_examples=25)
@given(SEEDS, FACTORS, st.floats(-10.0, 10.0))
def test_teachers_depend_on_no_scale_and_no_order_of_prompts(seed, factor, shift):
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=(6, 5))
    noisy = gold + rng.normal(size=gold.shape)
    order = rng.permutation(6)
    row = teacher_report({"a": noisy}, gold, bootstrap=0).rows[0]
    for values, truth in ((factor * noisy + shift, gold), (noisy[order], gold[order])):
        other = teacher_report({"a": values}, truth, bootstrap=0).rows[0]
        for name in ("normalised_variance", "on_policy_accuracy", "harm_aware_accuracy", "combined", "variance_max"):
            assert getattr(other, name) == pytest.approx(getattr(row, name), rel=1e-9)
    assert row.harm_aware_accuracy >= row.on_policy_accuracy
    assert 0.0 <= row.normalised_variance <= 29 / 24 + 1e-12  # (Nk - 1) / (N (k - 1))


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
def test_cue_shares_are_shares(seed, long, short):
    rng = np.random.default_rng(seed)
    head = rng.normal(size=(9, 3))

    def response(tokens):
        return ResponseStates(rng.normal(size=(len(tokens), 3)), np.array(tokens))

    low, high = rng.integers(0, 4, (3, long)), rng.integers(4, 8, (2, short))
    chosen, rejected, own = (response(row.tolist()) for row in low)
    share = token_cue_share([chosen], [rejected], [own], unembedding=head)
    assert share.shape == (1, 1)
    assert 0.0 <= share[0, 0] <= 1.0
    apart = [response(row.tolist()) for row in high]
    assert token_cue_share([apart[0]], [apart[1]], [own], unembedding=head)[0, 0] == 0.0  # no token in common
    one = [response([5] * count) for count in (long, short, long)]
    assert token_cue_share([one[0]], [one[1]], [one[2]], unembedding=head)[0, 0] == pytest.approx(1.0)
