"""Other people's files and types as ours: benchmark files, logs of trainers, graphs."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "RewardBench": "rankdiag.adapters._rewardbench",
        "WalkIndexSparsify": "rankdiag.adapters._pyg",
        "from_rewardbench": "rankdiag.adapters._rewardbench",
        "from_trl_log": "rankdiag.adapters._trl_log",
    },
)
