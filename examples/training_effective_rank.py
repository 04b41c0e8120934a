# %% [markdown]
# # Effective rank of every layer while a network learns digits
#
# A small network is trained on scikit-learn's digits from a small initialisation. Every ten steps each weight
# matrix is decomposed once and read several times. At first every layer looks like a random matrix. As soon as
# learning sets in, a few directions outgrow the rest: the stable rank falls to a handful, and the effective rank
# to about half of what it was, where it stays.
#
# Run it with `python examples/training_effective_rank.py`; it writes `effective_rank.png` into the folder
# named as its first argument, or into a temporary one.

# %%
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits

import rankdiag as rd

mpl.use("Agg")
import matplotlib.pyplot as plt

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="rankdiag-"))

# %% The data, and a network that starts small
digits = load_digits()
images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
labels = torch.tensor(digits.target)
train, test = slice(0, 1400), slice(1400, None)

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.mul_(0.3)

# %% Train, and read every layer's spectrum every ten steps
layers = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
log: dict[str, list[float]] = {name: [] for name in layers}
steps = []
for step in range(601):
    if step % 10 == 0:
        steps.append(step)
        for name, layer in layers.items():
            spectrum = rd.spectrum(layer.weight)  # decompose once ...
            log[name].append(spectrum.effective_rank())  # ... read often
            if step % 200 == 0:
                print(
                    f"step {step:4d}  layer {name}: effective rank {log[name][-1]:6.2f} of {min(spectrum.shape)}, "
                    f"stable rank {spectrum.stable_rank():5.2f}"
                )
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(images[train]), labels[train])
    loss.backward()
    optimizer.step()

with torch.no_grad():
    accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
print(f"test accuracy {accuracy:.3f}")

# %% Plot
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, layer in layers.items():
    ax.plot(steps, log[name], label=f"layer {name} ({layer.out_features}x{layer.in_features})")
ax.set_xlabel("step")
ax.set_ylabel("effective rank (directions)")
ax.legend()
path = folder / "effective_rank.png"
figure.savefig(path, dpi=120)
plt.close(figure)
print(f"wrote {path.name}")
