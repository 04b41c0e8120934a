"""Sampling from real models: the whole distribution, ends of responses, seeds, caches, and no trace left behind."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from oracles.causal_zoo import Zoo, quiet
from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag.rewards import HFSampler, Sampler, _hf_sampler, from_sampler, score_rollouts

EOS = 2
PROMPTS = [[1, 5, 6, 7], [1, 9], [1, 30, 31]]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    quiet()
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def small():
    """A model of 8 tokens whose distributions are far from flat."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=EOS,
        initializer_range=0.7,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def exact(model, prompt: list[int], length: int) -> dict[tuple[int, ...], float]:
    """Probability of every response of at most `length` tokens, which ends with its first EOS."""
    found: dict[tuple[int, ...], float] = {}
    for tokens in itertools.product(range(8), repeat=length):
        kept = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
        if kept in found:
            continue
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *kept]])).logits[0].double()
        lines = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
        found[kept] = float(torch.exp(sum(lines[i, token] for i, token in enumerate(kept))))
    return found


def test_it_draws_from_the_whole_distribution_of_the_policy(small):
    """The model's own settings would keep three tokens, punish repeats and cool; none of it may be seen."""
    own = small.generation_config
    own.top_k, own.top_p, own.repetition_penalty, own.temperature, own.no_repeat_ngram_size = 3, 0.5, 5.0, 0.1, 1
    try:
        law = exact(small, [1, 5], 2)
        assert sum(law.values()) == pytest.approx(1.0)
        count = 4000
        sampler = HFSampler(small, max_new_tokens=2, batch_size=1000)
        drawn = sampler.sample([[1, 5]], count, rng=0).token_ids[0]
        seen = {key: sum(row == key for row in drawn) for key in law}
        assert sum(seen.values()) == count
        often = [key for key, p in law.items() if p * count >= 10]
        rest = 1.0 - sum(law[key] for key in often)
        observed = [seen[key] for key in often] + [count - sum(seen[key] for key in often)]
        expected = [law[key] * count for key in often] + [rest * count]
        statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
        degrees = len(often)
        assert statistic < degrees + 5 * np.sqrt(2 * degrees)
        assert small.generation_config is own
    finally:
        small.generation_config = type(own)()


def test_fifty_tokens_of_a_configuration_do_not_cut_a_larger_vocabulary(zoo):
    """``top_k=50`` is what libraries put into a configuration; here it would leave 50 of the model's tokens."""
    model = zoo.load("llama")
    own = copy.deepcopy(model.generation_config)
    model.generation_config.do_sample, model.generation_config.top_k = True, 50
    try:
        with torch.no_grad():
            lines = model(input_ids=torch.tensor([[1, 5]])).logits[0, -1].double().softmax(dim=-1)
        kept = set(lines.topk(50).indices.tolist())
        rest = 1.0 - float(sum(lines[token] for token in kept))
        assert rest > 0.01
        sampler = HFSampler(model, max_new_tokens=1, batch_size=4000)
        rollouts = sampler.sample([[1, 5]], 4000, rng=0)
        seen = sum(row[0] not in kept for row in rollouts.token_ids[0]) / 4000
        assert abs(seen - rest) < 5 * np.sqrt(rest * (1 - rest) / 4000)
        recorded = {name: rollouts.meta[name] for name in ("temperature", "top_k", "top_p")}
        assert recorded == {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        assert model.generation_config.top_k == 50
    finally:
        model.generation_config = own


def test_temperature_and_truncation_are_obeyed_and_warned_of(small):
    law = exact(small, [1, 5], 1)
    best = max(law, key=law.get)
    with pytest.warns(UserWarning, match="top_k=1"):
        sampler = HFSampler(small, max_new_tokens=1, top_k=1)
    assert set(sampler.sample([[1, 5]], 20, rng=0).token_ids[0]) == {best}
    cold = HFSampler(small, max_new_tokens=1, temperature=0.01).sample([[1, 5]], 20, rng=0)
    assert set(cold.token_ids[0]) == {best}
    assert cold.meta["temperature"] == 0.01


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bloom", "mamba"])
def test_families_with_ragged_prompts(zoo, family):
    model = zoo.load(family)
    sampler = HFSampler(model, max_new_tokens=5, batch_size=6, log_probs=True)
    first = sampler.sample(PROMPTS, 3, rng=7)
    again = sampler.sample(PROMPTS, 3, rng=7)
    other = sampler.sample(PROMPTS, 3, rng=8)
    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids
    assert first.sizes == (3, 3, 3)
    for prompt, rows, values in zip(PROMPTS, first.token_ids, first.log_probs, strict=True):
        for row, value in zip(rows, values, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *row]])).logits[0].double()
            lines = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
            assert value == pytest.approx(float(sum(lines[i, t] for i, t in enumerate(row))), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bloom", "mamba"])
@pytest.mark.parametrize("k", [1, 2])
def test_padding_of_shorter_prompts_is_not_read(zoo, family, k):
    """So cold that the most probable token is drawn: that after the prompt alone, in a batch of several lengths."""
    model = zoo.load(family)
    prompts = [[1, 5, 6, 7, 40, 41], [1, 9], [30]]
    rollouts = HFSampler(model, max_new_tokens=3, temperature=1e-4, batch_size=8).sample(prompts, k, rng=0)
    for prompt, rows in zip(prompts, rollouts.token_ids, strict=True):
        ids = list(prompt)
        for _ in range(3):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == EOS:
                break
        assert set(rows) == {tuple(ids[len(prompt) :])}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_shared_cache_draws_what_plain_generation_draws(zoo, family, monkeypatch):
    model = zoo.load(family)
    sampler = HFSampler(model, max_new_tokens=6)
    used = []
    original = _hf_sampler._shared_cache
    monkeypatch.setattr(_hf_sampler, "_shared_cache", lambda *args: used.append(original(*args)) or used[-1])
    shared = sampler.sample(PROMPTS, 4, rng=1)
    assert used
    assert used[0]
    monkeypatch.setattr(_hf_sampler, "_shared_cache", lambda *args: {})
    assert sampler.sample(PROMPTS, 4, rng=1).token_ids == shared.token_ids


def test_prompts_of_like_length_are_drawn_together(small, monkeypatch):
    """And answers come back in the order of the prompts."""
    drawn = []

    def draw(sampler, prompts, k, seed, ends):
        drawn.append([len(prompt) for prompt in prompts])
        return [[prompt[-1], EOS] for prompt in prompts for _ in range(k)]

    monkeypatch.setattr(HFSampler, "_draw", draw)
    prompts = [[1, 3], [1, 3, 3, 4], [5], [1, 1, 6], [1, 1, 1, 1, 7]]
    rollouts = HFSampler(small, max_new_tokens=4, batch_size=4).sample(prompts, 2, rng=0)
    assert drawn == [[5, 4], [3, 2], [1]]
    assert rollouts.token_ids == tuple(((prompt[-1], EOS),) * 2 for prompt in prompts)


def test_a_response_ends_with_its_first_eos(small):
    rollouts = HFSampler(small, max_new_tokens=8, batch_size=64).sample([[1, 5], [1]], 40, rng=3)
    ended = [row for rows in rollouts.token_ids for row in rows if EOS in row]
    assert ended
    for rows, reasons, lengths in zip(rollouts.token_ids, rollouts.finish_reasons, rollouts.lengths, strict=True):
        for row, reason, length in zip(rows, reasons, lengths, strict=True):
            assert EOS not in row[:-1]
            assert reason == ("stop" if row[-1] == EOS else "length")
            assert length == len(row) <= 8
            assert reason == "stop" or length == 8
    share = sum(reason == "length" for row in rollouts.finish_reasons for reason in row) / 80
    assert rollouts.truncated_fraction == pytest.approx(share)
    assert 0 < share < 1
    table = score_rollouts(rollouts, lambda completions, **_: [0.0] * len(completions))
    assert table.meta["truncated_fraction"] == rollouts.meta["truncated_fraction"] == pytest.approx(share)


def test_nothing_is_left_behind(zoo):
    model = zoo.load("llama")
    model.train()
    model.model.layers[0].eval()
    before = torch.random.get_rng_state()
    HFSampler(model, max_new_tokens=3).sample(PROMPTS, 2, rng=0)
    assert bool((torch.random.get_rng_state() == before).all())
    assert model.training
    assert not model.model.layers[0].training
    model.eval()


def test_texts_and_conversations(zoo):
    tokenizer = tiny_tokenizer(vocab=262)
    model = zoo.load("llama")
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    sampler = HFSampler(model, tokenizer, max_new_tokens=4)
    assert isinstance(sampler, Sampler)
    prompts = ["Count: 1 2", [{"role": "user", "content": "hello"}], [1, 40, 41]]
    rollouts = sampler.sample(prompts, 2, rng=0)
    assert list(rollouts.prompt_ids[0]) == tokenizer("Count: 1 2")["input_ids"]
    text = tokenizer.apply_chat_template(prompts[1], tokenize=False, add_generation_prompt=True)
    assert list(rollouts.prompt_ids[1]) == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert rollouts.prompt_ids[2] == (1, 40, 41)
    for rows, texts in zip(rollouts.token_ids, rollouts.texts, strict=True):
        assert [tokenizer.decode(list(row), skip_special_tokens=True) for row in rows] == list(texts)
    table = from_sampler(sampler, prompts, 2, lambda completions, **_: [float(len(c)) for c in completions], rng=0)
    assert table.values.shape == (3, 2)
    assert [table.meta[name] for name in ("top_k", "top_p", "seed")] == [0, 1.0, 0]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft under transformers 5.24
def test_adapters_of_peft_stay_active(zoo):
    peft = pytest.importorskip("peft")
    base = zoo.load("llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.eval()
    with_adapter = HFSampler(model, max_new_tokens=5).sample(PROMPTS, 6, rng=2).token_ids
    with model.disable_adapter():
        without = HFSampler(model, max_new_tokens=5).sample(PROMPTS, 6, rng=2).token_ids
    assert with_adapter != without


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"max_new_tokens": 0}, ValueError, "`max_new_tokens`"),
        ({"temperature": 0.0}, ValueError, "`temperature`"),
        ({"top_k": -1}, ValueError, "`top_k`"),
        ({"top_p": 0.0}, ValueError, "`top_p`"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"log_probs": True, "temperature": 2.0}, ValueError, "`log_probs=True` needs"),
    ],
)
def test_options_out_of_range(small, options, kind, said):
    with pytest.raises(kind, match=said):
        HFSampler(small, **options)


def test_prompts_that_cannot_be_used(small):
    sampler = HFSampler(small, max_new_tokens=4)
    for prompts, kind, said in [
        ("text", TypeError, "`prompts` must be a sequence"),
        ([], ValueError, "at least one prompt"),
        ([[]], ValueError, "prompt 0 has none"),
        (["text"], TypeError, "without a tokenizer"),
        ([[1, 8]], ValueError, "prompt 0: token"),
        ([[1] * 30], ValueError, "leaves 2 of the 32 positions"),
    ]:
        with pytest.raises(kind, match=said):
            sampler.sample(prompts, 1)
    with pytest.raises(TypeError, match="`model` must be a causal language model"):
        HFSampler(lambda ids, mask, positions: ids)
