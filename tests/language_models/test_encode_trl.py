"""The same ids as TRL's DPO trainer, which is what training will see."""

from __future__ import annotations

import pytest

from oracles.encoding import data_file, rows_of
from oracles.tiny_tokenizer import TEMPLATE, tiny_tokenizer
from rankdiag.language_models import encode_preferences, extract_prompt

SOME = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green</s>"},
    {"prompt": "One clas", "chosen": "s more", "rejected": "h"},  # merges across the boundary
    {"prompt": "Привет 🙂\n", "chosen": "да", "rejected": "нет"},
]
CHAT = [
    {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}],
        "chosen": [{"role": "assistant", "content": "4"}],
        "rejected": [{"role": "assistant", "content": "5"}, {"role": "user", "content": "?"}],
    },
]
IMPLICIT = [
    {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in CHAT + SOME[2:]
]
OTHER_TEMPLATE = (  # the prompt alone ends in a block that the full conversation does not have
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think></think>{% endif %}"
)


def prepared(rows, tokenizer, folder, **options):
    """Let TRL's trainer itself prepare the rows, and return its columns of ids."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    import transformers

    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    model.save_pretrained(folder / "model")  # where the trainer reads its reference model from
    datasets.utils.logging.disable_progress_bar()
    try:
        trainer = trl.DPOTrainer(
            model=transformers.AutoModelForCausalLM.from_pretrained(folder / "model"),
            args=trl.DPOConfig(output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **options),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    finally:
        datasets.utils.logging.enable_progress_bar()
    return trainer.train_dataset


def compare(rows, tokenizer, folder):
    theirs = prepared(rows, tokenizer, folder)
    ours = encode_preferences(rows, tokenizer)
    assert len(theirs) == len(ours)
    for i, row in enumerate(theirs):
        assert ours.prompt_ids[i].tolist() == row["prompt_ids"], i
        assert ours.chosen_ids[i].tolist() == row["chosen_ids"], i
        assert ours.rejected_ids[i].tolist() == row["rejected_ids"], i
    return ours


pytestmark = [
    pytest.mark.slow,
    pytest.mark.changes_global_state(
        "python random state", "numpy random state", "torch random state", "environment variables", "root logger"
    ),
    pytest.mark.filterwarnings("ignore"),  # of the libraries that prepare the reference
]


@pytest.mark.parametrize("rows", [SOME, CHAT, IMPLICIT[:2], IMPLICIT[2:]], ids=["strings", "chat", "full chat", "full"])
def test_the_same_ids_as_the_trainer(rows, tmp_path):
    compare(rows, tiny_tokenizer(), tmp_path)


def test_a_template_that_renders_the_prompt_differently(tmp_path):
    tok = tiny_tokenizer()
    tok.chat_template = OTHER_TEMPLATE
    assert compare(CHAT, tok, tmp_path).n_boundary_merges == 2


@pytest.mark.parametrize("name", ["code_math_pairs.jsonl", "chat_pairs_conversational.jsonl"])
def test_the_same_ids_on_real_pairs(name, tmp_path):
    path = data_file(name)
    if path is None:
        pytest.skip(f"{name} is not there; RANKDIAG_DATA names the folder of it")
    tok = tiny_tokenizer(1024)
    assert tok.chat_template == TEMPLATE
    rows = [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows_of(path)]
    compare(rows, tok, tmp_path)


def test_prompts_are_extracted_alike():
    trl = pytest.importorskip("trl")
    for row in IMPLICIT:
        assert extract_prompt(row) == trl.extract_prompt(dict(row))


@pytest.mark.parametrize("keep", ["keep_start", "keep_end"])
@pytest.mark.parametrize("limit", [40, 200, 500])
def test_truncation_is_that_of_the_collator(keep, limit):
    pytest.importorskip("trl")
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    path = data_file("code_math_pairs.jsonl")
    if path is None:
        pytest.skip("code_math_pairs.jsonl is not there; RANKDIAG_DATA names the folder of it")
    tok, rows = tiny_tokenizer(1024), rows_of(path)[::5]
    whole = encode_preferences(rows, tok)
    cut = encode_preferences(rows, tok, max_length=limit, truncation=keep)
    columns = zip(whole.prompt_ids, whole.chosen_ids, whole.rejected_ids, strict=True)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    examples = [dict(zip(names, (part.tolist() for part in parts), strict=True)) for parts in columns]
    batch = DataCollatorForPreference(pad_token_id=0, max_length=limit, truncation_mode=keep)(examples)
    checked = 0
    for i, status in enumerate(cut.status):
        if status not in {"ok", "identical"}:
            continue
        for slot in (0, 1):
            row = slot * len(rows) + i
            ids = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
            part = batch["completion_mask"][row].bool()
            prompt = cut.prompt_ids[i][cut.prompt_start[2 * i + slot] :].tolist()
            response = cut.response_ids[2 * i + slot].tolist()
            assert prompt + response == ids
            assert response == batch["input_ids"][row][part].tolist()
            checked += 1
    assert checked >= 10
    assert cut.n_truncated > 0
