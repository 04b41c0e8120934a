"""Every output, for every family and layout, against one sequence at a time through the model's own logits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from oracles.causal_zoo import FAMILIES, most_different_first
from oracles.engine_cases import (
    CASES,
    EIGHT_SLOTS,
    EVERYTHING,
    FEW_PAIRS,
    GRAM_CASES,
    PAIRS,
    ROLLOUTS,
    Case,
    as_encoded,
    gather,
)
from oracles.engine_oracle import (
    ches,
    deviations,
    expected_columns,
    expected_kl,
    facts,
    forward,
    head_gradients,
    log_softmax,
)
from rankdiag.language_models import (
    HeadGram,
    HeadPressure,
    HeadReward,
    LastState,
    LogProbs,
    States,
    StateSums,
    TokenKL,
    TokenStats,
    plan,
    run,
    sequence_log_probs,
)
from rankdiag.language_models._head_outputs import HeadGradient

EVERY_COLUMN = {
    "sum",
    "sum_beyond",
    "n_states",
    "n_shared",
    "states",
    "last_state",
    "logp",
    "n_tokens",
    "token_logp",
    "surprisal",
    "entropy",
    "varentropy",
}
PACKED = [name for name, family in FAMILIES.items() if family.packed is True]
PLAIN_ONLY = [name for name in FAMILIES if name not in PACKED]


def all_outputs():
    """Every reading that does not ask all groups to be of one size."""
    return [StateSums(), States(), LastState(), LogProbs(per_token=True), TokenStats()]


def measured(model, case: Case, layout: str, *, truth=None, **options) -> dict[str, float]:
    """Run everything in one pass; return the deviation of each column from the oracle on the model, or on `truth`."""
    plan_ = plan(as_encoded(case), model, all_outputs(), layout=layout, **options)
    found = gather(run(model, plan_, all_outputs()))
    assert set(found) == EVERY_COLUMN
    return deviations(found, expected_columns(truth or model, case, gram=False))


def measured_grams(model, cases, layout: str, *, truth=None, **options) -> dict[str, float]:
    """Run both Gram readings, and sums beside them."""
    worst: dict[str, float] = {}
    for label in cases:
        case, outputs = GRAM_CASES[label], [HeadGram(unembedding_terms=True), StateSums(), LogProbs()]
        plan_ = plan(as_encoded(case), model, outputs, layout=layout, **options)
        found = deviations(gather(run(model, plan_, outputs)), expected_columns(truth or model, case, ufm=True))
        assert {"head_gram", "ufm_gram", "sum", "logp"} <= set(found)
        worst = {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
    return worst


@pytest.mark.parametrize("name", PACKED)
def test_shared_prompt_layout_gives_what_single_sequences_give(zoo, name):
    found = measured(zoo.load(name), EVERYTHING, "packed", token_budget=512)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", most_different_first())
def test_plain_layout_gives_what_single_sequences_give(zoo, name):
    found = measured(zoo.load(name), EVERYTHING, "plain", token_budget=512)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "granite", "opt_projected", "mamba"])
def test_products_of_head_gradients(zoo, name):
    found = measured_grams(zoo.load(name), ["four"] if name != "llama" else GRAM_CASES, "auto")
    assert max(found.values()) < 1e-5, found


def test_products_where_the_head_has_a_bias(zoo):
    """The bias moves every distribution; it is no part of the gradient by the projection."""
    model = zoo.load("llama")
    model.lm_head.bias = torch.nn.Parameter(torch.randn(256, generator=torch.Generator().manual_seed(2)))
    assert max(measured_grams(model, ["four"], "auto").values()) < 1e-5
    assert max(measured(model, PAIRS, "auto").values()) < 1e-5


@pytest.mark.parametrize("budget", [1, 10**6])
def test_products_need_groups_of_one_size_however_they_fall_into_batches(zoo, budget):
    model = zoo.load("llama")
    with pytest.raises(ValueError, match="HeadGram"):
        gather(run(model, plan(as_encoded(ROLLOUTS), model, [HeadGram()], token_budget=budget), [HeadGram()]))


def test_a_head_with_logits_of_its_own_is_asked_and_never_guessed(zoo):
    """The model bends its logits in a way that no configuration tells."""

    class Bent(type(zoo.load("llama"))):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits + 0.3 * out.logits.abs().sqrt() - 0.1 * out.logits.mean(dim=-1, keepdim=True)
            return out

    model = Bent.from_pretrained(zoo.path("llama")).eval()
    for layout in ("plain", "packed"):
        found = measured(model, EVERYTHING, layout)
        assert max(found.values()) < 1e-5, found
    assert deviations(
        {"logp": expected_columns(zoo.load("llama"), FEW_PAIRS, gram=False)["logp"]},
        expected_columns(model, FEW_PAIRS, gram=False),
    )["logp"] > 1e-2  # fmt: skip
    with pytest.raises(ValueError, match=r"(?i)logits"):
        plan(as_encoded(FEW_PAIRS), model, [HeadGram()])


@pytest.mark.parametrize("forbidden", [float("-inf"), torch.finfo(torch.float32).min])
def test_forbidden_tokens(zoo, forbidden):
    """Part of the vocabulary is ruled out by the model itself; the rest must share all of the probability."""

    class Ruled(type(zoo.load("llama"))):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits.clone()
            out.logits[..., 200:] = forbidden
            return out

    model, free = Ruled.from_pretrained(zoo.path("llama")).eval(), zoo.load("llama")
    outputs = [LogProbs(per_token=True), TokenStats()]
    found = gather(run(model, plan(as_encoded(PAIRS), model, outputs), outputs))
    for group, slot, (prompt, response, _) in PAIRS.rows():
        _, logits = forward(free, [*prompt, *response])
        lines = log_softmax(logits[len(prompt) - 1 : -1, :200])
        expected = lines[np.arange(len(response)), response]
        entropy = -(np.exp(lines) * lines).sum(axis=1)
        spread = (np.exp(lines) * (lines + entropy[:, None]) ** 2).sum(axis=1)
        for name, values in (("token_logp", expected), ("entropy", entropy), ("varentropy", spread)):
            np.testing.assert_allclose(found[name][group, slot], values, rtol=1e-5, atol=1e-5, err_msg=name)
    if forbidden == float("-inf"):
        outputs = [TokenKL()]
        found = gather(run((model, free), plan(as_encoded(FEW_PAIRS), (model, free), outputs), outputs))
        for group, slot, (prompt, response, _) in FEW_PAIRS.rows():
            _, logits = forward(free, [*prompt, *response])
            mass = np.exp(log_softmax(logits[len(prompt) - 1 : -1]))[:, :200].sum(axis=1)
            np.testing.assert_allclose(found["kl_reverse"][group, slot], -np.log(mass), rtol=1e-4, atol=1e-5)
            assert np.isposinf(found["kl_forward"][group, slot]).all()


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_pressure_is_the_product_with_the_summed_gradient(zoo, layout):
    for name in ("llama", "gemma2"):
        model = zoo.load(name)
        coefficients = np.random.default_rng(1).standard_normal(len(PAIRS.groups) * 2)
        gradients = {(group, slot): head_gradients(model, row)[0] for group, slot, row in PAIRS.rows()}
        whole = sum(coefficients[2 * group + slot] * gradient for (group, slot), gradient in gradients.items())
        collect = HeadGradient(coefficients)
        for _ in run(model, plan(as_encoded(PAIRS), model, [collect], layout=layout), [collect]):
            pass
        np.testing.assert_allclose(collect.matrix, whole, rtol=0, atol=1e-5 * np.abs(whole).max())
        outputs = [HeadPressure(whole)]
        found = gather(run(model, plan(as_encoded(PAIRS), model, outputs, layout=layout), outputs))
        expected = {place: (gradient * whole).sum() for place, gradient in gradients.items()}
        size = max(map(abs, expected.values()))
        for place, value in expected.items():
            assert abs(found["pressure"][place] - value) < 1e-5 * size


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_sequence_log_probs_come_in_the_order_of_the_data(zoo, layout):
    model = zoo.load("llama")
    data = as_encoded(EVERYTHING)
    columns = sequence_log_probs(model, data, per_token=True, layout=layout, token_budget=100)
    np.testing.assert_array_equal(columns.group, data.group)
    np.testing.assert_array_equal(columns.slot, data.slot)
    expected = expected_columns(model, EVERYTHING, gram=False)
    places = list(zip(data.group.tolist(), data.slot.tolist(), strict=True))
    for place, value, number, tokens in zip(
        places, columns["logp"], columns["n_tokens"], columns["token_logp"], strict=True
    ):
        if place in expected["logp"]:
            assert abs(value - expected["logp"][place]) < 1e-5 * max(1, abs(value))
            assert number == expected["n_tokens"][place]
            np.testing.assert_allclose(tokens, expected["token_logp"][place], rtol=1e-5, atol=1e-5)
        else:
            assert np.isnan(value)
            assert number == 0


def test_reduction_sees_whole_groups_and_gives_one_value_for_each(zoo):
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS, gram=False)
    outputs = [StateSums()]

    def score(columns):
        assert columns.slot.tolist() == [0, 1] * (len(columns) // 2)
        first, second = columns["sum"][0::2], columns["sum"][1::2]
        return {"ches": (first * second).sum(axis=1) - (first * first).sum(axis=1)}

    seen = {}
    for columns in run(model, plan(as_encoded(PAIRS), model, outputs, token_budget=100), outputs, reduce=score):
        assert set(columns.values) == {"ches"}
        seen |= dict(zip(columns.keys, columns["ches"], strict=True))
    usable = sorted({group for group, _, _ in PAIRS.rows()})
    assert set(seen) == {f"key-{group}" for group in usable}
    for group in usable:
        exact = ches(expected["sum"][group, 0], expected["sum"][group, 1])
        assert abs(seen[f"key-{group}"] - exact) < 1e-5 * (expected["sum"][group, 0] ** 2).sum()


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_shards_deal_out_whole_batches(zoo, world):
    model = zoo.load("llama")
    whole = plan(as_encoded(EVERYTHING), model, [StateSums()], token_budget=100)
    together = gather(run(model, whole, [StateSums()]))
    parts = [whole.shard(rank, world) for rank in range(world)]
    dealt = sorted((batch.index, batch.groups) for part in parts for batch in part.batches)
    assert dealt == [(batch.index, batch.groups) for batch in whole.batches]
    found = gather(columns for part in parts for columns in run(model, part, [StateSums()]))
    for name, column in together.items():
        for place, value in column.items():
            np.testing.assert_array_equal(found[name][place], value)  # to the bit
    with pytest.raises(ValueError, match="rank"):
        whole.shard(world, world)


@pytest.mark.parametrize("name", FAMILIES)
def test_auto_packs_where_that_is_allowed_and_says_why_not(zoo, name):
    model = zoo.load(name)
    chosen = plan(as_encoded(FEW_PAIRS), model, [StateSums()], layout="auto")
    allowed = FAMILIES[name].packed
    if allowed is True:
        assert chosen.layout == "packed", chosen.reason
    else:
        assert chosen.layout == "plain"
        assert allowed.lower() in chosen.reason.lower(), chosen.reason
    found = gather(run(model, chosen, [StateSums()]))
    assert max(deviations(found, expected_columns(model, FEW_PAIRS, gram=False)).values()) < 1e-5


@pytest.mark.parametrize("name", PLAIN_ONLY)
def test_asking_for_the_shared_prompt_layout_where_it_is_wrong_is_refused(zoo, name):
    with pytest.raises(ValueError, match=rf"(?is)layout.*{FAMILIES[name].packed}"):
        plan(as_encoded(FEW_PAIRS), zoo.load(name), [StateSums()], layout="packed")


def test_a_window_as_wide_as_the_longest_row_may_be_packed_and_one_token_less_may_not(zoo):
    """It is the path of a response that counts, not the length of the packed row."""
    fed = max(len(prompt) + len(response) - 1 for _, _, (prompt, response, _) in EIGHT_SLOTS.rows())
    for window, layout in ((fed - 1, "plain"), (fed, "packed"), (2 * fed, "packed")):
        model = zoo.load("mistral_window", sliding_window=window)
        outputs = [StateSums(), LogProbs()]
        planned = plan(as_encoded(EIGHT_SLOTS), model, outputs, layout="auto")
        assert planned.layout == layout, window
        assert layout == "plain" or planned.batches[0].n_tokens > window or window == 2 * fed
        found = deviations(gather(run(model, planned, outputs)), expected_columns(model, EIGHT_SLOTS, gram=False))
        assert max(found.values()) < 1e-5, (window, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["mistral_window", "gemma3_window"])
def test_padding_behind_a_window(zoo, name, attention, dtype):
    """A short row beside a long one: its last padding has no real token within the window."""
    model = zoo.load(name, attention=attention, dtype=dtype)
    rows = (([5, 6], [7, 8], None), ([5] * 10, [6, 7] * 20, None))
    case = Case(kind="responses", groups=tuple((row,) for row in rows))
    found = measured(model, case, "plain", token_budget=200)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("layout", ["plain", "packed"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_attention_kinds(zoo, attention, layout):
    for name in ("llama", "gpt2"):
        found = measured(zoo.load(name, attention=attention), PAIRS, layout)
        assert max(found.values()) < 1e-5, (name, found)


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_models_in_double_precision_agree_to_rounding(zoo, layout):
    for name in ("llama", "gpt2"):
        found = measured(zoo.load(name, dtype=torch.float64), PAIRS, layout)
        assert max(found.values()) < 1e-6, (name, found)


def rounding(model, truth) -> dict[str, float]:
    """How far a model in half precision is from itself in float64, when it runs one sequence at a time."""
    worst: dict[str, float] = {}
    for case in CASES.values():
        own = deviations(expected_columns(model, case, gram=False), expected_columns(truth, case, gram=False))
        worst |= {column: max(value, worst.get(column, 0.0)) for column, value in own.items()}
    return worst


@pytest.mark.parametrize("layout", ["plain", "packed"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_models_in_bfloat16_stay_within_their_own_rounding(zoo, name, layout):
    """The engine may add no error of its own size to that of the model: a factor of 3 for another order of sums."""
    model = zoo.load(name, dtype=torch.bfloat16)
    truth = copy.deepcopy(model).double()
    own = rounding(model, truth)
    assert own["states"] < 0.1
    found = measured(model, EVERYTHING, layout, truth=truth)
    assert all(found[column] < 3 * own[column] + 2**-8 for column in own), (found, own)
    assert found["n_states"] == found["n_tokens"] == found["n_shared"] == 0


def test_sums_of_bfloat16_states_are_not_summed_in_bfloat16(zoo):
    model = zoo.load("llama", dtype=torch.bfloat16)
    case = Case(kind="pairs", groups=(tuple((list(b"q"), [40 + i] * 120, None) for i in range(2)),))
    outputs = [States(), StateSums()]
    found = gather(run(model, plan(as_encoded(case), model, outputs, layout="plain"), outputs))
    for place, states in found["states"].items():
        np.testing.assert_allclose(found["sum"][place], states.astype(np.float64).sum(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_rows_of_which_nothing_counts(zoo, layout):
    """A turn that was masked away as a whole: its sums are empty, not an error and not those of its neighbour."""
    prompt = list(b"Nothing of this counts:")
    rows = ((prompt, list(b" not this"), [False] * 9), (prompt, list(b" but this"), None))
    case = Case(kind="pairs", groups=(rows,))
    model = zoo.load("llama")
    found = measured(model, case, layout)
    assert max(found.values()) < 1e-5, found
    grams = [HeadGram(), LogProbs()]
    products = gather(run(model, plan(as_encoded(case), model, grams, layout=layout), grams))
    assert products["logp"][0, 0] == 0
    assert products["n_tokens"][0, 0] == 0
    assert (products["head_gram"][0, 0] == 0).all()
    assert deviations(products, expected_columns(model, case))["head_gram"] < 1e-5


def test_logits_far_apart_lose_nothing(zoo):
    """Probabilities of nearly one and of e^-500: what is small must be small, not zero, NaN or negative."""
    model = zoo.load("llama", dtype=torch.float64)
    with torch.no_grad():
        model.lm_head.weight.mul_(60)
    found = measured(model, PAIRS, "auto")
    assert max(found.values()) < 1e-6, found
    single = zoo.load("llama")
    with torch.no_grad():
        single.lm_head.weight.mul_(60)
    outputs = [LogProbs(per_token=True), TokenStats()]
    found = gather(run(single, plan(as_encoded(PAIRS), single, outputs), outputs))
    deviation = deviations(found, expected_columns(single, PAIRS, gram=False))
    assert max(deviation[name] for name in ("logp", "token_logp", "surprisal", "entropy")) < 1e-4, deviation
    assert min(values.min() for values in found["entropy"].values()) >= 0
    assert min(values.min() for values in found["varentropy"].values()) >= 0
    assert min(values.min() for values in found["surprisal"].values()) >= 0
    assert max(values.max() for values in found["surprisal"].values()) > 100  # far apart they are


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_token_kl_both_ways_between_two_models(zoo, layout):
    first, second = zoo.load("llama"), zoo.load("llama", seed=1)
    models = (first, second)
    for case, direction, names in (
        (EVERYTHING, "both", {"kl_forward", "kl_reverse"}),
        (FEW_PAIRS, "forward", {"kl_forward"}),
        (FEW_PAIRS, "reverse", {"kl_reverse"}),
    ):
        outputs = [TokenKL(direction=direction)]
        found = gather(run(models, plan(as_encoded(case), models, outputs, layout=layout), outputs))
        assert set(found) == names
        deviation = deviations(found, expected_kl(first, second, case))
        assert max(deviation.values()) < 1e-5, deviation
    assert min(values.min() for values in found["kl_reverse"].values()) > 0


def test_kl_of_a_model_from_itself_is_zero_and_never_negative(zoo):
    model, twin = zoo.load("llama"), zoo.load("llama")
    outputs = [TokenKL(direction="both")]
    found = gather(run((model, twin), plan(as_encoded(PAIRS), (model, twin), outputs), outputs))
    for column in found.values():
        for values in column.values():
            np.testing.assert_allclose(values, 0, atol=1e-6)


def test_kl_between_two_families_of_one_vocabulary(zoo):
    models = (zoo.load("llama"), zoo.load("gpt2"))
    outputs = [TokenKL(direction="both")]
    found = gather(run(models, plan(as_encoded(PAIRS), models, outputs), outputs))
    assert max(deviations(found, expected_kl(*models, PAIRS)).values()) < 1e-5


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_reward_heads_read_the_last_state_or_the_mean(zoo, layout):
    model = zoo.load("llama")
    weight = np.random.default_rng(0).standard_normal(32)
    expected = {"last": {}, "mean": {}}
    for group, slot, row in EVERYTHING.rows():
        one = facts(model, row)
        expected["last"][group, slot] = one.last_state @ weight + 0.25
        expected["mean"][group, slot] = one.own_states[one.counted].mean(axis=0) @ weight + 0.25
    for pool, values in expected.items():
        outputs = [HeadReward(weight, bias=0.25, pool=pool)]
        found = gather(run(model, plan(as_encoded(EVERYTHING), model, outputs, layout=layout), outputs))
        assert deviations(found, {"reward": values})["reward"] < 1e-5, pool
    without = [HeadReward(weight)]
    found = gather(run(model, plan(as_encoded(EVERYTHING), model, without, layout=layout), without))
    shifted = {place: value - 0.25 for place, value in expected["last"].items()}
    assert deviations(found, {"reward": shifted})["reward"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_whole_grid(zoo, name, request):
    """Family x attention x dtype x layout x case; ``-s`` prints the deviations as lines of a Markdown table."""
    family = FAMILIES[name]
    lines = []
    for attention in family.attention:
        kinds = ((torch.float32, 1e-5), (torch.float64, 1e-6), (torch.bfloat16, None))
        for dtype, limit in kinds if attention == family.attention[0] else kinds[:1]:
            model = zoo.load(name, attention=attention, dtype=dtype)
            truth = model if limit else copy.deepcopy(model).double()
            for layout in ("plain", "packed") if family.packed is True else ("plain",):
                worst: dict[str, float] = {}
                parts = [measured(model, case, layout, truth=truth, token_budget=64) for case in CASES.values()]
                parts.append(measured_grams(model, GRAM_CASES, layout, truth=truth, token_budget=64))
                for part in parts:
                    worst |= {column: max(value, worst.get(column, 0.0)) for column, value in part.items()}
                lines.append((name, attention, str(dtype).removeprefix("torch."), layout, worst))
                if limit:
                    assert max(worst.values()) < limit, (attention, dtype, layout, worst)
                else:
                    own = rounding(model, truth)
                    assert all(worst[column] < 3 * own[column] + 2**-8 for column in own), (worst, own)
    shown = (
        "states",
        "sum",
        "sum_beyond",
        "last_state",
        "token_logp",
        "entropy",
        "varentropy",
        "head_gram",
        "ufm_gram",
    )
    if name == next(iter(FAMILIES)):
        print(
            "\n| family | attention | dtype | layout | " + " | ".join(shown) + " |\n" + "|---" * (4 + len(shown)) + "|"
        )
    for *head, worst in lines:
        print("| " + " | ".join(head) + " | " + " | ".join(f"{worst[column]:.0e}" for column in shown) + " |")
