"""Real scoring processes for the tests of faults: a nursery that forks warm workers, and a worker of torchrun.

``scoring_worker.py build FOLDER`` makes a small Llama, a tokenizer and pairs; ``serve FOLDER`` reads lines "run OUT"
and forks a worker for each, whose pid and end it prints; ``once FOLDER OUT`` scores one part under torchrun.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TOPICS = ("a kite", "the sea", "old maps", "bread", "a quiet street", "winter", "the first tram", "a library")


def pairs() -> list[dict[str, str]]:
    rows = []
    for number in range(60):
        topic = TOPICS[number % len(TOPICS)]
        prompt = f"Write {1 + number % 4} words about {topic}, please ({number})."
        right = f" {topic.title()} in the {['morning', 'evening', 'rain', 'sun'][number % 4]}, number {number}."
        wrong = right.replace("morning", "dark") + (" And then nothing else at all." if number % 3 else " No.")
        rows.append({"key": f"pair {number}", "prompt": prompt, "chosen": right, "rejected": wrong})
    rows[7]["chosen"] = ""
    rows[11]["rejected"] = rows[11]["chosen"]
    return rows


def build(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from oracles.tiny_tokenizer import tiny_tokenizer

    tokenizer = tiny_tokenizer(400)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    text = "".join(json.dumps(row) + "\n" for row in pairs())
    (folder / "pairs.jsonl").write_text(text, encoding="utf-8")


def loaded(folder: Path):
    import torch

    from rankdiag.language_models import encode_preferences, load_language_model, read_records

    torch.set_num_threads(1)
    model, tokenizer = load_language_model(folder / "model")
    return model, encode_preferences(read_records(folder / "pairs.jsonl"), tokenizer)


def score(model, data, out: str, **options):
    from rankdiag.preference import score_preferences

    return score_preferences(model, data, out=out, logps=True, keep_sums=True, token_budget=100, **options)


def serve(folder: Path) -> None:
    model, data = loaded(folder)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                score(model, data, line.split(maxsplit=1)[1].strip())
            except BaseException as error:
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def once(folder: Path, out: str) -> None:
    import torch.distributed as dist

    from rankdiag.preference import merge_scores

    dist.init_process_group("gloo")
    model, data = loaded(folder)
    if os.environ.get("DIE_AT_RANK") == os.environ["RANK"]:
        from rankdiag.language_models import Journal

        written = Journal.append
        calls = []

        def append(self, columns):
            written(self, columns)
            calls.append(1)
            if len(calls) == 4:
                os.kill(os.getpid(), 9)

        Journal.append = append
    score(model, data, out)
    dist.barrier()
    if dist.get_rank() == 0:
        merge_scores(out)
    dist.barrier()
    os._exit(0)  # taking gloo down in order ends in an abort now and then, with this package and without


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    {"build": build, "serve": serve, "once": once}[what](Path(place), *rest)
