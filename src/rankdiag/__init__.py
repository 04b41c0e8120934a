"""Theory diagnostics for deep learning: ranks and spectra that say how a model will train.

Importing this package loads no array library; each public name loads what it needs on first use.
"""

from rankdiag._lazy import attach
from rankdiag._version import __version__ as __version__

_SPECTRAL = (
    "Spectrum",
    "effective_rank",
    "numerical_rank",
    "participation_ratio",
    "spectral_entropy",
    "spectrum",
    "stable_rank",
)

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "MissingExtraError": "rankdiag._optional",
        "RankdiagWarning": "rankdiag._validate",
        "result_from_dict": "rankdiag._result",
        "result_from_json": "rankdiag._result",
        "ches_score": "rankdiag.preference",
        "score_preferences": "rankdiag.preference",
        "RewardTable": "rankdiag.rewards",
        "reward_moments": "rankdiag.rewards",
        "reward_std": "rankdiag.rewards",
        "reward_variance": "rankdiag.rewards",
        "walk_index": "rankdiag.graphs",
        "wis_order": "rankdiag.graphs",
        "wis_sparsify": "rankdiag.graphs",
        "weight_delta_report": "rankdiag.weights",
        "weight_report": "rankdiag.weights",
        **dict.fromkeys(_SPECTRAL, "rankdiag.spectral"),
    },
    (
        "adapters",
        "checkpoints",
        "graphs",
        "language_models",
        "monitors",
        "preference",
        "report",
        "rewards",
        "separation",
        "spectral",
        "testing",
        "weights",
    ),
)
__all__ += ["__version__"]
