"""Which tensor of one checkpoint stands for which of the other."""

from __future__ import annotations

from collections.abc import Iterable

from rankdiag.weights._inventory import Inventory, canonical_name

__all__ = ["Matching"]


class Matching:
    """Names of a base by the names of a tuned model.

    Wrappers (``torch.compile``, data parallel, adapters) are looked through. Where hardly a name is shared, one
    leading word such as ``transformer.`` or ``model.`` may stand before all names of one side: a model with a head
    against the bare model.

    Parameters
    ----------
    base, tuned : Inventory
        The two sides.

    Attributes
    ----------
    prefix : str
        Leading word that only the base has (``"+word."``), only the tuned side has (``"-word."``), or empty.
    """

    def __init__(self, base: Inventory, tuned: Inventory) -> None:
        self._base: dict[str, str] = {}
        for name, info in base.infos.items():
            owner = info.alias_of or name
            key = canonical_name(name)
            if key not in self._base or info.alias_of is None:
                self._base[key] = owner
        keys = [canonical_name(name) for name, info in tuned.infos.items() if ".lora_" not in name and info.shape]
        self.prefix = _shift(set(self._base), keys)

    def key(self, name: str) -> str:
        """Return how the base would spell a name of the tuned side, without its wrappers."""
        name = canonical_name(name)
        if self.prefix.startswith("+"):
            return name if name in self._base else self.prefix[1:] + name
        if self.prefix.startswith("-"):
            return name.removeprefix(self.prefix[1:])
        return name

    def base_of(self, name: str) -> str | None:
        """Return the tensor of the base that a tensor of the tuned side stands for, its owner if it is tied."""
        return self._base.get(self.key(name))


def _shift(base: set[str], tuned: Iterable[str]) -> str:
    keys = list(tuned)
    direct = sum(key in base for key in keys)
    best, best_count = "", direct
    heads = {name.partition(".")[0] + "." for name in (*base, *keys) if "." in name}
    for head in sorted(heads):
        added = sum(key in base or head + key in base for key in keys)
        removed = sum(key.removeprefix(head) in base for key in keys)
        for mark, count in (("+", added), ("-", removed)):
            if count > max(2 * direct, best_count):
                best, best_count = mark + head, count
    return best
