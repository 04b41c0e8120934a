# %% [markdown]
# # A classifier that reinforcement cannot correct, and supervision can
#
# A network is pretrained on digits to name the true digit or one of four others, each with probability 1/5. Then every
# tenth image gets a new label, outside those five. Two ways to finetune: ascend the expected reward (+1 for the label,
# -1 for everything else, exact gradients, nothing sampled), or descend cross-entropy to the same labels.
#
# At the start both kinds of images have a low mean reward. They differ in the standard deviation of the reward under
# the policy: where the label has probability 1/5 it is 0.8, where it has less than 1/1000 it is below 0.1, and the
# gradient of the expected reward is small with it (Razin et al. 2023, arXiv:2310.20703, Theorem 1). So reinforcement
# leaves the relabelled images where they are. Supervision moves them, for its gradient does not vanish.
#
# Run it with `python examples/vanishing_gradient_digits.py`; it takes about ten seconds, prints its results and ends
# with an error if what it says does not hold. `reproductions/rewards_vanishing.py` repeats it for three seeds, and in
# larger sizes.

# %%
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from rankdiag.rewards import (
    TabularPolicy,
    exact_reward_moments,
    gradient_alignment,
    gradient_bounds,
    summarize,
    two_output_times,
)


# %% The task: five allowed labels for each class, then a new label for a tenth of the images
@dataclass
class Task:
    images: torch.Tensor  # (1000, 64), standardised by one mean and one deviation
    target: torch.Tensor  # (1000, 10), 1/5 on the labels of the pretraining
    reward: torch.Tensor  # (1000, 10), +1 for the label of the finetuning, -1 for the rest
    modified: np.ndarray  # (1000,), whether the label is a new one


def make_task(seed: int, count: int = 1000) -> Task:
    rng = np.random.default_rng(seed)
    digits = load_digits()
    images, truth = digits.data[:count], digits.target[:count]
    images = (images - images.mean()) / images.std()
    allowed = np.eye(10, dtype=bool)
    for digit in range(10):
        allowed[digit, rng.choice(np.delete(np.arange(10), digit), 4, replace=False)] = True
    modified = np.zeros(count, dtype=bool)
    modified[rng.choice(count, count // 10, replace=False)] = True
    label = truth.copy()
    for i in np.flatnonzero(modified):
        label[i] = rng.choice(np.flatnonzero(~allowed[truth[i]]))
    return Task(
        images=torch.tensor(images, dtype=torch.float32),
        target=torch.tensor(allowed[truth] / 5, dtype=torch.float32),
        reward=torch.tensor(2.0 * (np.arange(10) == label[:, None]) - 1, dtype=torch.float32),
        modified=modified,
    )


# %% Training: the loss is the only difference
def expected_reward(logits: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    return -(logits.softmax(dim=1) * reward).sum(dim=1).mean()


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -(logits.log_softmax(dim=1) * target).sum(dim=1).mean()


def train(model, images, target, loss, *, epochs, lr, seed, batch=512):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(batch):
            optimizer.zero_grad()
            value = loss(model(images[rows]), target[rows])
            value.backward()
            optimizer.step()
    with torch.no_grad():
        return float(loss(model(images), target))


def make_model(widths: tuple[int, int], seed: int) -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = widths
        return torch.nn.Sequential(
            torch.nn.Linear(64, first), torch.nn.ReLU(),
            torch.nn.Linear(first, second), torch.nn.ReLU(),
            torch.nn.Linear(second, 10),
        )  # fmt: skip


# %% Readings: what theory says of each image
def policy_of(model: torch.nn.Module, task: Task) -> TabularPolicy:
    with torch.no_grad():
        return TabularPolicy(model(task.images).double())


def kernels(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """Return J J^T of each image, shape (n, 10, 10): J is the Jacobian of the logits by all parameters."""
    names, values = zip(*((name, p.detach()) for name, p in model.named_parameters()), strict=True)

    def logits(*parameters: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (image,))

    found = []
    for image in images:
        parts = torch.func.jacrev(lambda *p, x=image: logits(*p, image=x), argnums=tuple(range(len(values))))(*values)
        jacobian = torch.cat([part.reshape(10, -1) for part in parts], dim=1).double()
        found.append((jacobian @ jacobian.T).numpy())
    return np.array(found)


@dataclass
class Start:
    std: float  # of the reward under the policy
    together: float  # norm of the gradient of the mean over these images
    norm: float  # of the gradient of one image's expected reward by all parameters, mean over images
    fisher: float  # its bound std sqrt(lambda_max F)
    published: float  # its bound 6 J std^(2/3), Theorem 1 with one output step
    chance: float  # of the label, median


def read_start(policy: TabularPolicy, task: Task, model: torch.nn.Module, rows: np.ndarray) -> Start:
    reward = task.reward.numpy().astype(float)
    std = exact_reward_moments(policy.probs[rows], reward[rows]).exact_std
    norms, top, jacobian = [], [], []
    for p, r, kernel in zip(policy.probs[rows], reward[rows], kernels(model, task.images[rows]), strict=True):
        norms.append(math.sqrt(gradient_alignment(p, r, r, kernel=kernel).rate))  # |grad|^2 = <pi A, K (pi A)>
        root = np.sqrt(p)  # F = J^T (diag p - p p^T) J has the top eigenvalue of C J J^T C, C C^T = diag p - p p^T
        half = np.diag(root) - np.outer(p, root)
        top.append(np.linalg.eigvalsh(half.T @ kernel @ half)[-1])
        jacobian.append(math.sqrt(np.linalg.eigvalsh(kernel)[-1]))
    bounds = gradient_bounds(std, length=1, jacobian=jacobian, fisher_top=top)
    assert (np.array(norms) <= bounds.fisher * (1 + 1e-9)).all()
    assert (bounds.fisher <= bounds.sqrt_length * (1 + 1e-9)).all()
    chance = policy.probs[rows][reward[rows] > 0]
    mean = torch.autograd.grad(expected_reward(model(task.images[rows]), task.reward[rows]), list(model.parameters()))
    return Start(
        float(std.mean()), float(torch.cat([part.ravel() for part in mean]).norm()), float(np.mean(norms)),
        float(bounds.fisher.mean()), float(bounds.published.mean()), float(np.median(chance)),
    )  # fmt: skip


@dataclass
class Outcome:
    loss: float  # at the end of the pretraining; its floor is ln 5
    start: dict[str, Start]
    value: dict[tuple[str, str], float]  # (method, kind of image) -> mean reward
    accuracy: dict[tuple[str, str], float]
    flat: dict[str, float]  # kind -> share of images whose ten rollouts all get one reward


def experiment(seed: int, *, widths: tuple[int, int], lr: float, epochs: tuple[int, int], probe: int = 100) -> Outcome:
    task = make_task(seed)
    kinds = {"modified": np.flatnonzero(task.modified), "other": np.flatnonzero(~task.modified)}
    model = make_model(widths, seed)
    loss = train(model, task.images, task.target, cross_entropy, epochs=epochs[0], lr=lr, seed=seed)
    policy = policy_of(model, task)
    start = {kind: read_start(policy, task, model, rows[:probe]) for kind, rows in kinds.items()}
    flat = {kind: rollouts_of(policy, task, rows, seed) for kind, rows in kinds.items()}
    value, accuracy = {}, {}
    labels = ((task.reward + 1) / 2).numpy()
    for method, objective, target in (
        ("reinforcement", expected_reward, task.reward), ("supervision", cross_entropy, (task.reward + 1) / 2),
    ):  # fmt: skip
        tuned = make_model(widths, seed)
        tuned.load_state_dict(model.state_dict())
        train(tuned, task.images, target, objective, epochs=epochs[1], lr=lr, seed=seed)
        end = policy_of(tuned, task)
        mean = exact_reward_moments(end.probs, task.reward.numpy()).mean
        right = end.probs.argmax(axis=1) == labels.argmax(axis=1)
        for kind, rows in kinds.items():
            value[method, kind], accuracy[method, kind] = float(mean[rows].mean()), float(right[rows].mean())
    return Outcome(loss, start, value, accuracy, flat)


def rollouts_of(policy: TabularPolicy, task: Task, rows: np.ndarray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.choice(10, size=10, p=policy.probs[i] / policy.probs[i].sum()) for i in rows])
    return summarize(np.take_along_axis(task.reward.numpy()[rows], drawn, axis=1)).frac_zero_std


def show(seed: int, outcome: Outcome) -> None:
    print(f"\n## Seed {seed}: pretraining ends at a loss of {outcome.loss:.3f}, its floor is ln 5 = {math.log(5):.3f}")
    print(f"{'before finetuning':24s}{'modified':>10s}{'other':>10s}")
    names = {
        "std": "std of the reward", "together": "norm of mean gradient", "norm": "norm, image by image",
        "fisher": "  bound std sqrt(top F)", "published": "  bound 6 J std^(2/3)", "chance": "p(label), median",
    }  # fmt: skip
    for name, text in names.items():
        values = [getattr(outcome.start[kind], name) for kind in ("modified", "other")]
        print(f"{text:24s}{values[0]:10.4f}{values[1]:10.4f}")
    print(f"{'ten rollouts, one reward':24s}{outcome.flat['modified']:10.2f}{outcome.flat['other']:10.2f}")
    print(f"{'mean reward after':24s}{'modified':>10s}{'other':>10s}")
    for method in ("reinforcement", "supervision"):
        values = [outcome.value[method, kind] for kind in ("modified", "other")]
        print(f"{method:24s}{values[0]:10.3f}{values[1]:10.3f}")


# %% One seed of the small configuration
def main() -> None:
    torch.set_num_threads(1)
    outcome = experiment(0, widths=(128, 64), lr=5e-4, epochs=(300, 400))
    show(0, outcome)
    times = two_output_times(outcome.start["modified"].chance)
    print(f"\nTwo outputs, the better one with p = {outcome.start['modified'].chance:.4f} at the start, closed form:")
    by_reward, by_labels = float(times.reinforcement), float(times.supervised)
    print(f"even after a time of {by_reward:.0f} by reward, of {by_labels:.1f} by supervision")
    assert outcome.start["modified"].std < 0.1 < 0.7 < outcome.start["other"].std
    assert outcome.start["modified"].norm < 0.1 * outcome.start["other"].norm
    assert outcome.value["reinforcement", "other"] > 0.95
    assert outcome.value["reinforcement", "modified"] < -0.9
    assert outcome.value["supervision", "modified"] > outcome.value["reinforcement", "modified"] + 0.8
    print("holds: reinforcement learns the images whose reward varies, and leaves those whose reward does not.")


if __name__ == "__main__":
    main()
