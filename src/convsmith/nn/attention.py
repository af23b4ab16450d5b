"""Attention over channels."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.conv import ConvNormAct


@block("squeeze_excite")
class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507, Sec. 3): x * gate(W2 act(W1 mean(x))).

    The two fully connected layers are 1 x 1 convolutions with bias, as in the authors' networks. With `norm`, which is
    not in the paper, a norm stands behind each in the bias's place: FC, norm, act, FC, norm, gate. A norm over the
    batch then sees one value of each image, so that it needs two to train. `squeeze_channels` None is in_channels / 16,
    at least 1, the paper's reduction; fewer than 1 raise ValueError.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        squeeze_channels: int | None = None,
        norm: BlockSpec | None = None,
        act: str | BlockSpec = "relu",
        gate: str | BlockSpec = "sigmoid",
    ):
        super().__init__()
        squeezed = max(1, in_channels // 16) if squeeze_channels is None else squeeze_channels
        if squeezed < 1:
            raise ValueError(
                f"squeeze_channels must be at least 1, got {squeeze_channels=}; take 1, or leave the block out"
            )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = _fully_connected(in_channels, squeezed, norm)
        self.act = build_act(act, squeezed)
        self.expand = _fully_connected(squeezed, in_channels, norm)
        self.gate = build_act(gate, in_channels)
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


def build_squeeze_excite(channels: int, se_ratio: float, reference: int, *, norm: BlockSpec | None = None) -> nn.Module:
    """Squeeze-and-excitation with `se_ratio * reference` squeezed channels, at least 1; none where the ratio is 0."""
    if se_ratio < 0:
        raise ValueError(f"se_ratio must not be negative, got {se_ratio=}; take 0 to leave squeeze-and-excitation out")
    if se_ratio == 0:
        return nn.Identity()
    return SqueezeExcite(channels, squeeze_channels=max(1, round(reference * se_ratio)), norm=norm)


def _fully_connected(in_channels: int, out_channels: int, norm: BlockSpec | None) -> nn.Module:
    if norm is None:
        return nn.Conv2d(in_channels, out_channels, 1)
    return ConvNormAct(in_channels, out_channels, kernel_size=1, norm=norm, act="identity")
