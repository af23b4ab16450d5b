"""Pooling as blocks; a stage opens with its downsampling.

Unless given, padding is `kernel_size // 2` of an odd kernel and none of an even one, so that windows of `stride` pixels
tile the map.
"""

from __future__ import annotations

from torch import nn

from convsmith.arch import block
from convsmith.nn.channels import check_positive


@block("max_pool")
class MaxPool(nn.MaxPool2d):
    """The maximum of each k x k window; (N, C, H, W) -> (N, C, H', W'), H / stride if k is odd or the stride."""

    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 2,
        padding: int | None = None,
        ceil_mode: bool = False,
    ):
        super().__init__(kernel_size, stride, _padding(kernel_size, stride, padding), ceil_mode=ceil_mode)
        self.out_channels = in_channels


@block("avg_pool")
class AvgPool(nn.AvgPool2d):
    """The mean of each k x k window; (N, C, H, W) -> (N, C, H', W'), H / stride if k is odd or the stride."""

    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 2,
        padding: int | None = None,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ):
        padding = _padding(kernel_size, stride, padding)
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
        self.out_channels = in_channels


def _padding(kernel_size: int, stride: int, padding: int | None) -> int:
    check_positive(kernel_size=kernel_size, stride=stride)
    if padding is None:
        return kernel_size // 2 if kernel_size % 2 else 0
    return padding
