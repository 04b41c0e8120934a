"""Nothing of the size tokens x vocabulary is held, and a batch too large for the memory is split, not lost."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oracles.engine_cases import PAIRS, ROLLOUTS, Case, as_encoded, gather, text
from oracles.engine_oracle import deviations, expected_columns, expected_kl
from rankdiag.language_models import HeadGram, LastState, LogProbs, StateSums, TokenKL, TokenStats, plan, run

WIDE = 8000


class Largest(TorchDispatchMode):
    """Number of elements of the largest storage that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.operation = ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                size = leaf.untyped_storage().nbytes() // max(leaf.element_size(), 1)
                if size > self.elements:
                    self.elements, self.operation = size, str(func)
        return out


def long_rows() -> Case:
    prompt = text("p" * 20)
    groups = tuple(tuple((prompt, text(letters * 30), None) for letters in ("ab" + x, "ba" + x)) for x in "cdef")
    return Case(kind="pairs", groups=groups)


@pytest.fixture(scope="module")
def wide(zoo):
    return zoo.load("llama", vocab_size=WIDE, eos_token_id=2)


def gram():
    return HeadGram(unembedding_terms=True)


@pytest.mark.parametrize(
    ("output", "layout"),
    [
        (LogProbs, "plain"),
        (LogProbs, "packed"),
        (TokenStats, "packed"),
        (HeadGram, "plain"),
        (gram, "packed"),
    ],
)
def test_no_tensor_of_tokens_times_vocabulary(wide, output, layout):
    case = long_rows()
    data = as_encoded(case)
    counted = sum(len(response) for _, _, (_, response, _) in case.rows())
    planned = plan(data, wide, [output()], layout=layout, token_budget=10**6)
    assert len(planned.batches) == 1
    with Largest() as seen:
        list(run(wide, planned, [output()]))
    whole = counted * WIDE
    assert seen.elements >= WIDE * 32  # the weights are seen, so the watch works
    assert seen.elements < whole / 4, f"{seen.operation} made {seen.elements} of {whole} elements"


def test_no_tensor_of_tokens_times_vocabulary_for_two_models(zoo, wide):
    case = long_rows()
    counted = sum(len(response) for _, _, (_, response, _) in case.rows())
    models = (wide, zoo.load("llama", vocab_size=WIDE, eos_token_id=2, seed=1))
    planned = plan(as_encoded(case), models, [TokenKL()], token_budget=10**6)
    with Largest() as seen:
        list(run(models, planned, [TokenKL()]))
    assert seen.elements < counted * WIDE / 4, seen.operation


def test_states_alone_make_nothing_of_the_size_of_the_vocabulary(wide):
    data = as_encoded(long_rows())
    planned = plan(data, wide, [StateSums(), LastState()], token_budget=200)
    with Largest() as seen:
        list(run(wide, planned, [StateSums(), LastState()]))
    # the embedding table itself may pass by (as a view); logits of one batch, 100 x 8000, may not
    assert seen.elements <= max(WIDE * 32, 4 * 220 * 220), seen.operation


def test_wide_vocabularies_are_right(wide):
    made = [LogProbs(per_token=True), TokenStats(), HeadGram()]
    case = Case(kind="pairs", groups=PAIRS.groups[:2])
    found = gather(run(wide, plan(as_encoded(case), wide, made), made))
    deviation = deviations(found, expected_columns(wide, case))
    assert max(deviation.values()) < 1e-5, deviation


def test_sums_over_blocks_of_the_vocabulary(zoo, wide):
    """Hundreds of states, so that the vocabulary comes in several blocks; the largest logit may stand in any."""
    case = Case(kind="pairs", groups=long_rows().groups[:2])
    made = [LogProbs(per_token=True), TokenStats(), HeadGram(unembedding_terms=True)]
    planned = plan(as_encoded(case), wide, made, token_budget=10**6)
    shapes = []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mm.default:
                shapes.append(tuple(out.shape))
            return out

    with Shapes():
        found = gather(run(wide, planned, made))
    blocks = [shape for shape in shapes if shape[0] > 300 and 100 < shape[1] < WIDE]
    assert len(blocks) >= 2, "the whole vocabulary at once tests nothing"
    deviation = deviations(found, expected_columns(wide, case, ufm=True))
    assert max(deviation.values()) < 1e-5, deviation
    models = (wide, zoo.load("llama", vocab_size=WIDE, eos_token_id=2, seed=1))
    planned = plan(as_encoded(case), models, [TokenKL()], token_budget=10**6)
    found = gather(run(models, planned, [TokenKL()]))
    assert max(deviations(found, expected_kl(*models, case)).values()) < 1e-5


# --- out of memory ----------------------------------------------------------------------------------------------------


def limit_tokens(model, limit, error):
    """Let the backbone fail above a number of tokens in one forward, padding included."""
    sizes = []

    def check(_, args, kwargs):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        sizes.append(ids.numel())
        if ids.numel() > limit:
            raise error

    return model.base_model.register_forward_pre_hook(check, with_kwargs=True), sizes


def _allocation_error() -> RuntimeError:
    """What torch itself says when a processor's memory does not suffice."""
    try:
        torch.empty(2**52)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has more memory than there is")


ERRORS = {
    "typed": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuda": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": _allocation_error(),
}


@pytest.mark.parametrize("layout", ["plain", "packed"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_batch_that_does_not_fit_is_split_and_the_numbers_stay(zoo, layout, error):
    model = zoo.load("llama")
    made = [StateSums(), LogProbs()]
    data = as_encoded(PAIRS)
    planned = plan(data, model, made, layout=layout, token_budget=10**6)
    expected = gather(run(model, planned, made))
    handle, sizes = limit_tokens(model, 170, ERRORS[error])
    found = gather(run(model, planned, made))
    handle.remove()
    assert max(sizes) > 170
    assert max(deviations(found, expected).values()) < 1e-5
    failures = sum(size > 170 for size in sizes)
    assert failures <= 8  # halved and remembered, not tried again and again
    assert len(planned.splits) >= 1
    assert json.loads(json.dumps(planned.splits)) == planned.splits


def test_what_was_learned_about_the_memory_is_remembered(zoo):
    model = zoo.load("llama")
    data = as_encoded(Case(kind="pairs", groups=PAIRS.groups[:3] * 8))
    planned = plan(data, model, [StateSums()], layout="plain", token_budget=600)
    assert len(planned.batches) >= 3
    handle, sizes = limit_tokens(model, 300, ERRORS["typed"])
    list(run(model, planned, [StateSums()]))
    handle.remove()
    assert sum(size > 300 for size in sizes) <= 2


def test_one_group_that_does_not_fit_is_an_error_that_says_so(zoo):
    model = zoo.load("llama")
    planned = plan(as_encoded(ROLLOUTS), model, [StateSums()], layout="plain", token_budget=100)
    handle, _ = limit_tokens(model, 3, ERRORS["typed"])
    with pytest.raises((torch.OutOfMemoryError, RuntimeError, MemoryError), match=r"(?i)memory"):
        list(run(model, planned, [StateSums()]))
    handle.remove()


def test_other_errors_are_not_taken_for_a_lack_of_memory(zoo):
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [StateSums()])
    handle, sizes = limit_tokens(model, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(run(model, planned, [StateSums()]))
    handle.remove()
    assert len(sizes) == 1
