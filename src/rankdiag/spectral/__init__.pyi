from rankdiag.spectral import losses as losses
from rankdiag.spectral._ranks import certified_rank as certified_rank
from rankdiag.spectral._ranks import distance_to_rank as distance_to_rank
from rankdiag.spectral._ranks import eps_rank as eps_rank
from rankdiag.spectral._ranks import numerical_rank as numerical_rank
from rankdiag.spectral._readings import effective_rank as effective_rank
from rankdiag.spectral._readings import nuclear_ratio as nuclear_ratio
from rankdiag.spectral._readings import participation_ratio as participation_ratio
from rankdiag.spectral._readings import schatten_norm as schatten_norm
from rankdiag.spectral._readings import singular_values as singular_values
from rankdiag.spectral._readings import spectral_entropy as spectral_entropy
from rankdiag.spectral._readings import stable_rank as stable_rank
from rankdiag.spectral._routes import spectrum as spectrum
from rankdiag.spectral._spectrum import Spectrum as Spectrum
from rankdiag.spectral._streams import GramAccumulator as GramAccumulator
from rankdiag.spectral._streams import QRAccumulator as QRAccumulator
from rankdiag.spectral.losses import effective_rank_loss as effective_rank_loss
from rankdiag.spectral.losses import participation_ratio_loss as participation_ratio_loss
from rankdiag.spectral.losses import stable_rank_loss as stable_rank_loss

__all__: list[str]
