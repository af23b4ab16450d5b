"""Static quantisation by ONNX Runtime: QDQ nodes, weights by output channel in int8, activations in uint8.

Ranges are the least and largest values over the calibration inputs. Scales by channel matter for depthwise
convolutions, whose channels differ most (Krishnamoorthi 2018, arXiv:1806.08342, Sec. 3.1.3).
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from convsmith.arch import write_whole_bytes
from convsmith.deploy import onnx
from convsmith.deploy.backends import Artefact
from convsmith.deploy.backends.onnxruntime import FILE, LOADER
from convsmith.deploy.int8.runtime import Int8Model, Runtime
from convsmith.deploy.silence import reason, silent

_INT8 = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat")
_FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose")


def quantize(model: bytes, batches: Sequence[Tensor], threads: int) -> Int8Model:
    """The int8 model, its layers counted in the graph that the runtime executes."""
    quantization = importlib.import_module("onnxruntime.quantization")
    proto = importlib.import_module("onnx").load_model_from_string(model)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.batches, None)
            return None if batch is None else {onnx.INPUT: batch.numpy()}

    with TemporaryDirectory() as folder, silent(native=True):
        path = Path(folder) / FILE
        try:
            quantization.quantize_static(
                proto,
                str(path),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:
            raise ValueError(f"ONNX Runtime cannot quantise the network ({reason(error)})") from error
        data = path.read_bytes()
    executed = _executed(data)
    int8 = sum(executed[name] for name in _INT8)

    def write(folder: Path) -> Artefact:
        write_whole_bytes(folder / FILE, data)
        return Artefact((FILE,), LOADER.format(file=FILE, input=onnx.INPUT), ("onnxruntime", "numpy"))

    return Int8Model(onnx.load(data, threads), int8, int8 + sum(executed[name] for name in _FLOAT), write)


def _executed(model: bytes) -> Counter[str]:
    """How often each operator stands in the graph that the runtime has made of the model."""
    runtime = importlib.import_module("onnxruntime")
    with TemporaryDirectory() as folder, silent(native=True):
        options = runtime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / FILE)
        options.log_severity_level = 3
        runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = importlib.import_module("onnx").load(options.optimized_model_filepath).graph
    return Counter(node.op_type for node in graph.node)


RUNTIME = Runtime(("onnx", "onnxscript", "onnxruntime"), "onnx", onnx.load, quantize)
