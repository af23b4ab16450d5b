"""TensorRT on NVIDIA GPUs, through Torch-TensorRT.

One engine serves the batch sizes up to `MOST`, tuned for the example's; larger batches go through it in pieces.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.deploy.agreement import Run
from convsmith.deploy.backends.registry import Artefact, Backend, register
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.precision import in_precision
from convsmith.deploy.program import exported, plain
from convsmith.deploy.silence import reason, silent

FILE = "network.ep"
MOST = 32
LOADER = '''"""Runs {file} with TensorRT, on the kind of GPU that it was made on."""
from pathlib import Path

import numpy
import torch
import torch_tensorrt


def load(threads=1):  # the work is the GPU's
    network = torch_tensorrt.load(str(Path(__file__).with_name("{file}"))).module()
    pieces = lambda x: (torch.from_numpy(x[i : i + {most}].copy()).cuda() for i in range(0, len(x), {most}))
    return lambda x: numpy.concatenate([network(piece).cpu().numpy() for piece in pieces(x)])
'''


def prepare(network: nn.Module, example: Tensor, threads: int, precision: str) -> Run:
    """The network with TensorRT engines in it. The threads have nothing to do."""
    engine, most = _engine(network, example, precision)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = [engine(piece) for piece in torch.split(plain(x, example), most)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    return run


def write(network: nn.Module, example: Tensor, folder: Path, precision: str) -> Artefact:
    """The network with its engines as a program that torch_tensorrt loads."""
    engine, most = _engine(network, example, precision)
    with silent(native=True):
        _tensorrt().save(engine, str(folder / FILE), output_format="exported_program", arg_inputs=(example,))
    return Artefact((FILE,), LOADER.format(file=FILE, most=most), ("torch-tensorrt", "torch", "numpy"))


def _engine(network: nn.Module, example: Tensor, precision: str) -> tuple[Any, int]:
    most, image = max(MOST, len(example)), tuple(example.shape[1:])
    program = exported(in_precision(lean(network, example), example, precision), example, most=most)
    tensorrt = _tensorrt()
    shapes = tensorrt.Input(
        min_shape=(1, *image), opt_shape=tuple(example.shape), max_shape=(most, *image), dtype=example.dtype
    )
    with silent(native=True):
        try:
            # Explicit typing: the engine computes in the types of the network, which is the precision asked for.
            return tensorrt.dynamo.compile(program, inputs=[shapes], use_explicit_typing=True, min_block_size=1), most
        except Exception as error:
            raise ValueError(
                f"TensorRT must be able to build an engine for the network, and fails ({reason(error)}); choose "
                "another back end"
            ) from error


def _tensorrt() -> Any:
    return importlib.import_module("torch_tensorrt")


TENSORRT = register(
    Backend(
        "tensorrt",
        prepare,
        requires=("torch_tensorrt",),
        extra="tensorrt",
        precisions=("float32", "float16", "bfloat16"),
        devices=("cuda",),
        thorough=True,
        write=write,
    )
)
