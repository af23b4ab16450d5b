"""PyTorch itself, operator by operator: what every other back end is compared with."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.deploy import clock
from convsmith.deploy.agreement import Run, eager_run
from convsmith.deploy.backends.registry import Backend, register


def prepare(network: nn.Module, example: Tensor, threads: int) -> Run:
    """The network's forward pass without gradients."""
    forward = eager_run(network)

    def run(x: Tensor) -> Tensor:
        with clock.threads(threads):
            return forward(x)

    return run


EAGER = register(Backend("eager", prepare))
