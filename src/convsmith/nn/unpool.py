"""Max unpooling: the counterpart of max pooling in a decoder."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.nn.channels import pair
from convsmith.nn.memory_format import keeps_channels_last
from convsmith.nn.upsample import check_upscale_factor


class Unpool(nn.Module):
    """Max unpooling with switches (Zeiler & Fergus 2014, arXiv:1311.2901, Sec. 2.1): each value back to its maximum.

    The switches are what `max_pool2d(..., return_indices=True)` gives beside the maxima: positions in each map, counted
    row by row. Where overlapping windows share a maximum, their values add up, as in the gradient of max pooling
    (torch's `max_unpool2d` keeps any one of them); all other pixels are 0.
    """

    def __init__(self, upscale_factor: int = 2):
        super().__init__()
        check_upscale_factor(upscale_factor)
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor, switches: Tensor, output_size: int | tuple[int, int] | None = None) -> Tensor:
        """Maps (N, C, H, W) and their switches, of the same shape -> (N, C, r H, r W), or of exactly `output_size`.

        That must be the size of the map that was pooled, in which the switches count; name it where it is not r times
        as large. Switches of another shape raise ValueError, as do, on the CPU, those of a larger map.
        """
        if switches.shape != x.shape:
            raise ValueError(
                "the switches must have the shape of the map, one for each value, got "
                f"{tuple(switches.shape)} for a map of {tuple(x.shape)}"
            )
        count, channels, *size = x.shape
        height, width = (side * self.upscale_factor for side in size) if output_size is None else pair(output_size)
        try:
            if keeps_channels_last(x):
                empty = x.new_zeros(count, height * width, channels)
                rows, places = (each.permute(0, 2, 3, 1).flatten(1, 2) for each in (x, switches))
                return empty.scatter_add(1, places, rows).view(count, height, width, channels).permute(0, 3, 1, 2)
            empty = x.new_zeros(count, channels, height * width)
            return empty.scatter_add(2, switches.flatten(2), x.flatten(2)).view(count, channels, height, width)
        except RuntimeError as error:
            if "out of bounds" not in str(error):
                raise
            raise ValueError(
                f"the switches must lie in the map that is made, got {height} x {width}, and {error}; give the size of "
                "the map that was pooled as output_size"
            ) from error
