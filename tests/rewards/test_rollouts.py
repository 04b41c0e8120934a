"""Rollouts and the reward functions that score them: alignment, missing rewards, weights, conversations, errors."""

from __future__ import annotations

import numpy as np
import pytest

from rankdiag.rewards import Rollouts, Sampler, TableSampler, from_sampler, score_rollouts

TEXTS = (("a", "bb", "ccc"), ("dddd", "e"))


def rollouts(**fields) -> Rollouts:
    return Rollouts(prompts=("p", "q"), texts=TEXTS, **fields)


def length(completions, **_):
    return [float(len(text)) for text in completions]


def test_functions_get_one_entry_for_each_response():
    seen = {}

    def spy(**arguments):
        seen.update(arguments)
        return [0.0] * 5

    ids = (((1,), (2, 3), (4,)), ((5,), (6,)))
    score_rollouts(rollouts(token_ids=ids), spy, columns={"answer": [10, 20]})
    assert seen == {
        "prompts": ["p", "p", "p", "q", "q"],
        "completions": ["a", "bb", "ccc", "dddd", "e"],
        "completion_ids": [[1], [2, 3], [4], [5], [6]],
        "answer": [10, 10, 10, 20, 20],
    }


def test_ragged_prompts_are_padded_with_nan():
    table = score_rollouts(rollouts(), length)
    np.testing.assert_array_equal(table.values, [[1.0, 2.0, 3.0], [4.0, 1.0, np.nan]])
    np.testing.assert_array_equal(table.lengths, [[1, 2, 3], [4, 1, 0]])
    assert table.meta["reward"] == "length"


def test_weights_sum_what_can_be_scored_and_nothing_else():
    def partly(completions, **_):
        return [None if len(text) in {2, 4} else 10.0 for text in completions]

    def mostly(completions, **_):
        return [None if len(text) == 4 else float(len(text)) for text in completions]

    table = score_rollouts(rollouts(), [partly, mostly], weights=[2.0, 0.5])
    np.testing.assert_array_equal(table.values, [[20.5, 1.0, 21.5], [np.nan, 20.5, np.nan]])
    assert table.meta["reward"] == "partly + mostly"


def test_a_weight_of_zero_still_scores():
    table = score_rollouts(rollouts(), [length], weights=[0.0])
    np.testing.assert_array_equal(table.values, [[0.0, 0.0, 0.0], [0.0, 0.0, np.nan]])


def test_conversations_come_as_messages():
    seen = []

    def spy(prompts, completions, **_):
        seen.extend(zip(prompts, completions, strict=True))
        return [1.0] * len(completions)

    turns = [{"role": "user", "content": "hi"}]
    score_rollouts(Rollouts(prompts=(turns, "text"), texts=(("yes",), ("no",))), spy)
    assert seen == [(turns, [{"role": "assistant", "content": "yes"}]), ("text", "no")]


def test_async_functions_are_awaited_with_and_without_a_running_loop():
    import asyncio

    async def later(completions, **_):
        await asyncio.sleep(0)
        return [float(len(text)) for text in completions]

    expected = score_rollouts(rollouts(), length).values
    np.testing.assert_array_equal(score_rollouts(rollouts(), later).values, expected)

    async def notebook():
        return score_rollouts(rollouts(), later).values

    np.testing.assert_array_equal(asyncio.run(notebook()), expected)


def test_gold_and_log_probs_are_aligned_rollout_by_rollout():
    given = rollouts(log_probs=((-1.0, -2.0, -3.0), (-4.0, -5.0)))
    table = score_rollouts(given, length, gold=lambda completions, **_: [-float(len(t)) for t in completions])
    np.testing.assert_array_equal(table.gold, -table.values)
    np.testing.assert_array_equal(table.log_probs, [[-1.0, -2.0, -3.0], [-4.0, -5.0, np.nan]])


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda: score_rollouts("p", length), TypeError, "`rollouts`"),
        (lambda: score_rollouts(rollouts(), []), TypeError, "`functions`"),
        (lambda: score_rollouts(rollouts(), [length, 3]), TypeError, "`functions`"),
        (lambda: score_rollouts(rollouts(), length, weights=[1.0, 2.0]), ValueError, "`weights`"),
        (lambda: score_rollouts(rollouts(), lambda **_: [1.0]), ValueError, "returned 1 rewards for 5"),
        (lambda: score_rollouts(rollouts(), lambda **_: 1.0), TypeError, "one reward for each response"),
        (lambda: score_rollouts(rollouts(), lambda **_: ["x"] * 5), TypeError, "rewards of <lambda>"),
        (lambda: score_rollouts(rollouts(), lambda **_: [np.inf] * 5), ValueError, "inf"),
        (lambda: score_rollouts(rollouts(), length, columns={"a": [1]}), ValueError, "`columns`"),
        (lambda: score_rollouts(rollouts(), length, columns={"prompts": [1, 2]}), ValueError, "`columns`"),
        (lambda: score_rollouts(rollouts(), length, columns=[1]), TypeError, "`columns`"),
        (lambda: Rollouts(prompts=(), texts=()), ValueError, "`prompts`"),
        (lambda: Rollouts(prompts="pq", texts=TEXTS), TypeError, "`prompts`"),
        (lambda: Rollouts(prompts=("p",), texts=TEXTS), ValueError, "`texts`"),
        (lambda: Rollouts(prompts=("p",), texts=("ab",)), TypeError, "`texts`"),
        (lambda: Rollouts(prompts=("p",), texts=((1,),)), TypeError, "`texts`"),
        (lambda: rollouts(log_probs=((1.0,), (2.0,))), ValueError, "`log_probs`"),
        (lambda: rollouts(finish_reasons=(("stop",), ("stop",))), ValueError, "`finish_reasons`"),
        (lambda: rollouts(prompt_ids=((1,),)), ValueError, "`prompt_ids`"),
        (lambda: rollouts(token_ids=(((1,),), ((2,),))), ValueError, "`token_ids`"),
        (lambda: rollouts().encoded(), ValueError, "no token ids"),
        (lambda: TableSampler("ab"), TypeError, "`responses`"),
        (lambda: TableSampler(TEXTS).sample(["p"], 1), ValueError, "`prompts`"),
        (lambda: TableSampler(TEXTS).sample(["p", "q"], 3), ValueError, "k=3 exceeds the 2 responses to prompt 1"),
        (lambda: TableSampler(TEXTS).sample(["p", "q"], 0), ValueError, "`k`"),
        (lambda: from_sampler(object(), ["p"], 1, length), TypeError, "`sampler`"),
        (lambda: from_sampler(TableSampler(TEXTS), "pq", 1, length), TypeError, "`prompts`"),
    ],
)
def test_errors_name_what_is_wrong(call, kind, said):
    with pytest.raises(kind, match=said):
        call()


def test_a_table_draws_the_first_or_without_replacement():
    table = TableSampler([[str(i) for i in range(6)], list("abcdef")])
    assert isinstance(table, Sampler)
    assert table.sample(["p", "q"], 2).texts == (("0", "1"), ("a", "b"))
    drawn = table.sample(["p", "q"], 6, rng=0)
    assert [sorted(row) for row in drawn.texts] == [[str(i) for i in range(6)], list("abcdef")]
    assert drawn.texts != table.sample(["p", "q"], 6).texts
    assert drawn.texts == table.sample(["p", "q"], 6, rng=0).texts
    assert drawn.meta["seed"] == 0


def test_from_sampler_scores_what_was_drawn():
    table = from_sampler(TableSampler(TEXTS), ["p", "q"], 2, [length, length], weights=[1.0, 1.0], rng=None)
    np.testing.assert_array_equal(table.values, [[2.0, 4.0], [8.0, 2.0]])


def test_encoded_rollouts_keep_their_ids():
    given = rollouts(prompt_ids=((7, 8), (9,)), token_ids=(((1,), (2, 3), (4,)), ((5,), (6,))))
    data = given.encoded()
    assert [ids.tolist() for ids in data.response_ids] == [[1], [2, 3], [4], [5], [6]]
    assert [ids.tolist() for ids in data.prompts] == [[7, 8], [9]]
    assert data.group.tolist() == [0, 0, 0, 1, 1]


def test_truncated_responses_are_counted():
    given = rollouts(finish_reasons=(("stop", "length", "stop"), ("length", "stop")))
    assert given.truncated_fraction == pytest.approx(0.4)
    assert repr(given) == "Rollouts(2 prompts, 5 responses, 40% cut off)"
