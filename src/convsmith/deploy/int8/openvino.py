"""Quantisation by NNCF for OpenVINO: weights by output channel, activations symmetric where they have both signs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from convsmith.deploy.agreement import Run
from convsmith.deploy.backends import Artefact
from convsmith.deploy.int8.runtime import Int8Model, Runtime
from convsmith.deploy.silence import reason, silent
from convsmith.deploy.telemetry import unreported

FILE = "network.xml"
WEIGHTS = "network.bin"
LOADER = '''"""Runs {file} with OpenVINO; each new batch size is compiled once."""
from functools import cache
from pathlib import Path
from threading import Lock

import openvino


def load(threads=1):
    core, lock = openvino.Core(), Lock()
    options = {{"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}}

    @cache
    def compiled(batch):
        model = core.read_model(Path(__file__).with_name("{file}"))
        model.reshape([batch, *model.input().partial_shape[1:]])
        return core.compile_model(model, "CPU", options)

    def run(x):
        with lock:  # all calls of a batch size have one memory for their outputs
            return compiled(len(x))(x)[0]

    return run
'''
_LAYERS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution")


def load(model: bytes, threads: int) -> Run:
    """The ONNX model in float32."""
    openvino = unreported("openvino")
    try:
        with silent(native=True):
            return _Compiled(openvino.Core().read_model(model), threads)
    except Exception as error:
        raise ValueError(f"OpenVINO cannot read the network ({reason(error)}); choose another back end") from error


def quantize(model: bytes, batches: Sequence[Tensor], threads: int) -> Int8Model:
    """The int8 model, its layers counted in the graph that the runtime executes for one input."""
    openvino, nncf = unreported("openvino"), unreported("nncf")
    with silent(native=True):
        try:
            quantized = nncf.quantize(
                openvino.Core().read_model(model),
                nncf.Dataset([batch.numpy() for batch in batches]),
                preset=nncf.QuantizationPreset.MIXED,  # both signs or one, as each activation needs
                subset_size=len(batches),
            )
        except Exception as error:
            raise ValueError(f"NNCF cannot quantise the network ({reason(error)})") from error
    run = _Compiled(quantized, threads)
    executed = [
        str(node.get_rt_info()["runtimePrecision"].value)
        for node in run.compiled(1).get_runtime_model().get_ops()
        if str(node.get_rt_info()["layerType"].value) in _LAYERS
    ]

    def write(folder: Path) -> Artefact:
        openvino.save_model(quantized, folder / FILE, compress_to_fp16=False)
        return Artefact((FILE, WEIGHTS), LOADER.format(file=FILE), ("openvino", "numpy"))

    return Int8Model(run, sum(word in ("i8", "u8") for word in executed), len(executed), write)


class _Compiled:
    """A model compiled for each batch size at its first use: with a free one the kernels are slower."""

    def __init__(self, model: Any, threads: int):
        self.core = unreported("openvino").Core()
        self.model = model
        # float32 where it is not int8: by default it takes bfloat16 on processors that have it.
        self.options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # who measures decides on the cores
        }
        self.by_batch: dict[int, Any] = {}
        self.lock = Lock()

    def compiled(self, batch: int) -> Any:
        """The model for that batch size."""
        if batch not in self.by_batch:
            model = self.model.clone()
            model.reshape([batch, *model.input().partial_shape[1:]])
            self.by_batch[batch] = self.core.compile_model(model, "CPU", self.options)
        return self.by_batch[batch]

    def __call__(self, x: Tensor) -> Tensor:
        """The model's output for a batch."""
        image = x.detach().contiguous().numpy()
        with self.lock:  # all calls of a batch size have one memory for their outputs
            return torch.from_numpy(self.compiled(len(x))(image)[0].copy())


RUNTIME = Runtime(("openvino", "nncf", "onnx", "onnxscript"), "openvino", load, quantize)
