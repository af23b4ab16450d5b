"""The shift operation: every channel moved by a displacement of its own, without parameters or multiplications.

Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions (Wu et al. 2018, arXiv:1711.08141, Sec. 3).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch._C import _get_tracing_state
from torch.nn import functional as F

from convsmith.arch import block
from convsmith.nn import native
from convsmith.nn.channels import check_odd_kernel
from convsmith.nn.memory_format import is_channels_last
from convsmith.nn.shift_copy import FEW_ELEMENTS, by_copying
from convsmith.nn.shift_cpu import by_operator, in_graph, is_in_graph
from convsmith.nn.shift_forms import Moves, Run, by_padding, run_differentiably
from convsmith.nn.unsaved import Unsaved

# Neighbouring channels that are worth a copy of their own; oneDNN moves fewer in less time.
FEW_CHANNELS = 16


@block("shift")
class Shift(Unsaved):
    """out[c, h, w] = x[c, stride * h + dy(c), stride * w + dx(c)], zero where that is outside of the map (Eq. 3).

    The k * k displacements (dy, dx) are the taps of a k x k kernel in their order, times `dilation`. With
    n = floor(C / k^2), `assignment="contiguous"` gives the first n channels the first displacement, the next n the
    second one, and so on (Sec. 3.1); `"interleaved"` gives channel c the displacement c mod k^2, as the authors' CUDA
    code does. The C - n k^2 channels that remain at the end stay in place. Every other assignment is one of these up
    to the order of the channels of the convolutions around it. The paper has no strided shift: here it is the shift
    read at every `stride`-th position.

    It is copied in one pass where there is an operator for it: in Triton for CUDA devices, in C++ for the CPU once
    `build_operators` or `torch.compile` have compiled it. Where there is none it is several copies of views; or, of
    channels-last maps in float32 or bfloat16 on the CPU, where no copy of a few channels at a time is fast, the
    depthwise convolution with the one-hot kernels `taps`, of which an infinite or undefined value spreads over its
    neighbours.
    """

    taps: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        dilation: int = 1,
        stride: int = 1,
        assignment: Literal["contiguous", "interleaved"] = "contiguous",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        if kernel_size**2 > in_channels:
            raise ValueError(
                "a shift must have a channel for each of its kernel_size**2 displacements, got "
                f"{in_channels=} and {kernel_size=}; widen the map or take a smaller kernel"
            )
        if min(dilation, stride) < 1:
            raise ValueError(f"dilation and stride of a shift must be positive, got {dilation=} and {stride=}")
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.stride = stride
        self.interleaved = assignment == "interleaved"
        self.register_buffer("taps", torch.empty(in_channels, 1, kernel_size, kernel_size), persistent=False)
        self.out_channels = in_channels
        self.fill()

    def fill(self) -> None:
        """Write the one-hot kernels."""
        self.taps.copy_(_one_hot_kernels(self.out_channels, self.kernel_size, self.interleaved))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)), in the memory format of `x`."""
        return shift(x, self.taps, self.kernel_size, self.dilation, self.stride, self.interleaved)

    def as_convolution(self) -> nn.Conv2d:
        """The same operator as a depthwise convolution with frozen kernels."""
        channels, padding = self.out_channels, self.kernel_size // 2 * self.dilation
        convolution = nn.Conv2d(
            *(channels, channels, self.kernel_size, self.stride, padding, self.dilation),
            groups=channels,
            bias=False,
            device="meta",
        )
        convolution.weight = nn.Parameter(self.taps.clone(), requires_grad=False)
        return convolution.train(self.training)


def _one_hot_kernels(channels: int, kernel_size: int, interleaved: bool) -> Tensor:
    """(C, 1, k, k), 1 at the displacement of each channel."""
    displacements = kernel_size**2
    group = channels // displacements
    taps = [c % displacements if interleaved else c // group for c in range(group * displacements)]
    taps += [displacements // 2] * (channels - len(taps))
    kernels = torch.zeros(channels, displacements)
    kernels[range(channels), taps] = 1
    return kernels.view(channels, 1, kernel_size, kernel_size)


@fx.wrap  # one node of a traced graph: it branches on the memory format
def shift(x: Tensor, taps: Tensor, kernel_size: int, dilation: int, stride: int, interleaved: bool) -> Tensor:
    """Shift `x` in the form that is the fastest where it is."""
    compiled = torch.compiler.is_compiling()
    if not compiled and _get_tracing_state():  # `torch.jit.trace`, for which sizes are no numbers
        return _convolved(x, taps.to(x.dtype), kernel_size, dilation, stride)
    if x.dim() != 4 or x.size(1) != taps.size(0):
        raise ValueError(f"a shift of {len(taps)} channels takes (N, {len(taps)}, H, W), got {tuple(x.shape)}")
    moves = Moves(kernel_size, dilation, stride, interleaved)
    if not compiled and native.serves(x):
        return run_differentiably(x, by_operator, moves)
    transformed = native.is_transformed()
    if compiled and not transformed and _is_for_operator(x) and is_in_graph():
        return in_graph(x, kernel_size, dilation, stride, interleaved)
    last = not transformed and is_channels_last(x)
    if (last and _convolves(x, taps, interleaved)) or not (compiled or type(x) in (Tensor, nn.Parameter)):
        return _convolved(x, taps, kernel_size, dilation, stride)
    if compiled or transformed:
        return by_padding(x, moves, channels_last=last)
    run = triton_kernel() if x.is_cuda else None
    return run_differentiably(x, run or by_copying, moves)


def _convolved(x: Tensor, taps: Tensor, kernel_size: int, dilation: int, stride: int) -> Tensor:
    return F.conv2d(x, taps, None, stride, kernel_size // 2 * dilation, dilation, taps.shape[0])


def _is_exporting() -> bool:
    """Whether the program will run without convsmith."""
    return torch.compiler.is_exporting()


# Answered while a program is traced, as `native.is_built` is. The tracer of torch 2.11 says yes also when it compiles.
vars(_is_exporting)["_dynamo_marked_constant"] = True


def _is_for_operator(x: Tensor) -> bool:
    """Whether a compiled program takes the operator, in C++ or in Triton."""
    if _is_exporting():
        return False
    if x.is_cuda:
        return has_triton()
    return x.device.type == "cpu" and x.element_size() <= native.LARGEST_ITEM and native.is_built()


def _convolves(x: Tensor, taps: Tensor, interleaved: bool) -> bool:
    """Whether oneDNN takes these channels-last maps, gives them back in their type, and is faster than a copy."""
    fits = x.device.type == "cpu" and x.dtype is taps.dtype and x.dtype in (torch.float32, torch.bfloat16)
    if not fits or torch.is_autocast_enabled("cpu") or _is_exporting():
        return False
    neighbours = 1 if interleaved else len(taps) // taps[0].numel()
    return neighbours < FEW_CHANNELS or x.numel() > FEW_ELEMENTS or torch.is_grad_enabled()


@cache
def triton_kernel() -> Run | None:
    """The shift as a Triton kernel, None where Triton is not installed."""
    try:
        from convsmith.nn.shift_triton import by_triton
    except ImportError:
        return None
    return by_triton


def has_triton() -> bool:
    """Whether there is a kernel for CUDA devices, which is also that of the operator there."""
    return triton_kernel() is not None


vars(has_triton)["_dynamo_marked_constant"] = True  # a compiler need not follow the import
