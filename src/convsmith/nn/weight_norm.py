"""Weight normalisation: length and direction of a filter as parameters of their own.

Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks.  Salimans & Kingma,
NIPS 2016, arXiv:1602.07868.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import block
from convsmith.nn.channels import check_divisible, check_odd_kernel, check_positive, pair
from convsmith.nn.norm import MeanOnlyBatchNorm, batch_moments
from convsmith.nn.observe import observed

# Variance over squared mean, below which values in float32 are constant but for rounding.
CONSTANT = 1e-10

Pair = int | tuple[int, int]


@block("weight_norm_conv2d")
class WeightNormConv2d(nn.Module):
    """Convolution with the weight w = g * v / |v|, one length g and one direction v per output channel (Eq. 2).

    v starts as He's normal initialisation by fan-out, g as |v| and the bias as 0. The paper (Sec. 3) sets g and the
    bias from a first batch instead, which is `initialise_from`. Padding is `kernel_size // 2 * dilation` unless given,
    which an even kernel needs. A filter of a single value (1 x 1 and depthwise) is all length: its v gets no gradient.
    One of zeros has no direction: its weight is zero until it is trained.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Pair = 3,
        stride: Pair = 1,
        groups: int = 1,
        dilation: Pair = 1,
        padding: Pair | None = None,
        bias: bool = True,
    ):
        super().__init__()
        check_divisible(in_channels=in_channels, groups=groups)
        check_divisible(out_channels=out_channels, groups=groups)
        check_positive(kernel_size=kernel_size, stride=stride, dilation=dilation)
        if padding is None:
            check_odd_kernel(kernel_size)
        self.in_channels, self.groups = in_channels, groups
        self.kernel_size, self.stride, self.dilation = pair(kernel_size), pair(stride), pair(dilation)
        same = (self.kernel_size[0] // 2 * self.dilation[0], self.kernel_size[1] // 2 * self.dilation[1])
        self.padding = same if padding is None else pair(padding)
        self.v = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        nn.init.kaiming_normal_(self.v, mode="fan_out", nonlinearity="relu")
        self.g = nn.Parameter(_lengths(self.v.detach()))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.out_channels = out_channels

    @property
    def weight(self) -> Tensor:
        """W, of shape (out, in / groups, k, k)."""
        return self.v * (self.g / _lengths(self.v)).view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        return self._convolve(x, self.weight, self.bias)

    @torch.no_grad()
    def initialise_from(self, x: Tensor) -> None:
        """Set g = 1 / sigma and b = -mu / sigma, the moments those of v * x / |v| on a batch (Sec. 3, Eq. 5-6).

        The outputs of this batch then have mean 0 and variance 1 in each channel. A channel that is constant keeps its
        scale: g = 1 there. So does a filter of zeros, which has no outputs to measure: its g is its length. Without a
        bias only g is set.
        """
        lengths = _lengths(self.v)
        outputs = self._convolve(x, self.v / lengths.view(-1, 1, 1, 1), None)
        if outputs.numel() <= self.out_channels:
            raise ValueError(
                f"weight norm is initialised from more than one value per channel, got outputs of shape "
                f"{tuple(outputs.shape)}; give a larger batch"
            )
        mean, variance = batch_moments(outputs)
        measured = torch.where(variance > CONSTANT * mean**2, variance.rsqrt(), 1.0)
        # The first gradient of v is g / length times that of w: any other g would throw v out of its type's range.
        self.g.copy_(torch.where(self.v.flatten(1).any(1), measured, lengths))
        if self.bias is not None:
            self.bias.copy_(-mean * self.g)

    @torch.no_grad()
    def plain(self) -> nn.Conv2d:
        """A convolution that computes the same, its weight computed once; for inference."""
        shape = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        conv = nn.Conv2d(self.in_channels, self.out_channels, *shape, bias=self.bias is not None, device="meta")
        conv.weight = nn.Parameter(self.weight, requires_grad=self.v.requires_grad)
        if self.bias is not None:
            conv.bias = nn.Parameter(self.bias.clone(), requires_grad=self.bias.requires_grad)
        return conv.train(self.training)

    def extra_repr(self) -> str:
        """The arguments, for `print`."""
        shape = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{shape}, groups={self.groups}, dilation={self.dilation}, padding={self.padding}"

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@block("weight_norm")
class WeightNorm(nn.Module):
    """Weight norm as the norm of a block: `norm=spec(WeightNorm)` makes of its convolutions `WeightNormConv2d`.

    The convolution has a bias; with `mean_only` a `MeanOnlyBatchNorm` stands in the bias's place. As a block of its
    own, where there is no convolution, it is the identity.
    """

    def __init__(self, in_channels: int, *, mean_only: bool = False):
        super().__init__()
        self.mean_only = mean_only
        self.out_channels = in_channels

    def apply_to(self, conv: nn.Conv2d) -> nn.Module:
        """The convolution with its weight as g * v / |v|, of the same values; ValueError for padding by reflection."""
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(
                f"weight norm takes convolutions that pad with a number of zeros, got padding={conv.padding!r} and "
                f"padding_mode={conv.padding_mode!r}; pad in front of the convolution"
            )
        normalised = WeightNormConv2d(
            conv.in_channels,
            conv.out_channels,
            kernel_size=(conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            groups=conv.groups,
            dilation=(conv.dilation[0], conv.dilation[1]),
            padding=(conv.padding[0], conv.padding[1]),
            bias=conv.bias is not None and not self.mean_only,
        ).to(conv.weight)
        with torch.no_grad():
            normalised.v.copy_(conv.weight)
            normalised.g.copy_(_lengths(conv.weight))
            if normalised.bias is not None and conv.bias is not None:
                normalised.bias.copy_(conv.bias)
        return nn.Sequential(normalised, MeanOnlyBatchNorm(conv.out_channels)) if self.mean_only else normalised

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), unchanged."""
        return x


@torch.no_grad()
def initialise_weight_norm(
    network: nn.Module, batch: Tensor, *, forward: Callable[[Tensor], object] | None = None
) -> list[str]:
    """`initialise_from` for every `WeightNormConv2d`, in one pass: each reads what those before it make of the batch.

    The pass is `forward(batch)`, the network's own call unless given (`network.forward_aux` reaches auxiliary heads
    too), in eval mode. The convolutions that it has met are named in the result; a shared one is initialised at its
    first call. ValueError if there are none.
    """
    names = {module: name for name, module in network.named_modules() if isinstance(module, WeightNormConv2d)}
    found: dict[WeightNormConv2d, None] = {}

    def initialise(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, WeightNormConv2d) and module not in found:
            found[module] = None
            module.initialise_from(inputs[0])

    with observed(network, names, initialise):
        (forward or network)(batch)
    if not found:
        raise ValueError("the pass met no WeightNormConv2d, got none to initialise; build with norm=spec(WeightNorm)")
    return [names[module] for module in found]


def _lengths(v: Tensor) -> Tensor:
    """The length of each filter; of one that is zero, which has no direction, the least length that there is."""
    return torch.linalg.vector_norm(v, dim=(1, 2, 3)).clamp(min=torch.finfo(v.dtype).tiny)
