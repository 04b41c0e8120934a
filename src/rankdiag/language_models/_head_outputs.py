"""Gradients of log-probabilities by the output projection, without ever forming one of them.

``G = grad_W ln pi(y|x) = sum_k delta_k h_k^T`` with ``delta_k = slope * (e_{y_k} - p_k)``. Inner products of such
gradients are ``sum_{k,k'} <delta_k, delta'_k'> <h_k, h'_k'>`` (arXiv 2410.08847, Theorem 6, where the coefficients are
called alpha), and ``<delta, delta'>`` needs of the vocabulary only ``sum_v p_k(v) p_k'(v)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rankdiag._array import as_float64
from rankdiag._validate import boolean, describe
from rankdiag.language_models._context import Context, LogitsBlock, PlainOutput, groups_of, pair_prefix
from rankdiag.language_models._head import Head

__all__ = ["HeadGradient", "HeadGram", "HeadPressure"]

_BLOCK = 1 << 19  # entries of a block of logits


class _AtHead(PlainOutput):
    """Base of the outputs that differentiate by the output projection."""

    def check(self, source: Any, groups: Sequence[int], subjects: Sequence[Any]) -> None:
        """Refuse a model whose logits are made in an unknown way, before any run.

        Parameters
        ----------
        source : Rows
            The rows.
        groups : sequence of int
            The groups that will be run.
        subjects : sequence of Subject
            The models.

        Raises
        ------
        ValueError
            If it cannot be read.
        """
        _understood(subjects[0].head)


def _understood(head: Head | None) -> Head:
    if head is None or head.own:
        raise ValueError(
            "`models`: scores at the head need logits = cap * tanh(scale * (W h + b) / cap); this model changes its "
            "logits in another way"
        )
    return head


class HeadGram(PlainOutput):
    """Inner products of the gradients of log-probabilities by the output projection, between the rows of a group.

    Columns: ``head_gram`` (rows, k), entry j of a row is its product with slot j of its group, float64. With
    `unembedding_terms` also ``ufm_gram`` (rows, k): the same for the unconstrained features model, where one free
    vector for each prefix trains as well (adds <u_k, u'_k> over prefixes that both rows have, u = W^T delta).
    Groups need equal numbers of slots.

    Parameters
    ----------
    unembedding_terms : bool
        Whether to add ``ufm_gram``; costs one more product of the size of the logits.

    Notes
    -----
    Cost for a group of T states: 2 T V d for the logits, which all outputs share, T^2 V for the products of
    distributions; memory T^2 beyond one block.

    Examples
    --------
    >>> from rankdiag.language_models import HeadGram, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [HeadGram()]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> columns["head_gram"].shape
    (2, 2)
    """

    needs = frozenset({"states", "logits"})
    whole_groups = True

    def __init__(self, *, unembedding_terms: bool = False) -> None:
        self.unembedding_terms = boolean(unembedding_terms, "unembedding_terms")
        self.columns: tuple[str, ...] = ("head_gram", "ufm_gram") if self.unembedding_terms else ("head_gram",)

    def check(self, source: Any, groups: Sequence[int], subjects: Sequence[Any]) -> None:
        """Refuse groups of several sizes, and a model whose logits are made in an unknown way, before any run.

        Parameters
        ----------
        source : Rows
            The rows.
        groups : sequence of int
            The groups that will be run.
        subjects : sequence of Subject
            The models.

        Raises
        ------
        ValueError
            If it cannot be read.
        """
        _understood(subjects[0].head)
        sizes = sorted({len(source.of_group(group)) for group in groups})
        if len(sizes) > 1:
            raise ValueError(f"`data`: HeadGram needs groups of one size; got groups of {sizes} responses")

    def start(self, context: Context) -> Any:
        head = _understood(context.head)
        entry = context.entry.cpu().numpy()
        parts = []
        for first, last in groups_of(context):
            states = np.unique(entry[context.ptr[first] : context.ptr[last]])
            whole = len(states) > 0 and int(states[-1]) - int(states[0]) + 1 == len(states)
            where: Any = slice(int(states[0]), int(states[-1]) + 1) if whole else torch.from_numpy(states)
            n = len(states)
            zeros = torch.zeros((n, n), dtype=head.precision(context.hidden), device=context.hidden.device)
            parts.append({"rows": (first, last), "states": states, "where": where, "gram": zeros})
        back = torch.zeros(context.hidden.shape, dtype=head.precision(context.hidden), device=context.hidden.device)
        return {"context": context, "head": head, "parts": parts, "back": back}

    def update(self, acc: Any, block: LogitsBlock) -> None:
        head: Head = acc["head"]
        slope = head.slope(block.logits)
        weights = block.weights if slope is None else block.weights * slope
        for part in acc["parts"]:
            own, factor = weights[part["where"]], block.rescale[part["where"]]
            part["gram"].mul_(factor[:, None]).mul_(factor[None, :]).addmm_(own, own.T)
        if self.unembedding_terms:
            rows = head.weight[block.first : block.last].to(weights.dtype)
            acc["back"].mul_(block.rescale[:, None]).addmm_(weights, rows)

    def finish(self, acc: Any) -> Mapping[str, Any]:
        head_gram, ufm_gram = [], []
        for part in acc["parts"]:
            gram, terms = self._group(acc, part)
            head_gram.append(gram)
            if self.unembedding_terms:
                ufm_gram.append(gram + terms)
        columns = {"head_gram": np.concatenate(head_gram)}
        return {**columns, "ufm_gram": np.concatenate(ufm_gram)} if self.unembedding_terms else columns

    def _group(self, acc: Any, part: Any) -> tuple[Any, Any]:
        """Return the products of one group: at the head, and the terms of the unembedding (zeros if not wanted)."""
        context: Context = acc["context"]
        head: Head = acc["head"]
        first, last = part["rows"]
        begin, end = int(context.ptr[first]), int(context.ptr[last])
        device = context.hidden.device
        states = torch.from_numpy(part["states"]).to(device)
        targets = context.targets[begin:end]
        local = torch.searchsorted(states, context.entry[begin:end].contiguous())
        hidden = context.hidden[states]
        logits = head.at(hidden, targets)  # (T, E): every state, every target of the group
        slope = head.slope(logits)
        chance = (logits.double() - context.log_partition[states][:, None]).exp_()
        total = context.total[states]
        product = part["gram"].double() / total[:, None] / total[None, :]
        factor = torch.ones_like(chance) if slope is None else slope.double()
        # at[i, j]: slope of the state of entry i at the target of entry j; likewise the chances.
        at, p = factor[local], chance[local]
        own = at.diagonal()
        same = (targets[:, None] == targets[None, :]).double()
        cross = own[:, None] * (at * p).T
        # <delta_i, delta_j> = f_i(y_i) f_j(y_i) ([y_i = y_j] - p_j(y_i)) - f_i(y_j) f_j(y_j) p_i(y_j) + gram
        alpha = same * own[:, None] * own[None, :] - cross - cross.T + product[local][:, local]
        inner = hidden.double() @ hidden.double().T
        weighted = alpha * inner[local][:, local]
        rows = torch.zeros((last - first, end - begin), dtype=torch.float64, device=device)
        for place, row in enumerate(range(first, last)):
            span = slice(int(context.ptr[row]) - begin, int(context.ptr[row + 1]) - begin)
            rows[place, span] = context.counted[int(context.ptr[row]) : int(context.ptr[row + 1])].double()
        gram = (rows @ weighted @ rows.T).cpu().numpy()
        if not self.unembedding_terms:
            return gram, np.zeros_like(gram)
        back = acc["back"][states].double() / total[:, None]
        u = own[:, None] * head.weight[targets].double() - back[local]
        return gram, self._unembedding(context, first, last, u.cpu().numpy())

    @staticmethod
    def _unembedding(context: Context, first: int, last: int, u: Any) -> Any:
        """Sum <u_k, u'_k> over the prefixes that two rows have in common."""
        begin = int(context.ptr[first])
        counted = context.counted.cpu().numpy()
        k = last - first
        terms = np.zeros((k, k))
        for a in range(k):
            for b in range(a, k):
                span_a, span_b = int(context.ptr[first + a]), int(context.ptr[first + b])
                n = int(context.ptr[first + a + 1]) - span_a if a == b else pair_prefix(context, first + a, first + b)
                keep = counted[span_a : span_a + n] & counted[span_b : span_b + n]
                left, right = u[span_a - begin : span_a - begin + n], u[span_b - begin : span_b - begin + n]
                terms[a, b] = terms[b, a] = float(np.einsum("kd,kd->k", left, right)[keep].sum())
        return terms


class HeadGradient(_AtHead):
    """A weighted sum of the gradients of log-probabilities by the output projection, over all rows of a run.

    The sum is in `matrix`, shape (V, d), after the run; each row gets the empty column ``counted`` (how many of its
    states went in). It is the one output that keeps something from batch to batch, so it cannot be resumed.

    Parameters
    ----------
    coefficients : array-like, shape (rows of the data,)
        Factor of each row's gradient.

    Examples
    --------
    >>> from rankdiag.language_models import HeadGradient, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [HeadGradient([1.0, -1.0])]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> columns["counted"].tolist(), tuple(outputs[0].matrix.shape)
    ([2, 3], (12, 8))
    """

    needs = frozenset({"states", "logits"})
    columns = ("counted",)

    def __init__(self, coefficients: Any) -> None:
        self._coefficients = as_float64(coefficients, "coefficients", ndim=1, expected="one number for each row")
        self.matrix: torch.Tensor | None = None

    def finish(self, acc: Any) -> Mapping[str, Any]:
        context: Context = acc
        head = _understood(context.head)
        if int(context.rows.max()) >= len(self._coefficients):
            raise ValueError(f"`coefficients` must have one entry for each row; got {len(self._coefficients)}")
        hidden = context.hidden.to(head.precision(context.hidden))
        device = hidden.device
        if self.matrix is None:
            self.matrix = torch.zeros((head.size, hidden.shape[1]), dtype=hidden.dtype, device=device)
        lengths = np.diff(context.ptr)
        weight = torch.from_numpy(np.repeat(self._coefficients[context.rows], lengths)).to(device)
        weight = (weight * context.counted).to(hidden.dtype)
        slope = head.slope(context.target_logit)
        ahead = weight if slope is None else weight * slope
        self.matrix.index_add_(0, context.targets, ahead[:, None] * hidden[context.entry])
        per_state = torch.zeros(len(hidden), dtype=hidden.dtype, device=device)
        per_state.index_add_(0, context.entry, weight)
        partition = context.log_partition.to(hidden.dtype)
        for first, last, logits in head.blocks(context.hidden, max(256, _BLOCK // len(hidden))):
            slope = head.slope(logits)
            chance = logits.sub_(partition[:, None]).exp_()
            if slope is not None:
                chance *= slope
            self.matrix[first:last].addmm_(chance.mul_(per_state[:, None]).T, hidden, alpha=-1.0)
        counted = context.counted.cpu().numpy()
        pieces = zip(context.ptr[:-1], context.ptr[1:], strict=True)
        return {"counted": np.array([int(counted[a:b].sum()) for a, b in pieces], dtype=np.int64)}


class HeadPressure(_AtHead):
    """Inner product of each row's gradient by the output projection with a given matrix.

    Column: ``pressure`` (rows,), ``<G, M> = sum_k delta_k^T M h_k`` with ``G = grad_W ln pi(y|x)``, float64: how fast
    the row's log-probability moves when the projection moves by M.

    Parameters
    ----------
    matrix : array-like or torch.Tensor, shape (V, d)
        M, the sum that `HeadGradient` leaves, say.

    Examples
    --------
    >>> from rankdiag.language_models import HeadPressure, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [HeadPressure(model.lm_head.weight)]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> columns["pressure"].shape
    (2,)
    """

    needs = frozenset({"states", "logits"})
    columns = ("pressure",)

    def __init__(self, matrix: Any) -> None:
        if not isinstance(matrix, torch.Tensor):
            matrix = torch.from_numpy(np.array(as_float64(matrix, "matrix", ndim=2, expected="a (V, d) matrix")))
        if matrix.ndim != 2 or not matrix.is_floating_point():
            raise ValueError(f"`matrix` must be a (V, d) matrix of floats; got {describe(matrix)}")
        self._matrix = matrix.detach()

    def start(self, context: Context) -> Any:
        head = _understood(context.head)
        if tuple(self._matrix.shape) != (head.size, context.hidden.shape[1]):
            raise ValueError(
                f"`matrix` must have shape ({head.size}, {context.hidden.shape[1]}); got {tuple(self._matrix.shape)}"
            )
        high = head.precision(context.hidden)
        zeros = torch.zeros(len(context.hidden), dtype=torch.float64, device=context.hidden.device)
        return {"context": context, "head": head, "mean": zeros, "hidden": context.hidden.to(high)}

    def update(self, acc: Any, block: LogitsBlock) -> None:
        hidden = acc["hidden"]
        part = hidden @ self._matrix[block.first : block.last].to(hidden).T
        slope = acc["head"].slope(block.logits)
        part *= block.weights
        if slope is not None:
            part *= slope
        acc["mean"] = acc["mean"] * block.rescale.double() + part.sum(dim=1, dtype=torch.float64)

    def finish(self, acc: Any) -> Mapping[str, Any]:
        context: Context = acc["context"]
        hidden = acc["hidden"]
        ahead = (self._matrix[context.targets].to(hidden) * hidden[context.entry]).sum(dim=1, dtype=torch.float64)
        slope = acc["head"].slope(context.target_logit)
        if slope is not None:
            ahead *= slope.double()
        per_token = ahead - (acc["mean"] / context.total)[context.entry]
        tokens = context.by_row(per_token * context.counted)
        return {"pressure": np.array([float(row.sum()) for row in tokens])}
