"""What a fine-tuning changed: the spectrum of every update between two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rankdiag._progress import Progress
from rankdiag._result import Finding, Meta, worst
from rankdiag._rng import as_generator
from rankdiag.weights._adapters import AdapterPair, adapter_pairs
from rankdiag.weights._delta_report import WeightDeltaReport, explain_delta
from rankdiag.weights._delta_row import EPS_RANKS, WeightDeltaRow
from rankdiag.weights._findings import NON_FINITE, plain_findings
from rankdiag.weights._inventory import Inventory, Piece
from rankdiag.weights._kinds import classify, unreadable
from rankdiag.weights._matching import Matching
from rankdiag.weights._measure import EDGE_MARGIN, measure
from rankdiag.weights._row import LOW_RANK_RATIO
from rankdiag.weights._run import (
    DEFAULT_MAX_BYTES,
    Choices,
    Inventoried,
    Source,
    check_choices,
    inventory_of,
    jobs_of,
    module_in,
    run_jobs,
)
from rankdiag.weights._spectra import frobenius
from rankdiag.weights._subject import Bound, Measured, Options, Subject
from rankdiag.weights._update import AdapterUpdate, Update, coarser, first_rows, renamed
from rankdiag.weights._views import LowRankView, Reader, Runs, StoredView, View, float64_bytes

if TYPE_CHECKING:
    import numpy as np

    from rankdiag.checkpoints import TensorSource
    from rankdiag.spectral import Spectrum

__all__ = ["weight_delta_report"]


def weight_delta_report(
    base: Source,
    tuned: Source,
    *,
    include: Literal["2d+", "2d"] = "2d+",
    select: str | None = None,
    conv: Literal["flatten", "slices", "fft"] = "flatten",
    input_size: Sequence[int] | None = None,
    measures: Literal["all", "no_tail", "stable_rank"] | Sequence[str] = "all",
    method: Literal["auto", "svd", "qr_svd", "gram"] = "auto",
    pairs: Literal["config"] | Sequence[tuple[str, int]] | Mapping[str, Any] | None = None,
    baseline: Literal["mp", "shuffle"] = "mp",
    max_bytes: int = DEFAULT_MAX_BYTES,
    n_jobs: int = 1,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> WeightDeltaReport:
    r"""Read the spectrum of what a fine-tuning changed: tuned minus base, matrix by matrix.

    Parameters
    ----------
    base : torch.nn.Module, mapping of str to tensor or ndarray, or path-like
        The model before; as in `weight_report`.
    tuned : torch.nn.Module, mapping of str to tensor or ndarray, or path-like
        The model after, or a low-rank adapter of it.
    include, select, conv, input_size, measures, method, pairs, baseline, max_bytes, n_jobs, rng, progress
        As in `weight_report`; `select` looks at the names of both sides, `max_bytes` holds for each side.

    Returns
    -------
    WeightDeltaReport
        One row for each matrix of the tuned side, then one for each that only the base has. Every other tensor of
        either side is in ``skipped`` with its reason or in ``aliases``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an option has no such value, `select` finds no tensor of the tuned side, the weights are pickles, or a
        tensor is on the meta device.
    rankdiag.checkpoints.CheckpointError
        If a file is damaged, or files contradict each other.
    FileNotFoundError
        If a path or a shard does not exist.

    See Also
    --------
    weight_report : The weights themselves.

    Notes
    -----
    Tensors are matched by name, looking through wrappers (``torch.compile``, data parallel, adapters) and one leading
    word such as ``transformer.``. A matrix that gained or lost rows, a resized embedding say, is compared on the
    rows that both have, and says so; any other change of shape has a row without numbers. Tied weights are compared
    once. Of an adapter the update is that of its factors; with DoRA, whose magnitudes rescale every row, it is the
    difference of the merged weight and the base.

    How to read it: an effective rank of the update below 0.3 n, or so few values above what rounding makes, is low
    rank, and an adapter of rank ``lora_rank_hint`` would hold 95 % of its energy; else it is dense. The numerical
    rank uses the tolerance of the coarser dtype, relative to the largest value *of the update*. That tolerance does
    not know how large the weights are, but the rounding error of a stored weight does: it is a fraction of the
    weight. An update in bfloat16 therefore carries noise of full rank, which an effective rank counts too.
    ``rounding_edge`` estimates the largest singular value of that noise,

    .. math:: \sqrt{\max_i \sum_j v_{ij}} + \sqrt{\max_j \sum_i v_{ij}}, \qquad v_{ij} = u(w_{ij})^2 / 12,

    with u(w) the spacing of the dtype at w, once for the coarser side (derived here; the form is that of the bound of
    Bandeira and van Handel for independent entries). ``rank_above_rounding`` counts the values beyond it, with a
    margin of 2 % or the 99 % point of the Tracy-Widom law. Entries so little changed that they were rounded back
    carry less noise, so the edge errs on the large side.

    Cost: as `weight_report` over the tuned side, with both sides read once.

    References
    ----------
    E. J. Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685.

    A. S. Bandeira, R. van Handel, "Sharp nonasymptotic bounds on the norm of random matrices with independent
    entries", Annals of Probability 44 (2016), arXiv:1408.6185.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> rng = np.random.default_rng(0)
    >>> base = {"layer.weight": rng.standard_normal((96, 64)), "layer.bias": np.zeros(96)}
    >>> step = 0.01 * rng.standard_normal((96, 2)) @ rng.standard_normal((2, 64))
    >>> tuned = {"layer.weight": base["layer.weight"] + step, "layer.bias": np.ones(96)}
    >>> report = rd.weight_delta_report(base, tuned)
    >>> for row in report:
    ...     print(row.name, row.status, row.update, row.rank_above_rounding, round(row.relative_norm, 4))
    layer.weight changed low rank 2 0.0138
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
        lora="delta",
        baseline=baseline,
        max_bytes=max_bytes,
        n_jobs=n_jobs,
    )
    generator, drawn = as_generator(rng)
    shuffle = choices.options.baseline == "shuffle"
    with open_source(base) as old, open_source(tuned) as new:
        plan = _Plan(Inventory(old, module_in(base)), inventory_of(new, module_in(tuned), choices), choices)
        jobs = list(jobs_of(plan.found.pieces))
        children = dict(zip(map(id, jobs), generator.spawn(len(jobs)), strict=True)) if shuffle else {}

        def work(job: Sequence[Piece]) -> list[tuple[WeightDeltaRow, list[Finding]]]:
            readers = Reader(old, max_bytes), Reader(new, max_bytes)
            return [_row(piece, plan, readers, choices.options, children.get(id(job))) for piece in job]

        with Progress(progress, total=len(plan.found.pieces), label="updates", unit="matrix") as bar:
            done = [one for many in run_jobs(jobs, work, n_jobs=choices.n_jobs, bar=bar) for one in many]
        details = {"base": old.location, "tuned": new.location, **choices.details()}
        if plan.matching.prefix:
            details["names"] = f"base = {plan.matching.prefix} tuned"
    rows = (*(row for row, _ in done), *plan.only_in_base)
    findings = tuple(finding for _, some in done for finding in some)
    return WeightDeltaReport(
        rows=rows,
        aliases=plan.aliases,
        findings=findings,
        verdict=worst([finding.severity for finding in findings]),
        explanation=explain_delta(rows, findings, plan.skipped),
        thresholds=(NON_FINITE,),
        meta=Meta(
            definition="singular values of each update, tuned minus base",
            base="e",
            n=len(rows),
            seed=drawn if shuffle else None,
            skipped=plan.skipped,
            details=details,
        ),
    )


class _Plan:
    """How the tensors of both sides relate, before anything is read."""

    def __init__(self, base: Inventory, found: Inventoried, choices: Choices) -> None:
        self.base = base
        self.found = found
        self.tuned = found.inventory
        self.matching = Matching(base, self.tuned)
        self.adapters = {(pair.left, pair.right): pair for pair in adapter_pairs(self.tuned)}
        self.skipped: dict[str, str] = {}
        self.aliases = dict(found.aliases)
        self.only_in_base: list[WeightDeltaRow] = []
        self._adapted = {name for pair in self.adapters.values() if (name := self.weight_of(pair)) is not None}
        used = {self.matching.base_of(name) for name in self.tuned.infos}
        for name, reason in found.skipped.items():
            partner = self.matching.base_of(name)
            self.skipped[name] = reason if partner is not None or self._is_adapter() else f"{reason} (only in tuned)"
            if partner is not None:
                self.skipped.setdefault(partner, reason)
        self._rest_of_base(used, choices)

    def _is_adapter(self) -> bool:
        return self.tuned.source.format == "adapter"

    def _rest_of_base(self, used: set[str | None], choices: Choices) -> None:
        for name, info in self.base.infos.items():
            if info.alias_of is not None:
                if name not in self.tuned.infos:
                    self.aliases.setdefault(name, info.alias_of)
            elif name in used:
                continue
            elif choices.select is not None and not choices.select.search(name):
                self.skipped[name] = "not selected"
            elif self._is_adapter():
                self.skipped[name] = "base of an adapter" if name in self._adapted else "not adapted"
            else:
                self._one_of_base(name, choices)

    def _one_of_base(self, name: str, choices: Choices) -> None:
        made = classify(name, self.base, choices.pairs, conv=choices.conv, input_size=choices.input_size)
        if isinstance(made, str):
            self.skipped[name] = f"{made} (only in base)"
        elif choices.include == "2d" and len(self.base.infos[name].shape) != 2:
            self.skipped[name] = f"{len(self.base.infos[name].shape)} axes, and include='2d' (only in base)"
        else:
            self.only_in_base += [
                bare_row(piece, "only in base", "the tuned side has no such tensor") for piece in made
            ]

    def weight_of(self, pair: AdapterPair) -> str | None:
        """Return the tensor of the base that an adapter changes."""
        for last in ("weight", "in_proj_weight"):
            name = self.matching.base_of(f"{pair.module}.{last}")
            if name is not None:
                return name
        return None


def bare_row(piece: Piece, status: str, reason: str) -> WeightDeltaRow:
    """Return the row of a matrix that has nothing to be compared with."""
    m, n = piece.view.shape
    return WeightDeltaRow(
        name=piece.name,
        shape=piece.shape,
        kind=piece.kind,
        matricization=piece.matricization,
        dtype=piece.dtype,
        n=piece.view.pool * min(m, n),
        status=status,
        tensors=piece.tensors,
        remarks=(*piece.remarks, reason),
    )


def _row(
    piece: Piece, plan: _Plan, readers: tuple[Reader, Reader], options: Options, rng: np.random.Generator | None
) -> tuple[WeightDeltaRow, list[Finding]]:
    old, new = readers
    if isinstance(piece.view, LowRankView):
        return _adapter_row(piece, piece.view, plan, readers, options, rng)
    partners = {name: plan.matching.base_of(name) for name in piece.tensors}
    names = {name: partner for name, partner in partners.items() if partner is not None}
    if len(names) < len(partners):
        return bare_row(piece, "only in tuned", "the base has no such tensor"), []
    closed = [name for name in names.values() if not plan.base.infos[name].readable]
    if closed:
        return bare_row(piece, "changed", f"base not readable: {unreadable(closed[0], plan.base)}"), []
    shapes = {name: (plan.tuned.infos[name].shape, plan.base.infos[partner].shape) for name, partner in names.items()}
    view, status, remarks = piece.view, "changed", piece.remarks
    base_view = renamed(view, names)
    if any(ours != theirs for ours, theirs in shapes.values()):
        (ours, theirs), *more = shapes.values()
        cut = _common(piece, ours, theirs) if not more else None
        reason = f"the base has the shape {'x'.join(map(str, theirs))}"
        if cut is None:
            return bare_row(piece, "shape differs", reason), []
        rows, status = min(ours[0], theirs[0]), "resized"
        remarks = (*remarks, f"{reason}; the first {rows} rows, which both have, are compared")
        view = cut
        base_view = StoredView(names[cut.name], (theirs[0], theirs[1]), rows=Runs(0, rows, theirs[0], theirs[0]))
    update = Update(
        tuned=Bound(view, new, piece.dtype),
        base=Bound(base_view, old, plan.base.infos[next(iter(names.values()))].dtype),
    )
    measured = measure(update, options, rng, keep=True)
    extras = _pair_extras(update, measured, status)
    row = _delta_row(piece, view, measured, update.dtype, extras, remarks, (*piece.tensors, *names.values()))
    facts = plain_findings(
        piece.name, entries=measured.entries, non_finite=measured.non_finite, zero=False, update=True
    )
    return row, facts


def _common(piece: Piece, ours: tuple[int, ...], theirs: tuple[int, ...]) -> StoredView | None:
    """Return the view of the rows that both sides of a resized matrix have."""
    if len(ours) != 2 or len(theirs) != 2 or ours[1] != theirs[1]:
        return None
    return first_rows(piece.view, min(ours[0], theirs[0]), (ours[0], ours[1]))


def _delta_row(
    piece: Piece,
    view: View,
    measured: Measured,
    dtype: str,
    extras: dict[str, Any],
    remarks: tuple[str, ...],
    tensors: tuple[str, ...],
) -> WeightDeltaRow:
    m, n = view.shape
    return WeightDeltaRow(
        name=piece.name,
        shape=piece.shape,
        kind=piece.kind,
        matricization=piece.matricization,
        dtype=dtype,
        n=view.pool * min(m, n),
        parameters=measured.entries,
        tensors=tuple(dict.fromkeys(tensors)),
        nulls=measured.nulls,
        remarks=(*remarks, *measured.remarks),
        sketch=measured.sketch,
        **measured.cells,
        **extras,
    )


def _pair_extras(update: Update, measured: Measured, status: str) -> dict[str, Any]:
    stats, spectrum = update.stats, measured.spectrum
    if spectrum is None or not stats.finite:
        return {"status": status}
    extras: dict[str, Any] = {
        "status": "identical" if stats.changed == 0 and status == "changed" else status,
        "base_fro": stats.base,
        "changed_fraction": stats.changed / stats.entries,
        "rounding_edge": stats.edge(),
        **_sizes(spectrum, stats.base),
    }
    if spectrum.method != "topk":
        edge = stats.edge() * (1 + edge_margin(*update.view.shape))
        extras["rank_above_rounding"] = int((spectrum.values > edge).sum())
    extras["update"] = _kind_of(spectrum, stats.changed == 0, extras.get("rank_above_rounding"), update)
    return extras


def edge_margin(m: int, n: int) -> float:
    """Return how far beyond its edge, relatively, the largest singular value of pure noise may lie.

    The 99 % point 2.02 of the Tracy-Widom law for the largest eigenvalue (Johnstone 2001, arXiv:math/0010089 has the
    scaling), as a share of the edge; at least the 2 % of `mp_outliers`.
    """
    spread = math.pow(1 / math.sqrt(m) + 1 / math.sqrt(n), 1 / 3) / 2
    return max(EDGE_MARGIN, 2.02 * spread / (math.sqrt(m) + math.sqrt(n)))


def _sizes(spectrum: Spectrum, base: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if base > 0:
        found["relative_norm"] = float(spectrum.frobenius) / base
    if spectrum.method != "topk":
        found |= {name: int(spectrum.eps_rank(eps)) for name, eps in EPS_RANKS}
    return found


def _kind_of(spectrum: Spectrum, identical: bool, above: int | None, subject: Subject) -> str:
    """Name the kind of an update; empty where only its largest value is known."""
    if identical or spectrum.frobenius == 0.0:
        return "none"
    if spectrum.method == "topk":
        return ""
    m, n = subject.view.shape
    count = subject.view.pool * min(m, n)
    if above == 0:
        return "rounding only"
    if float(spectrum.effective_rank()) < LOW_RANK_RATIO * count:
        return "low rank"
    if above is not None and above < LOW_RANK_RATIO * count:
        return "low rank above rounding"
    return "dense"


def _adapter_row(
    piece: Piece,
    view: LowRankView,
    plan: _Plan,
    readers: tuple[Reader, Reader],
    options: Options,
    rng: np.random.Generator | None,
) -> tuple[WeightDeltaRow, list[Finding]]:
    _, new = readers
    pair = plan.adapters[(view.left, view.right)]
    weight = plan.weight_of(pair)
    remarks = piece.remarks
    tensors: tuple[str, ...] = piece.tensors
    subject: Subject = Bound(view, new, piece.dtype)
    base_fro = None
    if weight is None or not plan.base.infos[weight].readable:
        remarks = (*remarks, "the base has no weight of this name: no relative norm")
    elif view.expert is None:
        tensors = (*tensors, weight)
        base_fro = norm_of(plan.base.source, weight, options.max_bytes)
        full = _weight_decomposed(pair, view, weight, plan, readers, options)
        if full is not None:
            subject = full
            remarks = ("DoRA: the full update, magnitudes times unit rows minus the base",)
    measured = measure(subject, options, rng, keep=True)
    extras: dict[str, Any] = {"status": "adapter"}
    if measured.spectrum is not None:
        extras |= {"base_fro": base_fro, **_sizes(measured.spectrum, base_fro or 0.0)}
        extras["update"] = _kind_of(measured.spectrum, measured.zero, None, subject)
    row = _delta_row(piece, view, measured, piece.dtype, extras, remarks, tensors)
    facts = plain_findings(
        piece.name, entries=measured.entries, non_finite=measured.non_finite, zero=measured.zero, update=True
    )
    return row, facts


def norm_of(source: TensorSource, name: str, max_bytes: int) -> float:
    """Return the Frobenius norm of a tensor, block by block."""
    total = 0.0
    block: Any
    for block in source.blocks(name, axis=0, max_bytes=max_bytes):
        total = math.hypot(total, frobenius(block))
        del block
    return total


def _weight_decomposed(
    pair: AdapterPair,
    view: LowRankView,
    weight: str,
    plan: _Plan,
    readers: tuple[Reader, Reader],
    options: Options,
) -> AdapterUpdate | None:
    """Return the full update of a weight-decomposed adapter, or None if it is none or does not fit into memory."""
    stem = f"{pair.module}.lora_magnitude_vector"
    names = [name for name in plan.tuned.infos if name == stem or name.startswith(f"{stem}.")]
    shape = plan.base.infos[weight].shape
    transposed = shape == view.full[::-1] and (shape != view.full or bool(plan.tuned.config.get("fan_in_fan_out")))
    if len(names) != 1 or len(shape) != 2 or pair.embedding or float64_bytes(shape) > options.max_bytes:
        return None
    if not transposed and shape != view.full:
        return None
    if math.prod(plan.tuned.infos[names[0]].shape) != view.full[0]:
        return None
    old, new = readers
    return AdapterUpdate(
        pair=Bound(view, new, plan.tuned.infos[view.left].dtype),
        base=Bound(StoredView(weight, (shape[0], shape[1])), old, plan.base.infos[weight].dtype),
        magnitude=names[0],
        transposed=transposed,
        dtype=coarser(plan.tuned.infos[view.left].dtype, plan.base.infos[weight].dtype),
    )
