"""Time of an irregular convolution over that of its naive form, of torchvision's deformable one, of an ordinary one.

    python benchmarks/irregular_speed.py --out benchmarks

Eager, float32, one thread, 3 x 3, forward alone and with the backward pass. The naive form samples the map at all taps
by one `grid_sample` and sums up by a 1 x 1 convolution; `deform_conv2d` is given the same offsets at every place; the
ordinary convolution has the weights alone and is what positions cost nothing over. Taps are up to half a pixel, and up
to two pixels off the grid: near ones make one larger kernel, far ones are sampled. All take turns in one process; a
ratio is the median over rounds of each round's ratio. Writes `DATE_irregular_speed.csv`. Below 1, ours is faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _table import arguments, median, one_thread_keeping_memory, ratios, write
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from convsmith.deploy import clock
from convsmith.nn import IrregularConv2d

# share, batch, channels in and out, side of the map, pixels that a tap may be off the grid
CASES = [
    ("layer", 8, 16, 32, 0.5),
    ("layer", 1, 64, 56, 0.5),
    ("layer", 4, 128, 28, 0.5),
    ("layer", 4, 256, 14, 0.5),
    ("layer", 1, 64, 56, 2.0),
    ("layer", 4, 256, 14, 2.0),
    ("channel", 1, 64, 56, 0.5),
    ("channel", 4, 256, 14, 0.5),
]


def naive(module: IrregularConv2d, x: Tensor) -> Tensor:
    """The map sampled at every tap, for groups of channels with the same positions."""
    batch, channels, height, width = x.shape
    positions = module.positions.view(-1, 9, 2)
    sets = len(positions)
    rows = torch.arange(height, dtype=x.dtype)[:, None] + positions[..., 0, None, None]
    columns = torch.arange(width, dtype=x.dtype) + positions[..., 1, None, None]
    shape = (sets, 9, height, width)
    grid = torch.stack((((2 * columns + 1) / width - 1).expand(shape), ((2 * rows + 1) / height - 1).expand(shape)), -1)
    grid = grid.flatten(1, 2).repeat(batch, 1, 1, 1)
    samples = F.grid_sample(x.reshape(batch * sets, channels // sets, height, width), grid, align_corners=False)
    weight = module.weight.flatten(1)[..., None, None]
    return F.conv2d(samples.reshape(batch, channels * 9, height, width), weight, module.bias)


def deformable(module: IrregularConv2d, x: Tensor) -> Tensor:
    """Offsets from the grid, the same at every place."""
    steps = torch.arange(-1.0, 2.0)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).view(9, 2)
    offsets = (module.positions - grid).reshape(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])
    return deform_conv2d(x, offsets.contiguous(), module.weight, module.bias, padding=1)


def ordinary(module: IrregularConv2d, x: Tensor) -> Tensor:
    """The weights on the regular grid."""
    return F.conv2d(x, module.weight, module.bias, padding=1)


def compare(
    share: str, batch: int, channels: int, side: int, off: float, train: bool, rounds: int, seconds: float
) -> dict[str, object]:
    torch.manual_seed(0)
    module = IrregularConv2d(channels, channels, share=share)
    with torch.no_grad():
        module.positions += off * (2 * torch.rand_like(module.positions) - 1)
    x = torch.randn(batch, channels, side, side, requires_grad=train)
    gradient = torch.randn_like(x)
    forms: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: module(x),
        "grid_sample": lambda: naive(module, x),
        "deform_conv2d": lambda: deformable(module, x),
        "ordinary": lambda: ordinary(module, x),
    }
    with torch.no_grad():
        for name in ("grid_sample", "deform_conv2d"):
            torch.testing.assert_close(forms[name](), forms["ours"](), atol=1e-3, rtol=1e-3)

    def call(form: Callable[[], Tensor]) -> Callable[[], object]:
        def forward() -> object:
            with torch.no_grad():
                return form()

        leaves = [x, module.weight, module.bias, *([module.positions] if form is not forms["ordinary"] else [])]
        return (lambda: torch.autograd.grad(form(), leaves, gradient)) if train else forward

    with clock.threads(1):
        found = clock.measure({name: call(form) for name, form in forms.items()}, rounds=rounds, budget_seconds=seconds)
    row: dict[str, object] = {"share": share, "batch": batch, "channels": channels, "side": side, "pixels_off": off}
    row |= {"pass": "forward and backward" if train else "forward", "ours_ms": round(found["ours"].median_ms, 3)}
    for name in list(forms)[1:]:
        row[f"over_{name}"] = median(ratios(found["ours"], found[name]))
    return row


def main() -> None:
    given = arguments(__doc__, rounds=15, seconds=60).parse_args()
    rows = (compare(*case, train, given.rounds, given.seconds) for case in CASES for train in (False, True))
    write(given.out, "irregular_speed", rows, one_thread_keeping_memory())


if __name__ == "__main__":
    main()
