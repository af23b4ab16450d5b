"""Normalisation layers: blocks that keep their channels, so that `norm=spec(...)` stands in any other block."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block, spec
from convsmith.nn.channels import check_divisible


@block("batch_norm")
class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over (N, H, W) (Ioffe & Szegedy 2015, arXiv:1502.03167); `momentum` weighs the new batch."""

    def __init__(self, in_channels: int, *, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(in_channels, eps=eps, momentum=momentum)
        self.out_channels = in_channels

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # torch's check reads the input's rank, which torch.fx cannot trace; the convolution in front checks it


@block("group_norm")
class GroupNorm(nn.GroupNorm):
    """Normalisation over groups of channels of one sample (Wu & He 2018, arXiv:1803.08494)."""

    def __init__(self, in_channels: int, *, groups: int = 32, eps: float = 1e-5):
        check_divisible(in_channels=in_channels, groups=groups)
        super().__init__(groups, in_channels, eps=eps)
        self.out_channels = in_channels


BATCH_NORM = spec(BatchNorm)


def build_norm(norm: BlockSpec | None, channels: int) -> nn.Module:
    """The norm of a spec for `channels` channels; None is no norm."""
    return nn.Identity() if norm is None else cast(nn.Module, norm.build(channels))
