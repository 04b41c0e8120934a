"""Low-rank adapters: which tensors belong together, and the factor in front of their product.

The names are those that peft writes: ``MODULE.lora_A.weight`` on disk, ``MODULE.lora_A.ADAPTER.weight`` in memory.
The scaling is ``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with rank stabilisation (arXiv:2312.03732), where
``alpha_pattern`` and ``rank_pattern`` override both for single modules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankdiag.weights._inventory import Inventory, Piece
from rankdiag.weights._views import LowRankView

__all__ = ["AdapterPair", "adapter_pairs", "pair_pieces"]

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B|down|up)(?:\.(?P<adapter>[^.]+))?\.weight")
_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>A|B)(?:\.(?P<adapter>[^.]+))?")
_EPS_ORDER = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPair:
    """The two factors of one update.

    Attributes
    ----------
    module : str
        The module they adapt, as the source spells it.
    adapter : str
        Name of the adapter, empty on disk.
    left, right : str
        Tensors B and A.
    embedding : bool
        Whether they adapt an embedding, whose weight is the transposed update.
    """

    module: str
    adapter: str
    left: str
    right: str
    embedding: bool


def adapter_pairs(inventory: Inventory) -> list[AdapterPair]:
    """Return the pairs of factors in a source; a factor without its partner is in none."""
    found: dict[tuple[str, str, bool], dict[str, str]] = {}
    for name, info in inventory.infos.items():
        embedding = False
        match = _FACTOR.fullmatch(name)
        if match is None:
            match, embedding = _EMBEDDING.fullmatch(name), True
        if match is None or not info.readable or len(info.shape) < 2:
            continue
        side = {"down": "A", "up": "B"}.get(match["side"], match["side"])
        found.setdefault((match["module"], match["adapter"] or "", embedding), {})[side] = name
    return [
        AdapterPair(module=module, adapter=adapter, left=sides["B"], right=sides["A"], embedding=embedding)
        for (module, adapter, embedding), sides in found.items()
        if len(sides) == 2
    ]


def pair_pieces(pair: AdapterPair, inventory: Inventory) -> list[Piece] | str:
    """Return the updates that a pair makes: one, or one for each expert; a reason where the factors do not fit.

    Parameters
    ----------
    pair : AdapterPair
        The two factors.
    inventory : Inventory
        All tensors.

    Returns
    -------
    list of Piece or str
        Pieces with a `LowRankView`, or why there are none.
    """
    left, right = inventory.infos[pair.left].shape, inventory.infos[pair.right].shape
    width, rows = math.prod(left[1:]), right[0]
    scaling, rank, remarks = _scaling(pair, rows, inventory)
    groups, experts = 1, 1
    if width == rows:
        experts = rows // rank if rank and rows % rank == 0 and len(left) == 2 else 1
    elif len(left) > 2 and rows % width == 0 and left[0] % (rows // width) == 0:
        groups = rows // width
    else:
        return f"B of shape {_cross(left)} and A of shape {_cross(right)} do not multiply"
    full = (left[0], math.prod(right[1:]))
    suffix = f"[{pair.adapter}]" if pair.adapter not in {"", "default"} else ""
    name = f"{pair.module}.lora_embedding{suffix}" if pair.embedding else f"{pair.module}.lora{suffix}"
    inner = "entries" if pair.embedding else ("(in*kernel)" if len(right) > 2 else "in")
    text = f"{scaling:g} * B A: out x {inner}"
    dtypes = [inventory.infos[tensor].dtype for tensor in (pair.left, pair.right)]
    return [
        Piece(
            name=f"{name}[{index}]" if experts > 1 else name,
            tensors=(pair.left, pair.right),
            kind="LoRA update",
            matricization=f"expert {index}: {text}" if experts > 1 else text,
            shape=full,
            dtype=max(dtypes, key=lambda dtype: _EPS_ORDER.index(dtype) if dtype in _EPS_ORDER else len(_EPS_ORDER)),
            view=LowRankView(
                left=pair.left,
                right=pair.right,
                full=full,
                rank=rows // experts,
                scaling=scaling,
                expert=(index, experts) if experts > 1 else None,
                groups=groups,
            ),
            remarks=remarks,
        )
        for index in range(experts)
    ]


def _cross(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _scaling(pair: AdapterPair, rows: int, inventory: Inventory) -> tuple[float, int, tuple[str, ...]]:
    """Return the factor in front, the rank it belongs to, and what a reader has to know about it."""
    live = _live_scaling(pair, inventory)
    if live is not None:
        return *live, _dora(pair, inventory)
    config = inventory.config
    alpha = config.get("lora_alpha")
    rank = config.get("r")
    if not isinstance(alpha, (int, float)) or not isinstance(rank, int) or rank < 1:
        text = "scaling unknown (no adapter config beside the factors), taken as 1: norms are those of B A"
        return 1.0, rows, (text, *_dora(pair, inventory))
    module = pair.module.removeprefix("base_model.model.")
    rank = _pattern(config.get("rank_pattern"), module, rank)
    alpha = _pattern(config.get("alpha_pattern"), module, alpha)
    remarks = _dora(pair, inventory)
    if rows % int(rank):
        remarks += (f"the config says r = {rank}, the factors have {rows}; the scaling uses {rows}",)
        rank = rows
    stabilised = bool(config.get("use_rslora"))
    return float(alpha) / (math.sqrt(rank) if stabilised else rank), int(rank), remarks


def _live_scaling(pair: AdapterPair, inventory: Inventory) -> tuple[float, int] | None:
    if inventory.module is None:
        return None
    owner: Any = inventory.module
    for word in pair.module.split("."):
        owner = getattr(owner, word, None)
    scaling, rank = getattr(owner, "scaling", None), getattr(owner, "r", None)
    if not isinstance(scaling, Mapping) or not isinstance(rank, Mapping):
        return None
    if pair.adapter not in scaling or pair.adapter not in rank:
        return None
    return float(scaling[pair.adapter]), int(rank[pair.adapter])


def _pattern(patterns: Any, module: str, default: Any) -> Any:
    """Return the entry of the first pattern that a module's name ends with, as peft matches them."""
    if isinstance(patterns, Mapping):
        for pattern, value in patterns.items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error:  # peft itself would refuse to load such a config
                continue
    return default


def _dora(pair: AdapterPair, inventory: Inventory) -> tuple[str, ...]:
    stem = f"{pair.module}.lora_magnitude_vector"
    if any(name == stem or name.startswith(f"{stem}.") for name in inventory.infos):
        return ("DoRA: the update before its magnitudes rescale the outputs; the full update needs the base",)
    return ()
