"""What was measured, as rows of kernels: what the models of a class are fitted to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.trees import Array

SHORTEST_US = 0.3


@dataclass(frozen=True)
class Rows:
    """Measured kernels of one class, each once a network.

    Of which network each is and how often that has it, its numbers, and the mean of its times.
    """

    network: Array
    count: Array
    law: Array
    numbers: Array
    time_us: Array

    def __len__(self) -> int:
        return len(self.time_us)

    def of(self, chosen: Array) -> Rows:
        """The rows of the networks that a mask (networks,) chooses."""
        own = chosen[self.network]
        return Rows(self.network[own], self.count[own], self.law[own], self.numbers[own], self.time_us[own])


def rows_by_group(kernels: Sequence[Sequence[Kernel]], times_us: Sequence[Sequence[float]]) -> dict[str, Rows]:
    """The rows of each class."""
    total: dict[tuple[int, Kernel], float] = defaultdict(float)
    count: Counter[tuple[int, Kernel]] = Counter()
    for network, (own, times) in enumerate(zip(kernels, times_us, strict=True)):
        for kernel, time in zip(own, times, strict=True):
            total[network, kernel] += max(time, SHORTEST_US)
            count[network, kernel] += 1
    groups: dict[str, list[tuple[int, Kernel]]] = defaultdict(list)
    for network, kernel in total:
        groups[kernel.group].append((network, kernel))
    return {
        name: Rows(
            np.array([network for network, _ in met]),
            np.array([count[one] for one in met]),
            np.array([kernel.law for _, kernel in met]),
            np.array([kernel.numbers for _, kernel in met]),
            np.array([total[one] / count[one] for one in met]),
        )
        for name, met in groups.items()
    }
