"""Gram spectra where the matrix lies: one batched product and one batched eigensolve on an accelerator.

On a CPU a stack gains nothing from being decomposed at once, on an accelerator everything; and only the values travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rankdiag._array import is_torch
from rankdiag.spectral._decompose import EPS64, Decomposition, gram_bound, in_units

if TYPE_CHECKING:
    import torch

__all__ = ["device_gram", "on_accelerator"]


def on_accelerator(a: Any) -> bool:
    """Whether this is a tensor on a device that computes in float64."""
    return is_torch(a) and a.device.type == "cuda"


def device_gram(tensor: torch.Tensor) -> Decomposition | None:
    """Decompose (a stack of) matrices by the Gram matrix of the small side, on the device of the tensor.

    Parameters
    ----------
    tensor : torch.Tensor, shape (..., m, n)
        On any device with float64.

    Returns
    -------
    Decomposition or None
        As that of the Gram route of `full_decomposition`; None for a tensor that is to be refused, which is left to
        the checks of the plain route.
    """
    import torch

    known = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64}
    if tensor.is_nested or tensor.layout != torch.strided or tensor.dtype not in known:
        return None
    shape = tuple(tensor.shape)
    if len(shape) < 2 or 0 in shape:
        return None
    with torch.no_grad():
        x = tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)
        x = (x if shape[-2] >= shape[-1] else x.mT).resolve_conj()
        reals = torch.view_as_real(x).flatten(-2) if x.is_complex() else x
        largest = reals.abs().amax(dim=(-2, -1))
        if not bool(torch.isfinite(largest).all()):
            return None
        exponent = torch.frexp(largest).exponent
        half = exponent // 2  # in two steps: a power of two beyond float64 would be infinite
        one = torch.ones_like(largest)
        for part in (half, exponent - half):
            x = x * torch.ldexp(one, -part)[..., None, None]
        eigenvalues = torch.linalg.eigvalsh(x.mH @ x)
        found = eigenvalues.clamp_min(0.0).flip(-1).sqrt().cpu().numpy()
    # How a device adds up is not known, so the sums count as one long row.
    bound = gram_bound(found[..., 0], (shape[-2], shape[-1]), EPS64, updates=max(shape[-2:]))
    norm = np.asarray(np.sqrt((found * found).sum(axis=-1)))
    return in_units(
        Decomposition(found, np.asarray(bound), norm, "gram"), exponent.cpu().numpy().astype(np.int64), "matrix"
    )
