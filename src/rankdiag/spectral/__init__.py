"""Spectra of matrices and every reading of them: decompose once, read often."""

from rankdiag._lazy import attach

_RANKS = ("certified_rank", "distance_to_rank", "eps_rank", "numerical_rank")
_READINGS = (
    "effective_rank",
    "nuclear_ratio",
    "participation_ratio",
    "schatten_norm",
    "singular_values",
    "spectral_entropy",
    "stable_rank",
)

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "GramAccumulator": "rankdiag.spectral._streams",
        "QRAccumulator": "rankdiag.spectral._streams",
        "Spectrum": "rankdiag.spectral._spectrum",
        "spectrum": "rankdiag.spectral._routes",
        "effective_rank_loss": "rankdiag.spectral.losses",
        "participation_ratio_loss": "rankdiag.spectral.losses",
        "stable_rank_loss": "rankdiag.spectral.losses",
        **dict.fromkeys(_RANKS, "rankdiag.spectral._ranks"),
        **dict.fromkeys(_READINGS, "rankdiag.spectral._readings"),
    },
    ("losses",),
)
