from rankdiag.checkpoints._info import CheckpointError as CheckpointError
from rankdiag.checkpoints._info import TensorInfo as TensorInfo
from rankdiag.checkpoints._open import open_source as open_source
from rankdiag.checkpoints._source import TensorSource as TensorSource

__all__: list[str]
