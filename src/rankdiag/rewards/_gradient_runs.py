"""What `expected_gradient_norm` reads off a model: products of scores, scores along directions, gradients of parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._validate import describe
from rankdiag.language_models import _run
from rankdiag.language_models._along import log_probs_along
from rankdiag.language_models._checks import SelfCheck
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._gradients import Gradient, fold_gradients, selected_parameters
from rankdiag.language_models._head_outputs import HeadGram, HeadPressure
from rankdiag.language_models._model import adapt
from rankdiag.language_models._plan import plan

__all__ = ["Runs", "dealt", "head_slopes", "score_grams", "slopes_along"]

Floats = NDArray[np.float64]

_BLOCK = 1 << 18  # entries of gradients that are float64 at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A model and its rollouts, with how to run them."""

    model: Any
    data: Encoded
    layout: Any
    token_budget: int | None
    progress: bool

    def head_grams(self) -> Iterator[tuple[int, Floats]]:
        """Yield the products of the scores of each group at the output projection; groups of one size share runs."""
        sizes = np.bincount(self.data.group, minlength=len(self.data))
        for size in sorted({int(sizes[g]) for g, status in enumerate(self.data.status) if status == "ok"}):
            members = [group for group in range(len(self.data)) if sizes[group] == size]
            outputs: list[Any] = [HeadGram()]
            made = plan(
                self.data, self.model, outputs, layout=self.layout, token_budget=self.token_budget, groups=members
            )
            for columns in _run.run(self.model, made, outputs, progress=self.progress):
                gram = columns["head_gram"].reshape(-1, size, size)
                yield from zip(columns.group[::size].tolist(), gram, strict=True)

    def rows(self) -> NDArray[np.int64]:
        """Return the first row of each group, and one behind the last."""
        return np.searchsorted(self.data.group, np.arange(len(self.data) + 1))


def dealt(data: Encoded, parts: Sequence[tuple[int, NDArray[np.int64]]]) -> Encoded:
    """Return rows of some groups dealt anew: each part, a group and rows of the data, is a group of its own."""
    rows = np.concatenate([members for _, members in parts])
    sizes = np.array([len(members) for _, members in parts])
    used, prompt = np.unique(data.prompt_id[rows], return_inverse=True)
    return Encoded(
        kind="responses",
        keys=tuple(f"{data.keys[group]}#{place}" for place, (group, _) in enumerate(parts)),
        status=("ok",) * len(parts),
        prompts=tuple(data.prompts[index] for index in used),
        group=np.repeat(np.arange(len(parts)), sizes),
        slot=np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes),
        prompt_id=prompt.astype(np.int64),
        prompt_start=data.prompt_start[rows],
        response_ids=tuple(data.response_ids[row] for row in rows),
        loss_mask=tuple(data.loss_mask[row] for row in rows),
        tokenizer=data.tokenizer,
    )


def score_grams(run: Runs, chooser: Any, places: Mapping[int, NDArray[np.int64]]) -> Iterator[tuple[int, Floats]]:
    """Yield all products of the gradients of the scorable rollouts of each group; other entries are 0.

    Each rollout has a forward of its own: a backward pass through one that many share would go through all of it.
    """
    first = run.rows()
    parts = [(group, first[group] + slots[[at]]) for group, slots in places.items() for at in range(len(slots))]
    if not parts:
        return
    folded = fold_gradients(
        run.model, dealt(run.data, parts), next, parameters=chooser, layout="plain", progress=run.progress
    )
    for group, slots in places.items():
        gram = np.zeros((int(first[group + 1] - first[group]),) * 2)
        if len(slots):
            gram[np.ix_(slots, slots)] = _products([next(folded)[1] for _ in slots])
        yield group, gram


def _products(gradients: Sequence[Gradient]) -> Floats:
    """Return all products of some gradients, in float64; beside the gradients there is one block of them."""
    kept = [tuple(part.reshape(-1) for part in gradient) for gradient in gradients]
    gram = torch.zeros((len(kept), len(kept)), dtype=torch.float64, device=kept[0][0].device)
    step = max(1, _BLOCK // len(kept))
    for parts in zip(*kept, strict=True):
        for start in range(0, len(parts[0]), step):
            block = torch.stack([part[start : start + step] for part in parts]).double()
            gram.addmm_(block, block.T)
    return np.asarray(gram.cpu().numpy(), dtype=np.float64)


def head_slopes(run: Runs, probes: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield <s, v> of every row for Gaussian directions v of the output projection."""
    head: Any = adapt(run.model, "model").head
    if head is None:
        raise ValueError(f"`model` must have an output projection; {describe(run.model)} has none")
    shape = tuple(head.weight.shape)
    checked: SelfCheck | None = None
    for _ in range(probes):
        direction = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
        outputs: list[Any] = [HeadPressure(direction.to(head.weight.device))]
        made = plan(run.data, run.model, outputs, layout=run.layout, token_budget=run.token_budget, checked=checked)
        checked = made.self_check
        slopes = np.full(len(run.data.response_ids), np.nan)
        first = run.rows()
        for columns in _run.run(run.model, made, outputs, progress=run.progress):
            slopes[first[columns.group] + columns.slot] = columns["pressure"]
        yield slopes


def slopes_along(run: Runs, chooser: Any, probes: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield <s, v> of every row for Gaussian directions v of the chosen parameters."""
    subject = adapt(run.model, "model")
    chosen = selected_parameters(subject, chooser)

    def refuse() -> Floats:
        raise ValueError("`estimator='jvp'` needs forward-mode derivatives, which this model does not have")

    for _ in range(probes):
        update = {
            name: torch.from_numpy(generator.standard_normal(tuple(p.shape), dtype=np.float32)).to(p)
            for name, p in chosen.items()
        }
        yield log_probs_along(subject, run.data, update, method="jvp", measure=refuse)[0]
