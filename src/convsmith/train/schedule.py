"""Learning-rate schedules: functions of progress in [0, 1] that know nothing of steps and epochs."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]  # progress in [0, 1] -> factor of the base learning rate


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983, Eq. 5 without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def with_warmup(schedule: Schedule, share: float) -> Schedule:
    """Rise linearly from 0 over the first `share` of the progress, then run the schedule over the rest.

    Gradual warm-up: Goyal et al. 2017, arXiv:1706.02677, Sec. 2.2. `share` is in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of the warm-up must be at least 0 and below 1, got {share}")

    def warmed_up(progress: float) -> float:
        return progress / share if progress < share else schedule((progress - share) / (1 - share))

    return warmed_up
