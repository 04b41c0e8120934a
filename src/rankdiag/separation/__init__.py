"""Separation: how strongly a function or a model mixes two sides of its input, from values on cut-and-paste inputs."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "InteractionSpectrum": "rankdiag.separation._interaction",
        "interaction_matrix": "rankdiag.separation._interaction",
        "interaction_spectrum": "rankdiag.separation._interaction",
    },
)
