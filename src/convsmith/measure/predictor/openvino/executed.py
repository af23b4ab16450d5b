"""The kernels that OpenVINO runs on the CPU for a network, told from its graph alone."""

from __future__ import annotations

from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.openvino.fusion import fuse
from convsmith.measure.predictor.openvino.layout import lay_out
from convsmith.measure.predictor.openvino.prepare import prepared

RESTATED = "2026.4"  # the version of OpenVINO whose choices this folder restates


def executed(graph: Graph, block: int) -> Graph:
    """The graph as OpenVINO executes it, in order, with vectors of `block` numbers; the given one stays."""
    ran = prepared(graph)
    fuse(ran)
    lay_out(ran, block)
    return ran
