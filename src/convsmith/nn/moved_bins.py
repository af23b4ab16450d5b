"""The mean over bins that are moved: the pooling of deformable RoI pooling (Dai et al. 2017, arXiv:1703.06211).

A box of width w and height h on the map is cut into k x k bins, and each bin is moved by gamma (w o_x, h o_y), with
given offsets o (Eq. 6). Its value is the mean of n x n points, spread evenly over it and read bilinearly, by the
convention of torchvision's `roi_align(aligned=True)` and `ps_roi_align`, which these equal at zero offsets. The paper
takes the mean over whole pixels, and the authors' code over n x n points from each bin's corner on; both round the box.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Boxes = Tensor | Sequence[Tensor]
"""(R, 5): image number, x1, y1, x2, y2 in pixels of the image; or for each image its (R_i, 4)."""


def deformable_roi_pool(
    x: Tensor,
    boxes: Boxes,
    offsets: Tensor,
    *,
    spatial_scale: float,
    sampling_ratio: int = 4,
    gamma: float = 0.1,
    position_sensitive: bool = False,
) -> Tensor:
    """Pool bins moved by given offsets: (N, C, H, W), R boxes and (R, 2 S, k, k) -> (R, C', k, k).

    Channels 2 s and 2 s + 1 of the offsets are x and y, in widths and heights of the box before `gamma`, of the s-th of
    S equal groups of the C' channels. C' is C, or C / (k * k) where `position_sensitive`: bin (i, j) of channel c then
    reads channel (c k + i) k + j. A point more than a pixel outside the map counts as 0, a nearer one reads the border.
    Boxes get no gradient.

    Raises ValueError where the channels, the boxes and the offsets do not fit each other.
    """
    boxes = numbered(boxes, x)
    number, channels, k = len(boxes), x.shape[1], offsets.shape[2]
    sets, planes = offsets.shape[1] // 2, k * k if position_sensitive else 1
    if offsets.shape != (number, 2 * sets, k, k) or sets < 1 or channels % (planes * sets):
        raise ValueError(
            "offsets must be (boxes, 2 * sets, k, k), the sets dividing the channels, of which k * k make one where "
            f"position-sensitive, got {tuple(offsets.shape)} for {number} boxes and {channels} channels"
        )
    if number == 0:
        return x[:0].reshape(0, channels // planes, k, k) + offsets.sum()  # empty, with a gradient
    low, high = (boxes[:, 1:] * spatial_scale - 0.5).view(-1, 2, 2).unbind(1)
    size = high - low  # (R, 2), x first
    steps = torch.arange(k * sampling_ratio, dtype=size.dtype, device=size.device) + 0.5
    places = low[..., None] + size[..., None] * steps / len(steps)
    columns, rows = places.view(number, 2, k, sampling_ratio).unbind(1)
    moves = gamma * size[:, None, :, None, None] * offsets.view(number, sets, 2, k, k)
    columns = columns[:, None, None] + moves[:, :, 0, ..., None]  # (R, S, k, k, n), as the rows
    rows = rows[:, None, :, None] + moves[:, :, 1, ..., None]
    pool = _from_planes if position_sensitive else _from_rows
    return pool(x.to(size.dtype), boxes[:, 0].long(), columns, rows).to(x.dtype)


def numbered(boxes: Boxes, x: Tensor) -> Tensor:
    """Boxes as (R, 5), in single precision at least; ValueError where they are no boxes of the images.

    A compiled or exported program does not ask for the images' numbers.
    """
    if not isinstance(boxes, Tensor):
        if len(boxes) != len(x):
            raise ValueError(f"a list of boxes must have an entry for each image, got {len(boxes)} for {len(x)} images")
        for image, each in enumerate(boxes):
            if each.dim() != 2 or each.shape[1] != 4:
                raise ValueError(
                    "each entry of a list of boxes must be (R, 4): x1, y1, x2, y2, got "
                    f"{tuple(each.shape)} for image {image}; leave out the image number, or give one tensor of (R, 5)"
                )
        numbers = [F.pad(each, (1, 0), value=image) for image, each in enumerate(boxes)]
        boxes = torch.cat(numbers) if numbers else x.new_zeros(0, 5)
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be (R, 5): image number, x1, y1, x2, y2, got {tuple(boxes.shape)}")
    if torch.compiler.is_compiling():  # a program whose branches must not depend on values
        return _in_single(boxes, x)
    foreign = boxes[~((boxes[:, 0] >= 0) & (boxes[:, 0] < len(x))), 0]
    if len(foreign):
        raise ValueError(f"a box must have the number of one of {len(x)} images, counted from 0, got {foreign[0]:g}")
    return _in_single(boxes, x)


def _in_single(boxes: Tensor, x: Tensor) -> Tensor:
    """Boxes without a gradient, in single precision at least."""
    return boxes.detach().to(torch.promote_types(x.dtype, torch.float32))


def _from_rows(x: Tensor, images: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Each bin as a weighted sum of pixels, all channels of a set at a time, so that no sample is stored."""
    number, sets, k, _, n = columns.shape
    channels, height, width = x.shape[1:]
    at_row, of_row = _corners(rows, height)
    at_column, of_column = _corners(columns, width)
    at_row = (at_row + images.view(-1, 1, 1, 1, 1) * height) * width
    pixels = (at_row[..., None] + at_column[..., None, :]) * sets
    pixels = pixels + torch.arange(sets, device=x.device).view(-1, 1, 1, 1, 1)
    shares = of_row[..., None] * of_column[..., None, :] / n**2
    table = x.permute(0, 2, 3, 1).reshape(-1, channels // sets)
    shape = (-1, 4 * n * n)
    y = F.embedding_bag(pixels.view(shape), table, mode="sum", per_sample_weights=shares.view(shape))
    return y.view(number, sets, k, k, -1).permute(0, 1, 4, 2, 3).reshape(number, channels, k, k)


def _corners(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two pixels on either side of each of n places along an axis, and their shares: (..., 2 n) both."""
    inside = (places >= -1) & (places <= size)
    places = places.clamp(0, size - 1)
    first = places.detach().floor()
    after = places - first
    pixels = torch.stack((first, (first + 1).clamp(max=size - 1)), -1).long()
    return pixels.flatten(-2), (torch.stack((1 - after, after), -1) * inside[..., None]).flatten(-2)


def _from_planes(x: Tensor, images: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Each bin from the plane that is its own, image by image: there are too few channels at a time for rows."""
    _, sets, k, _, n = columns.shape
    height, width = x.shape[2:]
    inside = ((rows >= -1) & (rows <= height))[..., None] & ((columns >= -1) & (columns <= width))[..., None, :]
    # grid_sample counts from edge to edge, -1 to 1.
    columns, rows = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    grid = torch.stack((columns[..., None, :].expand_as(inside), rows[..., None].expand_as(inside)), -1)
    pooled, found = [], []
    for image, planes in enumerate(x):
        mine = (images == image).nonzero()[:, 0]
        if len(mine) == 0:
            continue
        planes = planes.view(sets, -1, k * k, height, width).transpose(1, 2).flatten(0, 1)
        places = grid[mine].permute(1, 2, 3, 0, 4, 5, 6).reshape(sets * k * k, len(mine), n * n, 2)
        counted = inside[mine].permute(1, 2, 3, 0, 4, 5).reshape(sets * k * k, 1, len(mine), n * n)
        values = (F.grid_sample(planes, places, padding_mode="border", align_corners=False) * counted).mean(3)
        pooled.append(values.view(sets, k, k, -1, len(mine)).permute(4, 0, 3, 1, 2).flatten(1, 2))
        found.append(mine)
    return torch.cat(pooled)[torch.cat(found).argsort()]
