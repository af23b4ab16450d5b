"""How much a convolution makes the processor do in OpenVINO, beyond its multiply-accumulates.

Its kernels keep the channels of a pixel together and compute them in vectors, of each group on its own; a vector that
the channels do not fill costs as much as a full one. A row of taps that lies in the padding is left out, a column where
it does so all along the row. The kernel for groups of few channels is called for each row of each group: 512 groups of
two channels and 7 x 7 pixels take 242 us, where their multiplications take 60.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convsmith.measure.predictor.graph import Op, Shape

VECTOR, PER_CYCLE = 16, 2.0
CALL = 160.0  # cycles of the kernel for groups of few channels, besides those of its multiplications


@dataclass(frozen=True, slots=True)
class Effort:
    """`steps` are cycles of multiplication, `copied` bytes of input that are moved besides.

    `weights` is the share of the weights that is read at all.
    """

    steps: float = 0.0
    copied: float = 0.0
    weights: float = 1.0


def convolution_effort(op: Op, weight: Shape, groups: int, source: Shape, target: Shape) -> Effort:
    """The effort of a convolution of a map `source` (N, C, H, W) to a map `target`."""
    kernel = op.attributes["kernel"]
    if kernel.endswith("_dw"):
        vectors, depth = -(-groups // VECTOR), 1
    else:
        vectors, depth = groups * -(-(weight[0] // groups) // VECTOR), weight[1]
    rows, columns = (_inside(op, axis, weight[2 + axis], source[2 + axis], target[2 + axis]) for axis in (0, 1))
    used = sum(map(bool, rows)), sum(map(bool, columns))
    steps = target[0] * sum(rows) * used[1] * target[3] * vectors * depth / PER_CYCLE
    if kernel == "jit":
        steps += CALL * target[0] * target[2] * groups
    copied = 4.0 * math.prod(source) if kernel == "brgconv" else 0.0
    return Effort(steps, copied, math.prod(used) / math.prod(weight[2:]))


def moving_effort(op: Op, read: Sequence[Shape], written: Sequence[Shape]) -> Effort:
    """The effort of joining or splitting maps: each pixel of each part is moved by itself."""
    if op.kind not in ("Concatenation", "Split", "VariadicSplit", "StridedSlice"):
        return Effort()
    parts = read if op.kind == "Concatenation" else written
    return Effort(steps=float(sum(part[0] * math.prod(part[2:]) for part in parts)))


def _inside(op: Op, axis: int, taps: int, source: int, target: int) -> list[int]:
    """For each tap along one axis at how many places of the result it falls on the map."""
    stride, dilation = op.ints("strides", (1, 1))[axis], op.ints("dilations", (1, 1))[axis]
    firsts = [tap * dilation - op.ints("pads", (0, 0))[axis] for tap in range(taps)]
    return [
        max(0, min(target - 1, (source - 1 - first) // stride) - max(0, -(first // stride)) + 1) for first in firsts
    ]
