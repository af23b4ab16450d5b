"""Padding that depends on the size of the map: TensorFlow's "same", with which its networks were trained."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.nn.channels import check_odd_kernel

# How strided windows reach a size of H / stride, rounded up. "symmetric": kernel_size // 2 on each side. "same": as
# TensorFlow, only as much as is needed, an odd row or column at the end; a mean leaves the padding out. "same_counted":
# likewise, but a mean counts its zeros, as timm does.
Padding = Literal["symmetric", "same", "same_counted"]

Pair = tuple[int, int]  # (height, width)


class SamePad(nn.Module):
    """The zeros that TensorFlow's "same" puts around a map, depending on its size."""

    def __init__(self, kernel_size: Pair, stride: Pair, dilation: int = 1):
        super().__init__()
        self.windows = [((k - 1) * dilation + 1, step) for k, step in zip(kernel_size, stride, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W'), of which an unpadded window makes H / stride, W / stride, rounded up."""
        above, below = same_pads(x.shape[-2], *self.windows[0])
        left, right = same_pads(x.shape[-1], *self.windows[1])
        return F.pad(x, (left, right, above, below))


class SamePool(nn.Module):
    """Pooling padded as TensorFlow's "same": what lies outside of the map is no part of a maximum or mean."""

    def __init__(self, kind: str, kernel_size: int, stride: int):
        super().__init__()
        self.kind, self.kernel_size, self.stride = kind, kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride), rounded up."""
        if self.stride == 1:
            # Only 2 x 2 windows come here. The border repeated is as good as nothing: no maximum changes by it, and a
            # mean of two rows is that of the one inside.
            x = F.pad(x, (0, 1, 0, 1), mode="replicate")
            return F.max_pool2d(x, 2, 1) if self.kind == "max" else F.avg_pool2d(x, 2, 1)
        # ceil_mode adds what the end needs beyond the padding of the beginning.
        padding = tuple(same_pads(size, self.kernel_size, self.stride)[0] for size in (x.shape[-2], x.shape[-1]))
        if self.kind == "max":
            return F.max_pool2d(x, self.kernel_size, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(x, self.kernel_size, self.stride, padding, ceil_mode=True, count_include_pad=False)


def same_pads(size: int, kernel_size: int, stride: int) -> Pair:
    """How much TensorFlow's "same" adds before and behind a side of `size`, for a kernel not below the stride."""
    total = kernel_size - 1 - (size - 1) % stride
    return total // 2, total - total // 2


def pad_for_conv(kernel_size: Pair, stride: Pair, dilation: int, padding: Padding) -> tuple[nn.Module, Pair]:
    """What stands in front of a convolution, and the convolution's own padding, so that H becomes H / stride.

    Raises ValueError for an even kernel that is padded on both sides alike, as that adds a row and a column.
    """
    if padding != "symmetric" and max(stride) > 1 and max(kernel_size) > 1:
        return SamePad(kernel_size, stride, dilation), (0, 0)
    for size in kernel_size:
        check_odd_kernel(size)
    return nn.Identity(), (kernel_size[0] // 2 * dilation, kernel_size[1] // 2 * dilation)
