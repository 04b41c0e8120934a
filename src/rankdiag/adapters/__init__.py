"""Other people's files and types as ours: benchmark files, logs of trainers, graphs."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "GraphFile": "rankdiag.adapters._graph_files",
        "RewardBench": "rankdiag.adapters._rewardbench",
        "WalkIndexSparsify": "rankdiag.adapters._pyg",
        "from_rewardbench": "rankdiag.adapters._rewardbench",
        "from_trl_log": "rankdiag.adapters._trl_log",
        "read_graph": "rankdiag.adapters._graph_files",
        "write_graph": "rankdiag.adapters._graph_files",
    },
)
