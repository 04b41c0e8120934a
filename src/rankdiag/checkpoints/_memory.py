"""Tensors that are in memory already: torch modules and state dicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import input_dtype, is_torch
from rankdiag._validate import describe
from rankdiag.checkpoints._info import TensorInfo, unreadable_reason
from rankdiag.checkpoints._source import Format, Span, TensorSource

__all__ = ["MemorySource", "ModuleSource", "open_module", "open_state_dict"]

_CHUNK = 1 << 25  # bytes of rows copied at once where the axes of a tensor cannot be joined in place


class MemorySource(TensorSource):
    """Tensors and arrays by name; see `TensorSource` and `open_source`.

    Parameters
    ----------
    tensors : mapping of str to object
        The entries of a state dict.
    location : str
        What was opened.
    format : {"module", "state_dict"}
        Kind of source.
    config : mapping, optional
        Configuration of a module.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        *,
        location: str,
        format: Format,  # noqa: A002 - as in TensorSource
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(location=location, format=format, tensors=_describe_all(tensors, location), config=config)
        self._tensors = dict(tensors)

    def read(self, name: str) -> NDArray[Any]:
        """Read a whole tensor; see `TensorSource.read`. Native 32- and 64-bit floats are read-only views."""
        info = self._readable(name)
        view = _plain_view(self._tensors[name]) if info.dtype in {"float32", "float64"} else None
        if view is None:
            return super().read(name)
        view.flags.writeable = False
        return view

    def _fill(self, info: TensorInfo, rows: Span, columns: Span, out: NDArray[Any]) -> None:
        tensor = self._tensors[info.name]
        width = info.matrix_shape[1]
        joined = tensor.ndim <= 2 or columns == (0, width) or _is_contiguous(tensor)
        step = len(out) if joined else max(1, _CHUNK * info.size // max(1, info.nbytes * width))
        for start in range(0, len(out), step):
            piece = out[start : start + step]
            first = rows[0] + start
            part = tensor.reshape(1, 1) if tensor.ndim == 0 else tensor[first : first + len(piece)]
            _copy(part, (len(piece), width), columns, piece)

    def close(self) -> None:
        """Drop the references to the tensors."""
        super().close()
        self._tensors = {}


class ModuleSource(MemorySource):
    """State of a torch module, with the owner of every tensor; see `TensorSource` and `open_source`.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is left as it is.
    """

    def __init__(self, module: Any) -> None:
        tensors = module.state_dict()
        if not tensors:
            raise ValueError(f"`source` must hold at least one tensor; got a {type(module).__name__} without any")
        super().__init__(tensors, location=type(module).__name__, format="module", config=_config_of(module))
        self._owners: dict[str, Any] = dict(module.named_modules(remove_duplicate=False))

    def module_of(self, name: str) -> Any:
        """Return the torch module that owns a parameter; see `TensorSource.module_of`."""
        self.info(name)
        path = name.rpartition(".")[0]
        owner = self._owners.get(path)
        if type(owner).__name__ == "ParametrizationList":  # it sits at LAYER.parametrizations.WEIGHT
            owner = self._owners.get(path.rpartition("parametrizations.")[0].removesuffix("."), owner)
        return owner

    def module_kind(self, name: str) -> str | None:
        """Name the torch class that owns a parameter; see `TensorSource.module_kind`."""
        owner = self.module_of(name)
        if owner is None:
            return None
        from torch.nn.utils.parametrize import type_before_parametrizations

        return type_before_parametrizations(owner).__name__

    def close(self) -> None:
        """Drop the references to the module and its tensors."""
        super().close()
        self._owners = {}


def open_module(module: Any) -> ModuleSource:
    """Open a torch module; see `open_source`."""
    import torch

    with torch.no_grad():
        return ModuleSource(module)


def open_state_dict(tensors: Mapping[str, Any]) -> MemorySource:
    """Open a state dict; see `open_source`."""
    for name in tensors:
        if not isinstance(name, str):
            raise TypeError(f"`source` must map names to tensors; got the key {describe(name)}")
    if not tensors:
        raise ValueError("`source` must hold at least one tensor; got an empty state dict")
    if not any(_is_array(value) for value in tensors.values()):
        inner = [
            name
            for name, value in tensors.items()
            if isinstance(value, Mapping) and any(_is_array(entry) for entry in value.values())
        ]
        hint = f". The tensors are one level down: pass source[{inner[0]!r}]" if inner else ""
        raise TypeError(
            f"`source` must map names to tensors; got a mapping of {len(tensors)} entries without one{hint}"
        )
    return MemorySource(tensors, location="state dict", format="state_dict")


# --- what is there -------------------------------------------------------------------------------------------------


def _is_array(value: object) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or is_torch(value)


def _describe_all(tensors: Mapping[str, Any], location: str) -> list[TensorInfo]:
    owners: dict[Any, str] = {}
    infos = []
    for name, value in tensors.items():
        if not _is_array(value):
            infos.append(_unreadable(name, "", f"no tensor but {describe(value)}"))
            continue
        info, key = _describe_torch(name, value, location) if is_torch(value) else _describe_numpy(name, value)
        owner = name if key is None else owners.setdefault(key, name)
        if owner != name:
            info = TensorInfo(
                name=name,
                shape=info.shape,
                dtype=info.dtype,
                nbytes=info.nbytes,
                alias_of=owner,
                readable=info.readable,
                reason=info.reason,
            )
        infos.append(info)
    return infos


def _unreadable(name: str, dtype: str, reason: str, shape: tuple[int, ...] = (), nbytes: int = 0) -> TensorInfo:
    return TensorInfo(name=name, shape=shape, dtype=dtype, nbytes=nbytes, readable=False, reason=reason)


def _describe_numpy(name: str, array: Any) -> tuple[TensorInfo, Any]:
    dtype = array.dtype.name
    reason = unreadable_reason(dtype)
    if isinstance(array, np.ma.MaskedArray):
        reason = "masked array: fill the masked entries first"
    info = TensorInfo(
        name=name,
        shape=tuple(array.shape),
        dtype=dtype,
        nbytes=int(array.nbytes),
        readable=not reason,
        reason=reason,
    )
    if array.size == 0 or not isinstance(array, np.ndarray):
        return info, None
    return info, ("numpy", array.__array_interface__["data"][0], array.shape, array.strides, dtype)


def _describe_torch(name: str, tensor: Any, location: str) -> tuple[TensorInfo, Any]:
    import torch

    dtype = input_dtype(tensor)
    if torch.nn.parameter.is_lazy(tensor):
        return _unreadable(name, dtype, "parameter of a lazy module that has not run yet"), None
    if tensor.is_nested:
        return _unreadable(name, dtype, "nested tensor"), None
    shape = tuple(int(size) for size in tensor.shape)
    nbytes = math.prod(shape) * tensor.element_size()
    reason = _torch_reason(tensor, name, location) or unreadable_reason(dtype)
    if reason:
        info = _unreadable(name, dtype, reason, shape, nbytes)
    else:
        info = TensorInfo(name=name, shape=shape, dtype=dtype, nbytes=nbytes)
    return info, _torch_key(tensor)


def _torch_reason(tensor: Any, name: str, location: str) -> str:
    import torch

    plain: Any = torch.Tensor
    if type(tensor).__torch_dispatch__ is not plain.__torch_dispatch__:
        return f"tensor subclass {type(tensor).__name__}: no plain data behind it"
    if tensor.layout != torch.strided:
        return f"sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized:
        return f"quantised tensor ({input_dtype(tensor)})"
    if tensor.device.type == "meta":
        raise ValueError(
            f"`source` must hold its weights; tensor {name!r} of {location!r} is on the meta device and has no data. "
            "Pass the path of the checkpoint instead of the model"
        )
    return ""


def _torch_key(tensor: Any) -> Any:
    """Return what two tied tensors have in common; None if the tensor has no memory or no entries."""
    import torch

    if tensor.layout != torch.strided:
        return None
    try:
        place = tensor.data_ptr()  # 0 for a tensor without entries
    except RuntimeError:  # a subclass without storage
        return None
    return (tensor.device, place, tuple(tensor.shape), tensor.stride(), tensor.dtype) if place else None


def _config_of(module: Any) -> dict[str, Any]:
    """Return the configuration that a module of transformers or peft carries; empty if it has none."""
    holders: tuple[Any, ...] = (module, getattr(module, "module", None))  # the second: data-parallel wrappers
    for holder in holders:
        try:
            config: Any = holder.config
            return dict(config if isinstance(config, Mapping) else config.to_dict())
        except Exception:  # noqa: S112 - the attribute is foreign and may do anything; it is only a help
            continue
    return {}


# --- reading -------------------------------------------------------------------------------------------------------


def _is_contiguous(tensor: Any) -> bool:
    return bool(tensor.is_contiguous() if is_torch(tensor) else tensor.flags.c_contiguous)


def _plain_view(tensor: Any) -> NDArray[Any] | None:
    if not is_torch(tensor):
        array = np.asarray(tensor)
        return array.view() if array.dtype.isnative else None
    import torch

    if tensor.device.type != "cpu" or tensor.is_neg():
        return None
    view: NDArray[Any] = tensor.detach().as_subclass(torch.Tensor).numpy()
    return view


def _copy(part: Any, shape: tuple[int, int], columns: Span, out: NDArray[Any]) -> None:
    """Write some columns of a few rows into `out`."""
    if not is_torch(part):
        with np.errstate(invalid="ignore"):  # signalling NaN bits would warn; NaN is for the caller to judge
            out[...] = np.asarray(part).reshape(shape)[:, columns[0] : columns[1]]
        return
    import torch

    with torch.no_grad():
        plain = part.detach().as_subclass(torch.Tensor)
        torch.from_numpy(out).copy_(plain.reshape(shape)[:, columns[0] : columns[1]].to("cpu"))
