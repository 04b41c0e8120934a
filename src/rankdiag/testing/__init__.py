"""Tools for testing measures, ours and your own: fuzzing, guards of global state, array kinds, strategies.

Only `strategies` needs hypothesis.
"""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "BACKENDS": "rankdiag.testing.backends",
        "Backend": "rankdiag.testing.backends",
        "FuzzReport": "rankdiag.testing._fuzz",
        "GlobalStateError": "rankdiag.testing._guard",
        "Violation": "rankdiag.testing._fuzz",
        "fuzz": "rankdiag.testing._fuzz",
        "no_global_change": "rankdiag.testing._guard",
        "tiny_language_model": "rankdiag.testing._tiny",
    },
    ("backends", "strategies"),
)
