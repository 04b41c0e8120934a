"""A classifier of digits as a policy: what its rewards can teach it, who teaches best, and how a judge is fooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._optional import optional
from rankdiag._result import Result

__all__ = ["INTRO", "ORDER", "TITLE", "run"]

ORDER = 40
TITLE = "Rewards: what moves a policy, who teaches it, and where a judge is fooled"
INTRO = (
    "A classifier that has seen 100 of scikit-learn's digits is the policy, an image is a prompt, the name of a digit "
    "an answer. Eight answers are drawn for each of 400 images; the true reward is 1 for the right name and -1 for "
    "another. The summary says for how many images these rewards can move the policy at all. The table compares four "
    "reward models on the same answers: a judge trained on other digits, one that sees the upper half of an image, "
    "the truth with noise, and the truth made flat on half of the images, which is right about every pair and whose "
    "lowest quantile of spread is near zero; off-policy pairs set the right name beside any other. The two plots at "
    "the end follow the policy on one image: while the half-blind judge is obeyed, and while the truth is."
)

_ROLLOUTS = 8
_SEEN, _ASKED, _JUDGED = slice(0, 100), slice(100, 500), slice(500, 1797)
_HORIZON = 1e3


def run(folder: Path) -> tuple[Result, ...]:
    """Draw answers, score them, and follow two flows; nothing is written.

    Parameters
    ----------
    folder : pathlib.Path
        Not used.

    Returns
    -------
    tuple of Result
        The summary of the true rewards, the table of reward models, and two trajectories.

    Raises
    ------
    MissingExtraError
        If scikit-learn is missing or broken.
    """
    from rankdiag.rewards import RewardTable, simulate_policy_gradient, summarize, teacher_report

    datasets = optional("sklearn.datasets", extra="sklearn", feature="this section of the demo")
    digits = datasets.load_digits()
    images, labels = digits.data / 16.0, digits.target
    rng = np.random.default_rng(0)

    asked, truth = images[_ASKED], 2.0 * np.eye(10)[labels[_ASKED]] - 1.0
    policy = _classifier(images[_SEEN], labels[_SEEN], asked)
    answers = np.stack([rng.choice(10, size=_ROLLOUTS, p=row) for row in policy])
    flat = np.where(np.arange(len(asked)) % 2, 1.0, 0.001)[:, None]
    upper = _classifier(images[_JUDGED, :32], labels[_JUDGED], asked[:, :32])
    models = {
        "judge": np.log(_classifier(images[_JUDGED], labels[_JUDGED], asked)),
        "judge, upper half": np.log(upper),
        "truth with noise": truth + rng.standard_normal(truth.shape),
        "truth, flat on half": truth * flat,
    }
    names = [f"image {i}" for i in range(_ASKED.start, _ASKED.stop)]
    drawn = {name: np.take_along_axis(reward, answers, axis=1) for name, reward in models.items()}
    gold = np.take_along_axis(truth, answers, axis=1)
    right = truth.argmax(axis=1)
    wrong = (right + rng.integers(1, 10, len(right))) % 10
    rows = np.arange(len(right))
    pairs = {name: (reward[rows, right], reward[rows, wrong]) for name, reward in models.items()}
    table = RewardTable.from_array(gold, prompt_ids=names, meta={"reward": "right name of the digit"})

    fooled = int((upper.max(axis=1) - (upper * (truth > 0)).sum(axis=1)).argmax())
    judged = 2.0 * upper[fooled] / upper[fooled].max() - 1.0
    true, judge = "true reward", "reward of the half-blind judge"
    flows = (
        simulate_policy_gradient(policy[fooled], judged, {true: truth[fooled]}, horizon=_HORIZON, stop=(true, 0.95)),
        simulate_policy_gradient(
            policy[fooled], truth[fooled], {judge: judged}, horizon=_HORIZON, stop=("train", 0.95)
        ),
    )
    return (summarize(table), teacher_report(drawn, gold, offline_pairs=pairs, bootstrap=200, rng=0), *flows)


def _classifier(images: NDArray[Any], labels: NDArray[Any], asked: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities of the ten digits for the images in question, by a logistic regression."""
    linear_model = optional("sklearn.linear_model", extra="sklearn", feature="this section of the demo")
    found = linear_model.LogisticRegression(max_iter=500).fit(images, labels).predict_proba(asked)
    return np.asarray(found / found.sum(axis=1, keepdims=True), dtype=np.float64)
