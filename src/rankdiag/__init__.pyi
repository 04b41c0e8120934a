from rankdiag import checkpoints as checkpoints
from rankdiag import language_models as language_models
from rankdiag import monitors as monitors
from rankdiag import preference as preference
from rankdiag import report as report
from rankdiag import spectral as spectral
from rankdiag import testing as testing
from rankdiag import weights as weights
from rankdiag._optional import MissingExtraError as MissingExtraError
from rankdiag._result import result_from_dict as result_from_dict
from rankdiag._result import result_from_json as result_from_json
from rankdiag._validate import RankdiagWarning as RankdiagWarning
from rankdiag._version import __version__ as __version__
from rankdiag.preference import ches_score as ches_score
from rankdiag.preference import score_preferences as score_preferences
from rankdiag.spectral import Spectrum as Spectrum
from rankdiag.spectral import effective_rank as effective_rank
from rankdiag.spectral import numerical_rank as numerical_rank
from rankdiag.spectral import participation_ratio as participation_ratio
from rankdiag.spectral import spectral_entropy as spectral_entropy
from rankdiag.spectral import spectrum as spectrum
from rankdiag.spectral import stable_rank as stable_rank
from rankdiag.weights import weight_delta_report as weight_delta_report
from rankdiag.weights import weight_report as weight_report

__all__: list[str]
