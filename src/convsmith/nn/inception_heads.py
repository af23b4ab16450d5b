"""Classifiers of the later Inception networks: the auxiliary one of v3, and the one behind an embedding."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_positive
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


@block("conv_aux_classifier")
class ConvAuxClassifier(nn.Module):
    """The auxiliary classifier of Inception v3: mean, 1 x 1 and 5 x 5 convolution, global mean, one linear layer.

    Szegedy et al. 2016, arXiv:1512.00567, Sec. 4 and Fig. 8. The mean is that of windows of 5 x 5 with stride 3, which
    make 5 x 5 of the paper's maps of 17 x 17. Smaller maps, which the paper has not, become 5 x 5 by adaptive pooling.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int = 128,
        hidden_channels: int = 768,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_positive(num_classes=num_classes)
        self.reduce = ConvNormAct(in_channels, channels, kernel_size=1, norm=norm, act=act)
        self.conv = ConvNormAct(channels, hidden_channels, kernel_size=5, padding=0, norm=norm, act=act)
        self.linear = nn.Linear(hidden_channels, num_classes)
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        means = F.avg_pool2d(x, 5, 3) if min(x.shape[-2:]) >= 17 else F.adaptive_avg_pool2d(x, 5)
        return self.linear(self.conv(self.reduce(means)).mean((2, 3)))


@block("embedding_classifier")
class EmbeddingClassifier(nn.Module):
    """Global average pooling, dropout, a linear layer to an embedding and its norm, a linear layer to the logits.

    The embedding has `channels` entries and no activation, as in networks that are trained to compare faces. The norm
    needs more than one image while training.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int = 512,
        dropout: float = 0.0,
        norm: BlockSpec | None = BATCH_NORM,
    ):
        super().__init__()
        check_positive(num_classes=num_classes)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.embedding = ConvNormAct(in_channels, channels, kernel_size=1, norm=norm, act="identity")
        self.linear = nn.Linear(channels, num_classes)
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.linear(self.embedding(self.dropout(self.pool(x))).flatten(1))
