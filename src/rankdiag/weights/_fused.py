"""Matrices that are stored as one: which rows belong to which part.

A layout is a sequence of ``(part, length)`` pairs along the output axis. It is repeated until the axis is used
up, so that ``(("q", 64), ("k", 64), ("v", 64))`` says both "three blocks of 64" and "head after head".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rankdiag._validate import describe, integer, string
from rankdiag.weights._views import Runs

__all__ = ["GATES", "FusedLayout", "check_pairs", "layout_from_config", "runs_of"]

FusedLayout = tuple[tuple[str, int], ...]

# torch.nn.RNN, GRU and LSTM stack their gates in this order (their documentation, "weight_ih_l[k]").
GATES: Mapping[int, tuple[str, ...]] = {1: ("h",), 3: ("r", "z", "n"), 4: ("i", "f", "g", "o")}

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads", "n_kv_heads")
_WIDTH = ("hidden_size", "n_embd", "d_model", "embed_dim")

# How each architecture of transformers cuts its fused projection; taken from the forward pass of each model.
_BY_HEAD = {"bloom", "deberta", "gpt_neox", "gpt_neox_japanese", "minimax", "persimmon"}
_GROUPED_BLOCKS = {"dbrx", "exaone4_5", "phi3", "phi4_multimodal"}
_THIRDS = {"att_proj", "c_attn", "qkv", "wqkv"}
_FUSED = {*_THIRDS, "in_proj", "qkv_proj", "query_key_value"}


def check_pairs(pairs: Any) -> dict[re.Pattern[str], FusedLayout | None]:
    """Check the argument `pairs` and return pattern -> layout; the layout None stands for "from the config".

    Raises
    ------
    TypeError
        If it is neither None, ``"config"``, a sequence of pairs nor a mapping of patterns to such sequences.
    ValueError
        If a pattern is no regular expression, a length is below 1 or a part has no name.
    """
    if pairs is None:
        return {}
    if isinstance(pairs, str):
        if pairs != "config":
            raise ValueError(f"`pairs` must be None, 'config', pairs (part, rows) or a mapping to them; got {pairs!r}")
        return {re.compile(""): None}
    if isinstance(pairs, Mapping):
        found: dict[re.Pattern[str], FusedLayout | None] = {}
        for pattern, layout in pairs.items():
            try:
                compiled = re.compile(string(pattern, "pairs"))
            except re.error as error:
                raise ValueError(f"`pairs` must have regular expressions as keys; got {pattern!r} ({error})") from None
            found[compiled] = None if layout == "config" else _layout(layout)
        return found
    return {re.compile(""): _layout(pairs)}


def _layout(value: Any) -> FusedLayout:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"`pairs` must hold sequences of pairs (part, rows) such as ('q', 64); got {describe(value)}")
    layout = []
    for entry in value:
        if isinstance(entry, (str, bytes)) or not isinstance(entry, Sequence) or len(entry) != 2:
            raise TypeError(f"`pairs` must hold pairs (part, rows) such as ('q', 64); got {describe(entry)}")
        part = string(entry[0], "pairs")
        if not part:
            raise ValueError("`pairs` must name every part; got an empty name")
        layout.append((part, integer(entry[1], "pairs", low=1)))
    return tuple(layout)


def runs_of(layout: FusedLayout, total: int) -> dict[str, Runs]:
    """Return the positions of each part along an axis of length `total`.

    Raises
    ------
    ValueError
        If the layout does not fill the axis a whole number of times, or names a part twice.
    """
    period = sum(length for _, length in layout)
    names = [part for part, _ in layout]
    if len(set(names)) < len(names):
        raise ValueError(f"`pairs` must name each part once; got {names}")
    if total % period:
        raise ValueError(
            f"`pairs` must fill the output axis a whole number of times; got {period} rows ({layout}) for an axis of "
            f"{total}"
        )
    found, offset = {}, 0
    for part, length in layout:
        found[part] = Runs(offset, length, period, total)
        offset += length
    return found


def layout_from_config(component: str, out: int, inner: int, config: Mapping[str, Any]) -> FusedLayout | None:
    """Return the layout of a fused projection, or None where name and config do not say.

    Parameters
    ----------
    component : str
        Last part of the module's name: ``"c_attn"``, ``"query_key_value"``, ...
    out, inner : int
        Length of the output and input axes.
    config : mapping
        The model's config, with ``model_type``; may be empty.
    """
    name = component.lower()
    if name == "in_proj_weight":
        return _equal(("q", "k", "v"), out)
    if name == "gate_up_proj":
        return _equal(("gate", "up"), out)
    if name not in _FUSED:
        return None
    kind = config.get("model_type", "")
    heads = _first(config, _HEADS)
    if kind == "falcon":
        return _falcon(out, heads, config)
    if kind == "gpt_bigcode":
        return _bigcode(out, inner, heads, config)
    if kind == "codegen":
        # Four blocks, one for each device that the model was trained on, each holding q, v and k.
        return _repeat(("q", "v", "k"), out, 4)
    if kind in _BY_HEAD:
        return _repeat(("q", "k", "v"), out, heads)
    if kind in _GROUPED_BLOCKS and name in {"qkv_proj", "wqkv", "qkv"}:
        return _grouped(out, heads, config)
    if name == "c_attn" and out == 2 * inner:
        return _equal(("k", "v"), out)
    if name in _THIRDS and out == 3 * inner:
        return _equal(("q", "k", "v"), out)
    return None


def _equal(parts: tuple[str, ...], out: int) -> FusedLayout | None:
    return tuple((part, out // len(parts)) for part in parts) if out % len(parts) == 0 else None


def _repeat(parts: tuple[str, ...], out: int, times: int | None) -> FusedLayout | None:
    if times is None or out % (len(parts) * times):
        return None
    return tuple((part, out // (len(parts) * times)) for part in parts)


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _grouped(out: int, heads: int | None, config: Mapping[str, Any]) -> FusedLayout | None:
    inner = config.get("attn_config")
    key_heads = _first(inner, _KEY_HEADS) if isinstance(inner, Mapping) else None
    key_heads = key_heads or _first(config, _KEY_HEADS) or heads
    if heads is None or key_heads is None or out % (heads + 2 * key_heads):
        return None
    head = out // (heads + 2 * key_heads)
    return ("q", heads * head), ("k", key_heads * head), ("v", key_heads * head)


def _falcon(out: int, heads: int | None, config: Mapping[str, Any]) -> FusedLayout | None:
    if heads is None:
        return None
    if config.get("new_decoder_architecture"):
        key_heads = _first(config, _KEY_HEADS) or heads
        if heads % key_heads or out % (heads + 2 * key_heads):
            return None
        head = out // (heads + 2 * key_heads)
        return ("q", head * (heads // key_heads)), ("k", head), ("v", head)
    if config.get("multi_query", True):
        return None if out % (heads + 2) else _single_key(out, heads)
    return _repeat(("q", "k", "v"), out, heads)


def _bigcode(out: int, inner: int, heads: int | None, config: Mapping[str, Any]) -> FusedLayout | None:
    if heads is None:
        return None
    if config.get("multi_query", True):
        return None if out % (heads + 2) or out == 2 * inner else _single_key(out, heads)
    return _repeat(("q", "k", "v"), out, heads)


def _single_key(out: int, heads: int) -> FusedLayout:
    head = out // (heads + 2)
    return ("q", heads * head), ("k", head), ("v", head)
