"""Sub-pixel convolution: all pixels of the fine map are channels of the coarse one until the end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_odd_kernel, check_positive
from convsmith.nn.upsample import check_upscale_factor, norm_and_act


@block("sub_pixel_conv")
class SubPixelConv(nn.Sequential):
    """Convolution to C' r^2 channels, which become r x r pixels of C' (ESPCN, Shi et al. 2016, arXiv:1609.05158).

    (N, C, H, W) -> (N, C', r H, r W) with y[c, r h + i, r w + j] = conv(x)[c r^2 + i r + j, h, w] (Eq. 4, in torch's
    order of channels); the parts are `conv`, `shuffle`, `norm`, `act`. With `init="icnr"` it is at first a convolution
    resized to the nearest, hence free of checkerboards: see `icnr_`; the bias is 0. `init="default"` is torch's. There
    is a bias exactly if `norm` is None. An even kernel raises ValueError.
    """

    conv: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        upscale_factor: int = 2,
        init: Literal["icnr", "default"] = "icnr",
        norm: BlockSpec | None = None,
        act: str | BlockSpec = "identity",
    ):
        check_upscale_factor(upscale_factor)
        check_odd_kernel(kernel_size)
        check_positive(out_channels=out_channels)
        channels = out_channels * upscale_factor**2
        conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=norm is None)
        shuffle = PixelShuffle(upscale_factor)
        super().__init__(OrderedDict(conv=conv, shuffle=shuffle, **norm_and_act(norm, act, out_channels)))
        self.init = init
        self.upscale_factor = upscale_factor
        self.out_channels = out_channels
        self.initialise()

    def initialise(self) -> None:
        """Draw the weight anew as `init` says; `"default"` leaves it as it is."""
        if self.init == "icnr":
            icnr_(self.conv.weight, self.upscale_factor)
            if self.conv.bias is not None:
                nn.init.zeros_(self.conv.bias)


class PixelShuffle(nn.PixelShuffle):
    """Torch's, also where an empty batch is trained."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C r^2, H, W) -> (N, C, r H, r W)."""
        return shuffle_pixels(input, self.upscale_factor)


@fx.wrap  # one node of a traced graph: it branches on the number of images
def shuffle_pixels(x: Tensor, upscale_factor: int) -> Tensor:
    """`torch.nn.functional.pixel_shuffle`, which cannot be differentiated for an empty batch."""
    if torch.compiler.is_compiling() or not x.requires_grad or x.shape[0]:
        return F.pixel_shuffle(x, upscale_factor)
    images, channels, height, width = x.shape
    return x.reshape(images, channels // upscale_factor**2, upscale_factor * height, upscale_factor * width)


def icnr_(
    weight: Tensor, upscale_factor: int, *, init_: Callable[[Tensor], Tensor] = nn.init.kaiming_normal_
) -> Tensor:
    """Initialise the weight (C r^2, ...) in front of a pixel shuffle in place (Aitken et al. 2017, arXiv:1707.02937).

    `init_` draws C filters, and each becomes the r^2 consecutive ones of its pixels. Until it is trained, the sub-pixel
    convolution then equals a nearest resize of a convolution, if the biases agree too. Returns the weight; a number of
    filters that r^2 does not divide raises ValueError.
    """
    _check_filters(weight, upscale_factor)
    with torch.no_grad():
        drawn = init_(torch.empty_like(weight[:: upscale_factor**2]))
        return weight.copy_(drawn.repeat_interleave(upscale_factor**2, 0))


def subpixel_to_deconvolution(weight: Tensor, upscale_factor: int) -> Tensor:
    """The weight of the transposed convolution that equals a sub-pixel convolution (Shi et al. 2016, arXiv:1609.07009).

    (C' r^2, C, k, k) -> (C, C', k r, k r) for `Deconvolution(C, C', kernel_size=k * r, upscale_factor=r)`. A transposed
    convolution runs through its kernel backwards: tap u of the pixels i becomes row (k - 1 - u) r + i. A number of
    filters that r^2 does not divide raises ValueError.
    """
    _check_filters(weight, upscale_factor)
    _, channels, *size = weight.shape
    taps = weight.flip(2, 3).view(-1, upscale_factor, upscale_factor, channels, *size)  # (C', i, j, C, k, k)
    return taps.permute(3, 0, 4, 1, 5, 2).flatten(4).flatten(2, 3)


def _check_filters(weight: Tensor, upscale_factor: int) -> None:
    check_upscale_factor(upscale_factor)
    if weight.shape[0] % upscale_factor**2:
        raise ValueError(
            "a pixel shuffle needs upscale_factor ** 2 filters for each channel, got "
            f"{weight.shape[0]} filters and {upscale_factor=}"
        )
