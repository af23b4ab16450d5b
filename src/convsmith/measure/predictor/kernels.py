"""What a model of kernel times sees of a kernel: its class, its numbers, and what surrounds it in the network.

One function serves fitting and predicting, from the same graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from convsmith.measure.predictor.effort import Effort, convolution_effort, reaches
from convsmith.measure.predictor.graph import Graph, Op, Shape

VERSION = 6  # of the numbers below: a table of another version is refused

NUMBERS = (
    "log_macs", "log_read", "log_written", "log_weights", "log_intensity",
    "log_in_channels", "log_out_channels", "log_in_group", "log_out_group",
    "log_height", "log_width", "log_out_height", "log_out_width",
    "kernel_height", "kernel_width", "stride", "dilation", "log_groups", "padding",
    "activation", "adds", "parts", "in_channels_rest", "out_channels_rest", "width_rest",
    "log_steps", "log_steps_a_mac", "log_passes", "log_set_weights", "log_set_output", "blocks_rest", "pixels_rest",
    "log_bytes",
    "log_work", "log_since_read", "log_all_weights",
)  # fmt: skip
LAW = ("macs", "read", "written", "weights", "steps", "passes")
ACTIVATIONS = ("", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "LeakyRelu", "QuickGelu")
STARTED = 50_000  # multiply-accumulates in the time that it takes to start a kernel
CONTEXT_STEP = 0.5  # of logarithms to base 2: what surrounds a kernel is told roughly, so that kernels are met again
SLOW_AVERAGE = 19  # the opset from which on ONNX Runtime averages without its fast kernel, ten times as long
REST, WIDTH_REST = 16, 6  # lanes of a vector, and pixels of a row that a blocked kernel computes at once


# Logarithms, all roughly: of the pass's work, of the bytes that were read and written since the oldest of a kernel's
# maps was made, and of the bytes of the pass's weights.
Around = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One executed kernel.

    `variant` holds everything that is no size: what was never seen in a calibration is not to be trusted. `law` are
    its multiply-accumulates, the bytes that it reads, writes and has as weights, and its `Effort`; `numbers` follow
    `NUMBERS`.
    """

    group: str
    variant: str
    law: tuple[float, ...]
    numbers: tuple[float, ...]
    _hash: int = field(init=False, repr=False, compare=False)  # a search looks the same kernels up again and again

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.variant, self.numbers)))

    def __hash__(self) -> int:
        """As equal ones have."""
        return self._hash


def kernels(graph: Graph) -> list[Kernel]:
    """The kernels of an executed graph of ONNX Runtime, in order."""
    return in_context(graph, lambda place, read, around: _kernel(graph, graph.ops[place], read, around))


def in_context(graph: Graph, kernel: Callable[[int, list[str], Around], Kernel]) -> list[Kernel]:
    """The kernels of an executed graph, in order.

    `kernel` tells one from the place of its operator, the maps that it reads, and what is around it.
    """
    work, weights = rough(_work(graph)), rough(_weights(graph))
    written_at: dict[str, float] = dict.fromkeys(graph.inputs, 0.0)
    clock = 0.0
    found = []
    constants = graph.constants
    for place, op in enumerate(graph.ops):
        read = [name for name in op.inputs if name and name not in constants]
        since = clock - min([written_at.get(name, 0.0) for name in read]) if read else 0.0
        made = kernel(place, read, (work, rough(since), weights))
        found.append(made)
        clock += made.law[1] + made.law[2] + made.law[3]
        for name in op.outputs:
            written_at[name] = clock
    return found


def _work(graph: Graph) -> float:
    """Roughly how long a pass takes, in multiply-accumulates, which a byte that is moved is taken to be worth.

    What a pass leaves in a cache that other programs share is gone after so long: weights of a megabyte take three
    times as long to read in a network of ten milliseconds as in one of half a millisecond.
    """
    work, shapes = STARTED * len(graph.ops), graph.shapes
    for op in graph.ops:
        for name in (*op.inputs, *op.outputs):
            work += 4 * math.prod(shapes.get(name, ()))
        weights = shapes.get(op.inputs[1], ()) if len(op.inputs) > 1 and op.inputs[1] in graph.constants else ()
        if len(weights) == 2:  # of a product, in either order
            work += math.prod(weights) * math.prod(shapes[op.outputs[0]][:-1])
        elif len(weights) > 2:
            transposed = op.kind in ("ConvTranspose", "Deconvolution")
            work += math.prod(weights[1:]) * math.prod(shapes[op.inputs[0] if transposed else op.outputs[0]])
    return float(work)


def _weights(graph: Graph) -> float:
    """The bytes of all weights: those of a pass that fit a cache are still there at the next, and the others never."""
    return 4.0 * sum(math.prod(graph.shapes.get(name, ())) for name, own in graph.constants.items() if own is None)


def _kernel(graph: Graph, op: Op, read: list[str], around: Around) -> Kernel:
    shapes = graph.shapes
    weight: Shape = ()
    if op.kind.endswith("Conv") or op.kind in ("Gemm", "FusedGemm", "MatMul", "ConvTranspose"):
        weight = shapes.get(op.inputs[1], ()) if len(op.inputs) > 1 and op.inputs[1] in graph.constants else ()
    return _described(
        op.kind,
        tuple(op.attributes.items()),
        weight,
        tuple([shapes.get(name, ()) for name in read]),
        tuple([shapes.get(name, ()) for name in op.outputs]),
        len([name for name in op.inputs[3:] if name]) if op.kind.endswith("Conv") else 0,
        around,
        graph.opset,
    )


@lru_cache(maxsize=65536)
def _described(
    kind: str,
    attributes: tuple[tuple[str, Any], ...],
    weight: Shape,
    read: tuple[Shape, ...],
    written: tuple[Shape, ...],
    adds: int,
    around: Around,
    opset: int,
) -> Kernel:
    """A kernel from all that tells it; remembered, as a search meets the same ones again and again."""
    op = Op(kind, [], [], dict(attributes))
    source, target = read[0] if read else (), written[0]
    groups = int(op.attributes.get("group", 1))
    kernel = tuple(weight[2:]) or op.ints("kernel_shape", ())
    height, width = (kernel[0], kernel[1]) if len(kernel) == 2 else (1, 1)
    strides, dilations, pads = op.ints("strides", (1,)), op.ints("dilations", (1,)), op.ints("pads", (0,))
    in_channels, out_channels = _channels(source), _channels(target)
    macs = _macs(op, weight, groups, source, target)
    effort = Effort()
    if op.kind.endswith("Conv") and len(weight) == 4 and len(target) == 4:
        effort = convolution_effort(op, weight, groups, source, target)
    in_bytes, out_bytes = 4.0 * sum(map(math.prod, read)), 4.0 * sum(map(math.prod, written))
    weight_bytes = 4.0 * math.prod(weight) * _read_share(op, weight, source, target) if weight else 0.0
    per_in, per_out = in_channels / groups, out_channels / groups
    activation = str(op.attributes.get("activation", ""))
    logical_out = weight[0] if weight else out_channels
    numbers = (
        log(macs), log(in_bytes), log(out_bytes), log(weight_bytes), log(macs / (in_bytes + out_bytes + 1.0)),
        log(in_channels), log(out_channels), log(per_in), log(per_out),
        log(_side(source, -2)), log(_side(source, -1)), log(_side(target, -2)), log(_side(target, -1)),
        float(height), float(width), float(max(strides)), float(max(dilations)), log(groups), float(max(pads)),
        float(ACTIVATIONS.index(activation) if activation in ACTIVATIONS else len(ACTIVATIONS)),
        float(adds), float(len(read)),
        float(in_channels % REST), float(logical_out % REST), float(_side(target, -1) % WIDTH_REST),
        log(effort.steps), log(1000 * effort.steps / (macs + 1)), log(effort.passes),
        log(effort.set_weights), log(effort.set_output), float(effort.blocks_rest), float(effort.pixels_rest),
        log(in_bytes + out_bytes + weight_bytes),
        *around,
    )  # fmt: skip
    group, variant = _names(op, weight, groups, height, width, list(read), activation, adds, opset)
    law = (macs, in_bytes, out_bytes, weight_bytes, effort.steps, effort.passes)
    return Kernel(group, variant, law, numbers)


def _names(
    op: Op,
    weight: Shape,
    groups: int,
    height: int,
    width: int,
    read: list[Shape],
    activation: str,
    adds: int,
    opset: int,
) -> tuple[str, str]:
    """The class whose kernels one model describes, and the variant within it."""
    extra: list[object] = []
    if op.kind.endswith("Conv"):
        blocked = op.kind.startswith("nchwc.")
        per_group = weight[1] if len(weight) > 1 else 0
        if groups > 1:
            shape = "depthwise" if per_group == 1 else "grouped"
        elif blocked and per_group < REST:
            shape = "from plain"
        else:
            shape = "pointwise" if height == width == 1 else "full"
        dilation, stride = max(op.ints("dilations", (1,))), max(op.ints("strides", (1,)))
        extra = [height, width, f"stride {stride}", f"dilation {dilation}", activation, f"adds {adds}"]
        return f"{'blocked' if blocked else 'plain'} {shape} convolution", _join(shape, extra)
    if "Pool" in op.kind:
        for key in ("ceil_mode", "count_include_pad"):
            extra.append(f"{key} {op.attributes.get(key, 0)}")
        extra += [height, width, f"stride {max(op.ints('strides', (1,)))}"]
        group = op.kind if not op.attributes.get("ceil_mode") else f"{op.kind} ceil"
        if read and len(read[0]) != 4:
            group = f"{group} rank {len(read[0])}"
        if op.kind == "AveragePool" and opset >= SLOW_AVERAGE:
            group = f"{group} opset {SLOW_AVERAGE}"
        return group, _join(group, extra)
    group = {"FusedGemm": "Gemm"}.get(op.kind, op.kind)
    if op.kind in ("Add", "Mul", "Sub", "Div") and len({tuple(shape) for shape in read}) > 1:
        group = f"{op.kind} broadcast"
    if op.kind == "Transpose":
        extra = [str(op.attributes.get("perm"))]
    elif op.kind in ("Concat", "Split", "Gather", "Softmax"):
        extra = [f"axis {op.attributes.get('axis', 0)}", f"rank {len(read[0]) if read else 0}"]
    elif op.kind == "Pad":
        extra = [str(op.attributes.get("mode", "constant"))]
    elif op.kind == "Resize":
        extra = [str(op.attributes.get("mode")), str(op.attributes.get("coordinate_transformation_mode"))]
    return group, _join(group, [*extra, activation])


def _join(group: str, extra: Iterable[object]) -> str:
    return ", ".join(str(part) for part in (group, *extra) if part != "")


def _macs(op: Op, weight: Shape, groups: int, source: Shape, target: Shape) -> float:
    """Multiply-accumulates as computed: a blocked kernel also computes the channels that fill up a block.

    It leaves out the taps that see padding.
    """
    if op.kind.endswith("Conv") and len(weight) == 4:
        depth, width = weight[1], weight[0]
        if op.kind.startswith("nchwc."):
            width = target[1]
            depth = depth if depth < REST else source[1] // groups
            height, across = reaches(op, weight, source, target)
            return float(target[0] * width * depth * sum(height.taps) * sum(across.taps))
        return float(target[0] * width * depth * math.prod(weight[2:]) * math.prod(target[2:]))
    if weight:
        return float(math.prod(weight) * math.prod(target[:-1]))
    return 0.0


def _read_share(op: Op, weight: Shape, source: Shape, target: Shape) -> float:
    """Which share of its weights a kernel reads: a blocked one none of taps that see padding everywhere."""
    if not op.kind.startswith("nchwc.") or len(weight) != 4:
        return 1.0
    height, across = reaches(op, weight, source, target)
    return height.ever * across.ever / (weight[2] * weight[3])


def weights_of(graph: Graph, op: Op) -> list[str]:
    """The weights of an operator, and its bias."""
    return [name for name in op.inputs[1:3] if name in graph.constants]


def _channels(shape: Shape) -> int:
    return shape[1] if len(shape) > 1 else 1


def _side(shape: Shape, axis: int) -> int:
    return shape[axis] if len(shape) >= 4 else 1


def log(value: float) -> float:
    """A logarithm to base 2 that is 0 for 0."""
    return math.log2(1.0 + value)


@lru_cache(maxsize=65536)
def rough(value: float) -> float:
    """The logarithm, to half of one."""
    return round(log(value) / CONTEXT_STEP) * CONTEXT_STEP
