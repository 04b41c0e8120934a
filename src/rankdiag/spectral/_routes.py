"""Which route to the spectrum: by the shape, by what is asked, and by what the first answer shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype
from rankdiag._rng import as_generator
from rankdiag._validate import choice, integer
from rankdiag.spectral import _measures
from rankdiag.spectral._decompose import (
    Decomposition,
    full_decomposition,
    in_units,
    prefers_qr,
    scale_back,
    to_working,
)
from rankdiag.spectral._device import device_gram, on_accelerator
from rankdiag.spectral._krylov import frobenius_norm, stable_rank_of, top_decomposition
from rankdiag.spectral._lowrank import deflated_gram
from rankdiag.spectral._slq import effective_rank_bracket
from rankdiag.spectral._spectrum import Spectrum, make_spectrum

__all__ = ["SMALL", "as_matrix", "exact", "for_sums", "frobenius", "spectrum", "stable_ranks", "sums_where_it_lies"]

Floats = NDArray[np.float64]

# Up to this smaller side an SVD is cheap enough to be the answer to everything.
SMALL = 512
# Below this smaller side a full decomposition is faster than Golub-Kahan for the largest value alone.
_LANCZOS_FROM = 256
# Largest relative difference between a reading with and without the values below the error bound.
_NOISE = 1e-6
_PROBES = 16
_STEPS = 64


def as_matrix(a: Any, name: str) -> NDArray[Any]:
    """Bring a matrix, or a stack of them, to float64 or complex128."""
    return as_float64(a, name, min_ndim=2, allow_complex=True, expected="a matrix")


def _shape(array: Any) -> tuple[int, int]:
    return int(array.shape[-2]), int(array.shape[-1])


def exact(array: NDArray[Any], *, dtype: str = "float64", name: str = "matrix") -> Decomposition:
    """Decompose so that every value is good to 8 max(m, n, 16) eps s_1: an SVD, after a QR where that is faster."""
    shape = _shape(array)
    by_qr = min(shape) > SMALL and prefers_qr(shape)
    return full_decomposition(array, "qr_svd" if by_qr else "svd", dtype=dtype, name=name)


def for_sums(
    array: NDArray[Any],
    readings: Sequence[Callable[[Floats], Floats]],
    *,
    dtype: str = "float64",
    name: str = "matrix",
) -> Decomposition:
    """Decompose so that the given trace-like readings are good to relative 1e-6, by a Gram matrix where it can.

    A Gram spectrum is kept where no reading changes by more than 1e-6 when the values below its error bound are set to
    0. Otherwise its strong directions are split off and the rest is redone at its own scale, and where that is not
    enough either the exact route decides.
    """
    if min(_shape(array)) <= SMALL:
        return exact(array, dtype=dtype, name=name)
    work, exponent = to_working(array, "float64")
    found = _for_sums(work, readings, dtype)
    return in_units(found, exponent, name)


def sums_where_it_lies(a: Any, readings: Sequence[Callable[[Floats], Floats]]) -> Decomposition | None:
    """Decompose a tensor on an accelerator there, for the given readings; None where the plain route has to answer."""
    if not on_accelerator(a):
        return None
    found = device_gram(a)
    return found if found is not None and _is_quiet(found, readings) else None


def _for_sums(work: NDArray[Any], readings: Sequence[Callable[[Floats], Floats]], dtype: str) -> Decomposition:
    coarse = full_decomposition(work, "gram", dtype=dtype)
    if _is_quiet(coarse, readings):
        return coarse
    if work.ndim > 2:
        flat = work.reshape(-1, *work.shape[-2:])
        return _stack([_for_sums(one, readings, dtype) for one in flat], work.shape[:-2])
    finer = deflated_gram(work, coarse) if dtype == "float64" else None
    return finer if finer is not None and _is_quiet(finer, readings) else exact(work, dtype=dtype)


def _is_quiet(found: Decomposition, readings: Sequence[Callable[[Floats], Floats]]) -> bool:
    cut = _measures.without_noise(found.values, found.bound)
    return all(bool((np.abs(f(found.values) - f(cut)) <= _NOISE * f(found.values)).all()) for f in readings)


def _stack(parts: list[Decomposition], leading: tuple[int, ...]) -> Decomposition:
    """Join decompositions of single matrices; the coarsest method names the stack."""
    return Decomposition(
        np.stack([part.values for part in parts]).reshape(*leading, -1),
        np.array([part.bound for part in parts]).reshape(leading),
        np.array([part.frobenius for part in parts]).reshape(leading),
        "gram" if any(part.method == "gram" for part in parts) else parts[0].method,
    )


def stable_ranks(array: NDArray[Any], name: str) -> Floats:
    """Return the stable rank of every matrix of a stack, from the Frobenius norm and the largest value alone."""
    leading, shape = array.shape[:-2], _shape(array)
    if min(shape) <= _LANCZOS_FROM:
        return _measures.stable_rank(full_decomposition(array, "svd", name=name).values)
    out = np.zeros(leading)
    for place in np.ndindex(*leading):
        ratio = stable_rank_of(array[place])
        if ratio is None:  # clustered at the top: every direction of the cluster would have to be found
            ratio = float(_measures.stable_rank(full_decomposition(array[place], "gram", name=name).values))
        out[place] = ratio
    return out


def frobenius(array: NDArray[Any], name: str) -> Floats:
    """Return the Frobenius norm of every matrix of a stack."""
    work, exponent = to_working(array, "float64")
    return scale_back(frobenius_norm(work), exponent, name)


_SIGMA_READINGS: tuple[Callable[[Floats], Floats], ...] = (
    lambda values: _measures.effective_rank(values, energy=False),
    _measures.nuclear_ratio,
)


def spectrum(
    matrix: Any,
    *,
    method: Literal["auto", "svd", "qr_svd", "gram", "topk", "slq"] = "auto",
    need: Literal["rank", "sums", "top"] = "rank",
    k: int | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    probes: int | None = None,
    steps: int | None = None,
    rng: int | np.random.Generator | None = None,
) -> Spectrum:
    r"""Decompose a matrix once, so that every measure can be read from the result.

    Parameters
    ----------
    matrix : array-like or torch.Tensor, shape (..., m, n)
        Real or complex; any float, integer or boolean dtype, any device. A stack is decomposed matrix by matrix.
    method : {"auto", "svd", "qr_svd", "gram", "topk", "slq"}
        ``"svd"`` and ``"qr_svd"`` (SVD of the triangular factor of the tall orientation) give every value to
        8 max(m, n, 16) eps s_1. ``"gram"`` takes square roots of the eigenvalues of the small-side Gram matrix: two to
        three times as fast, values only to sqrt(n eps) s_1. ``"topk"`` finds the `k` largest values. ``"slq"`` brackets
        the sigma effective rank of a very large matrix and gives no values.
    need : {"rank", "sums", "top"}
        What ``"auto"`` has to serve: everything, rank counts included; trace-like sums (entropies, effective rank,
        norms with p >= 1) to relative 1e-6; or the `k` largest values.
    k : int, optional
        How many values ``"topk"`` finds; 1 by default.
    dtype : {"float64", "float32"}
        Arithmetic; float32 takes about two thirds of the time, and its error bounds are wider.
    probes : int, optional
        Random vectors of ``"slq"``, and strong directions it takes out first; 16 by default.
    steps : int, optional
        Lanczos steps of ``"slq"`` for each of them; 64 by default. More steps narrow the bracket, more probes lower the
        standard error.
    rng : None, int or numpy.random.Generator
        Start vectors of ``"topk"`` and ``"slq"``; None draws a seed and stores it in the result.

    Returns
    -------
    Spectrum
        Values, error bound, Frobenius norm, and every measure as a method.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the matrix is not at least 2-D, is empty or not finite, or an option does not fit the method.

    Notes
    -----
    Let M >= n be the two sides. ``"svd"``: about 4 M n^2 to 12 M n^2 flops; ``"qr_svd"``: 2 M n^2 plus the SVD of an n
    x n matrix; ``"gram"``: M n^2 at matrix-product speed plus (4/3) n^3, memory n^2; ``"topk"``: some tens of products
    with k vectors; ``"slq"``: 2 probes * steps products with a vector, memory probes * steps * (m + n).

    ``"auto"``: svd up to n = 512 whatever is needed; beyond, "sums" takes gram, split and redone where noise below the
    error bound would show in the sigma effective rank or the nuclear norm; "rank" takes qr_svd for 1.3 <= M / n < 1.9,
    where it was measured faster, and svd otherwise. "top" takes topk, which falls back on an SVD for small matrices,
    large `k` and slow convergence. A CUDA tensor is decomposed on its device, in float64 and a stack at once, by the
    Gram route and for "sums" where noise does not show; every other route moves it to the CPU.

    Every route scales by a power of two first where entries are extreme, so 1e-300, 1e300 and denormals keep their
    digits. Error bounds: svd and qr_svd have the usual backward error with a factor of 8, and never less than LAPACK's
    stopping rule, which leaves up to 90 eps s_1 on clustered values. Gram: an error of d eps s_1^2 in an eigenvalue
    moves its root by up to sqrt(d eps) s_1, d = n; the sums inside are longer than n for long thin matrices, and there
    d is their depth (a constant column of 10^6 entries exceeds sqrt(n eps) nine times). topk: twice the residual, times
    the root of the number of values that a vector may stand for. That no larger value was missed follows from the
    random start with probability 1 in exact arithmetic, not from a proof for this matrix.

    References
    ----------
    G. Golub, W. Kahan (1965), Calculating the singular values and pseudo-inverse of a matrix. G. Golub, G. Meurant
    (2010), Matrices, Moments and Quadrature, for the Gauss and Gauss-Radau bounds. S. Ubaru, J. Chen, Y. Saad (2017),
    Fast estimation of tr(f(A)) via stochastic Lanczos quadrature. R. Meyer et al. (2021), Hutch++, for the split of the
    trace.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> s = rd.spectrum(np.diag([4.0, 3.0, 0.0]))
    >>> s.values.tolist(), s.method, s.numerical_rank()
    ([4.0, 3.0, 0.0], 'svd', 2)
    >>> top = rd.spectrum(np.diag([4.0, 3.0, 0.0]), method="topk", k=1, rng=0)
    >>> top.values.tolist(), top.stable_rank()
    ([4.0], 1.5625)
    """
    route = choice(method, "method", ("auto", "svd", "qr_svd", "gram", "topk", "slq"))
    wanted = choice(need, "need", ("rank", "sums", "top"))
    arithmetic = choice(dtype, "dtype", ("float64", "float32"))
    is_top = route == "topk" or (route == "auto" and wanted == "top")
    _check_owner("k", k, is_top, "method 'topk'")
    _check_owner("probes", probes, route == "slq", "method 'slq'")
    _check_owner("steps", steps, route == "slq", "method 'slq'")
    generator, seed = as_generator(rng)
    there = None
    if arithmetic == "float64" and route == "gram" and on_accelerator(matrix):
        there = device_gram(matrix)
    elif arithmetic == "float64" and route == "auto" and wanted == "sums":
        there = sums_where_it_lies(matrix, _SIGMA_READINGS)
    if there is not None:
        came = input_dtype(matrix)
        return make_spectrum(there, shape=_shape(matrix), input_dtype=came, details={"device": str(matrix.device)})
    array = as_matrix(matrix, "matrix")
    came = input_dtype(matrix)
    if is_top:
        size = 1 if k is None else integer(k, "k", low=1, high=min(_shape(array)))
        found, solver = top_decomposition(array, size, _independent(generator), dtype=arithmetic)
        return make_spectrum(
            found, shape=_shape(array), input_dtype=came, arithmetic=arithmetic, seed=seed, details={"solver": solver}
        )
    if route == "slq":
        if arithmetic != "float64":
            raise ValueError(f"`dtype` must be 'float64' for method 'slq'; got {dtype!r}")
        count = _PROBES if probes is None else integer(probes, "probes", low=2)
        depth = _STEPS if steps is None else integer(steps, "steps", low=2)
        return _slq_spectrum(array, came, count, depth, _independent(generator), seed)
    if route == "auto" and wanted == "sums":
        found = for_sums(array, _SIGMA_READINGS, dtype=arithmetic)
    elif route == "auto":
        found = exact(array, dtype=arithmetic)
    else:
        found = full_decomposition(array, cast(Literal["svd", "qr_svd", "gram"], route), dtype=arithmetic)
    return make_spectrum(found, shape=_shape(array), input_dtype=came, arithmetic=arithmetic)


def _independent(rng: np.random.Generator) -> np.random.Generator:
    """Return a generator whose draws have nothing in common with those of `rng` itself.

    A matrix drawn with the same seed would otherwise consist of the very probes that are to test it.
    """
    return np.random.default_rng(rng.integers(2**63, size=4))


def _check_owner(name: str, value: Any, fits: bool, owner: str) -> None:
    if value is not None and not fits:
        raise ValueError(f"`{name}` belongs to {owner}; got {name}={value!r} with another method")


def _slq_spectrum(
    array: NDArray[Any], came: str, probes: int, steps: int, rng: np.random.Generator, seed: int | None
) -> Spectrum:
    leading = array.shape[:-2]
    ends = np.zeros((3, *leading))
    for place in np.ndindex(*leading):
        ends[(slice(None), *place)] = effective_rank_bracket(array[place], probes, steps, rng)
    low, high, stderr = (float(end) if not leading else end for end in ends)
    found = Decomposition(np.zeros((*leading, 0)), np.zeros(leading), frobenius(array, "matrix"), "slq")
    return make_spectrum(
        found,
        shape=_shape(array),
        input_dtype=came,
        seed=seed,
        details={"steps": min(steps, *_shape(array))},
        effective_rank_low=low,
        effective_rank_high=high,
        effective_rank_stderr=stderr,
        probes=probes,
    )
