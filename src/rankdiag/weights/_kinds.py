"""Which tensors of a model are matrices, of what kind, and where their rows and columns lie.

The class of the module that owns a tensor decides where a module is at hand. A checkpoint on disk holds names
and shapes only; then the last words of the name, the neighbours of the tensor (its bias says which axis is the
output) and the config decide, and what stays open is said in the matricization.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from rankdiag.weights._fused import GATES, FusedLayout, layout_from_config, runs_of
from rankdiag.weights._inventory import Inventory, Piece, sibling
from rankdiag.weights._kernels import NORM_PARTS, STACK, convolution, is_convolution, weight_norm
from rankdiag.weights._views import Runs, StackView, StoredView, View

if TYPE_CHECKING:
    from rankdiag.checkpoints import TensorInfo

__all__ = ["classify", "unreadable"]

NOT_A_MATRIX = "bias/norm, not a matrix"

_PACKED = re.compile(r"weight_(ih|hh)(_l\d+(?:_reverse)?)?$")
_EMBEDDING = re.compile(r"(embed|(^|\.)(wte|wpe|shared)(\.|$)|relative_attention_bias)", re.IGNORECASE)
_SCALE = re.compile(r"(^|_)scales?(_inv)?$")


def classify(
    name: str,
    inventory: Inventory,
    pairs: Mapping[re.Pattern[str], FusedLayout | None],
    *,
    conv: Literal["flatten", "slices", "fft"] = "flatten",
    input_size: tuple[int, int] | None = None,
) -> list[Piece] | str:
    """Say what a tensor is: its pieces, or the reason why it has none.

    Parameters
    ----------
    name : str
        A tensor of the source that is no alias.
    inventory : Inventory
        All tensors.
    pairs : mapping
        How fused matrices are cut, as `check_pairs` returns it.
    conv : {"flatten", "slices", "fft"}
        How convolutions are read.
    input_size : tuple of int, optional
        Height and width of the image for ``"fft"``.

    Returns
    -------
    list of Piece or str
        At least one piece, or the reason.
    """
    info = inventory.infos[name]
    if not info.readable:
        return unreadable(name, inventory)
    if math.prod(info.shape) == 0:
        return f"empty: shape {'x'.join(map(str, info.shape))}"
    reason = _no_matrix(name, info.shape, inventory)
    if reason:
        return reason
    normed = weight_norm(name, inventory)
    if normed is not None:
        return normed
    if len(info.shape) == 2:
        pieces = _two_axes(name, info, inventory, pairs)
    elif is_convolution(name, info.shape, inventory):
        pieces = [convolution(name, info, inventory, conv, input_size)]
    else:
        pieces = _more_axes(name, info, inventory)
    if ".parametrizations." in f".{name}" or name.rpartition(".")[2] == "weight_orig":
        remark = "before its parametrisation, normalisation or pruning mask: not the weight that is applied"
        pieces = [dataclasses.replace(piece, remarks=(*piece.remarks, remark)) for piece in pieces]
    return pieces


def unreadable(name: str, inventory: Inventory) -> str:
    """Say why a tensor cannot be read: what the engine knows of it alone, or the scales that stand beside it."""
    last = name.rpartition(".")[2]
    above = name.removesuffix(last)
    for other in inventory.infos:
        word = other.removeprefix(above)
        own = word.startswith(f"{last}_") or last in {"weight", "qweight"}
        if other.startswith(above) and "." not in word and own and _SCALE.search(word):
            return f"quantised values: the scales in {other} are not applied"
    return inventory.infos[name].reason or "not readable"


def _no_matrix(name: str, shape: tuple[int, ...], inventory: Inventory) -> str:
    last = name.rpartition(".")[2]
    if not shape:
        return "scalar, not a matrix"
    if name in inventory.buffers:
        return "buffer, not a trained weight"
    if last.startswith("lora_magnitude_vector") or ".lora_magnitude_vector." in name:
        return "DoRA magnitudes, not a matrix: they rescale the outputs after the low-rank update is added"
    if last in NORM_PARTS and inventory.shape(sibling(name, NORM_PARTS[last])) is not None:
        return f"magnitudes of weight normalisation: part of {sibling(name, NORM_PARTS[last])}"
    if _is_scale(last, shape, name, inventory):
        return "scales of quantised weights, no weight themselves"
    if last == "weight_mask" and inventory.shape(sibling(name, "weight_orig")) is not None:
        return "pruning mask, not a weight"
    if sum(size > 1 for size in shape) < 2 and len(shape) != 2:
        return NOT_A_MATRIX if _is_vector(name, shape, inventory) else ""
    if last == "bias" and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]:
        return "causal mask, not a weight"
    stem = last.removesuffix("bias").rstrip("_")
    if last.endswith("bias") and any(
        inventory.shape(sibling(name, other)) is not None for other in (stem, f"{stem}_weight", "weight") if other
    ):
        return "a stack of biases, not a matrix"
    return ""


def _is_scale(last: str, shape: tuple[int, ...], name: str, inventory: Inventory) -> bool:
    """Whether a tensor scales quantised values that stand beside it and cannot be read."""
    if len(shape) < 2 or not _SCALE.search(last):
        return False
    above = name.removesuffix(last)
    return any(other.startswith(above) and not info.readable for other, info in inventory.infos.items())


def _is_vector(name: str, shape: tuple[int, ...], inventory: Inventory) -> bool:
    """Whether a tensor with at most one axis longer than 1 is a vector rather than a narrow kernel."""
    return len(shape) == 1 or not is_convolution(name, shape, inventory)


def _module_of(name: str) -> str:
    """Return the last word of the module that owns a tensor."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _two_axes(
    name: str, info: TensorInfo, inventory: Inventory, pairs: Mapping[re.Pattern[str], FusedLayout | None]
) -> list[Piece]:
    shape = (info.shape[0], info.shape[1])
    gates = _gates(name, shape, inventory)
    if gates is not None:
        kind, parts = gates
        size = shape[0] // len(parts)
        if len(parts) == 1:
            return [_piece(name, info, kind, "hidden x input", StoredView(name, shape))]
        return [
            _piece(
                f"{name}[{part}]",
                info,
                kind,
                f"gate {part}: hidden x input",
                StoredView(name, shape, rows=Runs(index * size, size, shape[0], shape[0])),
            )
            for index, part in enumerate(parts)
        ]
    kind, stored_in_out, matricization = _plain_kind(name, shape, inventory)
    cut = _cut(name, shape, stored_in_out, inventory, pairs)
    if isinstance(cut, str):
        piece = _piece(name, info, kind, matricization, StoredView(name, shape), (cut,) if cut else ())
        return [piece]
    pieces = []
    for part, runs in cut.items():
        view = StoredView(name, shape, columns=runs) if stored_in_out else StoredView(name, shape, rows=runs)
        how = "neighbouring" if runs.period == runs.total else "interleaved"
        pieces.append(_piece(f"{name}[{part}]", info, kind, f"part {part} ({how}): {matricization}", view))
    return pieces


def _piece(
    name: str, info: TensorInfo, kind: str, matricization: str, view: View, remarks: tuple[str, ...] = ()
) -> Piece:
    part = name != info.name
    return Piece(
        name=name,
        tensors=(info.name,),
        kind=kind,
        matricization=matricization,
        shape=view.shape if part else info.shape,
        dtype=info.dtype,
        view=view,
        remarks=remarks,
    )


def _gates(name: str, shape: tuple[int, int], inventory: Inventory) -> tuple[str, tuple[str, ...]] | None:
    match = _PACKED.search(name.rpartition(".")[2])
    if match is None:
        return None
    classes = inventory.classes(name)
    for words, kind, count in (("LSTM", "LSTM", 4), ("GRU", "GRU", 3), ("RNN", "RNN", 1)):
        if words in classes or f"{words}Cell" in classes:
            return (kind, GATES[count]) if shape[0] % count == 0 else None
    hidden = inventory.shape(sibling(name, f"weight_hh{match.group(2) or ''}"))
    if hidden is None or len(hidden) != 2:
        return None
    projected = inventory.shape(sibling(name, f"weight_hr{match.group(2) or ''}")) is not None
    count = 4 if projected else hidden[0] // hidden[1]
    if count not in GATES or hidden[0] % count or (not projected and count * hidden[1] != hidden[0]):
        return None
    return {4: "LSTM", 3: "GRU", 1: "RNN"}[count], GATES[count]


def _plain_kind(name: str, shape: tuple[int, int], inventory: Inventory) -> tuple[str, bool, str]:
    """Return kind, whether the output axis is the second one, and what rows and columns are."""
    classes = inventory.classes(name)
    last = name.rpartition(".")[2]
    if "Embedding" in classes or "EmbeddingBag" in classes:
        return "Embedding", False, "entries x features"
    if "Conv1D" in classes:
        return "Conv1D", True, "in x out"
    if "Linear" in classes or last.endswith("proj_weight"):
        return ("MultiheadAttention" if last == "in_proj_weight" else "Linear"), False, "out x in"
    if classes and "ModuleDict" not in classes:
        kind = "MultiheadAttention" if "MultiheadAttention" in classes else _own_class(name, inventory)
        return kind, False, "first axis x second axis"
    if ".trainable_tokens_delta" in name:
        return "token rows", False, "entries x features"
    if _EMBEDDING.search(name):
        return "Embedding", False, "entries x features"
    bias = inventory.shape(sibling(name, "bias")) if last == "weight" else None
    if bias is not None and len(bias) == 1 and shape[0] != shape[1] and bias[0] == shape[1]:
        return "Conv1D", True, "in x out (the bias says so)"
    if last == "weight":
        square_conv1d = bias is not None and shape[0] == shape[1] and _has_conv1d(name, inventory)
        return ("Conv1D", True, "in x out (as its neighbours)") if square_conv1d else ("Linear", False, "out x in")
    return "parameter", False, "first axis x second axis"


def _own_class(name: str, inventory: Inventory) -> str:
    return inventory.source.module_kind(name) or "parameter"


def _has_conv1d(name: str, inventory: Inventory) -> bool:
    """Whether a module beside or above this one stores its weight as in x out."""
    above = name.rsplit(".", 3)[0] + "."
    for other, info in inventory.infos.items():
        if not other.startswith(above) or len(info.shape) != 2 or not other.endswith(".weight"):
            continue
        bias = inventory.shape(sibling(other, "bias"))
        if bias is not None and len(bias) == 1 and info.shape[0] != info.shape[1]:
            return bias[0] == info.shape[1]
    return False


def _cut(
    name: str,
    shape: tuple[int, int],
    stored_in_out: bool,
    inventory: Inventory,
    pairs: Mapping[re.Pattern[str], FusedLayout | None],
) -> dict[str, Runs] | str:
    """Return the parts of a fused matrix, or why it stays whole ("" if nobody asked)."""
    component = _module_of(name)
    out, inner = (shape[1], shape[0]) if stored_in_out else shape
    for pattern, layout in pairs.items():
        if not pattern.search(name):
            continue
        if layout is not None:
            return runs_of(layout, out)
        known = layout_from_config(component, out, inner, inventory.config)
        if known is not None:
            return runs_of(known, out)
        if re.search(r"(^|_)(w?qkv|query_key_value)(_|$)", component, re.IGNORECASE):
            return "looks fused; name and config do not say how its rows are laid out, so it was not cut"
    return ""


def _more_axes(name: str, info: TensorInfo, inventory: Inventory) -> list[Piece]:
    shape = info.shape
    positions = bool(_EMBEDDING.search(name)) and not STACK.search(name)
    inner = shape
    while len(inner) > 2 and inner[0] == 1:
        inner = inner[1:]
    if positions or (len(inner) == 2 and not STACK.search(name)):
        kind = "Embedding" if positions else _own_class(name, inventory)
        text = "entries x features" if positions else "second last axis x last axis"
        table = StackView(name, None, (math.prod(shape[:-1]), shape[-1]))
        return [_piece(name, info, kind, f"{text}; leading axes joined", table)]
    if len(shape) == 3:
        kind = "expert" if STACK.search(name) else "stack entry"
        return [
            _piece(f"{name}[{index}]", info, kind, "one matrix of the stack", StackView(name, index, _pair(shape[1:])))
            for index in range(shape[0])
        ]
    view = StoredView(name, (math.prod(shape[:1]), math.prod(shape[1:])))
    return [_piece(name, info, _own_class(name, inventory), "first axis x all others", view)]


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]
