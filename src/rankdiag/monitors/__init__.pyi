from rankdiag.monitors._displacement import DisplacementCallback as DisplacementCallback
from rankdiag.monitors._limit import DisplacementLimit as DisplacementLimit
from rankdiag.monitors._reward_metric import RewardStdMetric as RewardStdMetric
from rankdiag.monitors._rewards import RewardLandscapeMonitor as RewardLandscapeMonitor
from rankdiag.monitors._rewards import wrap_reward_fn as wrap_reward_fn
from rankdiag.monitors._rewards_callback import RewardLandscapeCallback as RewardLandscapeCallback

__all__: list[str]
