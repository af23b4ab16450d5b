"""Dense connectivity (Densely Connected Convolutional Networks, Huang et al. 2017, arXiv:1608.06993, Sec. 3)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_divisible, check_odd_kernel, check_positive
from convsmith.nn.conv import same_padding
from convsmith.nn.norm import BATCH_NORM, build_norm
from convsmith.nn.recompute import on_concat


@block("norm_act_conv")
class NormActConv(nn.Module):
    """Norm, activation, then convolution: the order of pre-activation (He et al. 2016, arXiv:1603.05027).

    Padding is `kernel_size // 2 * dilation`; the convolution has a bias exactly if `norm` is None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        check_divisible(in_channels=in_channels, groups=groups)
        check_divisible(out_channels=out_channels, groups=groups)
        check_positive(stride=stride, dilation=dilation)
        # A named activation works in place: behind a norm on a map of our own, without one on somebody else's input.
        bare = isinstance(act, str) and (norm is None or norm.block == "identity")
        self.norm = build_norm(norm, in_channels)
        self.act = build_act(BlockSpec(act, ()) if bare and isinstance(act, str) else act, in_channels)
        padding = same_padding(kernel_size, dilation)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=norm is None
        )
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.conv(self.act(self.norm(x)))


@block("dense_block")
class DenseBlock(nn.Module):
    """x_l = H_l([x_0, ..., x_{l-1}]) for each layer l (Eq. 2); the output is [x_0, ..., x_L], in this order.

    H_l is a pre-activated 1 x 1 convolution to `bottleneck_ratio * growth_rate` channels, or exactly `hidden_channels`,
    and a pre-activated k x k one to `growth_rate` channels; 0 leaves the 1 x 1 out, as in DenseNet without "B".
    A tuple gives each layer its own width. `drop_rate` drops single values of each layer's output.

    Training keeps every concatenation and what norm and activation make of it, which grows with the square of the
    depth. `memory_efficient` makes them again in the backward pass and keeps each layer's convolutions alone (Pleiss et
    al. 2017, arXiv:1707.06990): the same outputs, gradients and running statistics for more time.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_layers: int,
        growth_rate: int | tuple[int, ...] = 32,
        bottleneck_ratio: float = 4.0,
        kernel_size: int = 3,
        dilation: int = 1,
        drop_rate: float = 0.0,
        memory_efficient: bool = False,
        hidden_channels: int | tuple[int, ...] | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        if num_layers < 1:
            raise ValueError(f"num_layers must be positive, got {num_layers}; leave the dense block out instead")
        growths = _per_layer("growth_rate", growth_rate, num_layers)
        if hidden_channels is None:
            hiddens = tuple(round(growth * bottleneck_ratio) for growth in growths)
        else:
            hiddens = _per_layer("hidden_channels", hidden_channels, num_layers)
        if min(hiddens) < 0:
            raise ValueError(
                "the inner width of a dense layer must not be negative, got "
                f"{bottleneck_ratio=} and {hidden_channels=}; take 0 to leave its 1 x 1 convolution out"
            )
        self.layers = nn.ModuleList()
        for growth, hidden in zip(growths, hiddens, strict=True):
            layer = nn.Sequential()
            if hidden:
                layer.append(NormActConv(in_channels, hidden, kernel_size=1, norm=norm, act=act))
            layer.append(
                NormActConv(
                    hidden or in_channels, growth, kernel_size=kernel_size, dilation=dilation, norm=norm, act=act
                )
            )
            if drop_rate:
                layer.append(nn.Dropout(drop_rate))
            self.layers.append(layer)
            in_channels += growth
        self.memory_efficient = memory_efficient
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + the sum of all growth rates, H, W)."""
        if self.memory_efficient and self.training:
            return self._forward_recomputing(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return x

    def _forward_recomputing(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            new = maps
            for part in cast(nn.Sequential, layer):
                new = [on_concat(part, *new, recompute=isinstance(part, NormActConv))]
            maps = [*maps, *new]
        return torch.cat(maps, 1)


@block("transition")
class Transition(nn.Module):
    """Between dense blocks: a pre-activated 1 x 1 convolution, then the mean of each stride x stride window.

    It has floor(compression * in_channels) channels, or exactly `out_channels`. Stride 1 pools nothing. The pooling of
    a dilated map is not defined: `dilation` above 1 asks for stride 1, and then has nothing to act on.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        compression: float = 0.5,
        stride: int = 2,
        dilation: int = 1,
        out_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_positive(stride=stride, dilation=dilation)
        if stride > 1 and dilation > 1:
            raise ValueError(
                f"a transition pools undilated maps only, got {stride=} and {dilation=}; dilate its own stage first"
            )
        if out_channels is not None:
            check_positive(out_channels=out_channels)
        compressed = int(in_channels * compression) if out_channels is None else out_channels
        if compressed < 1:
            raise ValueError(f"a transition must keep at least one channel, got {in_channels=} and {compression=}")
        self.conv = NormActConv(in_channels, compressed, kernel_size=1, norm=norm, act=act)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.out_channels = compressed

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.pool(self.conv(x))


def _per_layer(name: str, width: int | tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    widths = (width,) * num_layers if isinstance(width, int) else width
    if len(widths) != num_layers:
        raise ValueError(f"{name} must be one number or one for each of {num_layers=} layers, got {len(widths)}")
    return widths
