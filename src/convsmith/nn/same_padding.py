"""Padding that depends on the size of the map: TensorFlow's "same", with which its networks were trained."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SamePad(nn.Module):
    """The zeros that TensorFlow's "same" puts around a map, depending on its size."""

    def __init__(self, kernel_size: int, stride: int):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W'), of which an unpadded window makes H / stride, W / stride, rounded up."""
        above, below = same_pads(x.shape[-2], self.kernel_size, self.stride)
        left, right = same_pads(x.shape[-1], self.kernel_size, self.stride)
        return F.pad(x, (left, right, above, below))


class SamePool(nn.Module):
    """Pooling padded as TensorFlow's "same": what lies outside of the map is no part of a maximum or mean."""

    def __init__(self, kind: str, kernel_size: int, stride: int):
        super().__init__()
        self.kind, self.kernel_size, self.stride = kind, kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride), rounded up."""
        # ceil_mode adds what the end needs beyond the padding of the beginning.
        padding = tuple(same_pads(size, self.kernel_size, self.stride)[0] for size in (x.shape[-2], x.shape[-1]))
        if self.kind == "max":
            return F.max_pool2d(x, self.kernel_size, self.stride, padding, ceil_mode=True)
        return F.avg_pool2d(x, self.kernel_size, self.stride, padding, ceil_mode=True, count_include_pad=False)


def same_pads(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """How much TensorFlow's "same" adds before and behind a side of `size`, for a kernel not below the stride."""
    total = kernel_size - 1 - (size - 1) % stride
    return total // 2, total - total // 2
