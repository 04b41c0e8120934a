"""Interaction spectra: worked values, what changes nothing, what is 0, and functions that are refused by name."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.separation import matrix, readings
from rankdiag import result_from_json
from rankdiag.separation import InteractionSpectrum, interaction_matrix, interaction_spectrum

NAMES = ("rank", "entropy", "effective_rank", "interaction_share", "rank_centred")


def whole_numbers(seed: int, most_rank: int = 4) -> np.ndarray:
    """A matrix of small whole numbers with a known factorisation, so that its ranks are no matter of tolerance."""
    rng = np.random.default_rng(seed)
    m, k = rng.integers(1, 9, size=2)
    r = int(rng.integers(0, most_rank + 1))
    return (rng.integers(-3, 4, size=(m, r)) @ rng.integers(-3, 4, size=(r, k))).astype(float)


def numbers(found: InteractionSpectrum) -> dict[str, float]:
    return {name: getattr(found, name) for name in NAMES}


def test_worked_values() -> None:
    x, y = np.array([-1.0, 0.0, 1.0, 2.0])[:, None], np.array([-2.0, -1.0, 1.0, 3.0, 4.0])
    f = 1 + x + y + 2 * x * y
    found = interaction_spectrum(f)
    assert (found.rank, found.rank_centred) == (2, 1)
    centred = 2 * (x - x.mean()) * (y - y.mean())  # what is left of f without row and column means
    share = (centred**2).sum() / ((f - f.mean()) ** 2).sum()
    assert found.interaction_share == pytest.approx(share, rel=1e-12)
    assert interaction_spectrum((1 + x) * (1 + y)).rank == 1
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(f, compute_uv=False) / math.sqrt(20), atol=1e-14)
    assert len(found.singular_values) == 4
    assert not found.singular_values.flags.writeable


@given(st.integers(0, 10**6))
def test_equals_the_definitions(seed: int) -> None:
    f = whole_numbers(seed)
    found, expected = numbers(interaction_spectrum(f)), readings(f)
    if expected["rank_centred"] == 0:
        expected["interaction_share"] = 0.0  # rounding there, nothing here
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert expected["rank_centred"] <= expected["rank"] <= expected["rank_centred"] + 2


@given(st.integers(0, 10**6), st.sampled_from([2.0**-900, -(2.0**-3), 1.0, 2.0**900]))
def test_order_side_and_scale_change_nothing(seed: int, scale: float) -> None:
    f = whole_numbers(seed)
    rng = np.random.default_rng(seed)
    expected = interaction_spectrum(f)
    for other in (f[rng.permutation(len(f))][:, rng.permutation(f.shape[1])], f.T, f * scale):
        found = interaction_spectrum(other)
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(interaction_spectrum(f * scale).singular_values, expected.singular_values * abs(scale))


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 1e6]))
def test_additive_functions_have_no_interaction(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    m, k = rng.integers(1, 40, size=2)
    f = rng.normal(size=(m, 1)) * 10.0 ** rng.integers(-3, 4) + rng.normal(size=k) + offset
    for values in (f, f.astype(np.float32)):
        found = interaction_spectrum(values)
        assert (found.interaction_share, found.rank_centred) == (0.0, 0)
        assert found.rank <= 2
        assert "no interaction" in found.explanation


def test_a_little_interaction_is_seen_over_rounding() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 1)), rng.normal(size=20)
    found = interaction_spectrum(a + b + 1e-9 * a * b)
    assert found.rank_centred == 1
    assert 1e-19 < found.interaction_share < 1e-17
    assert "almost additively" in found.explanation


def test_constant_and_zero() -> None:
    zero = interaction_spectrum(np.zeros((3, 4)))
    assert numbers(zero) == dict.fromkeys(NAMES, 0)
    assert zero.tolerance == 0
    for value in (7.0, 1e-320, 1e300, 0.1):
        found = interaction_spectrum(np.full((13, 7), value))
        assert (found.rank, found.rank_centred, found.interaction_share) == (1, 0, 0.0)
        assert found.effective_rank == pytest.approx(1.0)
    nearly = np.full((50, 50), 1e6)
    nearly[0, 0] += 1e-9
    assert interaction_spectrum(nearly).interaction_share == 0.0
    single = interaction_spectrum([[3.0]])
    assert (single.rank, single.interaction_share, single.shape) == (1, 0.0, (1, 1))


def test_identity_is_all_interaction() -> None:
    found = interaction_spectrum(np.eye(8))
    assert (found.rank, found.rank_centred) == (8, 7)
    assert found.effective_rank == pytest.approx(8.0)
    assert found.entropy == pytest.approx(math.log(8.0))
    assert found.interaction_share == pytest.approx(1.0)
    assert "more settings may show a higher rank" in found.explanation


def test_tolerance_is_that_of_the_dtype_or_the_callers() -> None:
    noise = np.random.default_rng(0).normal(size=(40, 40))
    f = np.ones((40, 40)) + 1e-7 * noise
    assert interaction_spectrum(f).rank == 40
    assert interaction_spectrum(f.astype(np.float32)).rank == 1
    assert interaction_spectrum(f, rtol=1e-5).rank == 1
    assert interaction_spectrum(f, rtol=1e-5).rank_centred == 0
    assert interaction_spectrum(f, rtol=1e-5).interaction_share > 0.9  # a share is not a matter of `rtol`
    assert interaction_spectrum(torch.tensor(f)).rank == 40


def test_result_survives_json_pickle_and_copy_and_draws() -> None:
    found = interaction_spectrum(whole_numbers(5) + np.pi)
    for other in (result_from_json(found.to_json()), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert other == found
        assert (other.singular_values == found.singular_values).all()
    assert "Interaction of two sides" in found.summary()
    assert "energy" in found.summary()
    assert found.plot().get_yscale() == "log"
    assert found.verdict == "unknown"


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        (np.zeros(3), ValueError, "`F` must be a matrix of values"),
        (np.zeros((2, 2, 2)), ValueError, "`F` must be a matrix of values"),
        (np.zeros((0, 2)), ValueError, "`F` must not be empty"),
        ([[1.0, np.nan]], ValueError, "`F` has 1 non-finite"),
        ([[1j]], TypeError, "`F` must be real"),
        ([[1.7e308, 1.7e308]], ValueError, "`F` has entries so large"),
        ("ab", TypeError, "`F` must be"),
        ([[1.0], [2.0, 3.0]], ValueError, "rows of different lengths"),
    ],
)
def test_wrong_matrices_are_named(values: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        interaction_spectrum(values)
    with pytest.raises(ValueError, match="`rtol`"):
        interaction_spectrum([[1.0]], rtol=-1.0)


# --- the matrix ---------------------------------------------------------------------------------------------


def pair(a: Any, b: Any) -> np.ndarray:
    return np.stack((a, b), axis=1)


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_every_pair_once_whatever_the_batch(seed: int, batch_size: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=rng.integers(1, 7)), rng.normal(size=rng.integers(1, 7))
    sizes = []

    def fn(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return np.sin(x[:, 0]) * x[:, 1] + x[:, 0]

    found = interaction_matrix(fn, left, right, combine=pair, batch_size=batch_size)
    expected = matrix(lambda x: math.sin(x[0]) * x[1] + x[0], left, right, lambda a, b: (a, b))
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert max(sizes) <= batch_size
    assert sum(sizes) <= found.size + 16


def test_rank_is_at_most_the_separation_rank() -> None:
    x = np.linspace(-1, 1, 30)
    for fn, rank in (
        (lambda z: np.cos(z[:, 0] - z[:, 1]), 2),
        (lambda z: z[:, 0] ** 2 * z[:, 1] + z[:, 0] * z[:, 1] ** 2, 2),
        (lambda z: (z[:, 0] + z[:, 1]) ** 2, 3),
        (lambda z: np.exp(z[:, 0] + z[:, 1]), 1),
    ):
        assert interaction_spectrum(interaction_matrix(fn, x, x, combine=pair), rtol=1e-12).rank == rank


class Mixer(torch.nn.Module):
    """A model with dropout and batch normalisation, which both show when they are left on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.last = torch.nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))

    def score(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * self(x)[:, 0]


def made() -> tuple[Mixer, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mixer(), torch.randn(7, 2), torch.randn(5, 2)


def join(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat((a, b), dim=1)


def test_torch_modules_run_in_evaluation_mode_and_leave_no_trace() -> None:
    model, left, right = made()
    model.norm.eval()
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    found = interaction_matrix(model, left, right, combine=join, batch_size=8)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    method = interaction_matrix(functools.partial(model.score, scale=2.0), left, right, combine=join)
    np.testing.assert_allclose(method, 2 * found, rtol=1e-5)
    model.eval()
    with torch.no_grad():
        expected = [[model(torch.cat((a, b))[None]).item() for b in right] for a in left]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_modes_come_back_after_an_error() -> None:
    model, left, right = made()
    with pytest.raises(ValueError, match="`fn` failed for a batch of 35: RuntimeError") as found:
        interaction_matrix(model, left, right[:, :1], combine=join)
    assert isinstance(found.value.__cause__, RuntimeError)
    assert model.training
    assert model.drop.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("part", ["drop", "norm"])
def test_a_hidden_model_left_in_training_mode_is_noticed(part: str) -> None:
    model, left, right = made()
    model.eval()
    getattr(model, part).train()
    with torch.random.fork_rng(devices=[]), pytest.raises(ValueError, match="a batch of another size"):
        interaction_matrix(lambda x: model(x), left, right, combine=join)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fn": lambda x: x}, ValueError, r"shape \(6,\) or \(6, 1\); got shape \(6, 2\)"),
        ({"fn": lambda x: x[:-1, 0]}, ValueError, r"got shape \(5,\)"),
        ({"fn": lambda x: 0.0}, ValueError, r"got shape \(\)"),
        ({"fn": lambda x: np.log(x[:, 0] - 1.0)}, ValueError, "setting 0 of `left` with setting 0 of `right`"),
        ({"fn": lambda x: x[:, 0] + 1j}, TypeError, "must be real"),
        ({"fn": lambda x: ["a"] * len(x)}, TypeError, "must hold numbers"),
        ({"fn": lambda x: None}, TypeError, r"`fn\(inputs\)`"),
        ({"fn": lambda: 0.0}, TypeError, "`fn` failed for a batch of 6: TypeError"),
        ({"combine": lambda a, b: a[9]}, ValueError, "`combine` failed for a batch of 6: IndexError"),
        ({"fn": 3}, TypeError, "`fn` must be callable"),
        ({"combine": None}, TypeError, "`combine` must be callable"),
        ({"left": []}, ValueError, "`left` must hold at least one setting"),
        ({"right": 3.0}, TypeError, "`right` must be an array of settings"),
        ({"right": torch.zeros(2, 2).to_sparse()}, TypeError, "`right` must be a dense tensor"),
        ({"right": np.broadcast_to(1.0, (10**6, 10**8))}, ValueError, "`right` of shape"),
        ({"right": "words"}, TypeError, "`right` must be an array of settings"),
        ({"right": [[1.0], [1.0, 2.0]]}, ValueError, "parts of different shapes"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], text: str) -> None:
    plain: dict[str, Any] = {"fn": lambda x: x[:, 0], "left": [1.0, 2.0], "right": [1.0, 2.0, 3.0], "combine": pair}
    plain.update(options)
    with pytest.raises(error, match=text):
        interaction_matrix(plain.pop("fn"), plain.pop("left"), plain.pop("right"), **plain)
