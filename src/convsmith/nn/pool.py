"""Pooling as blocks. Padding is `kernel_size // 2` unless given; a stage opens with its downsampling."""

from __future__ import annotations

from torch import nn

from convsmith.arch import block


@block("max_pool")
class MaxPool(nn.MaxPool2d):
    """The maximum of each k x k window; (N, C, H, W) -> (N, C, H', W'), H / stride by default if k is odd."""

    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 2,
        padding: int | None = None,
        ceil_mode: bool = False,
    ):
        super().__init__(kernel_size, stride, kernel_size // 2 if padding is None else padding, ceil_mode=ceil_mode)
        self.out_channels = in_channels


@block("avg_pool")
class AvgPool(nn.AvgPool2d):
    """The mean of each k x k window; (N, C, H, W) -> (N, C, H', W'), H / stride by default if k is odd."""

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
        padding = kernel_size // 2 if padding is None else padding
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
        self.out_channels = in_channels
