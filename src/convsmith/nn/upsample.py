"""Upsampling by a whole factor: the parts of a decoder, of a generator, of super-resolution.

Every block here and in `sub_pixel.py` takes `upscale_factor` r and gives a map of exactly r times the height and width.
Where it has weights, `norm` and `act` follow them at the fine size, and there is a bias exactly if `norm` is None.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_odd_kernel, check_positive
from convsmith.nn.memory_format import keeps_channels_last
from convsmith.nn.norm import build_norm


@block("deconvolution")
class Deconvolution(nn.Sequential):
    """Transposed convolution of stride r: (N, C, H, W) -> (N, C', r H, r W); the parts are `conv`, `norm`, `act`.

    A kernel of k >= r takes the padding p = ceil((k - r) / 2) and the output padding (k - r) mod 2, so that
    (H - 1) r - 2 p + k + (k - r) mod 2 = r H. A k that r does not divide overlaps unevenly, which shows as
    checkerboards (Odena et al. 2016). `init="bilinear"` is that of FCN (Long et al. 2015, arXiv:1411.4038, Sec. 3.3;
    there k = 2 r): each channel goes to itself by (1 - |i - c| / r) (1 - |j - c| / r) around the kernel's centre c, and
    the bias is 0. Away from the border, behind which zeros are read, this is bilinear interpolation where k - r is
    even, and lies half a fine pixel beside it where it is odd. `init="default"` is torch's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 4,
        upscale_factor: int = 2,
        init: Literal["default", "bilinear"] = "default",
        norm: BlockSpec | None = None,
        act: str | BlockSpec = "identity",
    ):
        check_upscale_factor(upscale_factor)
        check_positive(out_channels=out_channels)
        if kernel_size < upscale_factor:
            raise ValueError(
                "kernel_size must be at least upscale_factor, as gaps stay between the windows otherwise, got "
                f"{kernel_size=} and {upscale_factor=}"
            )
        if upscale_factor == 1:
            check_odd_kernel(kernel_size)
        uneven = (kernel_size - upscale_factor) % 2
        conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=upscale_factor,
            padding=(kernel_size - upscale_factor + uneven) // 2,
            output_padding=uneven,
            bias=norm is None,
        )
        if init == "bilinear":
            _init_bilinear(conv, kernel_size, upscale_factor)
        super().__init__(OrderedDict(conv=conv, **norm_and_act(norm, act, out_channels)))
        self.out_channels = out_channels


@block("resize_conv")
class ResizeConv(nn.Sequential):
    """Resizing, then a convolution (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts", distill.00003).

    (N, C, H, W) -> (N, C', r H, r W); the parts are `resize`, `conv`, `norm`, `act`. The convolution works at the fine
    size and its kernel must be odd. The authors found `mode="nearest"` best.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        upscale_factor: int = 2,
        mode: Literal["nearest", "bilinear"] = "nearest",
        norm: BlockSpec | None = None,
        act: str | BlockSpec = "identity",
    ):
        check_odd_kernel(kernel_size)
        check_positive(out_channels=out_channels)
        resize = Upsample(in_channels, upscale_factor=upscale_factor, mode=mode)
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=norm is None)
        super().__init__(OrderedDict(resize=resize, conv=conv, **norm_and_act(norm, act, out_channels)))
        self.out_channels = out_channels


@block("upsample")
class Upsample(nn.Module):
    """Each value becomes an r x r window, without weights: (N, C, H, W) -> (N, C, r H, r W).

    "nearest" copies the value, "bilinear" interpolates between the centres of the windows (as torch does with
    align_corners=False), and "top_left" leaves it in the window's first corner, with zeros elsewhere: the unpooling
    with fixed positions of Dosovitskiy et al. 2015 (arXiv:1411.5928).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        upscale_factor: int = 2,
        mode: Literal["nearest", "bilinear", "top_left"] = "nearest",
    ):
        super().__init__()
        check_upscale_factor(upscale_factor)
        self.upscale_factor = upscale_factor
        self.mode = mode
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, r H, r W)."""
        if self.mode != "top_left":
            return F.interpolate(x, scale_factor=self.upscale_factor, mode=self.mode)
        return _top_left(x, self.upscale_factor)


def norm_and_act(norm: BlockSpec | None, act: str | BlockSpec, channels: int) -> dict[str, nn.Module]:
    """The parts that stand behind an upsampling; one that does nothing is left out."""
    parts = {} if norm is None else {"norm": build_norm(norm, channels)}
    return parts if act == "identity" else {**parts, "act": build_act(act, channels)}


def check_upscale_factor(upscale_factor: int) -> None:
    """Raise ValueError for a factor below 1."""
    if upscale_factor < 1:
        raise ValueError(f"upscale_factor must be at least 1, got {upscale_factor=}")


@fx.wrap  # one node of a traced graph: it branches on the memory format
def _top_left(x: Tensor, factor: int) -> Tensor:
    zeros = factor - 1
    if keeps_channels_last(x):
        rows = x.permute(0, 2, 3, 1)[:, :, None, :, None]
        return F.pad(rows, (0, 0, 0, zeros, 0, 0, 0, zeros)).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    return F.pad(x[..., None, :, None], (0, zeros, 0, 0, 0, zeros)).flatten(4).flatten(2, 3)


def _init_bilinear(conv: nn.ConvTranspose2d, size: int, factor: int) -> None:
    if conv.in_channels != conv.out_channels:
        raise ValueError(
            "init='bilinear' takes each channel to itself: out_channels must equal in_channels, got "
            f"in_channels={conv.in_channels} and out_channels={conv.out_channels}"
        )
    if size < 2 * factor - 1:
        raise ValueError(
            "init='bilinear' needs a kernel_size of at least 2 * upscale_factor - 1, got "
            f"kernel_size={size} and upscale_factor={factor}"
        )
    tent = torch.tensor([max(0.0, 1 - abs(i - (size - 1) / 2) / factor) for i in range(size)])
    with torch.no_grad():
        conv.weight.copy_(torch.eye(conv.in_channels)[:, :, None, None] * torch.outer(tent, tent))
        if conv.bias is not None:
            conv.bias.zero_()
