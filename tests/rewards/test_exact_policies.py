"""Exact policies against differences of their expected reward, and what they refuse."""

from __future__ import annotations

import contextlib
import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_policies import (
    autoregressive,
    log_linear,
    log_softmax,
    penalised,
    scores,
    slope,
    tabular,
    value,
    variance,
)
from rankdiag._validate import RankdiagWarning
from rankdiag.rewards import (
    EnumeratedAutoregressive,
    LogLinearPolicy,
    TabularPolicy,
    exact_reward_moments,
    simulate_policy_gradient,
)

P, R = [0.2, 0.3, 0.5], [1.0, 0.0, -1.0]
PHI = np.array([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.1], [0.0, 0.4]])
OFFSET = [0.1, -0.6, 0.3, 0.0]
THETA = np.array([0.3, -0.7, 0.2])
numbers = st.floats(-4, 4, allow_subnormal=False)


def plain_logits(theta, prefix):
    """Logits of two tokens that bend with the parameters and depend on the prefix."""
    a = 1 + len(prefix) + 0.5 * sum(prefix)
    return [theta[0] * a + np.sin(theta[1]), theta[1] * theta[2] - a * theta[2]]


def torch_logits(theta, prefix):
    a = 1 + len(prefix) + 0.5 * sum(prefix)
    return torch.stack([theta[0] * a + torch.sin(theta[1]), theta[1] * theta[2] - a * theta[2]])


def enumerated(length=3):
    return EnumeratedAutoregressive(torch_logits, THETA, vocab=2, length=length)


def everything():
    """One policy of each kind, with its law and its parameters."""
    weights, logits = np.array([0.4, -0.2]), np.array([0.3, -1.0, 2.0, 0.0])
    return {
        "tabular": (TabularPolicy(logits), tabular, logits),
        "linear": (
            LogLinearPolicy(PHI, weights, offset=OFFSET, temperature=0.7),
            log_linear(PHI, OFFSET, 0.7),
            weights,
        ),
        "enumerated": (enumerated(), autoregressive(plain_logits, 2, 3), THETA),
    }


KINDS = ("tabular", "linear", "enumerated")


def test_worked_values():
    policy = TabularPolicy.from_probs(P)
    assert policy.value(R) == pytest.approx(-0.3)
    assert policy.exact_var(R) == pytest.approx(0.61)
    np.testing.assert_allclose(policy.grad(R), [0.26, 0.09, -0.35], rtol=1e-12)
    assert np.abs(policy.grad(R)).sum() == pytest.approx(0.70)
    assert np.linalg.norm(policy.grad(R)) == pytest.approx(0.445197, abs=1e-6)
    assert np.linalg.eigvalsh(policy.fisher())[-1] == pytest.approx(0.388102, abs=1e-6)
    assert isinstance(policy.value(R), float)
    assert isinstance(policy.exact_var(R), float)


@pytest.mark.parametrize("kind", KINDS)
def test_readings_are_their_definitions(kind):
    policy, law, theta = everything()[kind]
    reward = np.cos(np.arange(policy.probs.size) * 1.7)
    log_probs = law(theta)
    np.testing.assert_allclose(policy.log_probs, log_probs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(policy.probs, np.exp(log_probs), rtol=1e-12)
    assert policy.value(reward) == pytest.approx(value(log_probs, reward), rel=1e-12)
    assert policy.exact_var(reward) == pytest.approx(variance(log_probs, reward), rel=1e-12)
    np.testing.assert_allclose(policy.grad(reward), slope(lambda t: value(law(t), reward), theta), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_and_kernel_are_products_of_scores(kind):
    policy, law, theta = everything()[kind]
    s = scores(law, theta)
    np.testing.assert_allclose(policy.fisher(), (s * policy.probs[:, None]).T @ s, atol=1e-8)
    # a kernel of logits and one of scores differ by a common shift, which the softmax does not see
    centre = np.eye(policy.probs.size) - policy.probs
    np.testing.assert_allclose(centre @ policy.kernel() @ centre.T, s @ s.T, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kl_penalty_is_a_change_of_the_reward(kind):
    policy, law, theta = everything()[kind]
    count = policy.probs.size
    reference = np.linspace(1, 2, count) / np.linspace(1, 2, count).sum()
    reward = np.sin(np.arange(count) * 2.3)
    found = policy.grad(reward - 0.4 * (policy.log_probs - np.log(reference)))
    np.testing.assert_allclose(found, slope(penalised(law, reward, 0.4, reference), theta), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_form_is_the_feature_form(kind):
    policy, law, theta = everything()[kind]
    reward = np.sin(np.arange(policy.probs.size) * 1.1)
    pull = policy.probs * (reward - policy.value(reward))
    rise = np.array([slope(lambda t, y=y: law(t)[y], theta) @ policy.grad(reward) for y in range(len(pull))])
    z = policy.kernel() @ pull
    np.testing.assert_allclose(z - policy.probs @ z, rise, atol=1e-9)
    assert pull @ z == pytest.approx(policy.grad(reward) @ policy.grad(reward), rel=1e-10)


def test_the_kernel_drives_the_simulator():
    policy = LogLinearPolicy(PHI, [0.4, -0.2], temperature=0.7)
    reward = [1.0, -0.5, 0.2, -1.0]
    run = simulate_policy_gradient(policy.probs, reward, kernel=policy.kernel(), horizon=1e-4, record=[0.0, 1e-4])
    ahead = LogLinearPolicy(PHI, np.array([0.4, -0.2]) + 1e-4 * policy.grad(reward), temperature=0.7)
    np.testing.assert_allclose(run.probs[-1], ahead.probs, atol=1e-8)
    assert run.grad_norm[0] == pytest.approx(np.linalg.norm(policy.grad(reward)), rel=1e-8)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.floats(-100, 100))
@settings(max_examples=40)
def test_tabular_properties(rows, shift):
    z, r = np.array(rows).T
    policy = TabularPolicy(z)
    np.testing.assert_allclose(policy.log_probs, log_softmax(list(z)), atol=1e-12)
    gradient = policy.grad(r)
    assert abs(gradient.sum()) < 1e-14
    np.testing.assert_allclose(policy.grad(r + shift), gradient, atol=1e-12)
    np.testing.assert_allclose(TabularPolicy(z + shift).grad(r), gradient, atol=1e-12)
    np.testing.assert_allclose(policy.grad(3 * r), 3 * gradient, atol=1e-13)
    order = np.argsort(r)
    np.testing.assert_allclose(TabularPolicy(z[order]).grad(r[order]), gradient[order], atol=1e-14)
    assert np.abs(gradient).sum() <= np.sqrt(policy.exact_var(r)) + 1e-12  # the published bound of tables
    moments = exact_reward_moments(policy.probs, r)
    assert policy.exact_var(r) == pytest.approx(float(moments.exact_var), rel=1e-12, abs=1e-300)
    np.testing.assert_allclose(policy.fisher(), np.diag(policy.probs) - np.outer(policy.probs, policy.probs), atol=0)


def test_equal_rewards_have_no_gradient_at_all():
    for policy, _, _ in everything().values():
        reward = np.full(policy.probs.size, 0.1)
        assert policy.exact_var(reward) == 0.0
        assert not policy.grad(reward).any()
        assert policy.value(reward) == pytest.approx(0.1, rel=1e-15)


def test_a_large_shift_costs_no_digits():
    policy = TabularPolicy.from_probs(P)
    assert policy.exact_var(np.array([1, 0, -1.0]) + 2.0**50) == pytest.approx(0.61, rel=1e-12)
    np.testing.assert_allclose(policy.grad(np.array([1, 0, -1.0]) + 2.0**50), [0.26, 0.09, -0.35], rtol=1e-12)


def test_prompts_are_leading_axes():
    z = np.array([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]])
    both = TabularPolicy(z)
    each = [TabularPolicy(row) for row in z]
    for reward in (R, [R, [0.0, 2.0, 1.0]]):
        rows = np.broadcast_to(reward, z.shape)
        np.testing.assert_allclose(
            both.value(reward), [p.value(r) for p, r in zip(each, rows, strict=True)], rtol=1e-14
        )
        np.testing.assert_allclose(both.exact_var(reward), [p.exact_var(r) for p, r in zip(each, rows, strict=True)])
        np.testing.assert_allclose(both.grad(reward), [p.grad(r) for p, r in zip(each, rows, strict=True)], atol=1e-15)
    np.testing.assert_allclose(both.fisher(), [p.fisher() for p in each], atol=0)
    assert both.kernel().tolist() == np.eye(3).tolist()
    assert each[0].grad([R, R]).shape == (2, 3)
    assert LogLinearPolicy(PHI, [1.0, 0.0]).grad(np.zeros((5, 4))).shape == (5, 2)


def test_fitted_weights_say_what_they_miss():
    full = LogLinearPolicy.from_probs(np.eye(3), P, temperature=2.0)
    np.testing.assert_allclose(full.probs, P, rtol=1e-12)
    assert full.residual < 1e-12
    assert LogLinearPolicy(PHI, [0.0, 0.0]).residual == 0.0
    with pytest.warns(RankdiagWarning, match="probs") as seen:
        poor = LogLinearPolicy.from_probs([[1.0], [0.0], [0.0]], P)
    assert seen[0].filename == __file__
    assert poor.residual == pytest.approx(np.abs(poor.probs - P).max(), rel=1e-12)
    assert poor.probs[0] == pytest.approx(0.2 / 2.2)  # the least squares of ln p: the first weight is ln .2
    with pytest.warns(RankdiagWarning, match="constant"):  # no free constant, as in the published fit
        LogLinearPolicy.from_probs([[1.0], [0.0]], [0.75, 0.25])
    assert LogLinearPolicy.from_probs([[1.0, 1.0], [0.0, 1.0]], [0.75, 0.25]).residual < 1e-12
    line = np.array([[1.0, 1.0], [0.0, 1.0], [0.5, 1.0]])  # ln p of the third is the mean of the others, or nearly
    for off, warned in ((1e-5, True), (1e-6, False)):
        p = np.array([0.5, 0.25, np.sqrt(0.125) * (1 + off)])
        with pytest.warns(RankdiagWarning, match="up to 2") if warned else contextlib.nullcontext():
            assert LogLinearPolicy.from_probs(line, p / p.sum()).residual == pytest.approx(0.22 * off, rel=0.02)
    clipped = LogLinearPolicy.from_probs(np.eye(2), [1.0, 0.0])
    assert clipped.probs[1] == pytest.approx(1e-8, rel=1e-6)


@pytest.mark.parametrize("temperature", [1e-300, 1e306])
def test_weights_scale_with_any_temperature(temperature):
    policy = LogLinearPolicy.from_probs(np.eye(3), [1e-6, 0.4, 0.6 - 1e-6], temperature=temperature)
    np.testing.assert_allclose(policy.probs, [1e-6, 0.4, 0.6 - 1e-6], rtol=1e-12)
    for features in (np.eye(3), np.eye(3) * 1e-306):
        with pytest.raises(ValueError, match="`temperature`"):
            LogLinearPolicy.from_probs(features, [1e-6, 0.4, 0.6 - 1e-6], temperature=1.5e308)


def test_extreme_features_are_fitted_or_refused():
    for size in (1e-300, 1e300):
        policy = LogLinearPolicy.from_probs(np.eye(3) * size, P)
        np.testing.assert_allclose(policy.probs, P, rtol=1e-12)
    with pytest.raises(ValueError, match="`features`"):
        LogLinearPolicy.from_probs(np.eye(3) * 5e-324, P)


def test_probabilities_come_back():
    np.testing.assert_allclose(TabularPolicy.from_probs(P).probs, P, rtol=1e-15)
    table = TabularPolicy.from_probs([P, P[::-1]])
    np.testing.assert_allclose(table.probs, [P, P[::-1]], rtol=1e-15)


def test_enumeration_is_lexicographic():
    policy = EnumeratedAutoregressive(lambda t, prefix: t * (1 + sum(prefix)), [0.1, 0.2, 0.4], vocab=3, length=2)
    assert policy.sequences.tolist() == [[a, b] for a in range(3) for b in range(3)]
    assert policy.sequences.dtype == np.int64
    assert policy.jacobian_norm == pytest.approx(3.0)  # behind token 2 the logits are 3 theta
    np.testing.assert_allclose(policy.scores.T @ policy.probs, 0, atol=1e-15)
    assert policy.probs.sum() == pytest.approx(1.0, rel=1e-14)


def test_prefixes_are_asked_for_once_each():
    asked = []

    def logits(theta, prefix):
        asked.append(prefix)
        assert theta.dtype == torch.float64
        assert all(isinstance(token, int) for token in prefix)
        return theta

    EnumeratedAutoregressive(logits, [0.0, 1.0], vocab=2, length=3)
    assert asked == [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]


def test_scores_and_jacobian_are_derivatives():
    policy, law = enumerated(), autoregressive(plain_logits, 2, 3)
    np.testing.assert_allclose(policy.scores, scores(law, THETA), atol=1e-9)
    norms = []
    for prefix in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]:
        rows = [slope(lambda t, v=v, p=prefix: plain_logits(t, p)[v], THETA) for v in range(2)]
        norms.append(np.sqrt(np.linalg.eigvalsh(np.array(rows) @ np.array(rows).T)[-1]))
    assert policy.jacobian_norm == pytest.approx(max(norms), rel=1e-9)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_derivatives_survive_a_guard_of_the_caller(guard):
    with guard():
        policy = enumerated()
    np.testing.assert_array_equal(policy.scores, enumerated().scores)
    assert policy.scores.any()


def test_logits_without_derivatives_have_none():
    policy = EnumeratedAutoregressive(lambda t, p: torch.tensor([0.0, 1.0]), [5.0], vocab=2, length=2)
    assert policy.jacobian_norm == 0.0
    assert not policy.scores.any()
    np.testing.assert_allclose(policy.probs[3], (np.e / (1 + np.e)) ** 2)


def test_one_token_leaves_one_output():
    policy = EnumeratedAutoregressive(lambda t, p: t, [0.3], vocab=1, length=50)
    assert policy.probs.tolist() == [1.0]
    assert policy.sequences.tolist() == [[0] * 50]


def test_too_many_outputs_are_refused_before_anything_is_asked():
    def never(theta, prefix):
        raise AssertionError("asked")

    for vocab, length in ((2, 21), (1025, 2), (3, 13), (2**20 + 1, 1), (10, 2**20), (2**40, 2)):
        with pytest.raises(ValueError, match=r"`vocab` \*\* `length`.*2\^20"):
            EnumeratedAutoregressive(never, [0.0], vocab=vocab, length=length)
    with pytest.raises(AssertionError, match="asked"):  # and 2^20 is not too many
        EnumeratedAutoregressive(never, [0.0], vocab=2, length=20)


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"logit_fn": 3}, TypeError, "logit_fn"),
        ({"logit_fn": lambda t, p: t[:1]}, ValueError, "logit_fn"),
        ({"logit_fn": lambda t, p: [0.0, 1.0]}, ValueError, "logit_fn"),
        ({"logit_fn": lambda t, p: t / 0}, ValueError, "logit_fn"),
        ({"logit_fn": lambda t, p: torch.sqrt(t)}, ValueError, "logit_fn"),  # the root has no derivative at 0
        ({"params": [[0.0, 0.0]]}, ValueError, "params"),
        ({"params": [np.nan, 0.0]}, ValueError, "params"),
        ({"params": []}, ValueError, "params"),
        ({"params": "ab"}, TypeError, "params"),
        ({"vocab": 0}, ValueError, "vocab"),
        ({"vocab": 2.0}, TypeError, "vocab"),
        ({"length": 0}, ValueError, "length"),
        ({"vocab": 1, "length": 2**20 + 1}, ValueError, "length"),  # one output, and no end of it
        ({"length": True}, TypeError, "length"),
    ],
)
def test_enumeration_refuses_by_name(options, kind, name):
    given_ = {"logit_fn": lambda t, p: t, "params": [0.0, 0.0], "vocab": 2, "length": 2, **options}
    with pytest.raises(kind, match=f"`{name}`"):
        EnumeratedAutoregressive(given_.pop("logit_fn"), given_.pop("params"), **given_)


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (lambda: TabularPolicy([]), ValueError, "logits"),
        (lambda: TabularPolicy(1.0), ValueError, "logits"),
        (lambda: TabularPolicy([np.inf, 0]), ValueError, "logits"),
        (lambda: TabularPolicy(["a"]), TypeError, "logits"),
        (lambda: TabularPolicy.from_probs([0.0, 1.0]), ValueError, "probs"),
        (lambda: TabularPolicy.from_probs([0.4, 0.4]), ValueError, "probs"),
        (lambda: LogLinearPolicy([1.0], [1.0]), ValueError, "features"),
        (lambda: LogLinearPolicy(PHI, [1.0]), ValueError, "weights"),
        (lambda: LogLinearPolicy(PHI, [1.0, 2.0], offset=[0.0]), ValueError, "offset"),
        (lambda: LogLinearPolicy(PHI, [1.0, 2.0], temperature=0.0), ValueError, "temperature"),
        (lambda: LogLinearPolicy(PHI, [1.0, 2.0], temperature="1"), TypeError, "temperature"),
        (lambda: LogLinearPolicy(PHI * 1e200, [1e200, 2e200]), ValueError, "features"),
        (lambda: LogLinearPolicy(PHI * 1e200, [0.0, 0.0]).fisher(), ValueError, "features"),
        (lambda: LogLinearPolicy(PHI * 1e200, [0.0, 0.0]).kernel(), ValueError, "features"),
        (lambda: LogLinearPolicy(PHI * 1e200, [0.0, 0.0]).grad([1e200, 0, 0, 0]), ValueError, "reward"),
        (lambda: LogLinearPolicy.from_probs(PHI, P), ValueError, "probs"),
        (lambda: LogLinearPolicy.from_probs(PHI, [[0.25] * 4]), ValueError, "probs"),
        (lambda: LogLinearPolicy.from_probs(PHI, [0.25] * 4, temperature=-1), ValueError, "temperature"),
        (lambda: TabularPolicy([0, 0]).value([1.0]), ValueError, "reward"),
        (lambda: TabularPolicy([0, 0]).grad([1.0, np.nan]), ValueError, "reward"),
        (lambda: TabularPolicy([0, 0]).grad([1.7e308, -1.7e308]), ValueError, "reward"),
        (lambda: TabularPolicy([0, 0]).exact_var(None), TypeError, "reward"),
        (lambda: TabularPolicy(np.zeros((3, 2))).value(np.zeros((4, 2))), ValueError, "reward"),
    ],
)
def test_policies_refuse_by_name(make, kind, name):
    with pytest.raises(kind, match=f"`{name}`"):
        make()


def test_extremes_stay_numbers():
    far = TabularPolicy([1e308, -1e308, 0.0])
    assert far.probs.tolist() == [1.0, 0.0, 0.0]
    assert far.grad(R).tolist() == [0.0, 0.0, 0.0]
    assert TabularPolicy([-1e308, -1e308]).probs.tolist() == [0.5, 0.5]
    assert TabularPolicy([5e-324, 0.0]).probs.tolist() == [0.5, 0.5]
    flat = TabularPolicy([0.0, 0.0])
    assert flat.exact_var([1e200, -1e200]) == np.inf  # documented: beyond float64
    assert flat.grad([1e308, 0.0]).tolist() == [2.5e307, -2.5e307]
    assert flat.grad([1e-300, 0.0]) == pytest.approx([2.5e-301, -2.5e-301], rel=1e-12)
    tiny = LogLinearPolicy(PHI * 1e-200, [1.0, 1.0], temperature=1e-200)
    np.testing.assert_allclose(tiny.kernel(), PHI @ PHI.T, rtol=1e-12)
    np.testing.assert_allclose(tiny.fisher(), LogLinearPolicy(PHI, [1.0, 1.0]).fisher(), rtol=1e-12)
    steep = EnumeratedAutoregressive(lambda t, p: t * 1e200, [0.0, 0.0], vocab=2, length=2)
    assert steep.jacobian_norm == pytest.approx(1e200)
    with pytest.raises(ValueError, match="logit_fn"):
        steep.fisher()


def test_what_comes_in_is_neither_kept_nor_changed():
    phi, logits = PHI.copy(), np.array([0.0, 1.0])
    linear, table = LogLinearPolicy(phi, [0.4, -0.2]), TabularPolicy(logits)
    before = linear.kernel(), table.probs
    phi[:] = 7.0
    logits[:] = 7.0
    np.testing.assert_array_equal(linear.kernel(), before[0])
    np.testing.assert_array_equal(table.probs, before[1])
    for array in (table.log_probs, linear.log_probs, enumerated().scores, enumerated().sequences):
        assert not array.flags.writeable
    reward = np.array(R)
    TabularPolicy.from_probs(P).grad(reward)[:] = 9.0
    assert reward.tolist() == R


@pytest.mark.parametrize("kind", KINDS)
def test_policies_travel(kind):
    policy = everything()[kind][0]
    for twin in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), copy.copy(policy)):
        np.testing.assert_array_equal(twin.log_probs, policy.log_probs)
        np.testing.assert_array_equal(twin.fisher(), policy.fisher())
        assert repr(twin) == repr(policy)


def test_every_kind_of_array_comes_in(xp):
    z, r = [[0.25, -1.0, 2.0]], [1.0, 0.5, -1.0]
    np.testing.assert_array_equal(TabularPolicy(xp.asarray(z)).probs, TabularPolicy(z).probs)
    np.testing.assert_array_equal(TabularPolicy(z).grad(xp.asarray(r)), TabularPolicy(z).grad(r))
