"""Randomness: one argument, and the seed that repeats it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._rng import as_generator, torch_generator
from rankdiag.testing._values import hostile_objects


@given(st.integers(0, 2**128 - 1))
def test_a_seed_is_numpys_own(seed):
    generator, kept = as_generator(seed)
    assert kept == seed
    assert generator.random(3).tolist() == np.random.default_rng(seed).random(3).tolist()


def test_none_draws_a_seed_once_and_says_which():
    seeds = set()
    for _ in range(20):
        generator, seed = as_generator(None)
        assert 0 <= seed < 2**53
        assert int(float(seed)) == seed
        assert as_generator(seed)[0].random(3).tolist() == generator.random(3).tolist()
        seeds.add(seed)
    assert len(seeds) == 20


def test_a_generator_is_used_as_it_is():
    generator = np.random.default_rng(0)
    out, seed = as_generator(generator)
    assert out is generator
    assert seed is None


def test_numpy_integers_are_seeds():
    assert as_generator(np.int64(3))[1] == 3
    assert type(as_generator(np.uint8(3))[1]) is int


def test_negative_seeds():
    with pytest.raises(ValueError, match="`noise` must be None, a seed >= 0 or a numpy Generator; got -1"):
        as_generator(-1, "noise")
    for seed in (2**128, -(10**5000)):
        with pytest.raises(ValueError, match="`rng` must be"):
            as_generator(seed)


@pytest.mark.parametrize("value", hostile_objects(), ids=lambda value: value.label)
def test_anything_else_is_refused_by_name(value):
    made = value.make()
    if made is None or (isinstance(made, (int, np.integer)) and not isinstance(made, bool) and 0 <= made < 2**128):
        assert as_generator(made)[1] is not None
    else:
        with pytest.raises((TypeError, ValueError), match="`rng` must be None, a seed"):
            as_generator(made)


@pytest.mark.parametrize("value", [np.random.RandomState(0), np.random.SeedSequence(0), np.random.PCG64(0), np.random])
def test_other_generators_are_refused(value):
    with pytest.raises(TypeError, match="`rng` must be"):
        as_generator(value)


def test_torch_generators_are_local_and_repeat():
    before = torch.get_rng_state()
    first = torch.rand(4, generator=torch_generator(np.random.default_rng(5)))
    again = torch.rand(4, generator=torch_generator(np.random.default_rng(5), "cpu"))
    assert first.tolist() == again.tolist()
    assert torch.equal(torch.get_rng_state(), before)
    source = np.random.default_rng(5)
    assert torch_generator(source).initial_seed() != torch_generator(source).initial_seed()
