"""From a source to a report: list the pieces, measure each, keep the order, account for every tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from rankdiag._progress import Progress
from rankdiag._result import Meta, worst
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer, string
from rankdiag.weights._adapters import adapter_pairs, pair_pieces
from rankdiag.weights._findings import NON_FINITE, ZERO_WEIGHT, collapsed, plain_findings
from rankdiag.weights._fused import FusedLayout, check_pairs
from rankdiag.weights._inventory import Inventory, Piece
from rankdiag.weights._kinds import classify
from rankdiag.weights._measure import measure
from rankdiag.weights._report import WeightReport, explain
from rankdiag.weights._row import MEASURED, PROFILES, WeightRow
from rankdiag.weights._subject import Bound, Measured, Options
from rankdiag.weights._views import Reader

if TYPE_CHECKING:
    import numpy as np
    import torch

    from rankdiag.checkpoints import TensorSource

__all__ = ["DEFAULT_MAX_BYTES", "Choices", "Inventoried", "check_choices", "inventory_of", "run_jobs", "weight_report"]

Source = Union["torch.nn.Module", Mapping[str, Any], str, os.PathLike[str]]
T = TypeVar("T")

DEFAULT_MAX_BYTES = 1 << 26
"""A matrix of at most this many float64 bytes (8.4 million entries) is held whole."""

DEFINITION = "singular values s of each weight matrix; probabilities s / sum(s) (sigma), energy s^2 / sum(s^2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The options of a report, checked."""

    include: Literal["2d+", "2d"]
    select: re.Pattern[str] | None
    conv: Literal["flatten", "slices", "fft"]
    input_size: tuple[int, int] | None
    pairs: Mapping[re.Pattern[str], FusedLayout | None]
    lora: Literal["delta", "factors"]
    options: Options
    n_jobs: int

    def details(self) -> dict[str, Any]:
        """Return what a result states about them."""
        options = self.options
        return {
            "measures": next(
                (name for name, wanted in PROFILES.items() if wanted == options.wanted),
                ", ".join(name for name in MEASURED if name in options.wanted),
            ),
            "method": options.method,
            "conv": self.conv
            if self.input_size is None
            else f"{self.conv} on {self.input_size[0]}x{self.input_size[1]}",
            "baseline": options.baseline,
            "max_bytes": options.max_bytes,
            **({"include": self.include} if self.include != "2d+" else {}),
            **({"lora": self.lora} if self.lora != "delta" else {}),
            **({"select": self.select.pattern} if self.select is not None else {}),
            **({"pairs": _layouts_text(self.pairs)} if self.pairs else {}),
        }


def _layouts_text(pairs: Mapping[re.Pattern[str], FusedLayout | None]) -> str:
    parts = []
    for pattern, layout in pairs.items():
        text = "config" if layout is None else " ".join(f"{part}:{length}" for part, length in layout)
        parts.append(f"{pattern.pattern} = {text}" if pattern.pattern else text)
    return "; ".join(parts)


def check_choices(
    *,
    include: Any,
    select: Any,
    conv: Any,
    input_size: Any,
    measures: Any,
    method: Any,
    pairs: Any,
    lora: Any,
    baseline: Any,
    max_bytes: Any,
    n_jobs: Any,
) -> Choices:
    """Check the options that both reports share."""
    mode: Literal["flatten", "slices", "fft"] = choice(conv, "conv", ("flatten", "slices", "fft"))
    size = None
    if input_size is not None:
        if isinstance(input_size, (str, bytes)) or not isinstance(input_size, Sequence) or len(input_size) != 2:
            raise TypeError(f"`input_size` must be two integers (h, w); got {describe(input_size)}")
        size = (integer(input_size[0], "input_size", low=1), integer(input_size[1], "input_size", low=1))
    if (mode == "fft") != (size is not None):
        rule = "is needed with conv='fft'" if mode == "fft" else "is for conv='fft' only"
        raise ValueError(f"`input_size` (h, w) {rule}; got {describe(input_size)} with conv={mode!r}")
    pattern = None
    if select is not None:
        try:
            pattern = re.compile(string(select, "select"))
        except re.error as error:
            raise ValueError(f"`select` must be a regular expression; got {select!r} ({error})") from None
    return Choices(
        include=choice(include, "include", ("2d+", "2d")),
        select=pattern,
        conv=mode,
        input_size=size,
        pairs=check_pairs(pairs),
        lora=choice(lora, "lora", ("delta", "factors")),
        options=Options(
            wanted=_measures(measures),
            method=choice(method, "method", ("auto", "svd", "qr_svd", "gram")),
            max_bytes=integer(max_bytes, "max_bytes", low=1),
            baseline=choice(baseline, "baseline", ("mp", "shuffle")),
        ),
        n_jobs=integer(n_jobs, "n_jobs", low=1),
    )


def _measures(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return PROFILES[choice(value, "measures", tuple(PROFILES))]
    if not isinstance(value, Iterable):
        raise TypeError(f"`measures` must be a profile or a sequence of columns; got {describe(value)}")
    names = frozenset(string(name, "measures") for name in value)
    unknown = sorted(names - set(MEASURED))
    if unknown or not names:
        raise ValueError(
            f"`measures` must be one of {', '.join(map(repr, PROFILES))}, or name columns among {', '.join(MEASURED)}; "
            f"got {unknown or 'none'}"
        )
    return names


@dataclass(slots=True)
class Inventoried:
    """What a source holds: pieces in source order, skipped tensors, tied ones."""

    inventory: Inventory
    pieces: list[Piece]
    skipped: dict[str, str]
    aliases: dict[str, str]


def inventory_of(source: TensorSource, module: Any, choices: Choices) -> Inventoried:
    """List the pieces of a source, and why the other tensors have none.

    Raises
    ------
    ValueError
        If `select` matches no tensor, or a layout of `pairs` does not fit the tensor it names.
    """
    inventory = Inventory(source, module)
    found = Inventoried(inventory, [], {}, {})
    selected = [name for name in inventory.infos if choices.select is None or choices.select.search(name)]
    if choices.select is not None and not selected:
        raise ValueError(
            f"`select` must match a tensor; {choices.select.pattern!r} finds none of {len(inventory.infos)}"
        )
    wanted = set(selected)
    updates = _updates(inventory, choices, wanted, found)
    for name, info in inventory.infos.items():
        if info.alias_of is not None:
            found.aliases[name] = info.alias_of
        elif name not in wanted:
            found.skipped[name] = "not selected"
        elif name in updates:
            found.pieces += updates[name]
        elif name not in found.skipped:
            _add(name, inventory, choices, found)
    return found


def _updates(inventory: Inventory, choices: Choices, wanted: set[str], found: Inventoried) -> dict[str, list[Piece]]:
    """Return the updates of adapters under the name of the tensor they are listed at; their other tensor has none."""
    if choices.lora == "factors":
        return {}
    updates: dict[str, list[Piece]] = {}
    place = {name: index for index, name in enumerate(inventory.infos)}
    for pair in adapter_pairs(inventory):
        if pair.left not in wanted or pair.right not in wanted:
            continue
        pieces = pair_pieces(pair, inventory)
        if isinstance(pieces, str):
            found.skipped[pair.left] = found.skipped[pair.right] = pieces
            continue
        first, second = sorted((pair.left, pair.right), key=place.__getitem__)
        updates[first], updates[second] = pieces, []
    return updates


def _add(name: str, inventory: Inventory, choices: Choices, found: Inventoried) -> None:
    made = classify(name, inventory, choices.pairs, conv=choices.conv, input_size=choices.input_size)
    if isinstance(made, str):
        found.skipped[name] = made
    elif choices.include == "2d" and len(inventory.infos[name].shape) != 2:
        found.skipped[name] = f"{len(inventory.infos[name].shape)} axes, and include='2d'"
    else:
        found.pieces += made


def jobs_of(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Group neighbouring pieces of the same tensors, so that each tensor is read once."""
    job: list[Piece] = []
    for piece in pieces:
        if job and job[-1].tensors != piece.tensors:
            yield job
            job = []
        job.append(piece)
    if job:
        yield job


def run_jobs(
    jobs: Sequence[Sequence[Piece]], work: Callable[[Sequence[Piece]], T], *, n_jobs: int, bar: Progress
) -> list[T]:
    """Run the jobs on threads and return their results in order; at most `n_jobs` tensors are in memory."""
    results = []
    if n_jobs == 1:
        for job in jobs:
            results.append(work(job))
            bar.advance(len(job), job[0].name)
        return results
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            for job, result in zip(jobs, pool.map(work, jobs), strict=True):
                results.append(result)
                bar.advance(len(job), job[0].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def weight_report(
    source: Source,
    *,
    include: Literal["2d+", "2d"] = "2d+",
    select: str | None = None,
    conv: Literal["flatten", "slices", "fft"] = "flatten",
    input_size: Sequence[int] | None = None,
    measures: Literal["all", "no_tail", "stable_rank"] | Sequence[str] = "all",
    method: Literal["auto", "svd", "qr_svd", "gram"] = "auto",
    pairs: Literal["config"] | Sequence[tuple[str, int]] | Mapping[str, Any] | None = None,
    lora: Literal["delta", "factors"] = "delta",
    baseline: Literal["mp", "shuffle"] = "mp",
    max_bytes: int = DEFAULT_MAX_BYTES,
    n_jobs: int = 1,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
    revision: str | None = None,
) -> WeightReport:
    r"""Read the spectrum of every weight matrix of a model or a checkpoint.

    Parameters
    ----------
    source : torch.nn.Module, mapping of str to tensor or ndarray, or path-like
        A module, a state dict, a ``.safetensors`` file, an index, a folder as transformers or peft save it, or a
        repo id; see `rankdiag.checkpoints.open_source`. No model is built and no pickle is loaded.
    include : {"2d+", "2d"}
        ``"2d+"`` takes every tensor that is a matrix or a stack or kernel of them, ``"2d"`` only tensors with two
        axes.
    select : str, optional
        Regular expression; only tensors in whose name it is found are read.
    conv : {"flatten", "slices", "fft"}
        How convolutions become matrices; see `conv_spectrum`. Groups are pooled in each.
    input_size : (h, w), optional
        Height and width of the image for ``conv="fft"``.
    measures : {"all", "no_tail", "stable_rank"} or sequence of str
        Which columns: all, all but the power-law tail, or stable rank and norms alone, which needs no full
        decomposition; or names out of ``stable_rank``, ``effective_rank``, ``erank_energy``, ``participation``,
        ``numerical_rank``, ``spectral``, ``fro``, ``nuclear``, ``alpha`` (brings the tail columns),
        ``mp_edge_outliers``, ``condition``, ``baseline_effective_rank``, ``lora_rank_hint``. Ratios come with them.
    method : {"auto", "svd", "qr_svd", "gram"}
        ``"auto"`` takes the fastest route that keeps the precision stated below; the others are routes of
        `rankdiag.spectral.spectrum`.
    pairs : "config", sequence of (part, rows) or mapping, optional
        How fused projections are cut along their output axis. ``"config"`` knows the layouts of common
        architectures; ``[("q", 64), ("k", 64), ("v", 64)]`` is repeated until the axis is used up, so it says both
        "three blocks" and "head after head"; a mapping gives one of these for each regular expression of names.
        None leaves fused projections whole. Gates of RNNs and experts of a stack are always told apart.
    lora : {"delta", "factors"}
        Whether a low-rank adapter is read as its update ``scaling * B @ A`` or as the two factors.
    baseline : {"mp", "shuffle"}
        Random matrix that ranks and outliers are compared with: in closed form (Marchenko-Pastur), or the same
        entries shuffled.
    max_bytes : int
        A matrix of more bytes as float64 is never held whole but read in blocks of at most as many bytes, and of at
        most 32 MB.
    n_jobs : int
        Threads; each holds one tensor. The numbers do not depend on it.
    rng : None, int or numpy.random.Generator
        Source of the shuffled baseline; the seed is in ``meta.seed``.
    progress : bool
        Whether to draw a bar on standard error.
    revision : str, optional
        Branch, tag or commit, if `source` is a repo id.

    Returns
    -------
    WeightReport
        One row for each matrix, in source order; every other tensor is in ``skipped`` with its reason or in
        ``aliases``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an option has no such value, `select` finds no tensor, a layout of `pairs` does not fit its tensor, the
        weights are pickles, or a tensor is on the meta device.
    rankdiag.checkpoints.CheckpointError
        If a file is damaged, or files contradict each other.
    FileNotFoundError
        If the path or a shard does not exist.

    See Also
    --------
    weight_delta_report : What a fine-tuning changed.

    Notes
    -----
    How to read it: an effective rank near that of a random matrix of the same shape (the column
    ``effective_rank_over_baseline`` near 1) looks untrained or frozen; an effective rank below 0.3 n is strongly low
    rank, and ``lora_rank_hint`` says how many directions hold 95 % of the energy; a sudden drop of one layer against
    its siblings is a collapse. No theory sets a bound for a healthy weight, so the verdict judges only what is wrong
    by definition: entries that are no numbers, and weights that are zero.

    Precision, whatever the source and the block size: norms, stable rank and energy measures to 1e-6 of their size;
    effective rank and nuclear norm likewise, by a second decomposition where a Gram matrix cannot give it; ranks only
    where no singular value lies within the error bound of the threshold; the condition number only where the smallest
    value is known to 0.1 %. A cell that cannot be had at this precision is None, with the reason in ``row.nulls``.

    Cost: one Gram product and one symmetric eigensolve for each matrix of min(m, n) > 512, an SVD below. Memory: one
    tensor of at most `max_bytes` in float64, or one block and two Gram matrices of the small side, for each thread.

    References
    ----------
    O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.

    V. A. Marchenko, L. A. Pastur, "Distribution of eigenvalues for some sets of random matrices", 1967.

    C. H. Martin, M. W. Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021),
    arXiv:1810.01075.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> rng = np.random.default_rng(0)
    >>> weights = {
    ...     "layers.0.weight": rng.standard_normal((96, 64)),
    ...     "layers.1.weight": rng.standard_normal((96, 3)) @ rng.standard_normal((3, 64)),
    ...     "layers.1.bias": np.zeros(96),
    ... }
    >>> report = rd.weight_report(weights)
    >>> for row in report:
    ...     print(row.name, row.numerical_rank, round(row.effective_rank_over_baseline, 2), row.lora_rank_hint)
    layers.0.weight 64 1.0 46
    layers.1.weight 3 0.05 3
    >>> report.skipped
    {'layers.1.bias': 'bias/norm, not a matrix'}
    """
    from rankdiag.checkpoints import open_source

    choices = check_choices(
        include=include,
        select=select,
        conv=conv,
        input_size=input_size,
        measures=measures,
        method=method,
        pairs=pairs,
        lora=lora,
        baseline=baseline,
        max_bytes=max_bytes,
        n_jobs=n_jobs,
    )
    generator, drawn = as_generator(rng)
    shuffle = choices.options.baseline == "shuffle"
    with open_source(source, revision=revision) as tensors:
        found = inventory_of(tensors, module_in(source), choices)
        jobs = list(jobs_of(found.pieces))
        order = {id(job): index for index, job in enumerate(jobs)}
        children = generator.spawn(len(jobs)) if shuffle else []

        def work(job: Sequence[Piece]) -> list[Measured]:
            reader = Reader(tensors, choices.options.max_bytes)
            child = children[order[id(job)]] if children else None
            return [measure(Bound(piece.view, reader, piece.dtype), choices.options, child) for piece in job]

        with Progress(progress, total=len(found.pieces), label="weights", unit="matrix") as bar:
            measured = [one for many in run_jobs(jobs, work, n_jobs=choices.n_jobs, bar=bar) for one in many]
        details = {"source": tensors.location, "format": tensors.format, **choices.details()}
        details |= {"not_read": ", ".join(tensors.set_aside)} if tensors.set_aside else {}
    rows = tuple(row_of(piece, one) for piece, one in zip(found.pieces, measured, strict=True))
    findings = [
        finding
        for piece, one in zip(found.pieces, measured, strict=True)
        for finding in plain_findings(
            piece.name,
            entries=one.entries,
            non_finite=one.non_finite,
            zero=one.zero,
            update=piece.kind == "LoRA update",
        )
    ]
    findings += collapsed(rows)
    return WeightReport(
        rows=rows,
        aliases=found.aliases,
        findings=tuple(findings),
        verdict=worst([finding.severity for finding in findings]),
        explanation=explain(rows, findings, found.skipped),
        thresholds=(NON_FINITE, ZERO_WEIGHT),
        meta=Meta(
            definition=DEFINITION,
            base="e",
            n=len(rows),
            seed=drawn if shuffle else None,
            skipped=found.skipped,
            details=details,
        ),
    )


def module_in(source: object) -> Any:
    """Return the torch module that a source is, or None."""
    return source if callable(getattr(source, "named_modules", None)) else None


def row_of(piece: Piece, measured: Measured) -> WeightRow:
    """Join what a piece is with what was measured."""
    m, n = piece.view.shape
    return WeightRow(
        name=piece.name,
        shape=piece.shape,
        kind=piece.kind,
        matricization=piece.matricization,
        dtype=piece.dtype,
        n=piece.view.pool * min(m, n),
        parameters=measured.entries,
        tensors=piece.tensors,
        nulls=measured.nulls,
        remarks=(*piece.remarks, *measured.remarks),
        sketch=measured.sketch,
        **measured.cells,
    )
