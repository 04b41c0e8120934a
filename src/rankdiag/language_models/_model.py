"""A model as the engine sees it: one call that gives hidden states, and no trace left behind.

Wrappers of accelerate, DDP and torch.compile are taken off, adapters of peft stay active. The network without its
head is called directly; a sharded model is called through its root, with a hook on that network.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from rankdiag._validate import describe
from rankdiag.language_models._head import Head, find_head

__all__ = ["Subject", "adapt", "untouched"]

_LAYERS = 8  # wrappers around a model; more than this is a cycle
_SUPPORTED = ("sdpa", "eager")


@dataclass(slots=True, kw_only=True)
class Subject:
    """One model, unwrapped.

    Attributes
    ----------
    given : object
        What the caller passed.
    causal : torch.nn.Module or None
        The HF model with its head; None for a plain callable.
    backbone : callable
        The network without head, or the callable itself.
    accepts : frozenset of str
        Arguments that the backbone takes by name; empty for a plain callable, which takes three by position.
    root : torch.nn.Module or None
        The module to call instead of the backbone where parameters are sharded.
    name : str
        Class of the model, for messages.
    head : Head or None
        Its output projection.
    counts_from_zero : bool
        Whether positions 0, 1, 2, ... are what it takes where none are given; else none are given to it.
    """

    given: Any
    causal: Any
    backbone: Any
    accepts: frozenset[str]
    root: Any
    name: str
    head: Head | None = field(default=None)
    counts_from_zero: bool = True

    # --- what is known of it ---------------------------------------------------------------------------------

    @property
    def module(self) -> torch.nn.Module | None:
        """The module whose mode has to be set and restored."""
        return self.given if isinstance(self.given, torch.nn.Module) else None

    @property
    def config(self) -> Any:
        """Configuration of the text network, or None."""
        config = getattr(self.causal, "config", None)
        read = getattr(config, "get_text_config", None)
        return read() if callable(read) else config

    @property
    def device(self) -> torch.device:
        """Where token ids have to be."""
        embedding = self.embedding
        tensor = None if embedding is None else getattr(embedding, "weight", None)
        if tensor is None and self.module is not None:
            tensor = next(self.module.parameters(), None)
        return torch.device("cpu") if tensor is None else cast(torch.device, tensor.device)

    @property
    def embedding(self) -> Any:
        """The input embedding, or None."""
        read = getattr(self.causal, "get_input_embeddings", None)
        return read() if callable(read) else None

    @property
    def n_embeddings(self) -> int | None:
        """Rows of the input embedding: ids must be below."""
        weight = getattr(self.embedding, "weight", None)
        return None if weight is None else int(weight.shape[0])

    @property
    def position_limit(self) -> int | None:
        """Longest sequence that the configuration allows, or None."""
        limit = getattr(self.config, "max_position_embeddings", None)
        return int(limit) if isinstance(limit, int) and limit > 0 else None

    @property
    def turning_length(self) -> int | None:
        """Length beyond which rotary factors of a whole forward are others (longrope); None if they never are."""
        config = self.config
        found = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
        entries = [entry for entry in found if isinstance(entry, dict)]
        entries += [inner for entry in entries for inner in entry.values() if isinstance(inner, dict)]
        for entry in entries:
            if entry.get("rope_type", entry.get("type")) == "longrope":
                length = entry.get("original_max_position_embeddings")
                length = getattr(config, "original_max_position_embeddings", None) if length is None else length
                return int(length) if length is not None else self.position_limit
        return None

    @property
    def attention(self) -> str:
        """Name of the attention implementation."""
        return str(getattr(self.config, "_attn_implementation", None) or "callable")

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating parameter; float32 for a plain callable."""
        if self.module is not None:
            for parameter in self.module.parameters():
                if parameter.is_floating_point():
                    return parameter.dtype
        return torch.float32

    def packed_refusal(self, depth: int) -> str:
        """Say why branches of a tree cannot share one sequence on this model; empty if nothing speaks against it.

        Parameters
        ----------
        depth : int
            Tokens of the longest response with its prompt.
        """
        if self.causal is None:
            return ""  # the comparison with the plain layout decides
        if "position_ids" not in self.accepts or "attention_mask" not in self.accepts:
            return f"{type(self.backbone).__name__} takes no position ids, as packed branches need"
        if not self.counts_from_zero:
            return f"positions of {type(self.backbone).__name__} do not count from 0"
        config = self.config
        if self.attention not in _SUPPORTED:
            return f"attention {self.attention!r} takes no mask of its own for every pair of tokens"
        if getattr(config, "alibi", False) or getattr(config, "model_type", "") in {"bloom", "mpt"}:
            return "ALiBi biases follow the place in the row, not the position ids"
        kinds = set(getattr(config, "layer_types", None) or ())
        other = kinds - {"full_attention", "sliding_attention", "chunked_attention"}
        if other:
            return f"layers of kind {', '.join(sorted(map(str, other)))} read every token before"
        window = getattr(config, "sliding_window", None)
        slides = getattr(config, "use_sliding_window", True) and (not kinds or "sliding_attention" in kinds)
        if isinstance(window, int) and slides and window < depth:
            return f"the sliding window of {window} tokens is shorter than the longest row, {depth} tokens"
        piece = getattr(config, "attention_chunk_size", None)
        if isinstance(piece, int) and piece < depth and (not kinds or "chunked_attention" in kinds):
            return f"attention in chunks of {piece} tokens is shorter than the longest row, {depth} tokens"
        return ""

    # --- running it ------------------------------------------------------------------------------------------

    def states(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states, after the last normalisation.

        Parameters
        ----------
        ids, positions : torch.Tensor of int64, shape (B, T)
            Tokens and their positions.
        mask : torch.Tensor of bool
            (B, T), True at tokens that are no padding, or (B, 1, T, T), True where a row may look at a column.

        Returns
        -------
        torch.Tensor
            Shape (B, T, d), in the dtype of the model.
        """
        if self.causal is None:
            return _checked_states(self.backbone(ids, mask, positions), ids, self.name)
        if mask.ndim == 2:
            # Nothing in a causal row sees the padding behind it. Masked, a padding token may see nothing at all (behind
            # a sliding window, say), and a softmax of nothing is NaN.
            mask = torch.ones_like(mask)
        if mask.ndim == 4 and self.attention == "eager":  # eager attention would add True as 1
            floor = torch.finfo(self.dtype).min
            mask = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(~mask, floor)
        options = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        if not self.counts_from_zero:
            del options["position_ids"]
        arguments = {name: value for name, value in options.items() if name in self.accepts}
        if self.root is None:
            return _checked_states(_last_state(self.backbone(**arguments)), ids, self.name)
        kept: list[torch.Tensor] = []
        hook = self.backbone.register_forward_hook(lambda module, inputs, output: kept.append(_last_state(output)))
        try:
            self.root(**arguments, logits_to_keep=1)
        finally:
            hook.remove()
        return _checked_states(kept[-1], ids, self.name)


def _last_state(output: Any) -> torch.Tensor:
    found = getattr(output, "last_hidden_state", None)
    if found is None:
        found = output[0] if isinstance(output, (tuple, list)) else output
    return cast(torch.Tensor, found)


def _checked_states(states: Any, ids: torch.Tensor, name: str) -> torch.Tensor:
    if not isinstance(states, torch.Tensor) or states.ndim != 3 or states.shape[:2] != ids.shape:
        raise ValueError(
            f"`models`: {name} must return hidden states of shape ({ids.shape[0]}, {ids.shape[1]}, d) for these ids; "
            f"got {describe(states)}"
        )
    return states


def adapt(model: Any, name: str = "models") -> Subject:
    """Unwrap a model and find its network, its head and how it has to be called.

    Parameters
    ----------
    model : torch.nn.Module or callable
        A causal language model of transformers, perhaps wrapped by peft, torch.compile, accelerate or DDP; or any
        callable ``(input_ids, attention_mask, position_ids) -> (B, T, d)``.
    name : str
        Name of the argument in messages.

    Returns
    -------
    Subject
        The model as the engine calls it.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is an encoder-decoder model, or a prompt-learning adapter, whose virtual tokens no caller sees.
    """
    if isinstance(model, Subject):
        return model
    if not callable(model):
        raise TypeError(f"`{name}` must be a language model or a callable that returns states; got {describe(model)}")
    inner = _unwrap(model, name)
    config = getattr(inner, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"`{name}` must be a decoder-only language model; {type(inner).__name__} has an encoder, so that no state "
            "predicts the next token of prompt and response"
        )
    backbone = getattr(inner, "base_model", None)
    if inner is not None and backbone is inner:  # the prefix of some classes names another part than the network
        read = getattr(inner, "get_decoder", None)
        backbone = read() if callable(read) else None
        inside = getattr(inner, "model", None)
        backbone = inside if backbone is inner or backbone is None else backbone
        backbone = inner if backbone is None else backbone  # a network that never had a head
    if config is None or not isinstance(backbone, torch.nn.Module):
        return Subject(given=model, causal=None, backbone=model, accepts=frozenset(), root=None, name=_name(model))
    accepts = frozenset(inspect.signature(backbone.forward).parameters)
    root = model if _is_sharded(model) else None
    return Subject(
        given=model,
        causal=inner,
        backbone=backbone,
        accepts=accepts,
        root=root,
        name=type(inner).__name__,
        head=find_head(inner, backbone),
    )


def _name(model: Any) -> str:
    return str(getattr(model, "__name__", type(model).__name__))


def _unwrap(model: Any, name: str) -> Any:
    for _ in range(_LAYERS):
        compiled = getattr(model, "_orig_mod", None)
        adapters = getattr(model, "peft_config", None)
        if isinstance(compiled, torch.nn.Module):
            model = compiled
        elif isinstance(adapters, dict) and callable(getattr(model, "get_base_model", None)):
            if any(getattr(config, "is_prompt_learning", False) for config in adapters.values()):
                raise ValueError(
                    f"`{name}` must not be a prompt-learning adapter: its virtual tokens stand in front of every "
                    "prompt and are not in the data; merge or drop it"
                )
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), torch.nn.Module) and not hasattr(model, "base_model"):
            model = model.module
        else:
            break
    return model


def _is_sharded(model: Any) -> bool:
    kinds = {base.__name__ for base in type(model).__mro__}
    return bool(kinds & {"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"})


@contextlib.contextmanager
def untouched(subjects: Sequence[Subject], *, gradients: bool = False) -> Iterator[None]:
    """Run models in evaluation mode and leave no trace: modes of all sub-modules and random states are restored.

    Parameters
    ----------
    subjects : sequence of Subject
        The models.
    gradients : bool
        Whether autograd stays on; otherwise everything runs in inference mode.
    """
    modules = [module for subject in subjects if subject.module is not None for module in subject.module.modules()]
    training = [module for module in modules if module.training]
    devices = sorted({subject.device.index or 0 for subject in subjects if subject.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            for module in training:
                module.training = False
            # Gathered parts of a sharded model must not become inference tensors.
            sharded = any(subject.root is not None for subject in subjects)
            quiet = torch.no_grad() if sharded else torch.inference_mode()
            with torch.enable_grad() if gradients else quiet:
                yield
        finally:
            for module in training:
                module.training = True
