"""Networks that return several tensors, timed in eager: every one of them is computed, whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from convsmith.deploy.agreement import OutputsError


class FirstOutput(nn.Module):
    """A network whose first tensor alone is returned; its forward pass is the same."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The first tensor among the outputs; OutputsError where there is none."""
        outputs = self.network(x)
        first = next(_tensors(outputs), None)
        if first is None:
            raise OutputsError(self.network, outputs)
        return first


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (list, tuple, Mapping)):
        for own in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _tensors(own)
