"""Which tensors of a model are matrices, of what kind, and where their rows and columns lie.

The class of the module that owns a tensor decides where a module is at hand. A checkpoint on disk holds names
and shapes only; then the last words of the name, the neighbours of the tensor (its bias says which axis is the
output) and the config decide, and what stays open is said in the matricization.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rankdiag.weights._fused import GATES, FusedLayout, layout_from_config, runs_of
from rankdiag.weights._views import KernelView, NormedView, Runs, StackView, StoredView, View

if TYPE_CHECKING:
    from rankdiag.checkpoints import TensorInfo, TensorSource

__all__ = ["Inventory", "Piece", "canonical_name", "classify"]

NOT_A_MATRIX = "bias/norm, not a matrix"

_GROUPS_UNKNOWN = "; groups are not stored and were taken as 1"
_PACKED = re.compile(r"weight_(ih|hh)(_l\d+(?:_reverse)?)?$")
_NORM_PARTS = {"weight_g": "weight_v", "original0": "original1"}
_EMBEDDING = re.compile(r"(embed|(^|\.)(wte|wpe|shared)(\.|$)|relative_attention_bias)", re.IGNORECASE)
_STACK = re.compile(r"(^|\.)experts(\.|$)")
_DEPTHWISE = re.compile(r"(^|[._])(dw|dwconv|dw_?conv|depthwise)\w*(\.|$)", re.IGNORECASE)
_TRANSPOSED = re.compile(r"(transpose|deconv|convtr|up_?conv)", re.IGNORECASE)
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One row to be: a matrix, its name and what to call it.

    Attributes
    ----------
    name : str
        Name of the row; ``"tensor[part]"`` for a part.
    tensors : tuple of str
        Tensors of the source that it is made of.
    kind : str
        Kind of layer.
    matricization : str
        What the rows and columns are.
    shape : tuple of int
        Shape of the tensor, or of the part.
    dtype : str
        Stored dtype, the coarsest where several tensors are involved.
    view : View
        Where the entries are.
    remarks : tuple of str
        What a reader has to know.
    """

    name: str
    tensors: tuple[str, ...]
    kind: str
    matricization: str
    shape: tuple[int, ...]
    dtype: str
    view: View
    remarks: tuple[str, ...] = ()


class Inventory:
    """What is known about the tensors of a source beside their data.

    Parameters
    ----------
    source : TensorSource
        The tensors.
    module : torch.nn.Module, optional
        The module they belong to.
    """

    def __init__(self, source: TensorSource, module: Any = None) -> None:
        self.source = source
        self.module = module
        self.infos: dict[str, TensorInfo] = {info.name: info for info in source.tensors}
        self.buffers: frozenset[str] = frozenset()
        if module is not None:
            self.buffers = frozenset(name for name, _ in module.named_buffers(remove_duplicate=False))
        text = source.config.get("text_config")
        self.config: Mapping[str, Any] = {**source.config, **text} if isinstance(text, Mapping) else source.config

    def owner(self, name: str) -> Any:
        """Return the module that owns a tensor, None on disk."""
        return self.source.module_of(name)

    def classes(self, name: str) -> frozenset[str]:
        """Return the names of the classes of the module that owns a tensor; empty if there is none."""
        owner = self.owner(name)
        return frozenset() if owner is None else frozenset(cls.__name__ for cls in type(owner).__mro__)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, or None if the source has none of this name."""
        info = self.infos.get(name)
        return None if info is None else info.shape


def canonical_name(name: str) -> str:
    """Drop what wrappers add to a name: ``torch.compile``, data parallel, checkpointing and adapters."""
    name = _WRAPPERS.sub("", name).removeprefix(".")
    name = name.removeprefix("module.").removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


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
        return info.reason or "not readable"
    if math.prod(info.shape) == 0:
        return f"empty: shape {'x'.join(map(str, info.shape))}"
    reason = _no_matrix(name, info.shape, inventory)
    if reason:
        return reason
    normed = _weight_norm(name, inventory)
    if normed is not None:
        return normed
    if len(info.shape) == 2:
        return _two_axes(name, info, inventory, pairs)
    if _is_convolution(name, info.shape, inventory):
        return [_convolution(name, info, inventory, conv, input_size)]
    return _more_axes(name, info, inventory)


def _no_matrix(name: str, shape: tuple[int, ...], inventory: Inventory) -> str:
    last = name.rpartition(".")[2]
    if not shape:
        return "scalar, not a matrix"
    if name in inventory.buffers:
        return "buffer, not a trained weight"
    if last.startswith("lora_magnitude_vector") or ".lora_magnitude_vector." in name:
        return "DoRA magnitudes, not a matrix: they rescale the outputs after the low-rank update is added"
    if last in _NORM_PARTS and inventory.shape(_sibling(name, _NORM_PARTS[last])) is not None:
        return f"magnitudes of weight normalisation: part of {_sibling(name, _NORM_PARTS[last])}"
    if sum(size > 1 for size in shape) < 2 and len(shape) != 2:
        return NOT_A_MATRIX if _is_vector(name, shape, inventory) else ""
    if last == "bias" and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]:
        return "causal mask, not a weight"
    stem = last.removesuffix("bias").rstrip("_")
    if last.endswith("bias") and any(
        inventory.shape(_sibling(name, other)) is not None for other in (stem, f"{stem}_weight", "weight") if other
    ):
        return "a stack of biases, not a matrix"
    return ""


def _is_vector(name: str, shape: tuple[int, ...], inventory: Inventory) -> bool:
    """Whether a tensor with at most one axis longer than 1 is a vector rather than a narrow kernel."""
    return len(shape) == 1 or not _is_convolution(name, shape, inventory)


def _sibling(name: str, last: str) -> str:
    head, dot, _ = name.rpartition(".")
    return f"{head}{dot}{last}"


def _module_of(name: str) -> str:
    """Return the last word of the module that owns a tensor."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _weight_norm(name: str, inventory: Inventory) -> list[Piece] | None:
    last = name.rpartition(".")[2]
    for magnitude, direction in _NORM_PARTS.items():
        other = _sibling(name, magnitude)
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
    hidden = inventory.shape(_sibling(name, f"weight_hh{match.group(2) or ''}"))
    if hidden is None or len(hidden) != 2:
        return None
    projected = inventory.shape(_sibling(name, f"weight_hr{match.group(2) or ''}")) is not None
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
    bias = inventory.shape(_sibling(name, "bias")) if last == "weight" else None
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
        bias = inventory.shape(_sibling(other, "bias"))
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


def _is_convolution(name: str, shape: tuple[int, ...], inventory: Inventory) -> bool:
    classes = inventory.classes(name)
    if classes:
        return "_ConvNd" in classes or any(re.fullmatch(r"Conv(Transpose)?[123]d", cls) for cls in classes)
    if len(shape) < 3 or _STACK.search(name):
        return False
    return name.endswith(".weight") or "conv" in name.lower()


def _more_axes(name: str, info: TensorInfo, inventory: Inventory) -> list[Piece]:
    shape = info.shape
    inner = shape
    while len(inner) > 2 and inner[0] == 1:
        inner = inner[1:]
    if len(inner) == 2 and len(shape) > 2 and not _STACK.search(name):
        kind = "Embedding" if _EMBEDDING.search(name) else _own_class(name, inventory)
        text = "entries x features" if kind == "Embedding" else "second last axis x last axis"
        return [_piece(name, info, kind, f"{text}; leading axes of length 1 dropped", StackView(name, 0, _pair(inner)))]
    if len(shape) == 3:
        kind = "expert" if _STACK.search(name) else "stack entry"
        return [
            _piece(f"{name}[{index}]", info, kind, "one matrix of the stack", StackView(name, index, _pair(shape[1:])))
            for index in range(shape[0])
        ]
    view = StoredView(name, (math.prod(shape[:1]), math.prod(shape[1:])))
    return [_piece(name, info, _own_class(name, inventory), "first axis x all others", view)]


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]


def _convolution(
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
    bias = inventory.shape(_sibling(name, "bias"))
    by_bias = bias is not None and len(bias) == 1 and bias[0] != shape[0] and bias[0] % shape[1] == 0
    transposed = by_bias or bool(_TRANSPOSED.search(name))
    if shape[1] == 1 and shape[0] > 1 and _DEPTHWISE.search(name) and not transposed:
        return transposed, shape[0], "; one group a row, as the name says"
    return transposed, 1, _GROUPS_UNKNOWN
