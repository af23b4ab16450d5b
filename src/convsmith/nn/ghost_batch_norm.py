"""Ghost batch normalisation.

Train longer, generalize better: closing the generalization gap in large batch training of neural networks.  Hoffer,
Hubara & Soudry, NIPS 2017, arXiv:1705.08741.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convsmith.arch import block
from convsmith.nn.norm import BatchNorm


@block("ghost_batch_norm")
class GhostBatchNorm(BatchNorm):
    """Batch norm over `ghost_batch_size` images at a time, in the order of the batch (Alg. 1).

    The noise of the statistics then does not fall as the batch grows. The algorithm's sum over ghost batches for the
    running statistics is read so: they move by `momentum` for each ghost batch in turn, as if these had come one after
    the other. It keeps deviations, here it is variances, as in batch norm.

    Where the batch is no multiple, the last ghost batch is the smaller rest, with statistics of its own, and counts as
    much as any other: for training drop the last, smaller batch. A rest of one image with a map of 1 x 1 is a
    ValueError. In evaluation it is batch norm.
    """

    def __init__(self, in_channels: int, *, ghost_batch_size: int = 32, eps: float = 1e-5, momentum: float = 0.1):
        if ghost_batch_size < 1:
            raise ValueError(f"a ghost batch needs at least one image, got {ghost_batch_size=}; 32 is usual")
        super().__init__(in_channels, eps=eps, momentum=momentum)
        self.ghost_batch_size = ghost_batch_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training:
            return super().forward(input)
        normalised = [super(GhostBatchNorm, self).forward(ghost) for ghost in torch.split(input, self.ghost_batch_size)]
        return torch.cat(normalised) if len(normalised) > 1 else normalised[0]
