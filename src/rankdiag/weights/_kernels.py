"""Convolutions and weight-normalised layers: geometry, groups, and the matrix that is applied."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal

from rankdiag.weights._inventory import Inventory, Piece, sibling
from rankdiag.weights._views import KernelView, NormedView, StoredView, View

if TYPE_CHECKING:
    from rankdiag.checkpoints import TensorInfo

__all__ = ["NORM_PARTS", "STACK", "convolution", "is_convolution", "weight_norm"]

NORM_PARTS = {"weight_g": "weight_v", "original0": "original1"}
"""Last words of the magnitude and the direction of weight normalisation, in its old and its new form."""

STACK = re.compile(r"(^|\.)experts(\.|$)")
"""Names of tensors that hold one matrix for each expert."""

_GROUPS_UNKNOWN = "; groups are not stored and were taken as 1"
_DEPTHWISE = re.compile(r"(^|[._])(dw|dwconv|dw_?conv|depthwise)\w*(\.|$)", re.IGNORECASE)
_TRANSPOSED = re.compile(r"(transpose|deconv|convtr|up_?conv)", re.IGNORECASE)


def weight_norm(name: str, inventory: Inventory) -> list[Piece] | None:
    last = name.rpartition(".")[2]
    for magnitude, direction in NORM_PARTS.items():
        other = sibling(name, magnitude)
        scale = inventory.shape(other)
        if last != direction or scale is None:
            continue
        info = inventory.infos[name]
        kept = tuple(axis for axis, size in enumerate(scale) if size > 1)
        fits = len(scale) == len(info.shape) and all(scale[axis] == info.shape[axis] for axis in kept)
        if not fits or len(info.shape) < 2:
            return None
        weight = name.removesuffix(".original1").replace("parametrizations.", "").removesuffix("_v")
        groups = _groups_of(name, inventory) if len(info.shape) > 2 else 1
        text = f"{weight.rpartition('.')[2]} = magnitude * direction / ||direction||, first axis x all others"
        return [
            Piece(
                name=name,
                tensors=(other, name),
                kind="weight-normalised",
                matricization=text + _groups_text(groups, len(info.shape) > 2 and inventory.owner(name) is None),
                shape=info.shape,
                dtype=info.dtype,
                view=NormedView(other, name, info.shape, kept, groups if info.shape[0] % groups == 0 else 1),
            )
        ]
    return None


def _groups_text(groups: int, unknown: bool) -> str:
    if unknown:
        return _GROUPS_UNKNOWN
    return f"; {groups} groups, values pooled" if groups > 1 else ""


def _groups_of(name: str, inventory: Inventory) -> int:
    """Return the groups of the convolution that owns a tensor, 1 where no module is at hand."""
    groups = getattr(inventory.owner(name), "groups", 1)
    return groups if isinstance(groups, int) and groups > 0 else 1


def is_convolution(name: str, shape: tuple[int, ...], inventory: Inventory) -> bool:
    classes = inventory.classes(name)
    if classes:
        return "_ConvNd" in classes or any(re.fullmatch(r"Conv(Transpose)?[123]d", cls) for cls in classes)
    if len(shape) < 3 or STACK.search(name):
        return False
    return name.endswith(".weight") or "conv" in name.lower()


def convolution(
    name: str,
    info: TensorInfo,
    inventory: Inventory,
    conv: Literal["flatten", "slices", "fft"],
    input_size: tuple[int, int] | None,
) -> Piece:
    shape = info.shape
    axes = len(shape) - 2
    transposed, groups, doubt = _geometry(name, shape, inventory)
    first, second = ("in", "out") if transposed else ("out", "in")
    kernel = "x".join(map(str, shape[2:]))
    view: View = StoredView(name, (shape[0], math.prod(shape[1:])), groups=groups)
    remarks: tuple[str, ...] = ()
    text = f"{first} x ({second}*{kernel})"
    if conv == "fft" and axes != 2:
        remarks = (f"the operator on an image needs two spatial axes; this kernel has {axes} and was flattened",)
    elif conv == "slices":
        view = KernelView(name, shape, groups, "slices", None)
        text = f"{kernel} slices of {first} x {second}, values pooled"
    elif conv == "fft" and input_size is not None:
        view = KernelView(name, shape, groups, "fft", input_size)
        text = f"circular operator on {input_size[0]}x{input_size[1]}, {first} x {second} at every frequency"
    return Piece(
        name=name,
        tensors=(name,),
        kind=f"Conv{'Transpose' if transposed else ''}{axes}d",
        matricization=(f"{groups} groups of {text}, values pooled" if groups > 1 else text) + doubt,
        shape=shape,
        dtype=info.dtype,
        view=view,
        remarks=remarks,
    )


def _geometry(name: str, shape: tuple[int, ...], inventory: Inventory) -> tuple[bool, int, str]:
    """Return whether a convolution is transposed, its number of groups, and what is open about that."""
    owner = inventory.owner(name)
    if owner is not None:
        groups = int(getattr(owner, "groups", 1))
        return bool(getattr(owner, "transposed", False)), groups if shape[0] % groups == 0 else 1, ""
    bias = inventory.shape(sibling(name, "bias"))
    by_bias = bias is not None and len(bias) == 1 and bias[0] != shape[0] and bias[0] % shape[1] == 0
    transposed = by_bias or bool(_TRANSPOSED.search(name))
    if shape[1] == 1 and shape[0] > 1 and _DEPTHWISE.search(name) and not transposed:
        return transposed, shape[0], "; one group a row, as the name says"
    return transposed, 1, _GROUPS_UNKNOWN
