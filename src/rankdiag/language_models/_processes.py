"""Which part of a run is this process's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rankdiag._validate import integer

__all__ = ["share_of_work"]


def share_of_work(rank: int | None, world_size: int | None, *, meeting: Path | None) -> tuple[int, int]:
    """Say which part of the work is this process's: from the arguments, accelerate, or the environment of torchrun."""
    if (rank is None) != (world_size is None):
        raise ValueError("`rank` and `world_size` must be given together, or not at all")
    if rank is not None and world_size is not None:
        world = integer(world_size, "world_size", low=1)
        own = integer(rank, "rank", low=0, high=world - 1)
        if meeting is None and world > 1:
            raise ValueError("`world_size` above 1 needs `out`, the folder in which the processes meet")
        return own, world
    if meeting is None:
        return 0, 1
    state = getattr(sys.modules.get("accelerate.state"), "PartialState", None)
    if state is not None and state._shared_state:
        return int(state().process_index), int(state().num_processes)
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
