"""Rewards of sequence classifiers and implicit rewards, against one plain forward for each response."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.causal_zoo import Zoo, fill, quiet
from rankdiag.language_models import encode
from rankdiag.rewards import implicit_rewards, sequence_rewards

PROMPTS = [[1, 5, 6, 7], [1, 9]]
RESPONSES = [[[10, 11, 2], [12, 2], [13]], [[2, 2], [14, 0, 2], [15, 16, 17, 18]]]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    quiet()
    return Zoo(tmp_path_factory.mktemp("zoo"))


def data():
    return encode(
        [{"prompt_ids": p, "responses_ids": r} for p, r in zip(PROMPTS, RESPONSES, strict=True)], kind="responses"
    )


def classifier(kind: str, labels: int = 1, pad: int = 0):
    with torch.random.fork_rng(devices=[]):
        return _classifier(kind, labels, pad)


def _classifier(kind: str, labels: int, pad: int):
    import transformers

    common = {"num_labels": labels, "pad_token_id": pad, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 64}
    if kind == "llama":
        config = transformers.LlamaConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, **common
        )
        return fill(transformers.LlamaForSequenceClassification(config)).eval()
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **common)
    return fill(transformers.GPT2ForSequenceClassification(config)).eval()


def expected(model, label: int = 0, pool: str = "last") -> np.ndarray:
    values = []
    for prompt, responses in zip(PROMPTS, RESPONSES, strict=True):
        row = []
        for response in responses:
            with torch.no_grad():
                states = model.base_model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state[0]
            own = states[-1:] if pool == "last" else states[len(prompt) :]
            row.append((own @ model.score.weight[label]).mean().item())
        values.append(row)
    return np.array(values)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pool", ["last", "mean"])
def test_the_head_reads_the_last_token_that_was_given(kind, pool):
    model = classifier(kind)
    table = sequence_rewards(model, data(), pool=pool)
    np.testing.assert_allclose(table.values, expected(model, pool=pool), rtol=1e-5, atol=1e-6)
    assert table.lengths.tolist() == [[3, 2, 1], [2, 3, 4]]


def test_padding_that_is_the_eos_moves_nothing():
    """transformers' own head looks for the last token that is not padding, and so reads another state here."""
    model = classifier("llama", pad=2)
    table = sequence_rewards(model, data())
    np.testing.assert_allclose(table.values, expected(model), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        own = float(model(input_ids=torch.tensor([[*PROMPTS[0], *RESPONSES[0][0]]])).logits[0, 0])
    assert abs(own - table.values[0, 0]) > 1e-4


def test_one_of_several_outputs():
    model = classifier("llama", labels=3)
    with pytest.raises(ValueError, match="`label` must say which of the 3 outputs"):
        sequence_rewards(model, data())
    np.testing.assert_allclose(
        sequence_rewards(model, data(), label=2).values, expected(model, label=2), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="`label`"):
        sequence_rewards(model, data(), label=3)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft under transformers 5.24
def test_a_head_that_peft_trains():
    peft = pytest.importorskip("peft")
    base = classifier("llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(
            base, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], init_lora_weights=False)
        ).eval()
    head = model.base_model.model.score.modules_to_save["default"]
    with torch.no_grad():
        head.weight.mul_(2.0)
        states = model.base_model.model.model(input_ids=torch.tensor([[*PROMPTS[0], *RESPONSES[0][0]]]))[0][0, -1]
        wanted = float(states @ head.weight[0])
    assert sequence_rewards(model, data()).values[0, 0] == pytest.approx(wanted, rel=1e-5)


def test_unusable_prompts_are_nan():
    some = encode(
        [
            {"prompt_ids": PROMPTS[0], "responses_ids": RESPONSES[0]},
            {"prompt_ids": [1], "responses_ids": [[3], [], [4]]},
        ],
        kind="responses",
    )
    values = sequence_rewards(classifier("llama"), some).values
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[1]).all()


def log_prob(model, prompt, response) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double()
    lines = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
    return float(sum(lines[i, token] for i, token in enumerate(response)))


def test_implicit_rewards_are_scaled_differences_of_log_probabilities(zoo):
    policy, reference = zoo.load("llama"), zoo.load("llama_tied")
    table = implicit_rewards(policy, reference, data(), beta=0.5)
    bare = implicit_rewards(policy, None, data())
    for g, (prompt, responses) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        for s, response in enumerate(responses):
            own, other = log_prob(policy, prompt, response), log_prob(reference, prompt, response)
            assert table.values[g, s] == pytest.approx(0.5 * (own - other), abs=2e-5)
            assert table.log_probs[g, s] == pytest.approx(own, abs=2e-5)
            assert bare.values[g, s] == pytest.approx(own, abs=2e-5)
    assert (implicit_rewards(policy, policy, data()).values == 0.0).all()


def test_refusals(zoo):
    model = zoo.load("llama")
    with pytest.raises(ValueError, match="`model` must have a linear head"):
        sequence_rewards(model, data())
    with pytest.raises(ValueError, match="`beta`"):
        implicit_rewards(model, model, data(), beta=0.0)
    with pytest.raises(TypeError, match="`data`"):
        implicit_rewards(model, model, [[1]])
    with pytest.raises(TypeError, match="`data`"):
        sequence_rewards(classifier("llama"), "text")
