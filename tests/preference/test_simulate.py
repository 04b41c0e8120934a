"""Training on one preference: against autograd, against the rates, for every kind of loss, and at its edges."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.dynamics import FreeFeatures, dpo
from rankdiag import result_from_json
from rankdiag.preference import loss_weights, simulate_single_token, single_token_dynamics

TOY = np.array([[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]])
STATE = np.array([-0.5, -0.9])


def train(W=TOY, h=STATE, chosen=3, rejected=4, lr=0.2, steps=5, **options):
    return simulate_single_token(W, h, chosen, rejected, lr=lr, steps=steps, **options)


def by_autograd(W, h, plus, minus, lr, steps, loss):
    """Plain gradient descent on W and the vector of the one prompt; `loss` takes a, b and the two at the start."""
    model = FreeFeatures(W)
    model.vectors["x", ()] = torch.tensor(h, dtype=torch.float64, requires_grad=True)
    start, logps, losses = None, [], []
    for step in range(steps + 1):
        found = torch.log_softmax(model.W @ model.vector("x", ()), dim=0)
        start = found.detach().clone() if start is None else start
        value = loss(found[plus], found[minus], start[plus], start[minus])
        logps.append(found.detach().numpy().copy())
        losses.append(value.item())
        if step < steps:
            model.descend(value, lr)
    return np.array(logps), np.array(losses)


LOSSES = {
    "dpo": ({}, lambda a, b, ra, rb: dpo(a, b, ra, rb, 0.1)),
    "sigmoid": ({"beta": 2.0}, lambda a, b, ra, rb: dpo(a, b, ra, rb, 2.0)),
    "ipo": (
        {"beta": None, "loss_options": {"tau": 0.5}},
        lambda a, b, ra, rb: ((a - ra) - (b - rb) - 1.0) ** 2,
    ),
    "cpo": (
        {"loss_options": {"lam": 0.3}},
        lambda a, b, ra, rb: -torch.nn.functional.logsigmoid(0.1 * (a - b)) - 0.3 * a,
    ),
    "slic": (
        {"beta": None, "loss_options": {"delta": 4.0}},
        lambda a, b, ra, rb: torch.relu(4.0 - (a - b)),
    ),
    "bco_pair": (
        {},
        lambda a, b, ra, rb: (
            -torch.nn.functional.logsigmoid(0.1 * (a - ra)) - torch.nn.functional.logsigmoid(-0.1 * (b - rb))
        ),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_steps_agree_with_autograd(name):
    options, loss = LOSSES[name]
    rng = np.random.default_rng(5)
    W, h = rng.normal(size=(7, 3)), rng.normal(size=3)
    t = simulate_single_token(W, h, 2, 5, lr=0.03, steps=20, loss=name, **options)
    logps, losses = by_autograd(W, h, 2, 5, 0.03, 20, loss)
    np.testing.assert_allclose(t.logp, logps, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(t.loss, losses, rtol=1e-10, atol=1e-10)


def test_a_loss_of_your_own():
    def own(a, b, ra, rb, n_plus, n_minus):
        assert n_plus.tolist() == n_minus.tolist() == [1.0]
        return (a - b - 3.0) ** 2 - 0.1 * (a - ra)

    t = train(lr=0.001, loss=own, beta=None)
    logps, losses = by_autograd(TOY, STATE, 3, 4, 0.001, 5, lambda a, b, ra, rb: (a - b - 3.0) ** 2 - 0.1 * (a - ra))
    np.testing.assert_allclose(t.logp, logps, rtol=1e-10)
    np.testing.assert_allclose(t.loss, losses, rtol=1e-10)
    assert t.meta.details["loss"] == "own"


def test_worked_example_to_all_digits():
    t = train(steps=100)
    assert t.probs[[0, 1, 10, 100], 3].round(4).tolist() == [0.6304, 0.6029, 0.3195, 0.0111]
    assert t.probs[[0, 1, 10, 100], 0].round(4).tolist() == [0.0314, 0.0389, 0.1446, 0.8065]
    assert t.loss[[0, 100]].round(4).tolist() == [0.6931, 0.0649]
    assert (np.diff(t.loss) < 0).all()
    assert t.verdict == "warn"


@settings(max_examples=25)
@given(seed=st.integers(0, 100_000))
def test_a_small_step_follows_the_rates(seed):
    """The error of the first-order forecast falls with the square of the step."""
    rng = np.random.default_rng(seed)
    W, h = rng.normal(size=(6, 3)), rng.normal(size=3)
    rates = single_token_dynamics(W, h, 0, 5, 0.05).rate_all
    errors = []
    for lr in (1e-3, 1e-4):
        t = simulate_single_token(W, h, 0, 5, lr=lr, steps=1)
        errors.append(np.abs(t.logp[1] - t.logp[0] - lr * rates).max())
    assert errors[0] <= 1e-6 * (1 + np.abs(rates).max()) ** 2
    assert errors[1] <= 0.02 * errors[0] + 1e-14


def test_log_probabilities_keep_their_digits_near_one():
    t = train(W=[[1.0], [-1.0]], h=[30.0], chosen=1, rejected=0, steps=0)
    assert t.logp[0] == pytest.approx([-np.exp(-60.0), -60.0], rel=1e-12, abs=0)


def test_dpo_has_the_weights_of_the_loss_table():
    """The short way of the plain loss gives the losses of `loss_weights`, far beyond the reference too."""
    t = train(lr=3.0, steps=60)
    a, b = t.logp[:, 3], t.logp[:, 4]
    reference = np.full(61, a[0]), np.full(61, b[0])
    np.testing.assert_allclose(t.loss, loss_weights("dpo", a, b, *reference, beta=0.1).loss, rtol=1e-12)
    assert t.loss[-1] < 0.01


def test_no_steps_and_inputs_are_left_alone():
    W, h = TOY.copy(), STATE.copy()
    t = simulate_single_token(W, h, 3, 4, lr=0.1, steps=0)
    assert t.logp.shape == (1, 6)
    assert t.loss == pytest.approx([np.log(2)])
    assert t.verdict == "unknown"
    simulate_single_token(W, h, 3, 4, lr=0.1, steps=3)
    assert (W == TOY).all()
    assert (h == STATE).all()
    torch_twin = simulate_single_token(torch.tensor(TOY), torch.tensor(STATE), 3, 4, lr=0.1, steps=3)
    assert torch_twin.logp.tolist() == simulate_single_token(W, h, 3, 4, lr=0.1, steps=3).logp.tolist()


REFUSED = {
    "`lr` must be a finite real number > 0": {"lr": 0.0},
    "`steps` must be an integer >= 0": {"steps": -1},
    "`steps` of shape": {"steps": 10**12},
    "training diverges at step": {"lr": 1e200},
    "`loss` must be one of": {"loss": "dop"},
    "`chosen` and `rejected` must be different": {"chosen": 4},
    "`W` and `h` are so large": {"W": TOY * 1e200, "h": STATE * 1e200},
    "`h` must have the 2 entries": {"h": [1.0]},
}
MISTYPED = {
    "no hyper-parameter": {"loss_options": {"bta": 1.0}},
    "missing `beta`": {"beta": None},
    "unexpected `beta`": {"loss": "ipo", "loss_options": {"tau": 0.1}},
    "`loss_options` must": {"loss_options": [1]},
    "`steps` must be an integer": {"steps": 2.0},
}


@pytest.mark.parametrize("text", REFUSED)
def test_wrong_values_are_named(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        train(**REFUSED[text])


@pytest.mark.parametrize("text", MISTYPED)
def test_wrong_kinds_are_named(text):
    with pytest.raises(TypeError, match=re.escape(text)):
        train(**MISTYPED[text])


def test_result_shows_the_top_movers():
    t = train(steps=100, loss="cpo", loss_options={"lam": 0.0})
    assert result_from_json(t.to_json()) == t
    assert t.change_chosen == t.logp[-1, 3] - t.logp[0, 3]
    assert t.meta.details["lam"] == 0.0
    document = t.document()
    assert [series.label for series in document.plots[0].series][:3] == [
        "token 3 preferred",
        "token 4 dispreferred",
        "token 0",
    ]
    assert document.plots[0].series[2].y == t.probs[:, 0].tolist()
    assert document.grids[0].rows[0][2:4] == (t.probs[0, 3], t.probs[-1, 3])
    assert "Token 0 gained most" in t.explanation
    assert simulate_single_token([[1.0], [-1.0]], [0.1], 0, 1, lr=0.1, steps=3).verdict == "ok"


def test_example_prints_the_figures():
    """The script stands in the documentation: it runs as a user runs it, and prints what the theory page says."""
    script = Path(__file__).parents[2] / "examples" / "likelihood_displacement_toy.py"
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert "m = 6.23913, S = -9.96158, m + S = -3.72245" in run.stdout
    assert "d ln p / dt = -0.186123" in run.stdout
    first = [float(share) for share in re.findall(r"first step in ([\d.]+)%", run.stdout)]
    last = [float(share) for share in re.findall(r"step 100 in ([\d.]+)%", run.stdout)]
    assert len(first) == len(last) == 3
    assert min(first) >= 99.7
    assert min(last) >= 95.0
    assert run.stderr == ""
