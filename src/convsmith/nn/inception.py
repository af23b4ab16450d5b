"""Blocks of GoogLeNet (Going Deeper with Convolutions, Szegedy et al. 2015, arXiv:1409.4842)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_positive
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


@block("inception")
class Inception(nn.Module):
    """Four branches side by side, concatenated (Fig. 2b), each given by its widths as the columns of Table 1.

    1 x 1 convolution; 1 x 1 then 3 x 3; 1 x 1 then 5 x 5; 3 x 3 max pooling then 1 x 1. `kernel_sizes` are those of the
    two middle branches.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        conv1x1: int,
        conv3x3: tuple[int, int],
        conv5x5: tuple[int, int],
        pool_proj: int,
        kernel_sizes: tuple[int, int] = (3, 5),
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()

        def conv(in_channels: int, out_channels: int, kernel_size: int) -> ConvNormAct:
            return ConvNormAct(in_channels, out_channels, kernel_size=kernel_size, norm=norm, act=act)

        def reduced(widths: tuple[int, int], kernel_size: int) -> nn.Sequential:
            return nn.Sequential(conv(in_channels, widths[0], 1), conv(widths[0], widths[1], kernel_size))

        self.branch1x1 = conv(in_channels, conv1x1, 1)
        self.branch3x3 = reduced(conv3x3, kernel_sizes[0])
        self.branch5x5 = reduced(conv5x5, kernel_sizes[1])
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_channels, pool_proj, 1))
        self.out_channels = conv1x1 + conv3x3[1] + conv5x5[1] + pool_proj

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        return torch.cat([self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)], 1)


@block("aux_classifier")
class AuxClassifier(nn.Module):
    """The auxiliary classifier (Sec. 5): mean, 1 x 1 convolution, two fully connected layers with dropout between.

    The mean is that of `grid` x `grid` windows. The paper's are "equal": 5 x 5 with stride 3 on its maps of 14 x 14.
    "adaptive" ones may differ by a pixel and take maps of any size, as in torchvision.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        grid: int = 4,
        windows: Literal["adaptive", "equal"] = "adaptive",
        channels: int = 128,
        dropout: float = 0.7,
        hidden_channels: int = 1024,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_positive(num_classes=num_classes, hidden_channels=hidden_channels)
        self.pool = EqualAvgPool(grid) if windows == "equal" else nn.AdaptiveAvgPool2d(grid)
        self.conv = ConvNormAct(in_channels, channels, kernel_size=1, norm=norm, act=act)
        self.hidden = nn.Linear(channels * grid**2, hidden_channels)
        self.act = build_act(act, hidden_channels)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.linear = nn.Linear(hidden_channels, num_classes)
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.linear(self.dropout(self.act(self.hidden(self.conv(self.pool(x)).flatten(1)))))


class EqualAvgPool(nn.Module):
    """The mean of `grid` x `grid` windows of one size that cover the map."""

    def __init__(self, grid: int):
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, grid, grid), for H and W of at least `grid`."""
        strides = (x.shape[-2] // self.grid, x.shape[-1] // self.grid)
        sizes = tuple(x.shape[side] - strides[side] * (self.grid - 1) for side in (-2, -1))
        return F.avg_pool2d(x, sizes, strides)


@block("local_response_norm")
class LocalResponseNorm(nn.LocalResponseNorm):
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta.

    The normalisation of AlexNet (Krizhevsky et al. 2012, Sec. 3.3), with the constants and the mean of Caffe, in which
    GoogLeNet's reference network is written.
    """

    def __init__(self, in_channels: int, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__(size, alpha=alpha, beta=beta, k=k)
        self.out_channels = in_channels
