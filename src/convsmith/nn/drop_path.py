"""Dropping whole paths of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from convsmith.arch import block
from convsmith.nn.unsaved import Unsaved


@block("drop_path")
class DropPath(Unsaved):
    """Each image's map is zeroed with probability `rate` while training; what is kept is divided by 1 - rate.

    A residual branch so dropped is stochastic depth (Huang et al. 2016, arXiv:1603.09382, Sec. 3), a path of a cell
    so dropped is drop-path (Larsson et al. 2017, arXiv:1605.07648). `scheduled` raises the rate linearly from 0 to
    `rate` over the steps of a training: ScheduledDropPath (Zoph et al. 2018, arXiv:1707.07012).
    """

    progress: Tensor

    def __init__(self, in_channels: int, *, rate: float = 0.0, scheduled: bool = False):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of a dropped path must be at least 0 and below 1, got {rate=}")
        self.rate = rate
        self.scheduled = scheduled
        self.register_buffer("progress", torch.empty(()), persistent=False)
        self.out_channels = in_channels
        self.fill()

    def fill(self) -> None:
        """Set the whole rate."""
        self.progress.fill_(1.0)

    def on_step(self, step: int, total_steps: int) -> None:
        """Set the rate for step `step` of `total_steps`; without `scheduled` it stays."""
        if self.scheduled:
            self.progress.fill_(min(1.0, step / total_steps))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training or self.rate == 0:
            return x
        # bfloat16 has no number between 0.996 and 1, so that in it low rates would never drop.
        dtype = torch.promote_types(x.dtype, torch.float32)
        keep = 1 - self.rate * self.progress.to(dtype)
        kept = torch.rand(x.shape[0], 1, 1, 1, dtype=dtype, device=x.device) < keep
        return x * kept / keep.to(x.dtype)
