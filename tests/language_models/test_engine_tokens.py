"""What is fed to the network: every token once, the last one of a response never, shared ones once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.causal_zoo import as_callable
from oracles.engine_cases import CASES, CUT_PAIRS, EIGHT_SLOTS, EVERYTHING, PAIRS, Case, as_encoded, text
from oracles.engine_oracle import common_prefix
from rankdiag.language_models import LastState, LogProbs, StateSums, plan, run

NEVER = 0  # no row of the cases holds this id; a fed token with it is padding


def fed(model, planned, outputs) -> tuple[int, int]:
    """Run a plan; return how many tokens of rows, and how many with padding, the network was given."""
    real, whole = 0, 0

    def count(_, args, kwargs):
        nonlocal real, whole
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        real += int((ids != NEVER).sum())
        whole += ids.numel()

    backbone = model.base_model
    handle = backbone.register_forward_pre_hook(count, with_kwargs=True)
    for _ in run(model, planned, outputs):
        pass
    handle.remove()
    return real, whole


def trunk_tokens(rows) -> int:
    """Tokens of a prompt with its responses, where what all responses begin with is fed once."""
    prompts = [row[0] for row in rows]
    if len({tuple(prompt) for prompt in prompts}) > 1:
        return plain_tokens(rows)
    c = common_prefix([response for _, response, _ in rows])
    return len(prompts[0]) + c + sum(max(len(response) - c - 1, 0) for _, response, _ in rows)


def least_tokens(rows) -> int:
    """Distinct non-empty prefixes in front of every token: no layout can feed fewer."""
    prefixes = set()
    for prompt, response, _ in rows:
        fed = (*prompt, *response[:-1])
        prefixes |= {fed[:length] for length in range(1, len(fed) + 1)}
    return len(prefixes)


def plain_tokens(rows, *, keep_last: bool = False) -> int:
    return sum(len(prompt) + len(response) - (not keep_last) for prompt, response, _ in rows)


def longest_row(rows) -> int:
    return max(len(prompt) + len(response) - 1 for prompt, response, _ in rows)


def groups_of(case: Case):
    return [case.fed_group(group) for group in sorted({group for group, _, _ in case.rows()})]


@pytest.mark.parametrize("budget", [1, 150, None])
def test_each_pair_costs_its_prompt_and_its_differences(zoo, budget):
    model = zoo.load("llama")
    for group in range(len(PAIRS.groups)):
        if (PAIRS.status or {}).get(group):
            continue
        case = Case(kind="pairs", groups=(PAIRS.groups[group],))
        planned = plan(as_encoded(case), model, [StateSums()], layout="packed", token_budget=budget)
        (prompt, chosen, _), (_, rejected, _) = PAIRS.groups[group]
        c = common_prefix([chosen, rejected])
        expected = len(prompt) + c + max(len(chosen) - c - 1, 0) + max(len(rejected) - c - 1, 0)
        real, _ = fed(model, planned, [StateSums()])
        assert real == planned.n_tokens == expected, group


@pytest.mark.parametrize("budget", [1, 100, None])
@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_a_run_over_pairs_feeds_what_its_plan_says(zoo, layout, budget):
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [StateSums()], layout=layout, token_budget=budget)
    real, _ = fed(model, planned, [StateSums()])
    assert real == planned.n_tokens == sum(batch.n_tokens for batch in planned.batches)
    if layout == "plain":
        assert real == sum(plain_tokens(rows) for rows in groups_of(PAIRS))
    else:  # pairs that stand in one batch share their prompt as well
        least = least_tokens([row for rows in groups_of(PAIRS) for row in rows])
        assert least <= real <= sum(trunk_tokens(rows) for rows in groups_of(PAIRS))


@pytest.mark.parametrize("budget", [1, 100, None])
@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_padded_tokens_are_what_the_network_is_fed(zoo, layout, budget):
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [StateSums()], layout=layout, token_budget=budget)
    _, whole = fed(model, planned, [StateSums()])
    assert whole == planned.n_padded == sum(batch.n_padded for batch in planned.batches)


def test_eight_responses_pay_for_their_prompt_once(zoo):
    model = zoo.load("llama")
    rows = EIGHT_SLOTS.groups[0]
    planned = plan(as_encoded(EIGHT_SLOTS), model, [StateSums()], layout="packed")
    real, _ = fed(model, planned, [StateSums()])
    assert real == planned.n_tokens
    assert least_tokens(rows) <= real <= trunk_tokens(rows)
    assert real <= len(rows[0][0]) + sum(len(response) - 1 for _, response, _ in rows)
    plain = plan(as_encoded(EIGHT_SLOTS), model, [StateSums()], layout="plain")
    assert plain.n_tokens == plain_tokens(rows)


def test_prompts_cut_differently_share_nothing(zoo):
    model = zoo.load("llama")
    planned = plan(as_encoded(CUT_PAIRS), model, [StateSums()], layout="packed")
    real, _ = fed(model, planned, [StateSums()])
    assert real == planned.n_tokens == sum(trunk_tokens(rows) for rows in groups_of(CUT_PAIRS))


def test_the_last_token_is_fed_only_where_its_state_is_read(zoo):
    model = zoo.load("llama")
    rows = groups_of(EVERYTHING)
    for outputs, keep_last in (([StateSums(), LogProbs()], False), ([LastState()], True)):
        planned = plan(as_encoded(EVERYTHING), model, outputs, layout="plain")
        real, _ = fed(model, planned, outputs)
        assert real == planned.n_tokens == sum(plain_tokens(group, keep_last=keep_last) for group in rows)


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_no_forward_is_larger_than_the_budget_unless_one_row_is(zoo, layout):
    model = zoo.load("llama")
    sizes: list[tuple[int, int]] = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    for budget in (1, 60, 100, 200, 400):
        for label, case in CASES.items():
            planned = plan(as_encoded(case), model, [StateSums()], layout=layout, token_budget=budget)
            sizes.clear()
            for _ in run(model, planned, [StateSums()]):
                pass
            tokens = trunk_tokens if layout == "packed" else longest_row
            longest = max(tokens(rows) for rows in groups_of(case))
            for height, width in sizes:
                assert height * width <= budget or (height == 1 and width <= longest), (label, budget)
    handle.remove()


def test_many_groups_of_one_prompt_do_not_become_one_endless_row(zoo):
    model = zoo.load("llama")
    pairs = tuple(
        ((PAIRS.groups[0][0][0], [40 + i, 7, 7], None), (PAIRS.groups[0][0][0], [9, 140 + i], None)) for i in range(60)
    )
    case = Case(kind="pairs", groups=pairs)
    sizes: list[int] = []
    planned = plan(as_encoded(case), model, [StateSums()], layout="packed", token_budget=100)
    handle = model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for _ in run(model, planned, [StateSums()]):
        pass
    handle.remove()
    assert max(sizes) <= 100


def test_unusable_groups_cost_nothing(zoo):
    model = zoo.load("llama")
    dead = Case(kind="pairs", groups=PAIRS.groups[:2], status={0: "too_long", 1: "identical"})
    planned = plan(as_encoded(dead), model, [StateSums()])
    assert planned.n_tokens == 0
    assert fed(model, planned, [StateSums()]) == (0, 0)


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_the_head_is_never_run_for_states_alone(zoo, layout):
    model = zoo.load("llama")
    calls = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda *_: calls.append(1))
    planned = plan(as_encoded(PAIRS), model, [StateSums(), LastState()], layout=layout)
    for _ in run(model, planned, [StateSums(), LastState()]):
        pass
    handle.remove()
    assert calls == []


def test_positions_and_masks_of_a_packed_pair(zoo):
    """Both branches go on counting where the trunk ends, and neither sees the other."""
    model = zoo.load("llama")
    seen = []
    inner = as_callable(model)

    def states(input_ids, attention_mask, position_ids):
        seen.append((input_ids.clone(), attention_mask, position_ids.clone()))
        return inner(input_ids, attention_mask, position_ids)

    case = Case(kind="pairs", groups=((([3, 4, 5], [7, 8, 9, 10], None), ([3, 4, 5], [7, 11, 12], None)),))
    planned = plan(as_encoded(case), states, [StateSums()], layout="packed")
    seen.clear()
    for _ in run(states, planned, [StateSums()]):
        pass
    (ids, mask, positions) = seen[-1]
    row, places = ids[0].tolist(), positions[0].tolist()
    assert sorted(row) == [3, 4, 5, 7, 8, 9, 11]
    assert dict(zip(row, places, strict=True)) == {
        3: 0, 4: 1, 5: 2, 7: 3, 8: 4, 9: 5, 11: 4,
    }  # fmt: skip
    assert mask is not None
    assert mask.ndim == 4
    allowed = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] == 0
    for q, query in enumerate(row):
        prefix = {3: [3], 4: [3, 4], 5: [3, 4, 5], 7: [3, 4, 5, 7], 8: [3, 4, 5, 7, 8], 9: [3, 4, 5, 7, 8, 9],
                  11: [3, 4, 5, 7, 11]}[query]  # fmt: skip
        assert [row[k] for k in np.flatnonzero(allowed[q].numpy())] == sorted(prefix, key=row.index)


def test_long_prompt_of_one_token_responses(zoo):
    model = zoo.load("llama")
    case = Case(kind="pairs", groups=((([5] * 50, [7], None), ([5] * 50, [8], None)), (([5], text("a"), None),) * 2))
    assert plan(as_encoded(case), model, [StateSums()], layout="packed").n_tokens == 51
