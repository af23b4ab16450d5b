"""PyTorch itself, operator by operator: what every other back end is compared with."""

from __future__ import annotations

import torch
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
            output = forward(x)
            # What inference mode made may neither be changed nor saved for a gradient outside of it. A copy takes less
            # than that mode spares, but for light networks that give large maps.
            return output.clone() if output.is_inference() and not torch.is_inference_mode_enabled() else output

    return run


EAGER = register(Backend("eager", prepare, precisions=tuple(PRECISIONS), devices=("cpu", "cuda", "mps", "xpu")))
