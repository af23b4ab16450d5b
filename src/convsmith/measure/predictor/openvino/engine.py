"""OpenVINO for the predictor."""

from __future__ import annotations

from convsmith.measure.predictor.engine import Engine
from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.onnx_model import model_of
from convsmith.measure.predictor.openvino.executed import RESTATED, executed
from convsmith.measure.predictor.openvino.kernels import NUMBERS, VERSION, kernels
from convsmith.measure.predictor.openvino.session import Session, kernel_names


def block() -> int:
    """How many channels a vector holds: 16 with AVX-512, 8 with AVX2; 0 for other processors.

    Asked of OpenVINO, which names its kernels after the instructions.
    """
    shapes: dict[str, Shape] = {"input": (1, 3, 8, 8), "weight": (24, 3, 3, 3), "output": (1, 24, 6, 6)}
    graph = Graph([Op("Conv", ["input", "weight"], ["output"])], ["input"], ["output"], shapes, {"weight": None})
    names = kernel_names(model_of(graph))
    return next((size for key, size in (("avx512", 16), ("avx2", 8)) if any(key in name for name in names)), 0)


OPENVINO = Engine("openvino", RESTATED, block, executed, kernels, VERSION, len(NUMBERS), None, Session)
