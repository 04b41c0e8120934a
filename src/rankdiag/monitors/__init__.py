"""Measurements taken while a model trains: callbacks for trainers, and gates that stop them."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "DisplacementCallback": "rankdiag.monitors._displacement",
        "DisplacementLimit": "rankdiag.monitors._limit",
    },
)
