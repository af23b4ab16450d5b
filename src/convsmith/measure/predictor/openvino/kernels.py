"""What a model of kernel times sees of OpenVINO's kernels: their class, their numbers, and what surrounds them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.kernels import Around, Kernel, in_context, log, rough, weights_of
from convsmith.measure.predictor.openvino.effort import convolution_effort, moving_effort

VERSION = 7  # of the numbers below: a table of another version is refused

NUMBERS = (
    "log_macs", "log_read", "log_written", "log_weights", "log_bytes", "log_intensity",
    "log_in_channels", "log_out_channels", "log_in_group", "log_out_group",
    "log_height", "log_width", "log_out_height", "log_out_width", "log_pixels",
    "kernel_height", "kernel_width", "stride", "dilation", "log_groups", "padding",
    "activation", "body", "parts", "in_rest", "out_rest", "out_blocks_rest", "pixels_rest",
    "log_steps", "log_steps_a_mac", "log_copied",
    "in_whole", "out_whole", "log_in_step", "log_out_step", "log_lines_a_set", "channels_last",
    "log_work", "log_since_read", "log_all_weights", "log_repeats", "log_between",
)  # fmt: skip
# From cheap to dear.
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "Abs", "BatchNormalization", "HardSwish", "Sqrt", "Sigmoid",
               "Tanh", "Swish", "Exp", "Elu", "Gelu", "Mish", "Div", "Pow")  # fmt: skip
COSTS = {
    "HardSwish": 0.8,
    "Div": 0.35,
    "Pow": 30.0,
    "Sigmoid": 2.0,
    "Tanh": 2.0,
    "Swish": 2.5,
    "Exp": 1.5,
    "Elu": 2.0,
    "Gelu": 4.0,
    "Mish": 4.0,
}
VECTOR, BLOCKS, PIXELS = 16, 4, 8
CACHE_SETS, CACHE_LINE = 4096, 64  # bytes after which a first cache begins again, and those that it keeps together


@dataclass(frozen=True, eq=False, slots=True)
class _Told:
    """What tells a kernel, but for what surrounds it."""

    kind: str
    attributes: tuple[tuple[str, Any], ...]
    weights: tuple[Shape, ...]
    read: tuple[Shape, ...]
    written: tuple[Shape, ...]


_told = lru_cache(maxsize=65536)(_Told)  # one object for all that are the same, so that these are compared once


def kernels(graph: Graph) -> list[Kernel]:
    """The kernels of an executed graph, in order."""
    told = [_of(graph, op) for op in graph.ops]
    repeated = _repeated(told)
    return in_context(graph, lambda place, read, around: _described(told[place], around, repeated[place]))


def _of(graph: Graph, op: Op) -> _Told:
    shapes = graph.shapes
    # Lists, as a generator for each would take longer than what it gives.
    weights = tuple([shapes[name] for name in weights_of(graph, op)])
    facts = tuple([fact for fact in op.attributes.items() if fact[0] != "covers"])
    read = tuple([shapes.get(name, ()) for name in op.inputs if name and name not in graph.constants])
    return _told(op.kind, facts, weights, read, tuple([shapes.get(name, ()) for name in op.outputs]))


def _repeated(told: list[_Told]) -> list[tuple[float, float]]:
    """For each kernel, logarithms of how many of the network are the same, and of how many others lie between two.

    OpenVINO writes the code of a kernel once for all that are the same. What has just run is still in the processor's
    caches: a small kernel that comes again and again takes a tenth less than one that comes once a pass.
    """
    counts = Counter(told)
    recent = list(dict.fromkeys(reversed(told)))  # as the last pass left them, the latest one first
    found = []
    for own in told:
        place = recent.index(own)
        recent.insert(0, recent.pop(place))
        found.append((rough(counts[own] - 1), rough(place)))
    return found


@lru_cache(maxsize=65536)
def _described(told: _Told, around: Around, repeated: tuple[float, float]) -> Kernel:
    """A kernel from all that tells it; remembered, as a search meets the same ones again and again."""
    group, variant, law, numbers = _alone(told)
    return Kernel(group, variant, law, (*numbers, *around, *repeated))


@lru_cache(maxsize=65536)
def _alone(told: _Told) -> tuple[str, str, tuple[float, ...], tuple[float, ...]]:
    """The class, the variant, the law's terms and the numbers of a kernel, but for what surrounds it."""
    kind, weights, read, written = told.kind, told.weights, told.read, told.written
    op = Op(kind, [], [], dict(told.attributes))
    source, target = read[0] if read else (), written[0]
    weight = weights[0] if weights else ()
    groups = int(op.attributes.get("group", op.attributes.get("groups", 1)))  # of a convolution, or of a shuffle
    taps = weight[2:] or op.ints("kernel_shape", ())
    height, width = (taps[0], taps[1]) if len(taps) == 2 else (1, 1)
    strides, dilations, pads = op.ints("strides", (1,)), op.ints("dilations", (1,)), op.ints("pads", (0,))
    macs = float(sum(math.prod(own) for own in weights) * target[0] * _pixels(target))
    convolves = kind == "Convolution" and len(target) == 4
    effort = convolution_effort(op, weight, groups, source, target) if convolves else moving_effort(op, read, written)
    in_bytes, out_bytes = 4.0 * sum(map(math.prod, read)), 4.0 * sum(map(math.prod, written))
    weight_bytes = 4.0 * sum(map(math.prod, weights)) * effort.weights
    in_channels, out_channels = _channels(source), _channels(target)
    activation, dearest = _activation(op)
    # A depthwise convolution computes neighbouring channels in one vector, others those of one group.
    depthwise = convolves and op.attributes["kernel"].endswith("_dw")
    alone_in, alone_out = (channels // (1 if depthwise else groups) for channels in (in_channels, out_channels))
    numbers = (
        log(macs), log(in_bytes), log(out_bytes), log(weight_bytes), log(in_bytes + out_bytes + weight_bytes),
        log(macs / (in_bytes + out_bytes + 1.0)),
        log(in_channels), log(out_channels), log(in_channels / groups), log(out_channels / groups),
        log(_side(source, -2)), log(_side(source, -1)), log(_side(target, -2)), log(_side(target, -1)),
        log(_pixels(target)),
        float(height), float(width), float(max(strides)), float(max(dilations)), log(groups), float(max(pads)),
        float(dearest), float(len(op.attributes["body"])), float(len(read)),
        float(in_channels // groups % VECTOR), float(out_channels // groups % VECTOR),
        float(-(-(out_channels // groups) // VECTOR) % BLOCKS), float(_side(target, -1) % PIXELS),
        log(effort.steps), log(1000 * effort.steps / (macs + 1)), log(effort.copied),
        float(alone_in % VECTOR == 0), float(alone_out % VECTOR == 0), _step(in_channels), _step(out_channels),
        _lines_a_set(height * _side(source, -1), in_channels), float(op.attributes.get("last", False)),
    )  # fmt: skip
    group, variant = _names(op, weight, groups, (height, width), list(read), target, activation)
    passes = out_bytes * COSTS.get(activation, 0.0)
    return group, variant, (macs, in_bytes, out_bytes, weight_bytes, effort.steps, passes), numbers


def _names(
    op: Op, weight: Shape, groups: int, taps: tuple[int, int], read: list[Shape], target: Shape, activation: str
) -> tuple[str, str]:
    """The class whose kernels one model describes, and the variant within it."""
    algorithm, stride = op.attributes.get("algorithm", ""), f"stride {max(op.ints('strides', (1,)))}"
    extra: list[object] = [activation]
    if op.kind == "Convolution":
        group = f"{op.attributes['kernel']} convolution"
        if op.attributes["kernel"] in ("brgconv", "brgconv_1x1"):
            if groups == 1 and weight[1] < VECTOR:
                group += " of few channels"
            elif _pixels(target) == 1:
                group += " of one pixel"
        sums = f"adds {len(read) - 1}"
        extra = [*taps, stride, f"dilation {max(op.ints('dilations', (1,)))}", activation, sums]
    elif op.kind == "Pooling":
        group = f"{algorithm} rank {len(read[0])}"
        extra = [*taps, stride]
    elif op.kind in ("Subgraph", "Eltwise"):
        group = "elementwise" if len(set(read)) == 1 else "elementwise broadcast"
        if "Gemm" in op.attributes["body"]:
            group = "products"
    elif op.kind == "FullyConnected":
        group = f"{op.attributes['kernel']} product"
    elif op.kind == "Reduce":
        group = f"{algorithm}"
    else:
        group = op.kind
        facts = ("perm", "axis", "mode", "coordinate_transformation_mode")
        extra = [*(f"{key} {op.attributes[key]}" for key in facts if key in op.attributes), f"rank {len(target)}"]
    return group, ", ".join(str(part) for part in (group, *extra) if part != "")


def _activation(op: Op) -> tuple[str, int]:
    """The dearest of the activations that a kernel computes, and its place among them."""
    body = (op.attributes.get("algorithm", ""), *op.attributes["body"])
    found = max((ACTIVATIONS.index(kind) + 1 for kind in body if kind in ACTIVATIONS), default=0)
    return ACTIVATIONS[found - 1] if found else "", found


def _step(channels: int) -> float:
    """Of the bytes from a pixel to the next one the largest power of two, to base 2.

    Pixels whole 4096 bytes apart share one set of the first cache: a map of 1024 channels is read anew for each group.
    """
    return math.log2(math.gcd(4 * channels, CACHE_SETS))


def _lines_a_set(pixels: int, channels: int) -> float:
    """How many of so many pixels lie in one set of the first cache, to base 2, if of each one line is read.

    Beyond a set's eight lines, rows that are read for one group are read anew for the next. Three rows of 14 pixels of
    512 channels, 21 pixels to a set, take half as long again as of 496 or 528, and of 1024 channels, 42 pixels, 2.8
    times as long as of those beside (`benchmarks/cache_sets_speed.py`).
    """
    return math.log2(pixels * max(math.gcd(4 * channels, CACHE_SETS), CACHE_LINE) / CACHE_SETS)


def _channels(shape: Iterable[int]) -> int:
    shape = tuple(shape)
    return shape[1] if len(shape) > 1 else 1


def _pixels(shape: Shape) -> int:
    return math.prod(shape[2:])


def _side(shape: Shape, axis: int) -> int:
    return shape[axis] if len(shape) >= 4 else 1
