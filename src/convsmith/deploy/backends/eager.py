"""PyTorch itself, operator by operator: what every other back end is compared with."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.deploy import clock
from convsmith.deploy.agreement import Run, eager_run
from convsmith.deploy.backends.registry import Backend, register
from convsmith.deploy.precision import PRECISIONS, in_precision


def prepare(network: nn.Module, example: Tensor, threads: int, precision: str) -> Run:
    """The network's forward pass without gradients."""
    forward = eager_run(in_precision(network, example, precision))

    def run(x: Tensor) -> Tensor:
        with clock.threads(threads):
            return forward(x)

    return run


EAGER = register(Backend("eager", prepare, precisions=tuple(PRECISIONS), devices=("cpu", "cuda", "mps", "xpu")))
