"""The effective receptive field: the gradient of the middle value of a map with respect to the input.

Understanding the Effective Receptive Field in Deep Convolutional Neural Networks (Luo et al. 2016, arXiv:1701.04128).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.measure.reach.mode import maps_in
from convsmith.network.shapes import Shape

IMAGES = 8


@dataclass(frozen=True)
class EffectiveField:
    """How much each input pixel moves the middle value of a map.

    Attributes:
        influence: (H, W), adds up to 1: the absolute gradient of the sum of the middle value's channels, summed over
            input channels, averaged over images of noise. All zero where the value does not react at all.
        share: The share of the influence that the box of `size` holds.
        size: Height and width of the smallest box around the middle of the influence, of the input's proportions, that
            holds the share.
    """

    influence: Tensor
    share: float
    size: tuple[int, int]


def effective_field(module: nn.Module, input_shape: Shape, path: str, *, share: float) -> EffectiveField:
    """The effective field of the map that the module at `path` returns, on noise, with the weights as they are.

    ValueError for a share outside of (0, 1] and for weights on the meta device, which have no values.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError("an effective field needs weights with values; build the module off the meta device")
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())
    total = torch.zeros(input_shape[2:], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(IMAGES):
        image = torch.randn(1, *input_shape[1:], generator=generator).to(dtype).requires_grad_()
        total += _gradient(module, image, path).double().abs().sum((0, 1))
    influence = total / total.sum() if total.sum() > 0 else total
    return EffectiveField(influence, share, _box(influence, share))


def _gradient(module: nn.Module, image: Tensor, path: str) -> Tensor:
    middle: list[Tensor] = []

    def keep(part: nn.Module, args: Any, output: Any) -> None:
        found = list(maps_in(output))[-1]
        middle[:] = [found[..., found.shape[2] // 2, found.shape[3] // 2].sum()]

    handle = module.get_submodule(path).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            module(image)
            (gradient,) = torch.autograd.grad(middle[0], image)
    finally:
        handle.remove()
    return gradient


def _box(influence: Tensor, share: float) -> tuple[int, int]:
    """Boxes grow around the centre of mass in the input's proportions until one holds the share."""
    height, width = influence.shape
    if not bool(influence.any()):
        return 0, 0
    row = float((influence.sum(1) * torch.arange(height)).sum())
    column = float((influence.sum(0) * torch.arange(width)).sum())
    for step in range(1, 2 * max(height, width) + 1):
        half = (step * height / max(height, width) / 2, step * width / max(height, width) / 2)
        top, bottom = max(0, math.ceil(row - half[0])), min(height, math.floor(row + half[0]) + 1)
        left, right = max(0, math.ceil(column - half[1])), min(width, math.floor(column + half[1]) + 1)
        if float(influence[top:bottom, left:right].sum()) >= share - 1e-12:
            return bottom - top, right - left
    return height, width
