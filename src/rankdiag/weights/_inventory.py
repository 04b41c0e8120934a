"""What is known of a source beside its data, and the pieces that a report is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankdiag.weights._views import View

if TYPE_CHECKING:
    from rankdiag.checkpoints import TensorInfo, TensorSource

__all__ = ["Inventory", "Piece", "canonical_name", "sibling"]

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


def sibling(name: str, last: str) -> str:
    """Return the name of another tensor of the same module."""
    head, dot, _ = name.rpartition(".")
    return f"{head}{dot}{last}"
