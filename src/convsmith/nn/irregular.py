"""Irregular convolution (Irregular Convolutional Neural Networks, Ma et al. 2017, arXiv:1706.07966)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_divisible, check_positive
from convsmith.nn.norm import build_norm

# Which axes of the (groups, out / groups, in / groups, k * k) weights have positions of their own.
_KERNELS = {"layer": "goct,tij->gocij", "filter": "goct,gotij->gocij", "channel": "goct,gctij->gocij"}
# Multiply-accumulates of a convolution in the time that reading one sample and its backward pass take on a CPU; one of
# fewer than `_NARROW` output channels takes as long as if it had these (benchmarks/irregular_speed.py).
_SAMPLE_MACS = {"layer": 160, "filter": 320, "channel": 320}
_NARROW = 32


class _Form(NamedTuple):
    """What a convolution is beside its parameters; `border` is the padding that keeps the size of a map."""

    share: Literal["layer", "filter", "channel"]
    stride: int
    groups: int
    dilation: int
    padding: int
    border: int


@block("irregular_conv2d")
class IrregularConv2d(nn.Module):
    """Y(q) = sum over taps of w_t x(q + p_t), where the positions p_t are trained too; x is read bilinearly, 0 outside.

    `positions` holds (row, column) of each tap in pixels from the middle tap of the regular grid, on which they start.
    Its shape is (k * k, 2) for share="layer", (out, k * k, 2) for "filter", one set for each output channel, and
    (in, k * k, 2) for "channel", one for each input channel. How far the paper shares them we did not find: these are
    interpretations. A set for each pair of channels is not among them, as it would be twice as many numbers as the
    weights. Positions may go anywhere. On a pixel, where the value has a kink, their derivative is the one towards the
    next row or column, as in `deform_conv2d`. They do not decay.

    As positions do not depend on the input, the convolution is an ordinary one with a larger, sparse kernel: each tap's
    weight spread over its four pixels. This kernel is made and used unless its further cells take longer than reading
    the map at all taps, as in a wide layer or with taps far apart. Then the map is read at all taps (on a pixel,
    rounding decides between the two derivatives) and a 1 x 1 convolution sums up. So does an exported or compiled
    program, whose shapes must not depend on values. On the meta device, which has no values, the regular kernel stands
    for both: k * k * C * C' / groups multiply-accumulates are counted and no sampling, as for a deformable convolution.

    Padding is `kernel_size // 2 * dilation` unless given; there is a bias, zero at first, exactly if `norm` is None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        share: Literal["layer", "filter", "channel"] = "layer",
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        padding: int | None = None,
        norm: BlockSpec | None = None,
        act: str | BlockSpec = "identity",
    ):
        super().__init__()
        check_divisible(in_channels=in_channels, groups=groups)
        check_divisible(out_channels=out_channels, groups=groups)
        check_positive(stride=stride, dilation=dilation)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"positions count from a middle tap: kernel_size must be odd, got {kernel_size=}; take "
                f"{max(1, kernel_size + 1)}"
            )
        self.in_channels, self.share, self.stride = in_channels, share, stride
        self.dilation, self.groups = dilation, groups
        self.border = kernel_size // 2 * dilation
        self.padding = self.border if padding is None else padding
        self.form = _Form(share, stride, groups, dilation, self.padding, self.border)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        steps = [float(dilation * i - self.border) for i in range(kernel_size)]
        grid = torch.tensor([(row, column) for row in steps for column in steps])
        sets = {"layer": (), "filter": (out_channels,), "channel": (in_channels,)}[share]
        self.positions = nn.Parameter(grid.expand(*sets, -1, -1).clone())
        self.bias = nn.Parameter(torch.zeros(out_channels)) if norm is None else None
        self.norm = build_norm(norm, out_channels)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.act(self.norm(_convolve(x, self.weight, self.positions, self.bias, self.form)))

    def no_weight_decay(self) -> set[str]:
        """Positions: decay would draw all taps to the middle."""
        return {"positions"}

    @torch.no_grad()
    def as_conv(self) -> nn.Conv2d:
        """The ordinary convolution that this is with its present positions, without norm and activation: to deploy."""
        rows, columns = map(int, _reach(self.positions, self.form))
        kernel, padding = _kernel(self.weight, self.positions, rows, columns, self.form)
        size = (kernel.shape[2], kernel.shape[3])
        conv = nn.Conv2d(
            self.groups * kernel.shape[1],
            self.out_channels,
            size,
            self.stride,
            padding,
            groups=self.groups,
            device="meta",
        )
        conv.weight = nn.Parameter(kernel)
        conv.bias = None if self.bias is None else nn.Parameter(self.bias.clone())
        return conv


@fx.wrap  # one node of a traced graph: it branches on the positions
def _convolve(x: Tensor, weight: Tensor, positions: Tensor, bias: Tensor | None, form: _Form) -> Tensor:
    """In the form that takes less time."""
    if x.is_meta or weight.is_meta:
        return F.conv2d(x, weight, bias, form.stride, form.padding, form.dilation, form.groups)
    if torch.compiler.is_compiling():
        return _sampled(x, weight, positions, bias, form)
    rows, columns = _reach(positions, form)
    taps = weight[0, 0].numel()
    further_macs = ((2 * rows + 1) * (2 * columns + 1) - taps) * max(len(weight) // form.groups, _NARROW)
    # The reach of diverged positions is no number, of which this is false.
    if further_macs <= taps * _SAMPLE_MACS[form.share]:
        kernel, padding = _kernel(weight, positions, int(rows), int(columns), form)
        return F.conv2d(x, kernel, bias, form.stride, padding, groups=form.groups)
    return _sampled(x, weight, positions, bias, form)


def _reach(positions: Tensor, form: _Form) -> list[float]:
    """How many rows and columns from the middle the outermost pixel lies that a tap, or its derivative, reads."""
    positions = positions.detach().flatten(0, -2)
    last = positions.floor() + 1 if torch.is_grad_enabled() else positions.ceil()
    return torch.maximum(-positions.floor(), last).amax(0).clamp(min=form.border).tolist()


def _kernel(weight: Tensor, positions: Tensor, rows: int, columns: int, form: _Form) -> tuple[Tensor, tuple[int, int]]:
    """The ordinary kernel, (out, in / groups, 2 rows + 1, 2 columns + 1), and its padding."""
    positions = positions if form.share == "layer" else _grouped(positions, form.groups)
    spread = _shares(positions[..., 0], rows)[..., None] * _shares(positions[..., 1], columns)[..., None, :]
    kernel = torch.einsum(_KERNELS[form.share], _grouped(weight.flatten(2), form.groups), spread)
    return kernel.flatten(0, 1), (form.padding - form.border + rows, form.padding - form.border + columns)


def _sampled(x: Tensor, weight: Tensor, positions: Tensor, bias: Tensor | None, form: _Form) -> Tensor:
    """The map read at all taps, then summed by a 1 x 1 convolution; for "filter" the other way round."""
    if form.share == "filter":
        kernels = weight.flatten(2).transpose(1, 2).flatten(0, 1)[..., None, None]
        products = F.conv2d(x, kernels, groups=form.groups)  # (N, out * k * k, H, W)
        samples = _samples(products, positions.flatten(0, 1)[:, None], form)
        taps = positions.shape[1]
        y = samples.view(x.shape[0], len(weight), taps, *samples.shape[3:]).sum(2)
        return y if bias is None else y + bias[:, None, None]
    samples = _samples(x, positions[None] if form.share == "layer" else positions, form)
    return F.conv2d(samples.flatten(1, 2), weight.flatten(1)[..., None, None], bias, groups=form.groups)


def _samples(x: Tensor, positions: Tensor, form: _Form) -> Tensor:
    """(N, C, H, W) at positions (S, T, 2), a set for each C / S channels: (N, C, T, H / stride, W / stride)."""
    (batch, channels, *sizes), dtype = x.shape, x.dtype
    sets, taps, _ = positions.shape
    shift = form.padding - form.border
    height, width = ((size + 2 * shift - 1) // form.stride + 1 for size in sizes)
    # In half precision -1 to 1 would not tell the pixels of a map of a hundred apart.
    x, positions = (own.to(torch.promote_types(own.dtype, torch.float32)) for own in (x, positions))
    rows = torch.arange(height, dtype=positions.dtype, device=x.device) * form.stride - shift
    columns = torch.arange(width, dtype=positions.dtype, device=x.device) * form.stride - shift
    # grid_sample counts from edge to edge, -1 to 1, columns first.
    rows = (2 * (rows + positions[..., :1]) + 1) / sizes[0] - 1
    columns = (2 * (columns + positions[..., 1:]) + 1) / sizes[1] - 1
    shape = (sets, taps, height, width)
    grid = torch.stack((columns[..., None, :].expand(shape), rows[..., None].expand(shape)), -1)
    grid = grid.flatten(1, 2).expand(batch, -1, -1, -1, -1).flatten(0, 1)  # (N * S, T * H', W', 2)
    maps = x.reshape(batch * sets, channels // sets, *sizes)
    samples = F.grid_sample(maps, grid, align_corners=False).to(dtype)
    return samples.reshape(batch, channels, taps, height, width)


def _grouped(x: Tensor, groups: int) -> Tensor:
    return x.view(groups, -1, *x.shape[1:])


def _shares(positions: Tensor, reach: int) -> Tensor:
    """(..., T) -> (..., T, 2 reach + 1): the share that each pixel from -reach to reach has in the value there."""
    first = positions.detach().floor()[..., None]
    after = positions[..., None] - first
    pixels = torch.arange(-reach, reach + 1, dtype=positions.dtype, device=positions.device)
    return (pixels == first) * (1 - after) + (pixels == first + 1) * after
