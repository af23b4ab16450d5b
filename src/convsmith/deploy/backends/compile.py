"""PyTorch's compiler ahead of time (AOTInductor): C++ or Triton kernels made for the network, in a file of their own.

It is the faster form of `torch.compile` (no guards, no Python between the kernels), and one program serves all batch
sizes. Making it takes a C++ compiler and from ten seconds to some minutes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.deploy import clock
from convsmith.deploy.agreement import Run
from convsmith.deploy.backends.registry import Artefact, Backend, register
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.precision import in_precision
from convsmith.deploy.program import exported, plain
from convsmith.deploy.silence import reason, silent

FILE = "network.pt2"
LOADER = '''"""Runs {file} with PyTorch, on the kind of processor that it was made on."""
from pathlib import Path

import numpy
import torch


def load(threads=1):
    torch.set_num_threads(threads)
    network = torch._inductor.aoti_load_package(str(Path(__file__).with_name("{file}")))
    return lambda x: network(torch.from_numpy(numpy.ascontiguousarray(x)).to("{device}")).cpu().numpy()
'''


def prepare(network: nn.Module, example: Tensor, threads: int, precision: str) -> Run:
    """The compiled network, loaded."""
    with TemporaryDirectory() as folder, clock.threads(threads):
        loaded = _compiled(network, example, precision, Path(folder) / FILE, {})

    def run(x: Tensor) -> Tensor:
        with clock.threads(threads):
            return loaded(plain(x, example))  # type: ignore[no-any-return]

    return run


def write(network: nn.Module, example: Tensor, folder: Path, precision: str) -> Artefact:
    """The compiled network as a package, which computes with as many threads as torch is told to."""
    _compiled(network, example, precision, folder / FILE, {"cpp.dynamic_threads": True})
    return Artefact((FILE,), LOADER.format(file=FILE, device=example.device.type), ("torch", "numpy"))


def _compiled(network: nn.Module, example: Tensor, precision: str, path: Path, options: dict[str, Any]) -> Any:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"the back end compile needs a C++ compiler, and there is no {compiler}; install g++, or name another "
            "compiler in the environment variable CXX"
        )
    program = exported(in_precision(lean(network, example), example, precision), example)
    with silent(native=True), torch.no_grad():
        try:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True, **options}
            )
            return torch._inductor.aoti_load_package(str(path))
        except Exception as error:
            raise ValueError(
                f"torch's compiler must know every operator of the network, and fails ({reason(error)}); "
                "choose another back end"
            ) from error


COMPILE = register(
    Backend(
        "compile",
        prepare,
        precisions=("float32", "bfloat16", "float16"),
        devices=("cpu", "cuda"),
        thorough=True,
        write=write,
    )
)
