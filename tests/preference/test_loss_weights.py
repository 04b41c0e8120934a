"""Every loss of the table against 250 digits and against autograd, its facts, and functions of the user's own."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracles.displacement import (
    OF_THE_MARGIN,
    PARAMETERS,
    WITH_LENGTHS,
    WITHOUT_REFERENCE,
    decimal_weights,
    torch_weights,
)
from rankdiag.preference import LossWeights, loss_weights
from rankdiag.preference._loss_table import LOSSES

NAMES = tuple(PARAMETERS)
RANGES = {
    "beta": (0.0157, 5.0),
    "tau": (0.0157, 2.0),
    "eps": (0.0, 0.49),
    "delta": (0.0, 4.0),
    "gamma": (-1.0, 3.0),
    "eta": (0.05, 5.0),
    "lam": (0.0, 3.0),
    "alpha": (0.0, 3.0),
    "reward_chosen": (-3.0, 3.0),
    "reward_rejected": (-3.0, 3.0),
}


def square(u):
    return (u - 1) ** 2


def logp():
    """Multiples of 2^-10: differences of them are exact, so that what is left is the error of the formulas."""
    return (st.integers(-60 * 2**10, -1) | st.integers(-(10**4) * 2**10, -(2**10))).map(lambda k: k / 2**10)


def parameter(name):
    low, high = RANGES[name]
    return st.integers(math.ceil(low * 64), math.floor(high * 64)).map(lambda k: k / 64)


# Terms of these cancel: their error is relative to the terms, not to the sum.
QUADRATIC = {"ipo", "ipo_norm", "rebel", "sppo_hard", "gpo"}
SUMS = {"dpo_label_smoothing", "robust", "cpo", "dpo_sft", "rpo", "orpo", "nca_pair", "apo_down"}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(data=st.data())
def test_against_250_digits(name, data):
    a, b, ra, rb = (data.draw(logp()) for _ in range(4))
    n, m = (data.draw(st.integers(1, 40)) for _ in range(2))
    p = {key: square if key == "f" else data.draw(parameter(key)) for key in PARAMETERS[name]}
    if name == "slic":
        assume(p["delta"] != a - b)
    if name == "hinge":
        assume(p["beta"] * ((a - ra) - (b - rb)) != 1)
    if name == "dpop":
        assume(a != ra)
    want = decimal_weights(name, a, b, ra, rb, n, m, p)
    got = loss_weights(name, a, b, ra, rb, n, m, **p)
    size = abs(a) + abs(b) + abs(ra) + abs(rb) + 1 + sum(0.5 / p[key] for key in ("beta", "tau", "eta") if key in p)
    size *= 1 + sum(p[key] for key in ("beta", "lam", "alpha") if key in p)
    floor = 1e-13 * size**2 if name in QUADRATIC else 1e-13 * size if name in SUMS else 1e-150
    for mine, true in zip(got, want, strict=True):
        assert mine.shape == ()
        assert math.isclose(mine, true, rel_tol=1e-9, abs_tol=floor)


def points(rng, count=400):
    """Random pairs, mild ones and ones whose logits reach 1e4."""
    size = np.repeat([1.0, 30.0, 3e3, 1e4], count // 4)
    a, b, ra, rb = (-rng.random(count) * size - 1e-3 for _ in range(4))
    return a, b, ra, rb, rng.integers(1, 50, count).astype(float), rng.integers(1, 50, count).astype(float)


@pytest.mark.parametrize("name", NAMES)
def test_against_autograd(name):
    rng = np.random.default_rng(7)
    pairs = points(rng)
    p = {key: square if key == "f" else rng.uniform(*RANGES[key]) for key in PARAMETERS[name]}
    if name == "rebel":
        p["reward_chosen"], p["reward_rejected"] = rng.standard_normal((2, len(pairs[0])))
    got, want = loss_weights(name, *pairs, **p), torch_weights(name, *pairs, p)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12 * max(1.0, float(np.abs(theirs).max())))


def test_the_oracle_knows_the_whole_table():
    assert {name: rule.parameters for name, rule in LOSSES.items()} == PARAMETERS
    assert {name for name, rule in LOSSES.items() if not rule.reference} == set(WITHOUT_REFERENCE)
    assert {name for name, rule in LOSSES.items() if rule.lengths} == set(WITH_LENGTHS)


def example(name):
    """Plain arguments of a loss, extremes included."""
    values = dict.fromkeys(PARAMETERS[name], 0.25)
    if name == "gpo":
        values["f"] = torch.nn.functional.softplus
    a, b = np.array([-40.0, -1e4, -1e-3, -3.0]), np.array([-35.0, -1e-3, -1e4, -3.5])
    return (a, b, a + 2.0, b - 1.0, [6, 1, 30, 2], [4, 9, 1, 2]), values


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types(name):
    pairs, p = example(name)
    found = loss_weights(name, *pairs, **p)
    assert isinstance(found, LossWeights)
    assert found._fields == ("loss", "w_chosen", "w_rejected")
    assert all(part.dtype == np.float64 and part.shape == (4,) for part in found)
    assert all(np.isfinite(part).all() for part in found)
    assert not any(np.shares_memory(x, y) for x in found for y in (*found, pairs[0], pairs[1]) if x is not y)
    table = loss_weights(name, *(np.reshape(x, (2, 2)) for x in pairs), **p)
    for part, flat in zip(table, found, strict=True):
        np.testing.assert_array_equal(part.ravel(), flat)
    assert pickle.loads(pickle.dumps(found)).loss.tolist() == found.loss.tolist()


@pytest.mark.parametrize("name", OF_THE_MARGIN)
def test_losses_of_the_margin_push_both_alike(name):
    pairs, p = example(name)
    found = loss_weights(name, *pairs, **p)
    np.testing.assert_array_equal(found.w_chosen, found.w_rejected)
    shifted = loss_weights(name, pairs[0] - 8.0, pairs[1] - 8.0, *pairs[2:], **p)  # exact in binary
    np.testing.assert_allclose(shifted.w_chosen, found.w_chosen, rtol=1e-12, atol=1e-12)


@given(logp(), logp(), logp(), logp(), parameter("beta"))
def test_dpo_weight_lies_between_0_and_beta(a, b, ra, rb, beta):
    d = (a - ra) - (b - rb)
    weight = float(loss_weights("dpo", a, b, ra, rb, beta=beta).w_chosen)
    assert 0 <= weight <= beta
    if -30 < beta * d < 700:
        assert 0 < weight < beta
    assert loss_weights("sigmoid", a, b, ra, rb, beta=beta).w_chosen == weight


@given(st.floats(0.01, 1.0), st.floats(-200.0, 200.0))
def test_ipo_weight_changes_sign_at_its_target(tau, distance):
    assume(abs(distance) > 1e-6)
    margin = 1 / (2 * tau) + distance
    found = loss_weights("ipo", margin - 300.0, -300.0, 0.0, 0.0, tau=tau)
    assert np.sign(found.w_chosen) == -np.sign(distance)


@pytest.mark.parametrize(
    ("name", "p", "weight"),
    [("dpo", {"beta": 0.3}, 0.15), ("ipo", {"tau": 0.02}, 50.0), ("robust", {"beta": 0.3, "eps": 0.2}, 0.25)],
)
def test_weights_at_the_reference(name, p, weight):
    found = loss_weights(name, [-3.0], [-9.0], [-3.0], [-9.0], **p)
    np.testing.assert_allclose(found.w_chosen, weight, rtol=1e-14)


def test_worked_example():
    pair = (-42.0, -50.5, -40.0, -47.0)
    dpo = loss_weights("dpo", *pair, beta=0.1)
    assert round(float(dpo.loss), 6) == 0.620957
    assert round(float(dpo.w_chosen), 7) == 0.0462570
    assert float(loss_weights("ipo", *pair, tau=0.01).w_chosen) == pytest.approx(97.0, rel=1e-14)
    at = loss_weights("dpo", -40.0, -47.0, -40.0, -47.0, beta=0.1)
    assert float(at.w_chosen) == pytest.approx(0.05, rel=1e-14)


def test_some_losses_push_chosen_down_on_purpose():
    # c = 20: s(beta c) = 0.88 > 2/3; the reverse below.
    high, low = ([-1.0], [-5.0], [-21.0], [-5.0]), ([-1.0], [-5.0], [-2.0], [-5.0])
    assert (
        loss_weights("nca_pair", *high, beta=0.1).w_chosen[0] < 0 < loss_weights("nca_pair", *low, beta=0.1).w_chosen[0]
    )
    fallen = ([-5.0], [-35.0], [-5.0], [-5.0])  # D = 30, c = 0
    assert loss_weights("apo_down", *fallen, beta=0.1).w_chosen[0] < 0
    assert loss_weights("apo_down", *fallen, beta=0.1).w_rejected[0] > 0
    for name in ("dpo", "hinge", "slic", "bco_pair", "apo_zero", "orpo", "dpop", "cpo", "simpo", "robust"):
        pairs, p = example(name)
        assert (loss_weights(name, *pairs, **p).w_chosen >= 0).all()
        assert (loss_weights(name, *pairs, **p).w_rejected >= 0).all()


def test_extra_terms_only_add_to_the_chosen_side():
    pairs, _ = example("dpo")
    plain = loss_weights("dpo", *pairs, beta=0.2)
    sft = loss_weights("dpo_sft", *pairs, beta=0.2, lam=0.7)
    np.testing.assert_allclose(sft.w_chosen - plain.w_chosen, 0.7, rtol=1e-14)
    np.testing.assert_array_equal(sft.w_rejected, plain.w_rejected)
    rpo = loss_weights("rpo", *pairs, beta=0.2, alpha=0.7)
    np.testing.assert_allclose(rpo.w_chosen - plain.w_chosen, 0.7 / np.array(pairs[4]), rtol=1e-12)
    for name, extra in (("dpo_sft", {"lam": 0.0}), ("rpo", {"alpha": 0.0}), ("dpop", {"lam": 0.0})):
        for mine, theirs in zip(loss_weights(name, *pairs, beta=0.2, **extra), plain, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for name in ("dpo_label_smoothing", "robust"):
        for mine, theirs in zip(loss_weights(name, *pairs, beta=0.2, eps=0.0), plain, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-14, atol=1e-300)


def test_losses_by_length_are_those_of_one_token():
    one = ([-3.0, -1e3], [-5.0, -2.0], [-4.0, -9.0], [-4.5, -7.0], 1, 1)
    for mine, theirs in zip(
        loss_weights("sigmoid_norm", *one, beta=0.3), loss_weights("dpo", *one, beta=0.3), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)
    for mine, theirs in zip(loss_weights("ipo_norm", *one, beta=0.3), loss_weights("ipo", *one, tau=0.3), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)
    for mine, theirs in zip(
        loss_weights("simpo", *one, beta=0.3, gamma=0.0), loss_weights("cpo", *one, beta=0.3, lam=0.0), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)


def test_kinks_take_the_flat_side():
    assert loss_weights("slic", [-1.0], [-3.0], delta=2.0).w_chosen.tolist() == [0.0]
    assert loss_weights("hinge", [-1.0], [-3.0], [-1.0], [-1.0], beta=0.5).w_chosen.tolist() == [0.0]
    at = loss_weights("dpop", [-1.0], [-3.0], [-1.0], [-3.0], beta=0.5, lam=4.0)
    assert at.w_chosen.tolist() == at.w_rejected.tolist() == [0.25]


def test_orpo_at_certainty():
    found = loss_weights("orpo", [0.0, 1e-4], [-2.0, -2.0], n_chosen=2, n_rejected=2, lam=0.5)
    p = math.exp(-1.0)
    np.testing.assert_allclose(found.loss, [0.0, 0.0], atol=1e-300)
    np.testing.assert_allclose(found.w_chosen, (1 + 0.5 * p / (1 - p)) / 2, rtol=1e-14)
    assert found.w_rejected.tolist() == [0.0, 0.0]


# --- functions of the user's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo", "orpo", "nca_pair", "ipo_norm"])
def test_a_function_of_your_own_gives_what_the_table_gives(name):
    from torch.nn.functional import logsigmoid

    def own(a, b, ra, rb, n, m):
        u, v = 0.25 * (a - ra), 0.25 * (b - rb)
        odds = [x / y - torch.log(-torch.expm1(x / y)) for x, y in ((a, n), (b, m))]
        return {
            "dpo": -logsigmoid(u - v),
            "orpo": -a / n - 0.25 * logsigmoid(odds[0] - odds[1]),
            "nca_pair": -logsigmoid(u) - 0.5 * logsigmoid(-u) - 0.5 * logsigmoid(-v),
            "ipo_norm": ((a - ra) / n - (b - rb) / m - 2.0) ** 2,
        }[name]

    pairs, p = example(name)
    for mine, table in zip(loss_weights(own, *pairs), loss_weights(name, *pairs, **p), strict=True):
        np.testing.assert_allclose(mine, table, rtol=1e-10, atol=1e-12)


def test_a_function_sees_none_where_nothing_was_given():
    seen = []

    def own(*arguments):
        seen.extend(arguments)
        return arguments[0] - arguments[1]

    found = loss_weights(own, [-1.0, -2.0], [-3.0, -4.0], n_chosen=3)
    assert seen[2:4] == [None, None]
    assert seen[5] is None
    assert seen[4].tolist() == [3.0, 3.0]
    assert all(value.dtype == torch.float64 for value in (seen[0], seen[1], seen[4]))
    assert found.w_chosen.tolist() == found.w_rejected.tolist() == [-1.0, -1.0]


def test_a_function_may_read_one_response_only_and_run_where_gradients_are_off():
    with torch.no_grad():
        found = loss_weights(lambda a, b, ra, rb, n, m: -2 * a, [-1.0], [-3.0])
    assert (found.w_chosen.tolist(), found.w_rejected.tolist()) == ([2.0], [0.0])
    with torch.inference_mode():
        found = loss_weights("gpo", [-1.0], [-3.0], [0.0], [0.0], beta=1.0, f=lambda u: u * u)
    assert found.w_chosen.tolist() == [-4.0]


@pytest.mark.parametrize(
    ("own", "error", "text"),
    [
        (lambda a, b, ra, rb, n, m: (a - b).mean(), ValueError, r"one value for each pair, of shape \(2,\); got \(\)"),
        (
            lambda a, b, ra, rb, n, m: 3.0,
            TypeError,
            "`loss` must return a torch tensor, one value for each pair; got 3",
        ),
        (lambda a, b, ra, rb, n, m: (a - b).detach(), ValueError, "got one without a gradient"),
        (lambda a, b: a - b, ValueError, r"`loss` failed on its tensors \(TypeError: .*positional"),
        (lambda a, b, ra, rb, n, m: a / 0.0, ValueError, "pair 0: `loss` or its weight is beyond float64"),
    ],
)
def test_functions_that_do_not_fit(own, error, text):
    with pytest.raises(error, match=text):
        loss_weights(own, [-1.0, -2.0], [-3.0, -4.0])


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_hyper_parameters_of_the_loss(name):
    pairs, p = example(name)
    for missing in p:
        rest = {key: value for key, value in p.items() if key != missing}
        with pytest.raises(TypeError, match=f"missing `{missing}`.* it takes exactly {', '.join(PARAMETERS[name])}"):
            loss_weights(name, *pairs, **rest)
    extra = "tau" if name != "ipo" else "lam"
    with pytest.raises(TypeError, match=f"'{name}' has unexpected `{extra}`; it takes exactly"):
        loss_weights(name, *pairs, **p, **{extra: 0.1})
    with pytest.raises(TypeError, match="btea"):
        loss_weights(name, *pairs, **p, btea=0.1)


def test_ipo_with_beta_points_to_the_other_one():
    with pytest.raises(TypeError, match=r"missing `tau`, unexpected `beta`; it takes exactly tau.*'ipo_norm'"):
        loss_weights("ipo", [-1.0], [-2.0], [-1.0], [-2.0], beta=0.1)


def test_a_function_takes_no_hyper_parameters():
    with pytest.raises(
        TypeError, match="a loss function of your own has unexpected `beta`; such a function takes none"
    ):
        loss_weights(lambda a, b, ra, rb, n, m: a - b, [-1.0], [-2.0], beta=0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (
            ("dop", [-1.0], [-2.0]),
            {},
            ValueError,
            "`loss` must be one of dpo, sigmoid, .*apo_down, or a function; got 'dop'",
        ),
        ((3, [-1.0], [-2.0]), {}, TypeError, "`loss` must be a name out of dpo, .* got 3"),
        (
            ("dpo", [-1.0], [-2.0]),
            {"beta": 0.1},
            ValueError,
            "`ref_chosen` and `ref_rejected` must be given: loss 'dpo'",
        ),
        (("dpo", [-1.0], [-2.0], [-1.0]), {"beta": 0.1}, ValueError, "^`ref_rejected` must be given"),
        (
            ("simpo", [-1.0], [-2.0]),
            {"beta": 0.1, "gamma": 0.0},
            ValueError,
            "`n_chosen` and `n_rejected` must be given: loss 'simpo' needs the lengths",
        ),
        (
            ("slic", [-1.0, -2.0], [-2.0]),
            {"delta": 1},
            ValueError,
            r"`rejected_logp` must have the shape \(2,\) .* \(1,\)",
        ),
        (("slic", [-1.0, np.nan], [-2.0, 1]), {"delta": 1}, ValueError, "`chosen_logp` has 1 non-finite entry"),
        (("slic", "x", [-2.0]), {"delta": 1}, TypeError, "`chosen_logp` must be one number for each pair; got 'x'"),
        (("slic", [], []), {"delta": 1}, ValueError, "`chosen_logp` must not be empty"),
        (("dpo", [-1.0], [-2.0], -1.0, -2.0), {"beta": 0.1}, ValueError, "`ref_chosen` must have the shape"),
        (
            ("orpo", [-1.0], [-2.0], None, None, 0, 1),
            {"lam": 1},
            ValueError,
            "`n_chosen` must hold whole numbers .* 0.0",
        ),
        (("orpo", [-1.0], [-2.0], None, None, 1, 1.5), {"lam": 1}, ValueError, "`n_rejected` must hold whole .* 1.5"),
        (("orpo", [1.0], [-2.0], None, None, 1, 1), {"lam": 1}, ValueError, "`chosen_logp` must not be positive"),
        (("orpo", [-1.0], [0.0], None, None, 1, 1), {"lam": 1}, ValueError, "`rejected_logp` must be negative, else"),
        (("dpo", [-1.0], [-2.0], [-1.0], [-2.0]), {"beta": 0.0}, ValueError, "`beta` must be a finite real number > 0"),
        (("ipo", [-1.0], [-2.0], [-1.0], [-2.0]), {"tau": -1.0}, ValueError, "`tau` must be a finite real number > 0"),
        (
            ("ipo", [-1e300], [-2.0], [-1.0], [-2.0]),
            {"tau": 1.0},
            ValueError,
            r"pair 0: `loss` or its weight .*\(loss 'ipo'\)",
        ),
        (("slic", [-1.0], [-2.0]), {"delta": -1.0}, ValueError, "`delta` must be a finite real number >= 0"),
        (("cpo", [-1.0], [-2.0]), {"beta": 1, "lam": -1.0}, ValueError, "`lam` must be a finite real number >= 0"),
        (("cpo", [-1.0], [-2.0]), {"beta": "x", "lam": 1.0}, TypeError, "`beta` must be a real number > 0; got 'x'"),
    ],
)
def test_errors(arguments, options, error, text):
    with pytest.raises(error, match=text):
        loss_weights(*arguments, **options)


@pytest.mark.parametrize("eps", [0.5, -0.1])
@pytest.mark.parametrize("name", ["robust", "dpo_label_smoothing"])
def test_label_noise_below_one_half(name, eps):
    with pytest.raises(ValueError, match=r"`eps` must be a finite real number >= 0 and < 0.5"):
        loss_weights(name, [-1.0], [-2.0], [-1.0], [-2.0], beta=0.1, eps=eps)


def test_errors_of_rebel_and_gpo():
    pair = ([-1.0], [-2.0], [-1.0], [-2.0])
    with pytest.raises(ValueError, match=r"`reward_rejected` must have the shape \(1,\)"):
        loss_weights("rebel", *pair, eta=1.0, reward_chosen=[1.0], reward_rejected=[0.0, 1.0])
    with pytest.raises(TypeError, match="`f` must be a function of a torch tensor; got 3"):
        loss_weights("gpo", *pair, beta=1.0, f=3)
    with pytest.raises(ValueError, match="`f` failed on its tensors"):
        loss_weights("gpo", *pair, beta=1.0, f=lambda: 0)
    scalar = loss_weights("rebel", *pair, eta=1.0, reward_chosen=1.0, reward_rejected=0.0)
    assert scalar.w_chosen.tolist() == [2.0]


def test_every_kind_of_array(xp):
    a, b, ra, rb = (xp.asarray(x) for x in ([-3.0, -8.5], [-2.0, -1.5], [-3.5, -8.0], [-2.5, -1.0]))
    want = loss_weights("dpo", [-3.0, -8.5], [-2.0, -1.5], [-3.5, -8.0], [-2.5, -1.0], beta=0.5)
    for mine, theirs in zip(loss_weights("dpo", a, b, ra, rb, beta=0.5), want, strict=True):
        np.testing.assert_array_equal(mine, theirs)  # these numbers are exact in every dtype
