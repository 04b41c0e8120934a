# %% [markdown]
# # An accurate reward model can be the slower teacher
#
# What a policy can learn from a reward model depends on two things: whether it ranks outputs rightly (accuracy), and
# how far apart it puts outputs that this policy is likely to give (reward variance). Gradient ascent needs the second:
# with little variance the landscape is flat, however right the order is (Razin et al. 2025, arXiv:2503.15477).
#
# First one prompt with 50 outputs. A reward with the order of the truth and values in (0, 1/T) is perfectly accurate,
# and its teaching takes a time in proportion to T. A reward that puts the best output on top and turns the order of all
# others around is nearly wrong everywhere, and teaches in a time that does not depend on T. Then 200 prompts: a reward
# that is flat on half of them is perfectly accurate, and loses against a noisy one.
#
# Run it with `python examples/reward_teachers.py`; it takes a few seconds, prints its results and ends with an error if
# what it says does not hold. `reproductions/rewards_teacher.py` repeats it for three seeds.

# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankdiag.rewards import (
    TeacherReport,
    exact_reward_moments,
    ranking_accuracy,
    simulate_policy_gradient,
    teacher_report,
    teacher_times,
    time_lower_bounds,
)

GAMMA = 0.3  # the rise of the true reward that is waited for


# %% One prompt, 50 outputs: how long until the true reward has risen by 0.3?
@dataclass
class Lesson:
    reward: str
    accuracy: float  # over all pairs of outputs
    std: float  # under the initial policy
    lower: float  # no flow on a reward of this variance is faster: Proposition 3
    time: float  # of the flow


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def one_prompt(seed: int, outputs: int = 50) -> tuple[list[Lesson], float]:
    """Return a lesson for each reward, and the upper bound of the time of the nearly wrong one (Theorem 5)."""
    rng = np.random.default_rng(seed)
    start = softmax(rng.standard_normal(outputs))
    gold = np.sort(rng.uniform(-1, 1, outputs))[::-1][rng.permutation(outputs)]
    rank, best = gold.argsort().argsort(), gold.argmax()
    wrong = (outputs - rank) / (outputs + 1) * start[best]
    wrong[best] = 1.0
    rewards = {f"right order, T = {scale}": (rank + 1) / ((outputs + 1) * scale) for scale in (1, 10, 100, 1000)}
    rewards.update({"nearly wrong": wrong, "the truth": gold})
    lessons = []
    for name, reward in rewards.items():
        moments = exact_reward_moments(start, reward)
        run = simulate_policy_gradient(
            start, reward, {"gold": gold}, horizon=1e7, stop=("gold", float(start @ gold) + GAMMA)
        )
        lower = time_lower_bounds(GAMMA, moments.exact_var, length=1, jacobian=1.0, tabular=True).tabular
        accuracy = ranking_accuracy(reward[None], gold[None]).accuracy
        lessons.append(Lesson(name, accuracy, float(moments.exact_std), float(lower), float(run.hitting_time)))
    return lessons, teacher_times(start, gold, GAMMA).inaccurate_upper


# %% Two hundred prompts, five reward models, the same ten rollouts of each prompt
@dataclass
class School:
    report: TeacherReport
    gain: dict[str, float]  # in the true reward, in units of its pooled standard deviation
    proxy_gain: dict[str, float]  # in the reward that is ascended, normalised likewise


def many_prompts(seed: int, prompts: int = 200, outputs: int = 20, steps: int = 30) -> School:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((prompts, outputs))
    gold = 0.7 * rng.standard_normal((prompts, 1)) + 0.7 * rng.standard_normal((prompts, outputs))
    start = softmax(logits)
    drawn = np.stack([rng.choice(outputs, size=10, p=row) for row in start])
    flat = gold.copy()
    flat[: prompts // 2] *= 0.001
    rewards = {"the truth": gold, "flat on half": flat}
    for noise in (0.25, 0.5, 1):
        rewards[f"noise {noise:g}"] = gold + noise * rng.standard_normal(gold.shape)
    seen = {name: np.take_along_axis(reward, drawn, axis=1) for name, reward in rewards.items()}
    unit = seen["the truth"].std(ddof=1)
    gain, proxy_gain = {}, {}
    for name, reward in rewards.items():
        whitened = (reward - seen[name].mean()) / seen[name].std(ddof=1)
        run = simulate_policy_gradient(
            start, whitened, {"gold": gold}, method="gd", lr=1.0, steps=steps, record=[0, steps]
        )
        gain[name] = float((run.values["gold"][-1] - run.values["gold"][0]).mean() / unit)
        proxy_gain[name] = float((run.train_value[-1] - run.train_value[0]).mean())
    return School(teacher_report(seen, seen["the truth"], bootstrap=0), gain, proxy_gain)


# %% What came out
def main() -> None:
    lessons, upper = one_prompt(0)
    print(f"One prompt, 50 outputs: time until the true reward has risen by {GAMMA}")
    print("reward                 accuracy      std   no sooner than        time")
    for x in lessons:
        print(f"{x.reward:22s} {x.accuracy:8.2f} {x.std:8.4f} {x.lower:16.2f} {x.time:11.1f}")
        assert x.time >= x.lower
    accurate, wrong = lessons[1].time, lessons[4].time
    print(f"the nearly wrong one needs at most {upper:.3g}, by Theorem 5")
    assert lessons[3].accuracy == 1.0
    assert lessons[4].accuracy < 0.05
    assert wrong < accurate < lessons[3].time
    assert wrong <= upper
    school = many_prompts(0)
    print("\n200 prompts, 30 steps at equal pooled variance of the reward")
    print("reward model     accuracy   normalised variance   gain in the true reward")
    for row in school.report.rows:
        accuracy, gain = row.on_policy_accuracy, school.gain[row.name]
        print(f"{row.name:14s} {accuracy:10.2f} {row.normalised_variance:21.3f} {gain:25.3f}")
    for figure in ("normalised_variance", "on_policy_accuracy"):
        found = school.report.correlate(school.proxy_gain)[figure]
        print(f"correlation of {figure.replace('_', ' ')} with the gain in the reward ascended: {found:+.2f}")
    perfect, noisy = (row for row in school.report.rows if row.name in ("flat on half", "noise 0.5"))
    assert perfect.on_policy_accuracy == 1.0 > 0.85 > noisy.on_policy_accuracy
    assert school.gain["noise 0.5"] > school.gain["flat on half"] + 0.1
    assert min(row.std_q10 for row in school.report.rows) == perfect.std_q10
    print(
        f"\nholds: a model of accuracy {noisy.on_policy_accuracy:.2f} teaches more than one that is right about every"
    )
    print("pair and flat on half of the prompts. The mean variance hides the flat half, quantiles show it:")
    print(f"a tenth of its prompts have a std below {perfect.std_q10:.4f}.")


if __name__ == "__main__":
    main()
