"""Reward models as teachers: a perfectly accurate one that is slow, an inaccurate one that is fast.

``python reproductions/rewards_teacher.py [--seeds 3]`` prints what is stated beside what came out. The experiments are
those of ``examples/reward_teachers.py``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

FLOWS = {0: (70.1, 701, 7014, 70140, 159.3, 32.5), 1: (33.1, None, None, None, 140.2, None),
         2: (50.0, None, None, None, 884.7, None)}  # fmt: skip
GAINS = {"the truth": (0.906, 0.858, 0.919), "flat on half": (0.498, 0.466, 0.502),
         "noise 0.25": (0.854, 0.817, 0.899), "noise 0.5": (0.760, 0.715, 0.737),
         "noise 1": (0.560, 0.525, 0.556)}  # fmt: skip
ACCURACY = {"noise 0.25": 0.90, "noise 0.5": 0.82, "noise 1": 0.72}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    example = importlib.import_module("reward_teachers")
    print("one prompt, 50 outputs: flow time until the true reward has risen by 0.3")
    for seed in range(options.seeds):
        lessons, upper = example.one_prompt(seed)
        for x, stated in zip(lessons, FLOWS.get(seed, (None,) * 6), strict=True):
            found = f"time {x.time:12.4f} (stated {stated})   no sooner than {x.lower:9.3f}   accuracy {x.accuracy:.2f}"
            print(f"  seed {seed}  {x.reward:22s} {found}")
        print(f"  seed {seed}  upper bound of the nearly wrong one {upper:.3g}")
    print("200 prompts, 20 outputs: gain in the true reward after 30 steps; the order of draws is not stated")
    for seed in range(options.seeds):
        school = example.many_prompts(seed)
        for row in school.report.rows:
            stated = GAINS[row.name][seed] if seed < 3 else None
            print(
                f"  seed {seed}  {row.name:12s} gain {school.gain[row.name]:.3f} (stated {stated})   accuracy "
                f"{row.on_policy_accuracy:.3f} (stated {ACCURACY.get(row.name, 1.0):.2f})   normalised variance "
                f"{row.normalised_variance:.3f}"
            )
        found = school.report.correlate(school.proxy_gain)
        print(
            f"  seed {seed}  gain in the reward ascended, correlation with normalised variance "
            f"{found['normalised_variance']:.3f} (stated .92 to .96), with accuracy {found['on_policy_accuracy']:.3f} "
            "(stated about -.95)"
        )


if __name__ == "__main__":
    main()
