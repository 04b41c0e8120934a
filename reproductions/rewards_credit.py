"""Binary or partial credit: flow time until both constraints hold with probability .9.

``python reproductions/rewards_credit.py`` prints what is stated beside what came out.
"""

from __future__ import annotations

from rankdiag.rewards import simulate_policy_gradient

VERDICTS = [[0, 0], [1, 0], [0, 1], [1, 1]]
STATED = {
    (0.56, 0.4, 0.02, 0.02): (47.7, 193.3, 71.2, 84.7),
    (0.3, 0.6, 0.05, 0.05): (26.5, 58.7, 52.0, 77.3),
    (0.58, 0.4, 0.019, 0.001): (692, 73090, 898, 825),
}


def main() -> None:
    for start, stated in STATED.items():
        found = [
            simulate_policy_gradient(
                start, reward, {"both": [0, 0, 0, 1]}, features=features, horizon=1e6, stop=("both", 0.9)
            ).hitting_time
            for features in (None, VERDICTS)
            for reward in ([0, 0, 0, 1], [0, 0.5, 0.5, 1])
        ]
        names = ("tabular binary", "tabular partial", "factorised binary", "factorised partial")
        for name, time, known in zip(names, found, stated, strict=True):
            print(f"{start}  {name:20s} {time:12.3f}   stated {known}")


if __name__ == "__main__":
    main()
