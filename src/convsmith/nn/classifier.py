"""Heads that turn the last map into logits."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import block
from convsmith.nn.channels import check_positive


@block("classifier")
class Classifier(nn.Module):
    """Global average pooling, dropout, one fully connected layer: (N, C, H, W) -> (N, num_classes)."""

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        check_positive(num_classes=num_classes)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.linear = nn.Linear(in_channels, num_classes, bias=bias)
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.linear(self.dropout(self.pool(x).flatten(1)))
