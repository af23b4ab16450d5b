"""How much a convolution makes the processor do, beyond its multiply-accumulates.

The blocked kernels of ONNX Runtime compute up to four blocks of output channels at once ("a set") for six, three or one
neighbouring pixels of a row; pixels at the padded borders one by one, without the taps that see padding. One step
multiplies one input channel and one tap. What a step takes is bound by the two multiplications that start in each
cycle, and for few pixels and blocks by the latency of one. Where there are more input channels than a pass takes, the
output is read and written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from convsmith.measure.predictor.graph import Op, Shape

SET = 4  # blocks of output channels
PIXELS = (6, 3, 1)
LATENCY, PER_CYCLE = 4.0, 2.0
POINTWISE_PASS = 128  # input channels
GEMM_TILE = (12, 32)


@dataclass(frozen=True, slots=True)
class Effort:
    """`steps` are cycles of multiplication, `passes` bytes of output (or unfolded input) that are moved besides."""

    steps: float = 0.0
    passes: float = 0.0
    set_weights: float = 0.0
    set_output: float = 0.0
    blocks_rest: int = 0
    pixels_rest: int = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """Along one side of a map: how many taps see the map at each output pixel, and how many ever do."""

    taps: tuple[int, ...]
    ever: int


@lru_cache(maxsize=4096)
def reach(source: int, target: int, kernel: int, stride: int, dilation: int, pad: int) -> Reach:
    """What a convolution from `source` to `target` pixels sees, `pad` being in front."""
    seen = [
        [tap for tap in range(kernel) if 0 <= pixel * stride - pad + tap * dilation < source] for pixel in range(target)
    ]
    return Reach(tuple(map(len, seen)), len({tap for own in seen for tap in own}))


def reaches(op: Op, weight: Shape, source: Shape, target: Shape) -> tuple[Reach, Reach]:
    """What a convolution with a `weight` sees of a map along its height and its width."""
    strides, dilations, pads = op.ints("strides", (1, 1)), op.ints("dilations", (1, 1)), op.ints("pads", (0,) * 4)
    height, width = (
        reach(source[2 + i], target[2 + i], weight[2 + i], strides[i], dilations[i], pads[i]) for i in range(2)
    )
    return height, width


def convolution_effort(op: Op, weight: Shape, groups: int, source: Shape, target: Shape) -> Effort:
    """The effort of a blocked or plain convolution of a map `source` to a map `target` (both as stored)."""
    if op.kind.startswith("nchwc."):
        return _blocked(op, weight, groups, source, target)
    return _plain(op, weight, groups, target)


def _blocked(op: Op, weight: Shape, groups: int, source: Shape, target: Shape) -> Effort:
    batch, width, rows, columns = target
    block = 16 if width % 16 == 0 else 8
    height, across = weight[2], weight[3]
    stride = op.ints("strides", (1, 1))[-1]
    pads = op.ints("pads", (0, 0, 0, 0))
    depthwise = groups > 1 and weight[1] == 1
    depth = 1 if depthwise else weight[1] if weight[1] < block and groups == 1 else source[1] // groups
    taps = height * across
    flat = taps == 1 and stride == 1
    vertical, horizontal = reaches(op, weight, source, target)
    row = rows * columns if flat else columns
    lines = 1 if flat else sum(vertical.taps) / height
    left = min(row, -(-pads[1] // stride) if across > 1 else 0)
    right = min(row - left, -(-pads[3] // stride) if across > 1 else 0)
    inner = row - left - right
    pieces = _pieces(inner)
    pieces[-1] += sum((*horizontal.taps[:left], *horizontal.taps[row - right :])) / across if across > 1 else 0
    per_group = width // (1 if depthwise else groups) // block
    sets = [1] * per_group if depthwise else [SET] * (per_group // SET) + [per_group % SET] * bool(per_group % SET)
    cycles = sum(
        number * max(pixels * blocks / PER_CYCLE, LATENCY)
        for blocks in sets
        for pixels, number in zip(PIXELS, pieces, strict=True)
    )
    repeated = 1 if depthwise else groups
    steps = batch * repeated * lines * cycles * depth * taps
    if depthwise or (weight[1] < block and groups == 1):
        again = 0
    else:
        again = max(0, -(-depth // (POINTWISE_PASS if flat else block)) - 1)
    output = 4.0 * batch * width * rows * columns
    widest = max(sets, default=1) * block
    return Effort(
        steps=steps,
        passes=2 * again * output,
        set_weights=4.0 * taps * widest * (1 if depthwise else min(depth, POINTWISE_PASS if flat else block)),
        set_output=4.0 * rows * columns * widest,
        blocks_rest=per_group % SET,
        pixels_rest=inner % PIXELS[0],
    )


def _pieces(pixels: int) -> list[float]:
    """How many steps of six, three and one pixel make up a row."""
    found: list[float] = []
    for size in PIXELS:
        number, pixels = divmod(pixels, size)
        found.append(number)
    return found


def _plain(op: Op, weight: Shape, groups: int, target: Shape) -> Effort:
    """An unfolding and a matrix product for each group."""
    batch, width = target[0], weight[0]
    pixels = target[2] * target[3] if len(target) == 4 else 1
    depth = weight[1] * weight[2] * weight[3] if len(weight) == 4 else 1
    rows, columns = GEMM_TILE
    tiles = -(-(width // groups) // rows) * rows * -(-pixels // columns) * columns
    unfolded = 0.0
    if len(weight) == 4 and (weight[2] * weight[3] > 1 or max(op.ints("strides", (1,))) > 1):
        unfolded = 8.0 * batch * groups * depth * pixels
    return Effort(
        steps=float(batch * groups * tiles * depth) / 16 / PER_CYCLE,
        passes=unfolded,
        set_weights=4.0 * depth * (width // groups),
        set_output=4.0 * pixels * (width // groups),
        blocks_rest=(width // groups) % rows,
        pixels_rest=pixels % columns,
    )
