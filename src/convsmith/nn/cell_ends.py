"""What stands in front of cells and beside them: a stem that hands on two maps, and their auxiliary classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.cell_parts import ActConvNorm, FactorizedReduction, shared_act
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM

WINDOW = 5  # of the means in an auxiliary classifier


@block("cell_stem")
class CellStem(nn.Module):
    """Two maps for the first cell: the current one is norm(conv(act(x))), the previous one x itself, reduced.

    In front of the cells of DARTS for ImageNet stand two maps of two sizes (Liu et al. 2019, arXiv:1806.09055, in their
    code), and the first cell brings the larger one down by a factorised reduction to its filters. Here that is the
    stem's part, as a strided cell hands on maps of one size: `hand_on` are the filters of the first cell.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hand_on: int,
        kernel_size: int = 3,
        stride: int = 2,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        if hand_on < 2:
            raise ValueError(f"a stem of cells hands on at least 2 channels, got {hand_on=}; take the first filters")
        self.conv = ActConvNorm(in_channels, out_channels, kernel_size=kernel_size, stride=stride, norm=norm, act=act)
        self.reduce = FactorizedReduction(in_channels, hand_on, stride=stride, norm=norm, act=act)
        self.out_channels = (hand_on, out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to the previous and the current map, each of H / stride and W / stride, rounded up."""
        return self.reduce(x), self.conv(x)


@block("cell_aux_classifier")
class CellAuxClassifier(nn.Module):
    """Activation, means of 5 x 5 windows, 1 x 1 convolution, one over all windows, a fully connected layer.

    The auxiliary classifier of NASNet, PNASNet, AmoebaNet and DARTS (in their code; the papers only name it). It is
    made for maps on which windows `pool_stride` apart are `grid` x `grid`; others are divided into as many windows of
    nearly equal size, which is our extension. Norm and activation follow both convolutions; without `hidden_norm` the
    second one has no norm, and no bias in its place.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        grid: int,
        pool_stride: int = 3,
        channels: int = 128,
        hidden_channels: int = 768,
        hidden_norm: bool = True,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        if num_classes < 1 or grid < 1 or pool_stride < 1:
            raise ValueError(
                "an auxiliary classifier needs positive num_classes, grid and pool_stride, got "
                f"{num_classes=}, {grid=}, {pool_stride=}"
            )
        self.grid, self.pool_stride = grid, pool_stride
        self.act = shared_act(act, in_channels)
        self.project = ConvNormAct(in_channels, channels, kernel_size=1, norm=norm, act=act)
        self.hidden = ConvNormAct(
            channels,
            hidden_channels,
            kernel_size=grid,
            padding=0,
            bias=None if hidden_norm else norm is None,
            norm=norm if hidden_norm else None,
            act=act,
        )
        self.linear = nn.Linear(hidden_channels, num_classes)
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        windows = [(side - WINDOW) // self.pool_stride + 1 for side in x.shape[-2:]]
        x = self.act(x)
        if windows == [self.grid, self.grid]:
            x = F.avg_pool2d(x, WINDOW, self.pool_stride)
        else:
            x = F.adaptive_avg_pool2d(x, self.grid)
        return self.linear(self.hidden(self.project(x)).flatten(1))
