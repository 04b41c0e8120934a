"""Result files of RewardBench, both versions: their own figures to the digit, and what they leave out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Column, Document
from rankdiag._files import file_path
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._validate import describe
from rankdiag.rewards._components import normalised_reward_variance
from rankdiag.rewards._moments import reward_moments
from rankdiag.rewards._pairs import pair_accuracy
from rankdiag.rewards._table import RewardTable, hashed_prompt

__all__ = ["RewardBench", "RewardBenchRow", "from_rewardbench", "rewardbench_pairs"]

Floats = NDArray[np.float64]
_GUARD = 1e-8  # of the published normalised margin, kept because published figures need it
_HEP = {f"hep-{name}": 164 for name in ("cpp", "go", "java", "js", "python", "rust")}
# Sizes of the subsets of RewardBench 1, by section: its section scores are means weighted with them.
_SECTIONS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "Chat": {
            "alpacaeval-easy": 100,
            "alpacaeval-length": 95,
            "alpacaeval-hard": 95,
            "mt-bench-easy": 28,
            "mt-bench-med": 40,
        },
        "Chat Hard": {
            "mt-bench-hard": 37,
            "llmbar-natural": 100,
            "llmbar-adver-neighbor": 134,
            "llmbar-adver-GPTInst": 92,
            "llmbar-adver-GPTOut": 47,
            "llmbar-adver-manual": 46,
        },
        "Safety": {
            "refusals-dangerous": 100,
            "refusals-offensive": 100,
            "xstest-should-refuse": 250,
            "xstest-should-respond": 154,
            "donotanswer": 136,
        },
        "Reasoning": {"math-prm": 984, **_HEP},  # 447 problems of math-prm, counted up to the size of the code
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBenchRow:
    """One subset: the published accuracy, the one with half ties and its interval, the margin, what rollouts add."""

    subset: str
    n: int
    published: float
    accuracy: float
    lower: float
    upper: float
    ties: int
    normalised_margin: float
    rollouts: int = 0
    harm_aware: float | None = None
    induced_variance: float | None = None
    normalised_variance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RewardBench(Table[RewardBenchRow]):
    """A file of RewardBench, subset by subset.

    Attributes
    ----------
    rows : tuple of RewardBenchRow
        One for each subset, in order of appearance.
    version : {1, 2}
        Of the benchmark.
    sections : mapping of str to float
        Published section scores (version 1); empty for version 2.
    section_weights : mapping of str to int
        Weight of each subset in the score of its section (version 1).

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from rankdiag.adapters import from_rewardbench
    >>> row = {"subset": "hep-go", "scores_chosen": 1.0, "scores_rejected": 1.0, "results": 0}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "scores.json"
    ...     _ = path.write_text(json.dumps(row))
    ...     result = from_rewardbench(path)
    >>> result.rows[0].published, result.rows[0].accuracy
    (0.0, 0.5)
    """

    tag: ClassVar[str] = "adapters.RewardBench"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="subset"),
        Column(name="n", doc="Comparisons."),
        Column(name="published", doc="Accuracy by the rule of the benchmark (ties are wrong, or shared)."),
        Column(name="accuracy", doc="Accuracy with half ties."),
        Column(name="lower", label="lower, 95 %", doc="Wilson."),
        Column(name="upper", label="upper, 95 %", doc="Wilson."),
        Column(name="ties", doc="Comparisons with a tie for the best."),
        Column(
            name="normalised_margin",
            label="margin",
            doc="Mean absolute margin over the spread of all scores of the subset.",
        ),
        Column(name="rollouts", doc="Comparisons whose prompt has scored rollouts of the policy."),
        Column(
            name="harm_aware",
            label="harm-aware",
            doc="Accuracy of these where what gets less than the policy is waived.",
        ),
        Column(
            name="induced_variance",
            label="variance",
            doc="Mean variance (ddof=1) within prompts of rewards of rollouts.",
        ),
        Column(name="normalised_variance", label="normalised", doc="That over the variance of all of these rewards."),
    )

    rows: tuple[RewardBenchRow, ...] = ()
    version: Literal[1, 2] = 1
    sections: Mapping[str, float]
    section_weights: Mapping[str, int]

    def document(self) -> Document:
        """Return what this file shows: one row a subset; what needs rollouts only where there are some."""
        names = tuple(column.name for column in self.columns)
        if not any(row.rollouts for row in self.rows):
            names = names[: names.index("rollouts")]
        return Document(
            title=f"RewardBench {self.version}",
            verdict=self.verdict,
            explanation=self.explanation,
            grids=(self.grid(title="Subsets", names=names),),
            notes=(*self.notes(), *(f"Section {name}: {score:.4f}." for name, score in self.sections.items())),
        )


def from_rewardbench(path: str | os.PathLike[str], *, rollouts: Any = None) -> RewardBench:
    """Read a score file of RewardBench 1 or 2.

    Parameters
    ----------
    path : str or path-like
        JSON lines, JSON objects one after the other (as the benchmark writes them), a list of rows or a mapping of
        columns. Version 1 has `scores_chosen` and `scores_rejected`, version 2 `scores`, `num_correct` and `id`.
    rollouts : RewardTable, optional
        Rewards that the same reward model gives to rollouts of a policy, on prompts of the benchmark. A prompt goes by
        the `id` of its row as text, or by its `prompt` as in `RewardTable.from_records`, or by its place in the file.

    Returns
    -------
    RewardBench
        One row for each subset.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `rollouts` is no table.
    ValueError
        If it is no such file of scores, or no prompt of it has rollouts.

    Notes
    -----
    The published accuracy is computed from the scores rounded to float32. Version 1: a tie is wrong. Version 2: one
    over the number of maxima; the subset Ties by its own formula of accuracies and margins, with the limit of its last
    term where all right answers have one score, and 0 where that has none. With several right answers the worst stands
    for the chosen one.

    The margin is the mean of ``|chosen minus best rejected|`` over the standard deviation of all scores of the subset
    (ddof=1, plus 1e-8): that of `pair_report` for version 1.

    Rollouts say what a benchmark cannot: the reward variance that this reward model induces for that policy, and the
    harm-aware accuracy, in which a rejected response below the mean reward of the rollouts of its prompt is no mistake.
    Both are of the prompts that have rollouts, the variance of those with two; the others are counted in
    ``meta.skipped``.

    References
    ----------
    Lambert et al., arXiv 2403.13787; Malik et al., arXiv 2506.01937. Induced variance: arXiv 2503.15477; harm-aware
    accuracy: arXiv 2604.25872, Section 4.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from rankdiag.adapters import from_rewardbench
    >>> from rankdiag.rewards import RewardTable
    >>> columns = {"id": ["0"], "subset": ["Focus"], "scores": [[2.0, 1.0, 2.0, 0.0]], "num_correct": [1]}
    >>> table = RewardTable.from_array([[1.0, 3.0, 5.0]], prompt_ids=["0"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "scores.json"
    ...     _ = path.write_text(json.dumps(columns))
    ...     row = from_rewardbench(path, rollouts=table).rows[0]
    >>> row.published, row.accuracy, row.harm_aware, row.induced_variance
    (0.5, 0.5, 1.0, 4.0)
    """
    if rollouts is not None and not isinstance(rollouts, RewardTable):
        raise TypeError(f"`rollouts` must be a RewardTable; got {describe(rollouts)}")
    rows = _read(path)
    places = [-1] * len(rows) if rollouts is None else _places(rows, rollouts)
    version, groups = _subsets(rows)
    found = []
    for name, group in groups.items():
        part = _part(name, [rows[place] for place in group], version)
        found.append(_row(name, part, rollouts, [places[place] for place in group]))
    by_name = {row.subset: row.published for row in found}
    weights = {n: w for part in _SECTIONS.values() for n, w in part.items() if n in by_name and version == 1}
    sections = {
        section: sum(by_name[n] * weights[n] for n in part if n in weights)
        / sum(weights[n] for n in part if n in weights)
        for section, part in _SECTIONS.items()
        if any(n in weights for n in part)
    }
    without = len(rows) - sum(row.rollouts for row in found) if rollouts is not None else 0
    return RewardBench(
        rows=tuple(found),
        version=version,
        sections=sections,
        section_weights=weights,
        explanation=f"{len(rows)} comparisons in {len(found)} subsets; the published rule and half ties side by side.",
        meta=Meta(
            definition="accuracy by subset",
            n=len(rows),
            skipped={"rollouts": f"{without} of {len(rows)} comparisons have none"} if without else {},
            details={"interval": "Wilson, 95 %"},
        ),
    )


def rewardbench_pairs(path: str | os.PathLike[str]) -> dict[str, tuple[Floats, Floats]]:
    """Return the chosen score and the best rejected one of each comparison, by subset; errors of `from_rewardbench`.

    With several right answers the worst stands for the chosen one, as there.
    """
    rows = _read(path)
    version, groups = _subsets(rows)
    parts = {name: _part(name, [rows[place] for place in group], version) for name, group in groups.items()}
    return {name: (part.chosen, _best(part.rejected)) for name, part in parts.items()}


def _subsets(rows: list[Mapping[str, Any]]) -> tuple[Literal[1, 2], dict[str, list[int]]]:
    """Return the version of the benchmark, and the places of the rows of each subset."""
    version: Literal[1, 2] = 2 if "scores" in rows[0] else 1
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        for key in ("scores", "num_correct") if version == 2 else ("scores_chosen", "scores_rejected"):
            if key not in row:
                raise ValueError(f"`path` must be a score file of RewardBench {version}: row {place} has no {key!r}")
        groups.setdefault(str(row.get("subset", "all")), []).append(place)
    return version, groups


@dataclass(frozen=True, slots=True)
class _Part:
    """The scores of a subset: chosen (N,), rejected (N, m) padded with NaN, all of them, and the published figure."""

    chosen: Floats
    rejected: Floats
    every: Floats
    published: float


def _part(name: str, group: list[Mapping[str, Any]], version: int) -> _Part:
    if version == 1:
        chosen = np.array([_score(row["scores_chosen"], name) for row in group])
        rejected = np.array([[_score(row["scores_rejected"], name)] for row in group])
        published = pair_accuracy(chosen, rejected, compat="strict").accuracy
        return _Part(chosen, rejected, np.concatenate([chosen, rejected[:, 0]]), published)
    lists = [[_score(x, name) for x in row["scores"]] for row in group]
    right = [_count(row["num_correct"], len(scores), name) for row, scores in zip(group, lists, strict=True)]
    chosen = np.array([min(scores[:c]) for scores, c in zip(lists, right, strict=True)])
    rejected = np.full((len(lists), max(map(len, lists))), np.nan)
    for i, (scores, c) in enumerate(zip(lists, right, strict=True)):
        rejected[i, : len(scores) - c] = scores[c:]
    if name.lower() == "ties":
        with np.errstate(over="ignore"):  # an infinite margin orders still
            published = _ties_score(group, chosen - _best(rejected), lists, right)
    else:
        published = pair_accuracy(chosen, rejected, compat="best_of_k").accuracy
    return _Part(chosen, rejected, np.array([score for scores in lists for score in scores]), published)


def _row(name: str, part: _Part, rollouts: RewardTable | None, places: list[int]) -> RewardBenchRow:
    half, best = pair_accuracy(part.chosen, part.rejected), _best(part.rejected)
    unit = float(np.abs(part.every).max()) or 1.0  # differences and squares of huge scores would leave float64
    with np.errstate(under="ignore"):
        spread = 0.0 if part.every.min() == part.every.max() else float((part.every / unit).std(ddof=1))
        margin = float(np.abs(part.chosen / unit - best / unit).mean()) / (spread + _GUARD / unit)
    added = {} if rollouts is None else _with_rollouts(part, rollouts.values, np.array(places))
    return RewardBenchRow(
        subset=name,
        n=len(part.chosen),
        published=part.published,
        accuracy=half.accuracy,
        lower=half.interval[0],
        upper=half.interval[1],
        ties=int((part.chosen == best).sum()),
        normalised_margin=margin,
        **added,
    )


def _with_rollouts(part: _Part, values: Floats, places: NDArray[np.int64]) -> dict[str, Any]:
    """Return what the rewards of rollouts (P, k) add; `places` are the prompts of the comparisons, or -1."""
    moments = reward_moments(values)
    bar = np.where(places >= 0, moments.mean[places], np.nan)
    known = ~np.isnan(bar)
    if not known.any():
        return {}
    harm = pair_accuracy(part.chosen, part.rejected, harm_aware=True, expected_reward=bar)
    prompts = np.unique(places[known])  # comparisons may share one
    variance = moments.var[prompts]
    several = ~np.isnan(variance)
    found: dict[str, Any] = {"rollouts": int(known.sum()), "harm_aware": harm.accuracy}
    if several.any():
        found["induced_variance"] = float(variance[several].mean())
        own = values[prompts]
        scored = own[~np.isnan(own)]
        if scored.min() < scored.max():
            found["normalised_variance"] = normalised_reward_variance(own).mean
    return found


def _places(rows: list[Mapping[str, Any]], rollouts: RewardTable) -> list[int]:
    """Return which prompt of the table each row is, -1 for none."""
    known = {key: place for place, key in enumerate(rollouts.prompt_ids)}
    places = []
    for number, row in enumerate(rows):
        keys = [str(row["id"])] if row.get("id") is not None else []
        keys += [hashed_prompt(row["prompt"])] if row.get("prompt") is not None else []
        places.append(next((known[key] for key in keys or [str(number)] if key in known), -1))
    if all(place == -1 for place in places):
        raise ValueError(
            f"`rollouts` must have prompts of the file; none of its ids, {list(known)[:3]} say, is that of a row, "
            f"{[row.get('id') for row in rows[:3]]} say"
        )
    return places


def _best(rejected: Floats) -> Floats:
    return np.asarray(np.where(np.isnan(rejected), -np.inf, rejected).max(axis=1), dtype=np.float64)


def _ties_score(group: list[Mapping[str, Any]], margin: Floats, lists: list[list[float]], right: list[int]) -> float:
    """Score of the subset Ties: accuracies of both kinds of prompt, and margins against the spread of right answers."""
    kinds: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for row, gap, scores, count in zip(group, margin.tolist(), lists, right, strict=True):
        kind, _, key = str(row.get("id", "")).partition(":")
        if kind not in kinds or not key:
            raise ValueError(f"`path`: an id of the subset Ties must be 'ref:N' or 'tied:N'; got {row.get('id')!r}")
        if key in kinds[kind]:
            raise ValueError(f"`path`: ids of the subset Ties must be unique; {row.get('id')!r} stands there twice")
        kinds[kind][key] = (gap, max(scores[:count]) - min(scores[:count]))
    accuracy = [sum(gap > 0 for gap, _ in part.values()) / len(part) if part else 0.0 for part in kinds.values()]
    both = [
        (kinds["tied"][key][0], kinds["ref"][key][0], kinds["tied"][key][1])
        for key in kinds["tied"]
        if key in kinds["ref"]
    ]
    total = 0.3 * accuracy[1] + 0.3 * accuracy[0]
    if not both:
        return total
    tied, ref, spread = np.array(both).T
    least = np.minimum(tied, ref)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # right answers of one score have no spread
        ratio = np.where(spread > 0, least / spread, np.sign(least) * math.inf)
    last = np.tanh(np.where(np.isnan(ratio), 1.0, ratio) - 1)  # 0 / 0 has no limit: the benchmark counts 0
    return total + float(0.2 * (tied > spread).mean() + 0.2 * (least > spread).mean() + 0.01 * last.mean())


def _score(value: Any, name: str) -> float:
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"`path` must hold finite scores; subset {name!r} has {describe(value)}")
    return float(value)


def _count(value: Any, size: int, name: str) -> int:
    if not isinstance(value, int) or not 1 <= value < size:
        raise ValueError(f"`path`: num_correct of subset {name!r} must be between 1 and {size - 1}; got {value!r}")
    return value


def _read(path: str | os.PathLike[str]) -> list[Mapping[str, Any]]:
    place = file_path(path)
    if place.is_dir():
        raise ValueError(f"`path` must be a score file of RewardBench; {str(place)!r} is a folder")
    text = place.read_text(encoding="utf-8")
    decoder, text, at = json.JSONDecoder(), text.strip(), 0
    parts: list[Any] = []
    try:
        while at < len(text):
            part, at = decoder.raw_decode(text, at)
            parts.append(part)
            while at < len(text) and text[at].isspace():
                at += 1
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`path` must be a JSON score file; {error}") from None
    if len(parts) == 1 and isinstance(parts[0], list):
        parts = parts[0]
    elif len(parts) == 1 and isinstance(parts[0], dict) and isinstance(parts[0].get("subset"), list):
        columns = {key: column for key, column in parts[0].items() if isinstance(column, list)}
        size = len(columns["subset"])
        if any(len(column) != size for column in columns.values()):
            raise ValueError("`path` must hold columns of one length")
        parts = [{key: column[i] for key, column in columns.items()} for i in range(size)]
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise ValueError("`path` must hold rows with scores; got none")
    return parts
