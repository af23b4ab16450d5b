"""Deformable RoI pooling, plain and position-sensitive (Dai et al. 2017, arXiv:1703.06211, Sec. 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convsmith.nn.channels import check_divisible, check_positive
from convsmith.nn.deformable import OffsetConv2d
from convsmith.nn.moved_bins import Boxes, deformable_roi_pool, numbered


class DeformableRoIPool(nn.Module):
    """Bins moved by offsets that a fully connected layer, zero at first, predicts from the unmoved bins (Fig. 3).

    `gamma` and the number of points are those of the paper and of the authors' code, which trains the layer with a
    hundredth of the learning rate. No image in the batch needs to have a box.

    Args:
        in_channels: C of the map.
        output_size: k, bins along a side.
        spatial_scale: Size of the map over that of the image.
        sampling_ratio: n, points along a side of a bin.
        gamma: What the offsets are multiplied by, beside the box's size.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        output_size: int = 7,
        spatial_scale: float = 1 / 16,
        sampling_ratio: int = 4,
        gamma: float = 0.1,
    ):
        super().__init__()
        check_positive(output_size=output_size, sampling_ratio=sampling_ratio)
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.gamma = sampling_ratio, gamma
        # Over a map of k x k, a k x k convolution without padding is a fully connected layer.
        self.offset = OffsetConv2d(in_channels, 2 * output_size**2, kernel_size=output_size)
        self.out_channels = in_channels

    def forward(self, x: Tensor, boxes: Boxes) -> Tensor:
        """(N, C, H, W) and R boxes -> (R, C, k, k)."""
        from torchvision.ops import roi_align  # here, as it brings torch's compiler along, which takes seconds

        boxes, k = numbered(boxes, x), self.output_size
        full = _in_full(x)  # torchvision's operator knows no bfloat16
        unmoved = roi_align(full, boxes.to(full.dtype), k, self.spatial_scale, self.sampling_ratio, aligned=True)
        offsets = self.offset(unmoved.to(x.dtype)).view(-1, 2, k, k)
        return deformable_roi_pool(
            x,
            boxes,
            offsets,
            spatial_scale=self.spatial_scale,
            sampling_ratio=self.sampling_ratio,
            gamma=self.gamma,
        )


class DeformablePSRoIPool(nn.Module):
    """Position-sensitive bins, each read from a map of its own, moved by offsets pooled in the same way (Fig. 4).

    A 1 x 1 convolution gives the k * k * C' maps that are pooled, C' being the classes and the background in R-FCN
    (Dai et al. 2016, arXiv:1605.06409), another one, zero at first, the 2 * k * k * S maps of the offsets: S sets of
    offsets, `offset_sets`, for equal groups of the C' channels. None is one for each of them, 2 k k (C + 1) maps as in
    the paper; its code has a single set for the boxes. Further arguments as in `DeformableRoIPool`.
    It pools image by image, and how many boxes an image has depends on values: `torch.export` does not take it, and
    `torch.compile` only without `fullgraph`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        output_size: int = 7,
        spatial_scale: float = 1 / 16,
        sampling_ratio: int = 4,
        gamma: float = 0.1,
        offset_sets: int | None = None,
    ):
        super().__init__()
        check_positive(output_size=output_size, sampling_ratio=sampling_ratio)
        sets = out_channels if offset_sets is None else offset_sets
        check_divisible(out_channels=out_channels, offset_sets=sets)
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.gamma = sampling_ratio, gamma
        self.maps = nn.Conv2d(in_channels, out_channels * output_size**2, 1)
        self.offset = OffsetConv2d(in_channels, 2 * sets * output_size**2)
        self.out_channels = out_channels

    def forward(self, x: Tensor, boxes: Boxes) -> Tensor:
        """(N, C, H, W) and R boxes -> (R, C', k, k); a detector takes the mean over the bins."""
        from torchvision.ops import ps_roi_align

        boxes, offsets = numbered(boxes, x), _in_full(self.offset(x))
        offsets = ps_roi_align(
            offsets, boxes.to(offsets.dtype), self.output_size, self.spatial_scale, self.sampling_ratio
        ).to(x.dtype)
        return deformable_roi_pool(
            self.maps(x),
            boxes,
            offsets,
            spatial_scale=self.spatial_scale,
            sampling_ratio=self.sampling_ratio,
            gamma=self.gamma,
            position_sensitive=True,
        )


def _in_full(x: Tensor) -> Tensor:
    """The map in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
