"""Spectra of convolution kernels: as a flat matrix, slice by slice, or as the operator on an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, memory_limit
from rankdiag._validate import choice, describe, integer
from rankdiag.spectral._decompose import EPS64, TINY

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["conv_spectrum"]

Floats = NDArray[np.float64]

_LARGEST = 2**53  # sides that float64 holds exactly
_BLOCK = 1 << 24  # bytes of transfer matrices held at a time
_BYTES = 48  # what a value and its copies take until they are sorted into a spectrum
_DEFINITIONS = {
    "flatten": "singular values of the kernel as a matrix: out x (in * kernel positions)",
    "slices": "singular values of all out x in slices of the kernel, pooled",
    "fft": "singular values of the stride-1 convolution with circular padding on h x w inputs",
}


def conv_spectrum(
    weight: Any,
    *,
    mode: Literal["flatten", "slices", "fft"] = "flatten",
    input_size: Sequence[int] | None = None,
    groups: int = 1,
) -> Spectrum:
    r"""Return the singular values of a convolution kernel, in one of three meanings.

    Parameters
    ----------
    weight : array-like of shape (out, in / groups, k, ...)
        Kernel with at least one spatial axis, as ``torch.nn.Conv1d``, ``Conv2d`` and ``Conv3d`` store it. A
        transposed convolution stores (in, out / groups, k, ...): for ``"slices"`` and ``"fft"`` it is read like
        any other kernel, for it is the adjoint, which has the same values.
    mode : {"flatten", "slices", "fft"}
        ``"flatten"`` reads the kernel as one matrix with a row for each output channel. ``"slices"`` takes the
        out x in matrix of each kernel position and pools their values, WeightWatcher's way (without its factor
        sqrt(count / 2)). ``"fft"`` is the operator itself on an image, with circular padding and stride 1.
    input_size : (h, w), optional
        Height and width of the image in pixels, for ``"fft"`` only, and needed there. The kernel may be larger
        than the image: it then wraps around.
    groups : int
        Groups of channels that do not see one another, as in ``torch.nn.Conv2d``. Their values are pooled.

    Returns
    -------
    rankdiag.spectral.Spectrum
        With K kernel positions and all input channels counted in `in`:

        - ``"flatten"``: min(out, in K) values, `shape` (out, in K);
        - ``"slices"``: K min(out, in) values, `shape` (K out, K in);
        - ``"fft"``: h w min(out, in) values, `shape` (h w out, h w in).

        Pooled matrices count as the blocks of one block-diagonal matrix.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If `weight` has fewer than three axes, is empty or not finite; if `mode` is unknown; if ``"fft"`` has no
        `input_size`, not two spatial axes, or needs more memory than this machine has; if `input_size` comes
        with another mode; if `groups` does not divide the output channels.

    See Also
    --------
    rankdiag.spectral.spectrum : Spectrum of a plain matrix.

    Notes
    -----
    Under circular padding the convolution is block-diagonal in the Fourier basis: with
    :math:`W_{ij}` the out x in matrix of kernel position (i, j), its singular values are those of the transfer
    matrices

    .. math::

        \hat W(u, v) = \sum_{i, j} W_{ij}\, e^{-2 \pi \mathrm{i} (u i / h + v j / w)}, \qquad
        0 \le u < h, \ 0 \le v < w ,

    (Sedghi, Gupta and Long 2019, theorem 6). Derived from it: a kernel that fits into the image has
    :math:`\sum s^2 = h w \|W\|_F^2`; for real weights the frequencies (u, v) and (-u, -v) share their values, so
    only half of them are decomposed; where the kernel is anchored, and whether it is flipped, does not change the
    values. With zero padding the operator differs at the border of the image.

    How to read it: ``"flatten"`` answers how compressible the kernel is as it is stored, ``"fft"`` what the layer
    can do to an image: its largest value is the Lipschitz constant of the layer, its smallest how much a signal
    can vanish.

    The default tolerance of `Spectrum.numerical_rank` grows with `shape` (numpy's rule), which makes it coarse
    for the operator on a large image: give `rtol` there.

    ``"flatten"`` and ``"slices"`` cost a decomposition of the matrices named. ``"fft"`` costs about h w / 2
    complex decompositions of (out, in) / groups, and as memory the values with their sorted copies (about 48 bytes
    a value, checked against this machine beforehand) and some 16 MB blocks of transfer matrices.

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019, arXiv:1805.10408.

    C. H. Martin, M. W. Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021),
    arXiv:1810.01075 (slices).

    Examples
    --------
    >>> from rankdiag.weights import conv_spectrum
    >>> blur = [[[[0.25, 0.5, 0.25]]]]  # one channel, a 1 x 3 kernel
    >>> [round(float(s), 6) for s in conv_spectrum(blur, mode="fft", input_size=(1, 4)).values]
    [1.0, 0.5, 0.5, 0.0]
    >>> [round(float(s), 6) for s in conv_spectrum(blur).values]
    [0.612372]
    >>> conv_spectrum(blur, mode="slices").values.tolist()
    [0.5, 0.25, 0.25]
    """
    from rankdiag.spectral import spectrum

    mode = choice(mode, "mode", ("flatten", "slices", "fft"))
    array = as_float64(weight, "weight", min_ndim=3, expected="a kernel (out, in, k...)")
    out, inner = array.shape[0], array.shape[1]
    parts = integer(groups, "groups", low=1, high=out)
    if out % parts:
        raise ValueError(f"`groups` must divide the {out} output channels of `weight`; got {parts}")
    details: dict[str, Any] = {"mode": mode, "groups": parts}
    size = (1, 1)
    if mode == "fft":
        details["input_size"] = size = _image(array.shape, parts, input_size)
    elif input_size is not None:
        raise ValueError(
            f"`input_size` must be left out unless mode='fft'; got {describe(input_size)} with mode={mode!r}"
        )
    exponent = int(np.frexp(np.abs(array).max())[1])
    grouped = np.ldexp(array, -exponent).reshape(parts, out // parts, *array.shape[1:])  # no sum can overflow
    if mode == "fft":
        found = _operator(grouped, *size)
    elif mode == "slices":
        found = _pool(spectrum(np.moveaxis(grouped.reshape(parts, out // parts, inner, -1), -1, 1)))
    elif parts > 1:
        found = _pool(spectrum(grouped.reshape(parts, out // parts, -1)))
    else:
        found = spectrum(grouped.reshape(out, -1))
    return _finish(found, exponent, input_dtype(weight), _DEFINITIONS[mode], details)


def _image(shape: tuple[int, ...], groups: int, input_size: Any) -> tuple[int, int]:
    if len(shape) != 4:
        raise ValueError(f"`weight` must be a kernel (out, in, kh, kw) for mode='fft'; got shape {shape}")
    if input_size is None:
        raise ValueError("`input_size` must be given as (h, w) for mode='fft', for the values depend on it; got None")
    if isinstance(input_size, (str, bytes)) or not isinstance(input_size, Sequence):
        raise TypeError(f"`input_size` must be two integers (h, w); got {describe(input_size)}")
    if len(input_size) != 2:
        raise ValueError(f"`input_size` must be two integers (h, w); got {len(input_size)} entries")
    height, width = (integer(side, "input_size", low=1, high=_LARGEST) for side in input_size)
    count = height * width * min(shape[0], shape[1] * groups)
    need, have = _BYTES * count, memory_limit()
    if need > have:
        raise ValueError(
            f"`input_size` ({height}, {width}) gives {count} singular values, which take {need / 1e9:.1f} GB, more "
            f"than the {have / 1e9:.1f} GB of this machine; pass a smaller image"
        )
    return height, width


def _pool(found: Spectrum) -> Spectrum:
    """Make one spectrum of a stack of matrices, as the blocks of one block-diagonal matrix."""
    from rankdiag.spectral import Spectrum

    blocks = math.prod(found.values.shape[:-1])
    m, n = found.shape
    return Spectrum.from_values(
        found.values.ravel(), shape=(blocks * m, blocks * n), error_bound=float(np.max(found.error_bound))
    )


def _finish(found: Spectrum, exponent: int, dtype: str, definition: str, details: dict[str, Any]) -> Spectrum:
    """Multiply a spectrum by a power of two and say what it is of."""
    with np.errstate(over="ignore", under="ignore"):
        values = np.ldexp(found.values, exponent)
        frobenius = float(np.ldexp(found.frobenius, exponent))
        bound = float(np.ldexp(found.error_bound, exponent)) + (TINY if found.values[0] else 0.0)
    if not math.isfinite(frobenius):
        raise ValueError("`weight` has entries so large that its norm is beyond float64; divide it by a constant first")
    meta = dataclasses.replace(
        found.meta,
        definition=definition,
        dtype=dtype,
        details={**found.meta.details, "error_bound": bound, **details},
    )
    return dataclasses.replace(
        found, values=values, frobenius=frobenius, error_bound=bound, input_dtype=dtype, meta=meta
    )


def _operator(kernel: Floats, height: int, width: int) -> Spectrum:
    """Spectrum of the circular convolution with a kernel (groups, out, in, kh, kw) of one group each."""
    from rankdiag.spectral import Spectrum, spectrum

    found, bound = [], 0.0
    for matrices, twice in _transfer(kernel, height, width):
        part = spectrum(matrices)
        bound = max(bound, float(np.max(part.error_bound)))
        found.append(part.values.ravel())
        if twice.any():
            found.append(part.values[:, twice].ravel())
    # A transfer matrix is a sum with kh + kw roundings on each entry's way, beside those of its factors.
    groups, out, inner, kh, kw = kernel.shape
    summed = float(np.linalg.norm(np.abs(kernel).sum(axis=(-2, -1)), axis=(-2, -1)).max())
    blocks = height * width * groups
    return Spectrum.from_values(
        np.concatenate(found),
        shape=(blocks * out, blocks * inner),
        error_bound=bound + 2 * (kh + kw + 4) * EPS64 * summed,
    )


def _transfer(kernel: Floats, height: int, width: int) -> Iterator[tuple[NDArray[np.complex128], NDArray[np.bool_]]]:
    """Yield transfer matrices (rows, columns, groups, out, in) of half of the frequencies, block by block.

    The second part says of which columns the mirrored frequencies, which are not computed, have the same values.
    """
    groups, out, inner, kh, kw = kernel.shape
    one = 16 * groups * out * inner
    down = max(1, min(height, _BLOCK // one))
    across = max(1, _BLOCK // (one * down))
    columns = np.arange(width // 2 + 1)
    twice = (columns > 0) & (2 * columns != width)
    for left in range(0, columns.size, across):
        chosen = columns[left : left + across]
        half = np.moveaxis(kernel @ _waves(chosen, kw, width).T, (3, 4), (0, 1))  # (kh, columns, groups, out, in)
        for top in range(0, height, down):
            rows = _waves(np.arange(top, min(top + down, height)), kh, height)
            yield np.tensordot(rows, half, axes=1), twice[left : left + across]


def _waves(frequencies: NDArray[np.intp], taps: int, period: int) -> NDArray[np.complex128]:
    """exp(-2 pi i f t / period) for every frequency f and tap t; whole turns are dropped before rounding."""
    turns = np.outer(frequencies, np.arange(taps)) % period
    waves: NDArray[np.complex128] = np.exp((-2j * np.pi / period) * turns)
    return waves
