"""Randomness: one argument, `rng`, everywhere; global generators are never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankdiag._validate import describe

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["as_generator", "torch_generator"]

_SEEDS = 2**128


def as_generator(rng: Any, name: str = "rng") -> tuple[np.random.Generator, int | None]:
    """Turn the argument `rng` into a numpy generator, and say which seed repeats it.

    Parameters
    ----------
    rng : None, int or numpy.random.Generator
        None draws a fresh seed once; an int is the seed; a generator is used as it is (and advances).
    name : str
        Name of the argument in messages.

    Returns
    -------
    generator : numpy.random.Generator
        What to draw from.
    seed : int or None
        The seed that gives the same numbers again, for the result; None if a generator came in.

    Raises
    ------
    TypeError
        If `rng` is none of these, a `RandomState` or a boolean, say.
    ValueError
        If the seed is negative or has more than 128 bits, as many as numpy draws for a seed of its own.
    """
    import numpy as np

    if isinstance(rng, np.random.Generator):
        return rng, None
    if rng is None:
        drawn = np.random.SeedSequence().generate_state(1, np.uint64)[0]
        seed = int(drawn) >> 11  # 53 bits: a JSON reader that holds numbers as doubles keeps it whole
    elif isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        seed = int(rng)
        if not 0 <= seed < _SEEDS:
            raise ValueError(f"`{name}` must be None, a seed >= 0 or a numpy Generator; got {describe(seed)}")
    else:
        raise TypeError(f"`{name}` must be None, a seed >= 0 or a numpy Generator; got {describe(rng)}")
    return np.random.default_rng(seed), seed


def torch_generator(rng: np.random.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a local torch generator on `device`, seeded from a numpy generator (which advances once)."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(int(rng.integers(2**63 - 1)))
    return generator
