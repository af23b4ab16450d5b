"""The kernels that ONNX Runtime runs for a network, told from its graph alone."""

from __future__ import annotations

from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.onnxruntime.fusion import fuse, fuse_behind_layout
from convsmith.measure.predictor.onnxruntime.layout import lay_out

RESTATED = "1.32"  # the version of ONNX Runtime whose optimiser fusion.py and layout.py restate


def executed(graph: Graph, block: int) -> Graph:
    """The graph as the runtime executes it, in order, on maps of `block` channels a block; the given one stays.

    Block 0 is a processor for which the runtime has no blocked kernels.
    """
    laid_out = fuse(graph)
    places = {name: place for place, op in enumerate(laid_out.ops) for name in op.outputs}
    if block:
        laid_out = lay_out(laid_out, block)
    fuse_behind_layout(laid_out, places)
    return laid_out
