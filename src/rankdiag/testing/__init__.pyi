from rankdiag.testing import backends as backends
from rankdiag.testing import strategies as strategies
from rankdiag.testing._fuzz import FuzzReport as FuzzReport
from rankdiag.testing._fuzz import Violation as Violation
from rankdiag.testing._fuzz import fuzz as fuzz
from rankdiag.testing._guard import GlobalStateError as GlobalStateError
from rankdiag.testing._guard import no_global_change as no_global_change
from rankdiag.testing._tiny import tiny_language_model as tiny_language_model
from rankdiag.testing.backends import BACKENDS as BACKENDS
from rankdiag.testing.backends import Backend as Backend

__all__: list[str]
