"""Which errors of a proxy reward hurt on sampled rollouts: misrankings, harmless ones, and where ascent points."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._files import write_text
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._tabular import csv_cell, csv_line
from rankdiag.rewards._accuracy import combine, log_weights, ranking_accuracy, rewards_2d
from rankdiag.rewards._attraction import attraction
from rankdiag.rewards._credit import CreditReport, credit_report
from rankdiag.rewards._pair_counts import expected_reward, pair_sums
from rankdiag.rewards._table import RewardTable

__all__ = ["ErrorReport", "WeightedAccuracy", "error_report"]

Floats = NDArray[np.float64]
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_BINS = 20  # of the histogram of cosines
_WORST = 10  # prompts that a report lists
_PROMPT_COLUMNS = ("prompt", "rollouts", "accuracy", "harm_aware_accuracy", "rate", "cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedAccuracy:
    """Accuracies with pairs weighted by the probability of both rollouts.

    Attributes
    ----------
    weighting : {"sequence", "length_normalised"}
        See `ranking_accuracy`.
    accuracy, harm_aware_accuracy : float
        Weighted shares of pairs.
    ess : float
        Effective number of pairs; where it is small the other figures say nothing.
    n_pairs : int
        Pairs that count.
    """

    weighting: str
    accuracy: float
    harm_aware_accuracy: float
    ess: float
    n_pairs: int

    @property
    def reliable(self) -> bool:
        """Whether the effective number of pairs is at least 20 and one hundredth of the pairs."""
        return self.ess >= max(20.0, 0.01 * self.n_pairs)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ErrorReport(Result):
    """Errors of a proxy reward on rollouts of a policy whose true reward is known.

    Attributes
    ----------
    prompts : tuple of str
        One for each prompt.
    n_rollouts : ndarray of int64, shape (N,)
        Rollouts of each prompt with both rewards.
    accuracy, harm_aware_accuracy : float
        Share of pairs ordered as by the true reward; with every misranking forgiven that cannot attract the policy.
    harmless_pairs, harmless_misrankings : float
        Misrankings that cannot attract the policy: as a share of all pairs, which is `harm_aware_accuracy` less
        `accuracy`, and of the misrankings (None where there are none). A tie of the proxy is half a misranking.
    n_pairs, n_gold_ties, n_proxy_ties : int
        As in `RankingAccuracy`.
    alignment : float
        Cosine of both gradients over all prompts together; None where one of them is zero.
    rate : float
        Mean over prompts of how fast the true reward rises when the proxy is ascended.
    share_negative : float
        Share of the prompts with a cosine whose cosine is below 0: ascent of the proxy lowers the true reward there.
        None where no prompt has one.
    cosine_quantiles : mapping of str to float
        Quantiles of the cosine over prompts.
    prompt_accuracy, prompt_harm_aware, prompt_rate, prompt_cosine : ndarray of float64, shape (N,)
        The figures of each prompt; NaN where they are not defined.
    weighted : tuple of WeightedAccuracy
        Where log-probabilities are known.
    credit : CreditReport or None
        Binary beside partial credit, where verdicts are known.

    Examples
    --------
    >>> from rankdiag.rewards import error_report
    >>> report = error_report([[6.0, 1.0, 2.0]], [[3.0, 1.5, 1.0]])
    >>> round(report.accuracy, 3), report.harm_aware_accuracy
    (0.667, 1.0)
    """

    tag: ClassVar[str] = "rewards.ErrorReport"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        *("accuracy", "harm_aware_accuracy", "harmless_pairs", "harmless_misrankings"),
        *("alignment", "rate", "share_negative", "n_pairs", "n_gold_ties", "n_proxy_ties"),
    )

    prompts: tuple[str, ...]
    n_rollouts: NDArray[np.int64]
    accuracy: float
    harm_aware_accuracy: float
    harmless_pairs: float
    harmless_misrankings: float | None
    n_pairs: int
    n_gold_ties: int
    n_proxy_ties: int
    alignment: float | None
    rate: float
    share_negative: float | None
    cosine_quantiles: Mapping[str, float]
    prompt_accuracy: NDArray[np.float64]
    prompt_harm_aware: NDArray[np.float64]
    prompt_rate: NDArray[np.float64]
    prompt_cosine: NDArray[np.float64]
    weighted: tuple[WeightedAccuracy, ...] = ()
    credit: CreditReport | None = None

    def __post_init__(self) -> None:
        for name in ("prompt_accuracy", "prompt_harm_aware", "prompt_rate", "prompt_cosine"):
            array = np.array(as_float64(getattr(self, name), name, ndim=1, finite=False, allow_empty=True))
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        counts = np.array(self.n_rollouts, dtype=np.int64)
        counts.flags.writeable = False
        object.__setattr__(self, "n_rollouts", counts)
        if not self.explanation:
            object.__setattr__(self, "explanation", _explain(self))

    def __len__(self) -> int:
        return len(self.prompts)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one plain row for each prompt; None where a figure is not defined."""
        arrays = (self.prompt_accuracy, self.prompt_harm_aware, self.prompt_rate, self.prompt_cosine)
        columns = [[None if v != v else v for v in array.tolist()] for array in arrays]
        for row in zip(self.prompts, self.n_rollouts.tolist(), *columns, strict=True):
            yield dict(zip(_PROMPT_COLUMNS, row, strict=True))

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write one row for each prompt as CSV with full precision.

        Parameters
        ----------
        path : str or path-like, optional
            File to write, whole or not at all; None only returns the text.

        Returns
        -------
        str
            The CSV text; figures that are not defined are empty cells.

        Raises
        ------
        FileNotFoundError
            If the folder of `path` does not exist.
        OSError
            If the file cannot be written.
        """
        lines = [csv_line(list(_PROMPT_COLUMNS))]
        lines += [csv_line([csv_cell(cell) for cell in row.values()]) for row in self.records()]
        text = "\n".join([*lines, ""])
        if path is not None:
            write_text(path, text)
        return text

    def document(self) -> Document:
        """Return what this report shows: accuracies, alignment and its histogram, and the worst prompts."""
        cosines = self.prompt_cosine[~np.isnan(self.prompt_cosine)]
        counts, edges = np.histogram(cosines, bins=_BINS, range=(-1.0, 1.0))
        order = [int(i) for i in np.argsort(self.prompt_cosine, kind="stable")[: min(_WORST, len(cosines))]]
        rows = list(self.records())
        return Document(
            title="Errors of a reward",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="accuracy", value=self.accuracy, doc="Pairs ordered as by the true reward."),
                KeyNumber(
                    label="harm-aware accuracy",
                    value=self.harm_aware_accuracy,
                    doc="A misranking below the mean reward does not attract the policy, and is forgiven.",
                ),
                KeyNumber(label="harmless misrankings", value=self.harmless_misrankings, doc="Share of misrankings."),
                KeyNumber(label="alignment", value=self.alignment, doc="Cosine of both gradients, all prompts."),
                KeyNumber(label="prompts misled", value=self.share_negative, doc="Share with a cosine below 0."),
                KeyNumber(label="pairs", value=self.n_pairs),
            ),
            grids=(
                _accuracy_grid(self),
                Grid(
                    title="Alignment over prompts",
                    columns=(Column(name="quantile"), Column(name="cosine")),
                    rows=tuple((float(q), v) for q, v in self.cosine_quantiles.items()),
                ),
                Grid(
                    title="Prompts with the lowest cosine",
                    columns=tuple(Column(name=name, label=name.replace("_", " ")) for name in _PROMPT_COLUMNS),
                    rows=tuple(tuple(rows[i].values()) for i in order),
                ),
            ),
            plots=(
                Plot(
                    title="Alignment of the proxy with the true reward",
                    x_label="cosine of both gradients",
                    y_label="prompts",
                    series=(
                        Series(
                            label="prompts",
                            x=((edges[1:] + edges[:-1]) / 2).tolist(),
                            y=counts.astype(float).tolist(),
                            kind="bars",
                        ),
                    ),
                    lines=(ReferenceLine(axis="x", value=0.0, label="below: ascent lowers the true reward"),),
                    description=f"Cosines of {len(cosines)} prompts.",
                ),
            ),
            notes=(*_NOTES, *self.notes()),
            sections=() if self.credit is None else (self.credit.document(),),
        )


_NOTES = (
    "Alignment treats the distinct rollouts of a prompt as all outputs of a policy with a logit for each and their "
    "frequencies as its probabilities. Nothing is shared between outputs or prompts; a model shares much.",
    "Between distinct rollouts of equal frequency, the cosine is the correlation of both rewards within the prompt.",
    "Public reward models order 64 to 76 % of the pairs of a policy as a large gold model does, and 80 to 86 % of the "
    "pairs of a dataset: trust the accuracy on the policy's own rollouts (arXiv 2503.15477).",
)


def error_report(
    proxy: Any,
    gold: Any = None,
    *,
    log_probs: Any = None,
    lengths: Any = None,
    outputs: Any = None,
    verdicts: Any = None,
    proxy_ties: Literal["half", "strict"] = "half",
    loo: bool = False,
) -> ErrorReport:
    """Say which errors of a proxy reward hurt, on rollouts whose true reward is known.

    Parameters
    ----------
    proxy : RewardTable or array-like, shape (N, k)
        Proxy rewards; gold rewards, log-probabilities, lengths and verdicts of a table are the defaults of the others.
    gold : array-like, shape (N, k), optional
        True rewards of the same rollouts. None takes those of the table, or 1 where all verdicts hold and 0 elsewhere.
    log_probs, lengths : array-like, shape (N, k), optional
        ln pi of the rollouts in nats, and their numbers of tokens, for the weighted accuracies.
    outputs : array-like of str or int, shape (N, k), optional
        Which output each rollout is: equal entries of a prompt are one output, with the mean of its rewards. None
        takes every rollout for an output of its own.
    verdicts : array-like of bool, shape (N, k, m), optional
        Verdicts of m constraints, for binary beside partial credit; every prompt must have all k rollouts.
    proxy_ties : {"half", "strict"}
        As in `ranking_accuracy`.
    loo : bool
        As in `ranking_accuracy`, for the harm-aware accuracy.

    Returns
    -------
    ErrorReport
        Accuracies, alignment of both gradients by prompt, and perhaps weighted accuracies and credit.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a reward is infinite, `gold` is missing, or no pair of rollouts differs in it.

    Notes
    -----
    The cosine is that of `gradient_alignment` for the empirical policy of a prompt: its distinct rollouts, each with
    its frequency as probability, and a logit for each. It is undefined, and counted in ``meta.skipped``, where either
    reward does not vary. A sample sees what the policy often does; errors on outputs that were not drawn are not in
    it. Weighting sampled pairs by their probabilities squares the policy; see `ranking_accuracy`. Time and memory are
    those of the accuracies.

    References
    ----------
    Shang et al., arXiv 2604.25872, Sections 3 and 4 (attraction, harm-aware accuracy). The empirical policy is ours.

    Examples
    --------
    >>> from rankdiag.rewards import error_report
    >>> gold = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    >>> report = error_report([[0.0, 1.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]], gold)
    >>> [round(float(v), 3) for v in report.prompt_cosine], report.share_negative
    ([-0.333, 0.905], 0.5)
    """
    table = proxy if isinstance(proxy, RewardTable) else None
    if table is not None:
        gold, log_probs, lengths, verdicts = (
            getattr(table, name) if given is None else given
            for name, given in (("gold", gold), ("log_probs", log_probs), ("lengths", lengths), ("verdicts", verdicts))
        )
    p = rewards_2d(proxy, "proxy")
    credit = None if verdicts is None else _credit(verdicts, p)
    truth = "gold rewards"
    if gold is None and verdicts is not None:
        gold, truth = _all_hold(verdicts), "all verdicts hold"
    if gold is None:
        raise ValueError("`gold` must be given, or be in the table, or follow from `verdicts`; got None")
    g = rewards_2d(gold, "gold")
    plain = ranking_accuracy(p, g, proxy_ties=proxy_ties)  # refuses shapes that differ
    harm = ranking_accuracy(p, g, proxy_ties=proxy_ties, harm_aware=True, loo=loo)
    rate, cosine, alignment, distinct = _alignment(p, g, None if outputs is None else _codes(outputs, p.shape))
    wrong = 1.0 - plain.accuracy
    known = cosine[~np.isnan(cosine)]
    valid = ~(np.isnan(p) | np.isnan(g))
    skipped = {}
    if len(known) < len(p):
        skipped["alignment"] = f"{len(p) - len(known)} of {len(p)} prompts, where a reward does not vary"
    return ErrorReport(
        prompts=table.prompt_ids if table is not None else tuple(str(i) for i in range(len(p))),
        n_rollouts=valid.sum(axis=1),
        accuracy=plain.accuracy,
        harm_aware_accuracy=harm.accuracy,
        harmless_pairs=harm.accuracy - plain.accuracy,
        harmless_misrankings=(harm.accuracy - plain.accuracy) / wrong if wrong > 0 else None,
        n_pairs=plain.n_pairs,
        n_gold_ties=plain.n_gold_ties,
        n_proxy_ties=plain.n_proxy_ties,
        alignment=alignment,
        rate=float(np.mean(rate[~np.isnan(rate)])),
        share_negative=float((known < 0).mean()) if len(known) else None,
        cosine_quantiles={f"{q:g}": float(np.quantile(known, q)) for q in _QUANTILES} if len(known) else {},
        prompt_accuracy=plain.per_prompt,
        prompt_harm_aware=harm.per_prompt,
        prompt_rate=rate,
        prompt_cosine=cosine,
        weighted=_weighted(p, g, log_probs, lengths, proxy_ties == "half", loo),
        credit=credit,
        meta=Meta(
            definition="accuracy over pairs of rollouts of a prompt; cosine of the gradients of both rewards under the "
            "empirical policy of the prompt",
            n=len(p),
            skipped=skipped,
            details={
                **{"proxy_ties": proxy_ties, "loo": loo, "truth": truth, "outputs": distinct},
                **_told(table),
            },
        ),
    )


def _told(table: RewardTable | None) -> dict[str, Any]:
    """Return what a table says of its rollouts, as far as a report can hold it."""
    known = {} if table is None else table.meta
    return {str(k): v for k, v in known.items() if v is None or isinstance(v, (bool, int, float, str))}


def _weighted(p: Floats, g: Floats, logs: Any, lengths: Any, half: bool, loo: bool) -> tuple[WeightedAccuracy, ...]:
    """Return the accuracies under each weighting that can be computed; the effective number stands beside them."""
    found = []
    for mode in ("sequence", "length_normalised"):
        if logs is None or (mode == "length_normalised" and lengths is None):
            continue
        weights = log_weights(logs, lengths, mode, p.shape)
        plain = pair_sums(p, g, rule="drop", half=half, bar=None, loo=False, log_weights=weights)
        harm = pair_sums(p, g, rule="drop", half=half, bar=expected_reward(p), loo=loo, log_weights=weights)
        accuracy, _, ess = combine(plain, True, "all", False)
        found.append(
            WeightedAccuracy(
                weighting=mode,
                accuracy=accuracy,
                harm_aware_accuracy=combine(harm, True, "all", False)[0],
                ess=ess,
                n_pairs=int(plain.pairs.sum()),
            )
        )
    return tuple(found)


def _credit(verdicts: Any, rewards: Floats) -> CreditReport:
    table = as_float64(verdicts, "verdicts", ndim=3, expected="verdicts (N, k, m)")
    if table.shape[:2] != rewards.shape:
        raise ValueError(f"`verdicts` must have shape (N, k, m) with rewards {rewards.shape}; got {table.shape}")
    if np.isnan(rewards).any():
        raise ValueError("`verdicts` need the same number of rollouts for every prompt, all scored; some are missing")
    return credit_report(table)


def _all_hold(verdicts: Any) -> Floats:
    return np.asarray(as_float64(verdicts, "verdicts", ndim=3).all(axis=2), dtype=np.float64)


def _codes(outputs: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return an integer for each distinct entry."""
    if _is_text(outputs):
        try:
            array = np.asarray(outputs, dtype=np.str_)
        except ValueError:
            raise ValueError(
                "`outputs` must align with rewards rollout by rollout: got rows of several lengths"
            ) from None
    else:
        array = as_float64(outputs, "outputs", expected="a text or an integer for each rollout")
    if array.shape != shape:
        raise ValueError(f"`outputs` must align with rewards rollout by rollout: got {array.shape} and {shape}")
    return np.unique(array, return_inverse=True)[1].reshape(shape).astype(np.int64)


def _is_text(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind == "U")
    row = value[0] if isinstance(value, (list, tuple)) and value else None
    return isinstance(row, (list, tuple)) and bool(row) and isinstance(row[0], str)


def _alignment(p: Floats, g: Floats, codes: NDArray[np.int64] | None) -> tuple[Floats, Floats, float | None, int]:
    """Return rate and cosine of each prompt, the cosine of all together, and the number of distinct outputs."""
    for name, values in (("proxy", p), ("gold", g)):
        some = values[~np.isnan(values)]
        if some.max() / 8 - some.min() / 8 > np.finfo(np.float64).max / (8 * p.shape[1]):
            raise ValueError(f"`{name}` spreads beyond float64; scale it down")
    use, policy, first, second = _empirical(p, g, codes)
    rate, cosine = np.full(len(p), np.nan), np.full(len(p), np.nan)
    with np.errstate(under="ignore", over="ignore", invalid="ignore", divide="ignore"):
        a, b = attraction(policy, first).logit_rate, attraction(policy, second).logit_rate
        units = [v / np.abs(v).max(axis=1, keepdims=True) for v in (a, b)]  # NaN where a gradient is zero
        dot = _sum(units[0] * units[1])
        cosine[use] = np.clip(dot / np.sqrt((units[0] ** 2).sum(axis=1) * (units[1] ** 2).sum(axis=1)), -1.0, 1.0)
        rate[use] = _sum(a * b)
        scaled = [v / (np.abs(v).max() or 1.0) for v in (a, b)]
        norms = float(np.sqrt((scaled[0] ** 2).sum()) * np.sqrt((scaled[1] ** 2).sum()))
        whole = float(_sum((scaled[0] * scaled[1]).reshape(1, -1))[0])
    if np.isinf(rate).any():
        raise ValueError("`proxy` and `gold` have products beyond float64; scale them down")
    total = min(1.0, max(-1.0, whole / norms)) if norms > 0 else None
    return rate, cosine, total, int((policy > 0).sum())


def _sum(products: Floats) -> Floats:
    """Sum each row; a sum within its rounding error is 0, so that no sign is read from it."""
    total = products.sum(axis=1)
    bound = np.finfo(np.float64).eps * products.shape[1] * np.abs(products).sum(axis=1)
    return np.where(np.abs(total) <= bound, 0.0, total)


def _empirical(
    p: Floats, g: Floats, codes: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Return prompts with a rollout, and the frequencies and rewards of their outputs, padded with frequency 0."""
    valid = ~(np.isnan(p) | np.isnan(g))
    row, column = np.nonzero(valid)
    code = column if codes is None else codes[valid]
    _, start, member, count = np.unique(
        row * (int(code.max()) + 1) + code, return_index=True, return_inverse=True, return_counts=True
    )
    owner = row[start]  # sorted, for the row leads the key
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    use, line = np.unique(owner, return_inverse=True)
    shape = (len(use), int(place.max()) + 1)
    policy = np.zeros(shape)
    policy[line, place] = count / valid.sum(axis=1)[owner]
    rewards = []
    for values in (p[valid], g[valid]):
        head = values[start]
        mean = head + np.bincount(member, weights=values - head[member]) / count  # exact where all are equal
        spread = np.repeat(mean[np.searchsorted(owner, use)][:, None], shape[1], axis=1)  # in the padding: any of them
        spread[line, place] = mean
        rewards.append(spread)
    return use, policy, rewards[0], rewards[1]


def _accuracy_grid(report: ErrorReport) -> Grid:
    rows = [("uniform", report.accuracy, report.harm_aware_accuracy, float(report.n_pairs))]
    rows += [(w.weighting.replace("_", " "), w.accuracy, w.harm_aware_accuracy, w.ess) for w in report.weighted]
    return Grid(
        title="Accuracy",
        columns=(
            Column(name="weighting"),
            Column(name="accuracy"),
            Column(name="harm-aware"),
            Column(name="effective pairs"),
        ),
        rows=tuple(rows),
        note=f"Too few effective pairs: ignore the figures under {poor} weighting." if (poor := _poor(report)) else "",
    )


def _explain(report: ErrorReport) -> str:
    text = f"The proxy orders {report.accuracy:.1%} of {report.n_pairs} pairs of rollouts as the true reward does."
    if report.harmless_misrankings is not None:
        text += (
            f" {report.harmless_misrankings:.0%} of its misrankings ({report.harmless_pairs:.1%} of the pairs) lie "
            "below the mean reward of their prompt and cannot attract the policy; with these forgiven it is "
            f"{report.harm_aware_accuracy:.1%}."
        )
    known = report.prompt_cosine[~np.isnan(report.prompt_cosine)]
    if len(known):
        text += (
            f" In {int((known < 0).sum())} of {len(known)} prompts ascent of the proxy lowers the true reward now "
            f"(median cosine {float(np.median(known)):.2f})."
        )
        if report.alignment is not None:
            text += f" Over all prompts together the cosine is {report.alignment:.2f}."
    else:
        text += " No prompt has two rollouts that differ in both rewards, so that no direction can be read."
    if poor := _poor(report):
        text += f" Too few pairs carry the weight under {poor} weighting: ignore those figures."
    return text


def _poor(report: ErrorReport) -> str:
    """Return the weightings whose figures say nothing."""
    return " and ".join(w.weighting.replace("_", " ") for w in report.weighted if not w.reliable)
