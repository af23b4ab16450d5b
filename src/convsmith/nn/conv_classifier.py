"""A head without fully connected layers, and dropout as a block (Network In Network, Lin et al. 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_positive
from convsmith.nn.conv import ConvNormAct


@block("conv_classifier")
class ConvClassifier(nn.Module):
    """A 1 x 1 convolution to one map per class, activation, global average pooling: (N, C, H, W) -> (N, num_classes).

    Lin, Chen & Yan 2014, arXiv:1312.4400, Sec. 3.2, where the activation is ReLU. With none the head is linear, and the
    same as `Classifier` but for the order of its two steps.
    """

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.0, act: str | BlockSpec = "identity"):
        super().__init__()
        check_positive(num_classes=num_classes)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv = ConvNormAct(in_channels, num_classes, kernel_size=1, norm=None, act=act)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.pool(self.conv(self.dropout(x))).flatten(1)


@block("dropout")
class Dropout(nn.Dropout):
    """Each value is zeroed with probability `rate` while training; what is kept is divided by 1 - rate."""

    def __init__(self, in_channels: int, *, rate: float = 0.5):
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of dropout must be at least 0 and below 1, got {rate=}")
        super().__init__(rate)
        self.out_channels = in_channels
