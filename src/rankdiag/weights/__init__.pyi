from rankdiag.weights._baseline import MarchenkoPastur as MarchenkoPastur
from rankdiag.weights._baseline import marchenko_pastur as marchenko_pastur
from rankdiag.weights._baseline import marchenko_pastur_edge as marchenko_pastur_edge
from rankdiag.weights._baseline import marchenko_pastur_effective_rank as marchenko_pastur_effective_rank
from rankdiag.weights._baseline import mp_outliers as mp_outliers
from rankdiag.weights._baseline import shuffled_spectrum as shuffled_spectrum
from rankdiag.weights._compare import ComparedCell as ComparedCell
from rankdiag.weights._compare import WeightComparison as WeightComparison
from rankdiag.weights._conv import conv_spectrum as conv_spectrum
from rankdiag.weights._delta import weight_delta_report as weight_delta_report
from rankdiag.weights._delta_report import WeightDeltaReport as WeightDeltaReport
from rankdiag.weights._delta_row import WeightDeltaRow as WeightDeltaRow
from rankdiag.weights._lora import lora_delta_spectrum as lora_delta_spectrum
from rankdiag.weights._lora import lora_factor_spectra as lora_factor_spectra
from rankdiag.weights._report import WeightReport as WeightReport
from rankdiag.weights._row import WeightRow as WeightRow
from rankdiag.weights._run import weight_report as weight_report
from rankdiag.weights._tail import TailFit as TailFit
from rankdiag.weights._tail import power_law_tail as power_law_tail

__all__: list[str]
