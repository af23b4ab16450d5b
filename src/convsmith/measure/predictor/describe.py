"""The graph of an architecture, joined from graphs of its blocks, each followed or exported once.

A block's graph is remembered by its spec and the shapes in front of it, as its counts are (`measure.cost`): a search
pays for a block when it meets it first. The graph of a whole network is the same as that of its parts joined, but for
convolutions that meet at their borders, unless a pass of `deploy.passes` reaches across blocks, as those do that take
out channel shuffles and norms behind concatenations or fill up maps, a block hands on several maps, or one needs
torch's exporter. A network with such blocks is exported whole, and remembered by its structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, remembered, when_redefined
from convsmith.deploy import onnx
from convsmith.deploy.onnx.graph import OPSET
from convsmith.deploy.passes.lean import lean
from convsmith.measure.predictor.follow import follow, no_values
from convsmith.measure.predictor.graph import Graph, Op, Shape, read
from convsmith.measure.predictor.merged import merge_convolutions
from convsmith.measure.predictor.sizes import resized
from convsmith.measure.predictor.tape import NotFollowedError
from convsmith.network import build, output_shapes
from convsmith.network.build import build_block
from convsmith.network.shapes import Shapes, block_output

MOST_REMEMBERED = 65536
# Blocks by their input channels and rank, where the size makes no difference.
_FOLLOWED: dict[tuple[BlockSpec, int, int], Graph] = {}
when_redefined(_FOLLOWED.clear)
_EXPORTING = Lock()  # a tracer replaces what all threads call


def describe(architecture: Architecture, input_shape: Shape, filled: int | None) -> Graph:
    """The graph that a back end is given for an architecture and an input of (N, C, H, W).

    `filled` are the channels whose multiples its maps are filled up to (`lean`'s `block`).

    Raises ValueError where the input does not fit the architecture, and where a block cannot be exported.
    """
    shape = tuple(input_shape)
    before, parts = shape, list[Graph]()
    for _, spec, behind in output_shapes(architecture, shape, behind=_shapes_behind):
        graph = _block_graph(spec, before) if spec.carries == 1 and len(behind) == 1 else None
        if graph is None or graph.opset != OPSET or (filled and _is_filled(spec, before)):
            return _whole(architecture, shape, filled)
        if graph.ops:
            parts.append(_placed(graph, len(parts)))
        (before,) = behind
    joined = Graph([], [_border(0)], [_border(len(parts))], {_border(0): shape}, {})
    for part in parts:
        joined.ops += part.ops
        joined.shapes.update(part.shapes)
        joined.constants.update(part.constants)
        joined.opset = part.opset
    merge_convolutions(joined)
    return joined


def _placed(graph: Graph, place: int) -> Graph:
    """The graph of a block, with the names that it has at a place of a network: from one border to the next.

    Not remembered: as many small objects that stay would make Python's collection of garbage take longer than this.
    """
    prefix = f"{place}/"
    names = {name: prefix + name for name in graph.shapes}
    names |= {"": "", graph.inputs[0]: _border(place), graph.outputs[0]: _border(place + 1)}
    return Graph(
        [Op(o.kind, [names[n] for n in o.inputs], [names[n] for n in o.outputs], o.attributes) for o in graph.ops],
        [_border(place)],
        [_border(place + 1)],
        {names[name]: shape for name, shape in graph.shapes.items()},
        {names[name]: values for name, values in graph.constants.items()},
        graph.opset,
    )


def _border(place: int) -> str:
    """The map in front of the block at a place."""
    return f"border {place}" if place else "input"


def _reaches_across(graph: Graph) -> bool:
    """Whether a pass over the whole network may find more to do here than one over the block."""
    kinds = {op.kind for op in graph.ops}
    factor = any(op.kind in ("Mul", "Div") and set(op.inputs) & set(graph.constants) for op in graph.ops)
    return factor or bool(kinds & {"Transpose", "Gather"}) or {"Concat", "BatchNormalization"} <= kinds


@remembered(most=65536)
def _is_filled(spec: BlockSpec, shape: Shape) -> bool:
    """Whether this has a depthwise convolution for which maps are filled up, all over the network."""
    graph = _block_graph(spec, shape)
    assert graph is not None, "asked only of blocks that are told by themselves"
    weights = ((op.attributes.get("group", 1), graph.shapes[op.inputs[1]]) for op in graph.ops if op.kind == "Conv")
    return any(groups % 4 and groups == width > per_group == 1 for groups, (width, per_group, *_) in weights)


@remembered(most=65536)
def _followed(spec: BlockSpec, shape: Shape) -> Graph | None:
    """The graph of one block without an export; None where it takes one, as modules of a user's own do.

    Their forward may ask what only a tensor answers.
    """
    key = (spec, shape[1], len(shape))
    known = _FOLLOWED.get(key)
    try:
        if known is not None:
            return resized(known, shape)
        with torch.random.fork_rng(devices=[]):
            with no_values():
                module, _ = build_block(spec, shape[1], spec.block)
            if not all(type(own).__module__.startswith(("convsmith.", "torch.nn.")) for own in module.modules()):
                return None
            graph, of_any_size = follow(module.eval(), shape)
    except (NotFollowedError, ValueError):
        return None
    if of_any_size and len(_FOLLOWED) < MOST_REMEMBERED:
        _FOLLOWED[key] = graph
    return graph


def _shapes_behind(spec: BlockSpec, inputs: Shapes) -> Shapes:
    """As `network.block_output`, of blocks that can be followed without a pass."""
    graph = _followed(spec, inputs[-1]) if spec.carries == 1 else None
    return block_output(spec, inputs) if graph is None else (graph.shapes[graph.outputs[0]],)


@remembered(most=16384)
def _block_graph(spec: BlockSpec, shape: Shape) -> Graph | None:
    """The graph of one block; None where only the whole network tells it."""
    if (followed := _followed(spec, shape)) is not None:
        return followed
    with _as_deployed():
        module, _ = build_block(spec, shape[1], spec.block)
        try:
            graph = _exported(module.eval(), torch.randn(shape), None)
        except ValueError:  # what cannot be exported by itself may be in a network, of which passes remove it
            return None
    return None if _reaches_across(graph) else graph


@remembered(most=256)
def _whole(architecture: Architecture, input_shape: Shape, filled: int | None) -> Graph:
    with _as_deployed():
        return _exported(build(architecture).eval(), torch.randn(input_shape), filled)


@contextmanager
def _as_deployed() -> Iterator[None]:
    """Inside of this block nothing that a caller has set, modes or random numbers, tells in what is exported."""
    with (
        _EXPORTING,
        torch.random.fork_rng(devices=[]),
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.autocast("cpu", enabled=False),
    ):
        yield


def _exported(module: nn.Module, example: Tensor, filled: int | None) -> Graph:
    """The graph that the back end would give to the runtime, of a network of our own with trained weights."""
    from onnx import load_model_from_string

    train_constants(module)
    model = onnx.convert(lean(module, example, block=filled), example, {})
    return read(load_model_from_string(model), [tuple(example.shape)])


@torch.no_grad()
def train_constants(module: nn.Module) -> None:
    """Move biases, scales and means off the zeros and ones of a fresh network: runtimes leave those out."""
    vectors = [parameter for parameter in module.parameters() if parameter.dim() == 1]
    means = [buffer for name, buffer in module.named_buffers() if name.endswith("running_mean")]
    for vector in (*vectors, *means):
        vector += 0.01 + 0.1 * torch.rand_like(vector)
