"""Options that methods of `Spectrum` and the functions share, checked in one place."""

from __future__ import annotations

import math
from typing import Any, Literal

from rankdiag._array import machine_eps
from rankdiag._validate import choice, real
from rankdiag.spectral._decompose import EPS32

__all__ = ["Weights", "is_energy", "rank_tolerances", "schatten_power"]

Weights = Literal["sigma", "energy"]


def is_energy(weights: Any) -> bool:
    """Read the argument `weights`: whether probabilities come from squares."""
    return choice(weights, "weights", ("sigma", "energy")) == "energy"


def schatten_power(p: Any) -> float:
    """Read the argument `p` of a Schatten norm as a number in (0, inf]."""
    if isinstance(p, str):
        return {"nuc": 1.0, "fro": 2.0, "spec": math.inf}[choice(p, "p", ("nuc", "fro", "spec"))]
    return real(p, "p", low=0.0, low_open=True, infinite=True)


def rank_tolerances(rtol: Any, atol: Any, shape: tuple[int, int], dtype: str) -> tuple[float, float]:
    """Check the tolerances of a rank count and fill in the default.

    The default is max(m, n) eps of the input dtype, numpy's rule; eps alone for 16-bit and smaller floats, where the
    size factor would exceed 1 while rounding puts noise at only 0.03 to 0.1 eps s_1.
    """
    eps = machine_eps(dtype)
    usual = eps if eps > EPS32 else max(shape) * eps
    relative = usual if rtol is None else real(rtol, "rtol", low=0.0)
    return relative, 0.0 if atol is None else real(atol, "atol", low=0.0)
