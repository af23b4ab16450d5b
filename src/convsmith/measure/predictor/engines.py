"""The back ends whose kernels are told by rules, by name."""

from __future__ import annotations

from convsmith.measure.predictor.engine import Engine
from convsmith.measure.predictor.onnxruntime.engine import ONNXRUNTIME
from convsmith.measure.predictor.openvino.engine import OPENVINO

ENGINES: dict[str, Engine] = {engine.backend: engine for engine in (ONNXRUNTIME, OPENVINO)}
