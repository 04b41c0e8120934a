from rankdiag.monitors._displacement import DisplacementCallback as DisplacementCallback
from rankdiag.monitors._limit import DisplacementLimit as DisplacementLimit

__all__: list[str]
