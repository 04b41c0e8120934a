"""What may not change a number: batches, order, neighbours, padding, duplicates, and where EOS was written down."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.causal_zoo import EOS
from oracles.engine_cases import EVERYTHING, PAIRS, ROLLOUTS, TWO_SLOTS, Case, as_encoded, gather, text
from oracles.engine_oracle import common_prefix, deviations, expected_columns, expected_kl, shared_positions
from rankdiag.language_models import (
    HeadGram,
    HeadReward,
    LastState,
    LogProbs,
    States,
    StateSums,
    TokenKL,
    TokenStats,
    plan,
    run,
)

LAYOUTS = pytest.mark.parametrize("layout", ["plain", "packed"])


def outputs():
    return [StateSums(), LastState(), LogProbs(per_token=True), TokenStats()]


def outputs_with_gram():
    return [*outputs(), HeadGram()]


def sums_and_logp():
    return [StateSums(), LogProbs()]


def states_only():
    return [LastState(), StateSums()]


def without_last_state():
    return [StateSums(), LogProbs(per_token=True), TokenStats(), HeadGram()]


def measure(model, case: Case, made=None, **options):
    data = as_encoded(case)
    made = made or (outputs_with_gram if len({len(rows) for rows in case.groups}) == 1 else outputs)
    return gather(run(model, plan(data, model, made(), **options), made()))


def worst(first, second) -> float:
    assert set(first) == set(second)
    return max(deviations(first, second).values())


@pytest.fixture(scope="module")
def llama(zoo):
    return zoo.load("llama")


@LAYOUTS
def test_token_budget_changes_nothing(llama, layout):
    reference = measure(llama, EVERYTHING, layout=layout, token_budget=10**9)
    batches = []
    for budget in (1, 50, 200, None):
        chosen = plan(as_encoded(EVERYTHING), llama, outputs(), layout=layout, token_budget=budget)
        batches.append(len(chosen.batches))
        assert worst(gather(run(llama, chosen, outputs())), reference) < 1e-5
    n_groups = len({group for group, _, _ in EVERYTHING.rows()})
    assert batches[0] == n_groups  # a group larger than the budget is a batch of its own
    assert batches[0] > batches[1] > batches[2] >= 1
    whole = plan(as_encoded(EVERYTHING), llama, outputs(), layout=layout, token_budget=10**9)
    assert len(whole.batches) == len({batch.layout for batch in whole.batches})  # one for each layout that is used


@LAYOUTS
def test_batches_go_from_long_to_short_and_hold_whole_groups(llama, layout):
    data = as_encoded(EVERYTHING)
    seen: list[list[int]] = []
    longest: list[int] = []
    for columns in run(llama, plan(data, llama, [StateSums()], layout=layout, token_budget=120), [StateSums()]):
        groups = sorted(set(map(int, columns.group)))
        seen.append(groups)
        for group in groups:
            assert int(np.sum(columns.group == group)) == int(np.sum(data.group == group))
        longest.append(max(len(p) + len(r) for g, _, (p, r, _) in EVERYTHING.rows() if g in groups))
    assert sorted(group for groups in seen for group in groups) == sorted({group for group, _, _ in EVERYTHING.rows()})
    if layout == "plain":
        assert longest == sorted(longest, reverse=True)


@LAYOUTS
def test_order_of_groups_changes_nothing(llama, layout):
    reference = measure(llama, EVERYTHING, layout=layout, token_budget=150)
    order = np.random.default_rng(0).permutation(len(EVERYTHING.groups))
    back = {int(old): new for new, old in enumerate(order)}
    shuffled = Case(
        kind="responses",
        groups=tuple(EVERYTHING.groups[old] for old in order),
        cut={(back[group], slot): number for (group, slot), number in EVERYTHING.cut.items()},
        status={back[group]: word for group, word in EVERYTHING.status.items()},
    )
    found = measure(llama, shuffled, layout=layout, token_budget=150)
    moved = {
        name: {(int(order[group]), slot): value for (group, slot), value in column.items()}
        for name, column in found.items()
    }
    assert worst(moved, reference) < 1e-5


@LAYOUTS
def test_swapping_the_two_responses_swaps_the_rows(llama, layout):
    swapped = dataclasses.replace(PAIRS, groups=tuple(pair[::-1] for pair in PAIRS.groups))
    reference = measure(llama, PAIRS, sums_and_logp, layout=layout)
    found = measure(llama, swapped, sums_and_logp, layout=layout)
    turned = {name: {(group, 1 - slot): value for (group, slot), value in found[name].items()} for name in found}
    assert worst(turned, reference) < 1e-5


@LAYOUTS
def test_duplicated_groups_get_the_same_numbers(llama, layout):
    twice = Case(kind="pairs", groups=PAIRS.groups[:3] * 3)
    found = measure(llama, twice, layout=layout, token_budget=100)
    for name, column in found.items():
        for (group, slot), value in column.items():
            np.testing.assert_allclose(value, column[group % 3, slot], rtol=1e-5, atol=1e-5, err_msg=name)


@LAYOUTS
def test_a_longer_neighbour_changes_nothing(llama, layout):
    alone = measure(llama, Case(kind="pairs", groups=PAIRS.groups[:3]), layout=layout, token_budget=10**6)
    long = tuple((text("x" * 50), text(letter * 60), None) for letter in "yz")
    joined = Case(kind="pairs", groups=(*PAIRS.groups[:3], long))
    found = measure(llama, joined, layout=layout, token_budget=10**6)
    kept = {name: {place: value for place, value in found[name].items() if place[0] < 3} for name in found}
    assert worst(kept, alone) < 5e-6


@LAYOUTS
def test_nothing_under_the_padding_is_read(llama, layout):
    """Rows of very different lengths in one batch; a NaN in the embedding of the padding id must never show."""
    broken = as_encoded(PAIRS)
    reference = measure(llama, PAIRS, layout=layout, token_budget=10**6)
    assert all(0 not in row for row in (*broken.prompts, *broken.response_ids))
    with torch.no_grad():
        kept = llama.model.embed_tokens.weight[0].clone()
        llama.model.embed_tokens.weight[0] = 1e4
        try:
            found = measure(llama, PAIRS, layout=layout, token_budget=10**6)
        finally:
            llama.model.embed_tokens.weight[0] = kept
    assert worst(found, reference) < 1e-6


@LAYOUTS
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_padding_side_of_the_model_is_no_influence(zoo, name, layout):
    model = zoo.load(name)
    reference = measure(model, PAIRS, layout=layout, token_budget=10**6)
    model.config.pad_token_id = None
    assert worst(measure(model, PAIRS, layout=layout, token_budget=10**6), reference) < 1e-6
    model.config.pad_token_id = ord(" ")  # an id that rows hold
    assert worst(measure(model, PAIRS, layout=layout, token_budget=10**6), reference) < 1e-6


def with_eos(case: Case) -> Case:
    groups = tuple(
        tuple((prompt, [*response, EOS], None if mask is None else [*mask, True]) for prompt, response, mask in rows)
        for rows in case.groups
    )
    return dataclasses.replace(case, groups=groups)


@LAYOUTS
def test_implied_eos_is_one_eos_appended(llama, layout):
    made = without_last_state
    usable = TWO_SLOTS
    data = as_encoded(usable, eos=EOS)
    implied = plan(data, llama, made(), layout=layout, response_end="implied_eos")
    assert implied.response_end == "implied_eos"
    found = gather(run(llama, implied, made()))
    assert worst(found, measure(llama, with_eos(usable), made, layout=layout)) < 1e-5
    expected = expected_columns(llama, with_eos(usable))
    assert max(deviations(found, expected).values()) < 1e-5


@LAYOUTS
def test_last_state_is_the_same_under_both_ends(llama, layout):
    made = states_only
    data = as_encoded(ROLLOUTS, eos=EOS)
    given_ = measure(llama, ROLLOUTS, made, layout=layout)
    implied = gather(run(llama, plan(data, llama, made(), layout=layout, response_end="implied_eos"), made()))
    assert deviations({"last_state": implied["last_state"]}, {"last_state": given_["last_state"]})["last_state"] < 1e-5
    for place, value in implied["sum"].items():  # one state more: that of the last response token
        np.testing.assert_allclose(value - given_["sum"][place], given_["last_state"][place], rtol=1e-4, atol=1e-4)


@LAYOUTS
def test_what_two_responses_share_is_the_same_to_the_bit(llama, layout):
    """So that differences of near-identical responses keep their digits: shared states cancel, they do not nearly."""
    found = measure(llama, EVERYTHING, lambda: [States(), LogProbs(per_token=True)], layout=layout, token_budget=300)
    tested = 0
    for group in sorted({group for group, _, _ in EVERYTHING.rows()}):
        rows = EVERYTHING.fed_group(group)
        s = shared_positions(rows)
        c = common_prefix([response for _, response, _ in rows])
        for slot in range(1, len(rows)):
            np.testing.assert_array_equal(found["states"][group, slot][:s], found["states"][group, 0][:s])
            if s:
                first, other = found["token_logp"][group, 0][:c], found["token_logp"][group, slot][:c]
                np.testing.assert_array_equal(first, other)
            tested += s > 0
    assert tested > 15


def test_several_outputs_in_one_run_are_what_each_gives_alone(llama):
    together = measure(llama, EVERYTHING)
    for one in (StateSums, LastState, TokenStats):
        alone = measure(llama, EVERYTHING, lambda one=one: [one()])
        assert worst(alone, {name: together[name] for name in alone}) < 1e-5
    sums = measure(llama, EVERYTHING, lambda: [LogProbs()])
    assert set(sums) == {"logp", "n_tokens"}
    assert worst(sums, {name: together[name] for name in sums}) < 1e-5


def test_one_run_serves_pairs_rollouts_masked_turns_and_two_models(zoo, llama):
    """The engine knows slots, not subjects: all kinds of group go through one call."""
    second = zoo.load("llama", seed=1)
    weight = np.linspace(-1, 1, 32)
    made = [TokenKL(direction="both"), StateSums(), LogProbs(), HeadReward(weight)]
    models = (llama, second)
    data = as_encoded(EVERYTHING)
    found = gather(run(models, plan(data, models, made, token_budget=150), made))
    assert max(deviations(found, expected_kl(*models, EVERYTHING)).values()) < 1e-5
    # what needs one model reads the first
    assert max(deviations(found, expected_columns(llama, EVERYTHING, gram=False)).values()) < 1e-5


@st.composite
def small_cases(draw):
    ids = st.lists(st.integers(3, 9), min_size=1, max_size=6)
    groups = []
    n_slots = draw(st.integers(1, 4))
    for _ in range(draw(st.integers(1, 4))):
        prompt = draw(ids)
        rows = []
        for _ in range(n_slots):
            response = draw(ids)
            mask = draw(st.none() | st.lists(st.booleans(), min_size=len(response), max_size=len(response)))
            rows.append((prompt, response, mask if mask is None or any(mask) else None))
        groups.append(tuple(rows))
    return Case(kind="responses", groups=tuple(groups))


@LAYOUTS
@settings(max_examples=8)
@given(case=small_cases(), budget=st.sampled_from([1, 12, 40, None]))
def test_any_small_tree_of_responses(zoo, layout, case, budget):
    """Few ids, so that prefixes collide in every way."""
    model = zoo.load("llama", dtype=torch.float64)
    found = measure(model, case, layout=layout, token_budget=budget)
    deviation = deviations(found, expected_columns(model, case))
    assert max(deviation.values()) < 1e-6, deviation
