"""Several reward functions on the same rollouts: their sum, what each gave, how they cancel; models among them."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import rewards_monitor as oracle
from oracles.causal_zoo import fill, quiet
from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag import result_from_json
from rankdiag.language_models import encode
from rankdiag.rewards import (
    RewardTable,
    Rollouts,
    TableSampler,
    from_sampler,
    reward_function,
    score,
    score_rollouts,
    sequence_rewards,
)

nan = float("nan")
TEXTS = (("a", "bb", "ccc"), ("dddd", "e"))


def giver(name: str, rewards: Any) -> Any:
    def function(**columns: Any) -> Any:
        return rewards

    function.__name__ = name
    return function


@settings(max_examples=40)
@given(st.data())
def test_every_figure_of_a_function_is_that_of_its_definition(data: Any) -> None:
    """Quarters and small weights: sums are exact, so the oracle's equality is the one meant."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    entry = st.one_of(st.sampled_from([None, nan, 0, 1, True]), st.integers(-8, 8).map(lambda i: i / 4))
    names = ["correct", "form", "length"][: data.draw(st.integers(1, 3))]
    weights = {name: data.draw(st.sampled_from([1.0, 2.0, -1.0, 0.5, 0.0])) for name in names}
    given_: dict[str, list[Any]] = {
        name: data.draw(st.lists(entry, min_size=sum(sizes), max_size=sum(sizes))) for name in names
    }
    rollouts = Rollouts(prompts=tuple(map(str, range(len(sizes)))), texts=tuple(("x",) * size for size in sizes))
    found = score(rollouts, [giver(name, given_[name]) for name in names], weights=list(weights.values()))
    groups, begin = [], 0
    for size in sizes:
        groups.append({name: given_[name][begin : begin + size] for name in names})
        begin += size
    wanted = oracle.expected(groups, weights, 0.05)
    for row in found.rows:
        assert row.weight == weights[row.name]
        assert row.scored == sum(len(oracle.scored(group[row.name])) for group in groups)
        for figure in ("within_std_rms", "conflict", "zero_in_sum"):
            value = wanted.get(f"{row.name}/{figure}", nan)
            if figure == "within_std_rms" and not wanted:
                continue  # the oracle is silent where no sum has a spread
            assert getattr(row, figure) == pytest.approx(value, rel=1e-12, nan_ok=True), (row.name, figure)
    for place, group in enumerate(groups):
        total = [nan if value is None else value for value in oracle.weighted_sums(group, weights)]
        np.testing.assert_array_equal(found.total.values[place, : len(total)], total)
        assert np.isnan(found.total.values[place, len(total) :]).all()
    plain = score_rollouts(rollouts, [giver(n, given_[n]) for n in names], weights=list(weights.values()))
    np.testing.assert_array_equal(found.total.values, plain.values)


def test_the_monitor_reads_the_same_conflicts() -> None:
    from rankdiag.monitors import RewardLandscapeMonitor, wrap_reward_fn

    draw = np.random.default_rng(0)
    one, two = draw.integers(0, 3, (2, 40)) / 10
    two[:20] = 0.2 - one[:20]  # cancels, up to rounding
    functions = [giver("one", one.tolist()), giver("two", two.tolist())]
    rollouts = Rollouts(prompts=tuple(map(str, range(10))), texts=(("x",) * 4,) * 10)
    monitor = RewardLandscapeMonitor(group_size=4)
    watched = [wrap_reward_fn(function, monitor) for function in functions]
    scores = score(rollouts, watched)
    readings = monitor.collect()
    assert scores.rows[0].conflict > 0.3
    for row in scores.rows:
        for figure in ("within_std_rms", "conflict", "zero_in_sum"):
            assert getattr(row, figure) == pytest.approx(readings[f"rankdiag/rewards/{row.name}/{figure}"])
    assert "the sum has none" in scores.explanation


def test_a_sum_is_flat_up_to_rounding_and_no_further() -> None:
    rollouts = Rollouts(prompts=("p",), texts=(("x",) * 4,))
    one, two = [0.1, 0.2, 0.3, 0.7], [0.9, 0.8, 0.7, 0.3]
    found = score(rollouts, [giver("one", one), giver("two", two)], weights=[0.3, 0.3])
    assert len(set(found.values[0].tolist())) > 1  # rounding, and nothing else
    assert found.column("conflict") == [1.0, 1.0]
    one, two = [1000.8, 1000.9, 1001.0, 1001.4], [-1000.1, -1000.2, -1000.3, -1000.7]
    found = score(rollouts, [giver("one", one), giver("two", two)])
    assert len(set(found.values[0].tolist())) > 1  # magnitudes count, not what is left of them
    assert found.column("conflict") == [1.0, 1.0]
    found = score(rollouts, [giver("one", [1.0] * 4), giver("two", [0.0, 0.0, 0.0, 1e-12])])
    assert (found.column("conflict"), found.column("zero_in_sum")) == ([0.0, 0.0], [1.0, 0.0])
    assert score(rollouts, giver("one", [1.0, 1.0, 1.0, 1.0 + 2**-52])).rows[0].zero_in_sum == 0.0


def test_parts_are_tables_with_what_goes_with_the_rollouts() -> None:
    rollouts = Rollouts(
        prompts=("p", "q"), texts=TEXTS, log_probs=((-1.0, -2.0, -3.0), (-4.0, -5.0)), meta={"policy": "small"}
    )

    async def slow(completions: Any, **_: Any) -> list[Any]:
        await asyncio.sleep(0)
        return [None if len(text) == 2 else 1.0 for text in completions]

    def size(completions: Any, **_: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    scores = score(rollouts, [slow, size], weights=[2.0, 0.5], gold=lambda completions, **_: [0.0] * len(completions))
    np.testing.assert_array_equal(scores.table("slow").values, [[1.0, nan, 1.0], [1.0, 1.0, nan]])
    np.testing.assert_array_equal(scores.table("size").values, [[1.0, 2.0, 3.0], [4.0, 1.0, nan]])
    np.testing.assert_array_equal(scores.total.values, [[2.5, 1.0, 3.5], [4.0, 2.5, nan]])
    for table, name in ((scores.total, "slow + size"), (scores.table("size"), "size")):
        assert dict(table.meta) == {"policy": "small", "reward": name}
        np.testing.assert_array_equal(table.log_probs, [[-1.0, -2.0, -3.0], [-4.0, -5.0, nan]])
        np.testing.assert_array_equal(table.lengths, [[1, 2, 3], [4, 1, 0]])
        np.testing.assert_array_equal(table.gold, [[0.0, 0.0, 0.0], [0.0, 0.0, nan]])
    for again in (result_from_json(scores.to_json()), copy.deepcopy(scores), pickle.loads(pickle.dumps(scores))):
        assert again == scores
        assert again.total == scores.total
    assert not scores.rewards.flags.writeable
    with pytest.raises(ValueError, match="`name` must be one of"):
        scores.table("other")


def test_a_table_is_scored_by_its_records() -> None:
    seen: dict[str, Any] = {}

    def spy(rewards: Any, **columns: Any) -> Any:
        seen.update(columns, rewards=rewards)
        return [2 * reward for reward in rewards]

    table = RewardTable.from_array(
        [[1.0, nan, 3.0], [4.0, 5.0, 6.0]], prompt_ids=["p", "q"], lengths=[[1, 2, 3], [4, 5, 6]],
        gold=[[0.0, 0.0, nan], [1.0, 1.0, 1.0]],
    )  # fmt: skip
    scores = score(table, spy, columns={"level": ["easy", "hard"]})
    assert seen == {
        "prompt_ids": ["p", "p", "q", "q", "q"],
        "rewards": [1.0, 3.0, 4.0, 5.0, 6.0],
        "log_probs": None,
        "lengths": [1, 3, 4, 5, 6],
        "gold": [0.0, None, 1.0, 1.0, 1.0],
        "level": ["easy", "easy", "hard", "hard", "hard"],
    }
    np.testing.assert_array_equal(scores.total.values, 2 * table.values)
    np.testing.assert_array_equal(scores.total.gold, table.gold)
    assert scores.total.prompt_ids == ("p", "q")
    for columns, words in (({"level": [1]}, "must have 2 entries"), ({"rewards": [1, 2]}, "made from the table")):
        with pytest.raises(ValueError, match=words):
            score(table, spy, columns=columns)


def test_refusals_name_what_is_wrong() -> None:
    rollouts = Rollouts(prompts=("p",), texts=(("a", "b"),))
    one, two = giver("same", [0.0, 1.0]), giver("same", [1.0, 0.0])
    with pytest.raises(ValueError, match="names of their own; got same, same"):
        score(rollouts, [one, two])
    with pytest.raises(TypeError, match="`rollouts` must be Rollouts or a RewardTable"):
        score([[1.0]], one)
    with pytest.raises(TypeError, match="make one a function with reward_function"):
        score(rollouts, torch.nn.Identity())
    for call in (score, score_rollouts):
        with pytest.raises(ValueError, match=r"rewards of bad contain \+-inf at response 1"):
            call(rollouts, giver("bad", [0.0, -np.inf]))


# --- reward models ---


PROMPTS = [[1, 5, 6, 7], [1, 9]]
RESPONSES = [[[10, 11, 2], [12, 2], [13]], [[2, 2], [14, 0, 2], [15, 16, 17, 18]]]


@pytest.fixture(scope="module")
def classifiers() -> dict[str, Any]:
    """The same weights, with three padding tokens."""
    import transformers

    quiet()
    found = {}
    for name, pad in (("own", 0), ("eos", 2), ("none", None)):
        config = transformers.LlamaConfig(
            vocab_size=262, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_labels=1, pad_token_id=pad, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found[name] = fill(transformers.LlamaForSequenceClassification(config)).eval()
    for name in ("eos", "none"):
        found[name].load_state_dict(found["own"].state_dict())
    return found


def alone(model: Any, ids: list[int]) -> float:
    with torch.no_grad():
        return float(model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] @ model.score.weight[0])


def encoded(prompts: Any, responses: Any) -> Any:
    records = [{"prompt_ids": p, "responses_ids": r} for p, r in zip(prompts, responses, strict=True)]
    return encode(records, kind="responses")


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_a_head_reads_the_last_token_whatever_the_padding_and_the_batch(
    classifiers: Any, pad: str, layout: Any
) -> None:
    model = classifiers[pad]
    wanted = [[alone(model, [*p, *r]) for r in rows] for p, rows in zip(PROMPTS, RESPONSES, strict=True)]
    together = sequence_rewards(model, encoded(PROMPTS, RESPONSES), layout=layout)
    np.testing.assert_allclose(together.values, wanted, rtol=1e-5, atol=1e-6)
    one_by_one = sequence_rewards(model, encoded(PROMPTS, RESPONSES), layout=layout, token_budget=1)
    np.testing.assert_allclose(one_by_one.values, wanted, rtol=1e-5, atol=1e-6)
    longer = sequence_rewards(model, encoded([*PROMPTS, [1, 4]], [*RESPONSES, [[20] * 40] * 3]), layout=layout)
    np.testing.assert_allclose(longer.values[:2], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_the_bias_of_a_head_belongs_to_the_reward(classifiers: Any, pool: Any) -> None:
    model = copy.deepcopy(classifiers["own"])
    model.score = torch.nn.utils.skip_init(torch.nn.Linear, 32, 3)
    with torch.no_grad():
        model.score.weight.copy_(torch.linspace(-1, 1, 96).reshape(3, 32))
        model.score.bias.copy_(torch.tensor([5.0, -7.0, 11.0]))
        states = model.model(input_ids=torch.tensor([[*PROMPTS[0], *RESPONSES[0][0]]])).last_hidden_state[0]
        own = states[-1:] if pool == "last" else states[len(PROMPTS[0]) :]
        wanted = model.score(own).mean(dim=0)
    for label in range(3):
        values = sequence_rewards(model, encoded(PROMPTS, RESPONSES), label=label, pool=pool).values
        assert values[0, 0] == pytest.approx(float(wanted[label]), rel=1e-4)


def test_a_model_and_a_function_on_the_same_ids(classifiers: Any) -> None:
    model = classifiers["eos"]
    rollouts = Rollouts(
        prompts=tuple(PROMPTS), prompt_ids=tuple(map(tuple, PROMPTS)), texts=(("x",) * 3,) * 2, token_ids=RESPONSES
    )

    def ended(completion_ids: Any, **_: Any) -> list[float]:
        return [float(ids[-1] == 2) for ids in completion_ids]

    judge = reward_function(model)
    scores = score(rollouts, [judge, ended], weights=[1.0, 10.0])
    wanted = [[alone(model, [*p, *r]) for r in rows] for p, rows in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(scores.table(judge.__name__).values, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scores.total.values, scores.table(judge.__name__).values + 10 * scores.table("ended").values
    )
    with pytest.raises(ValueError, match="`tokenizer` must be given to reward_function"):
        score(Rollouts(prompts=("p",), texts=(("a",),)), judge)


def test_a_model_reads_texts_and_conversations_with_its_own_tokenizer(classifiers: Any) -> None:
    model, tokenizer = classifiers["own"], tiny_tokenizer(vocab=262)
    turns = [{"role": "user", "content": "hello"}]
    for prompts, texts in (((turns, turns), (("yes", "no, no"), ("maybe", "I see"))), (("p", "q"), TEXTS)):
        table = from_sampler(TableSampler(texts), prompts, 2, reward_function(model, tokenizer))
        records = [{"prompt": p, "responses": list(t[:2])} for p, t in zip(prompts, texts, strict=True)]
        data = encode(records, tokenizer, kind="responses")
        wanted = [
            alone(model, [*data.prompts[p], *ids]) for p, ids in zip(data.prompt_id, data.response_ids, strict=True)
        ]
        np.testing.assert_allclose(table.values.ravel(), wanted, rtol=1e-5, atol=1e-6)


def test_one_response_that_cannot_be_encoded_is_the_only_one_without_a_reward(classifiers: Any) -> None:
    judge = reward_function(classifiers["own"])
    found = judge(prompts=[PROMPTS[0]] * 3, completions=["x"] * 3, completion_ids=[[10, 2], [], [12, 2]])
    assert found[1] is None
    assert found[0] == pytest.approx(alone(classifiers["own"], [*PROMPTS[0], 10, 2]), rel=1e-5)
    assert found[2] == pytest.approx(alone(classifiers["own"], [*PROMPTS[0], 12, 2]), rel=1e-5)
    assert judge(prompts=[], completions=[], completion_ids=[]) == []
