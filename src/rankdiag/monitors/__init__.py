"""Measurements taken while a model trains: callbacks for trainers, and gates that stop them."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "DisplacementCallback": "rankdiag.monitors._displacement",
        "DisplacementLimit": "rankdiag.monitors._limit",
        "RewardLandscapeCallback": "rankdiag.monitors._rewards_callback",
        "RewardLandscapeMonitor": "rankdiag.monitors._rewards",
        "RewardStdMetric": "rankdiag.monitors._reward_metric",
        "wrap_reward_fn": "rankdiag.monitors._rewards",
    },
)
