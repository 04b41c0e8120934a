# %% [markdown]
# # Watch likelihood displacement while DPO trains
#
# A tiny language model first learns a few answers by heart, and is then trained with DPO on pairs whose two responses
# differ in one word. The margin grows at every step, as it should. The trainer's own curve and a fixed probe tell
# whether the chosen answers became *less* likely while it grew. A gate ends the run when they fell too far.
#
# Everything is made here: tokenizer, model and pairs; nothing is downloaded. Run it with
# `python examples/dpo_displacement_monitor.py`; it writes `displacement.png` and `displacement.jsonl` into the folder
# named as its first argument, or into a temporary one. It takes less than a minute on one CPU.

# %%
from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here needs a network

import datasets
import matplotlib as mpl
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from trl import DPOConfig, DPOTrainer

from rankdiag.language_models import encode_preferences
from rankdiag.monitors import DisplacementCallback, DisplacementLimit

mpl.use("Agg")
import matplotlib.pyplot as plt

# TRL still calls parts of transformers by their old names.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="rankdiag-"))
datasets.disable_progress_bars()
transformers.logging.disable_progress_bar()
transformers.set_seed(0)

# %% Pairs that differ in one word
animals = {"cat": "mouse", "dog": "bone", "cow": "grass", "bee": "nectar", "hen": "corn", "fox": "hen", "owl": "vole"}
places = ("on the farm", "in the barn", "by the road", "at night", "in winter")
pairs = [
    {
        "prompt": f"What does the {animal} want {place}?",
        "chosen": f" The {animal} {place} wants some {food}.",
        "rejected": f" The {animal} {place} wants some paper.",
    }
    for animal, food in animals.items()
    for place in places
]

# %% A tokenizer and a model of a few thousand parameters
core = Tokenizer(models.BPE())
core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
core.decoder = decoders.ByteLevel()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
bpe = trainers.BpeTrainer(
    vocab_size=400, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
)
core.train_from_iterator([text for pair in pairs for text in pair.values()], bpe)
core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
)
config = transformers.LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
model = transformers.LlamaForCausalLM(config)

# %% It learns the chosen answers, as a model does before DPO
texts = [pair["prompt"] + pair["chosen"] + "</s>" for pair in pairs]
batch = tokenizer(texts, padding=True, return_tensors="pt")
labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(121):
    loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    if step % 40 == 0:
        print(f"imitation step {step:3d}  loss {loss.item():.3f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.save_pretrained(folder / "start")
tokenizer.save_pretrained(folder / "start")

# %% DPO, with a probe of sixteen pairs that never changes
settings = DPOConfig(
    output_dir=str(folder / "run"),
    max_steps=40,
    per_device_train_batch_size=8,
    learning_rate=1e-3,
    logging_steps=5,
    save_strategy="no",
    report_to="none",
    bf16=False,
    use_cpu=True,
    activation_checkpointing=False,
    dataloader_pin_memory=False,
    disable_tqdm=True,
    seed=0,
)
trainer = DPOTrainer(
    model=str(folder / "start"),
    args=settings,
    train_dataset=datasets.Dataset.from_list(pairs),
    processing_class=tokenizer,
)
trainer.remove_callback(transformers.PrinterCallback)
probe = encode_preferences(pairs[::2], tokenizer)
monitor = DisplacementCallback(
    probe,
    every=2,
    out=folder / "displacement.jsonl",
    stop_if=DisplacementLimit(mean_below=-5.0, patience=3),
).bind(trainer)
trainer.train()

# %% What happened
key = "rankdiag/preference/"
probes = [record for record in trainer.state.log_history if key + "mean_delta_chosen" in record]
windows = [record for record in trainer.state.log_history if key + "window_mean_delta_chosen" in record]
for record in probes:
    print(
        f"step {record['step']:2d}  chosen {record[key + 'mean_delta_chosen']:+7.2f} nat  "
        f"rejected {record[key + 'mean_delta_rejected']:+8.2f} nat  displaced {record[key + 'displaced_fraction']:.2f}"
    )
print(f"ended at step {trainer.state.global_step} of {settings.max_steps}: {monitor.stopped or 'by itself'}")
worst = min(range(len(probe)), key=lambda pair: monitor.report.delta_chosen[pair])
print(f"fell most: {pairs[::2][worst]['prompt']!r} by {-monitor.report.delta_chosen[worst]:.1f} nat")
lines = [json.loads(line) for line in (folder / "displacement.jsonl").read_text().splitlines()]
print(f"{len(lines)} lines in displacement.jsonl; {monitor.probes} probes took {monitor.seconds:.1f} s")

# %% Plot
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, label in (("mean_delta_chosen", "chosen, probe"), ("mean_delta_rejected", "rejected, probe")):
    ax.plot([0, *(r["step"] for r in probes)], [0.0, *(r[key + name] for r in probes)], label=label)
ax.plot(
    [r["step"] for r in windows], [r[key + "window_mean_delta_chosen"] for r in windows], "o", label="chosen, windows"
)
ax.axhline(0.0, color="0.7", linewidth=0.8)
ax.set_xlabel("step")
ax.set_ylabel("change of ln pi (nat)")
ax.legend()
figure.savefig(folder / "displacement.png", dpi=120)
plt.close(figure)
print("wrote displacement.png")
