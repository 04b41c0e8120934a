"""Spectra of the weights of real models: reports, updates between checkpoints, and the mathematics behind them."""

from rankdiag._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ComparedCell": "rankdiag.weights._compare",
        "MarchenkoPastur": "rankdiag.weights._baseline",
        "TailFit": "rankdiag.weights._tail",
        "WeightComparison": "rankdiag.weights._compare",
        "WeightDeltaReport": "rankdiag.weights._delta_report",
        "WeightDeltaRow": "rankdiag.weights._delta_row",
        "WeightReport": "rankdiag.weights._report",
        "WeightRow": "rankdiag.weights._row",
        "conv_spectrum": "rankdiag.weights._conv",
        "lora_delta_spectrum": "rankdiag.weights._lora",
        "lora_factor_spectra": "rankdiag.weights._lora",
        "marchenko_pastur": "rankdiag.weights._baseline",
        "marchenko_pastur_edge": "rankdiag.weights._baseline",
        "marchenko_pastur_effective_rank": "rankdiag.weights._baseline",
        "mp_outliers": "rankdiag.weights._baseline",
        "power_law_tail": "rankdiag.weights._tail",
        "shuffled_spectrum": "rankdiag.weights._baseline",
        "weight_delta_report": "rankdiag.weights._delta",
        "weight_report": "rankdiag.weights._run",
    },
)
