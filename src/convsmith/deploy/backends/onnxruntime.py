"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from convsmith.arch import write_whole_bytes
from convsmith.deploy import onnx
from convsmith.deploy.agreement import Run
from convsmith.deploy.backends.registry import Artefact, Backend, register
from convsmith.deploy.passes.blocks import BLOCK
from convsmith.deploy.passes.lean import Rewrite, lean
from convsmith.deploy.precision import in_precision
from convsmith.deploy.program import plain

FILE = "network.onnx"
LOADER = '''"""Runs {file} with ONNX Runtime."""
from pathlib import Path

import onnxruntime


def load(threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    path = Path(__file__).with_name("{file}")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {{"{input}": x}})[0]
'''


def prepare(network: nn.Module, example: Tensor, threads: int, precision: str, *, rewrite: Rewrite = lean) -> Run:
    """A session over the model that `export` would write, held in memory."""
    weights = onnx.Apart(onnx.GIVEN)
    model = _model(network, example, precision, rewrite=rewrite, weights=weights)
    session = onnx.load(model, threads, weights)
    return lambda x: session(plain(x, example))


def write(network: nn.Module, example: Tensor, folder: Path, precision: str) -> Artefact:
    """The ONNX model that `export` writes."""
    write_whole_bytes(folder / FILE, _model(network, example, precision))
    return Artefact((FILE,), LOADER.format(file=FILE, input=onnx.INPUT), ("onnxruntime", "numpy"))


def _model(
    network: nn.Module,
    example: Tensor,
    precision: str,
    *,
    rewrite: Rewrite = lean,
    weights: onnx.Apart | None = None,
) -> bytes:
    leaner = rewrite(network, example, block=BLOCK)
    return onnx.convert(in_precision(leaner, example, precision), example, {}, weights=weights)


ONNXRUNTIME = register(
    Backend(
        "onnxruntime",
        prepare,
        requires=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        precisions=("float32", "float16"),
        write=write,
        rewrites=True,
    )
)
