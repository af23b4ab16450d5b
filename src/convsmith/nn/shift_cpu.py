"""The shift operation (`shift.py`) as one operator in C++ (`shift_cpu.cpp`), for compiled programs on the CPU.

Of nine or more slices a compiler makes as many loops, of channels-last maps very short ones; this is one pass. The
source is compiled where `torch.compile` compiles its own, with the same compiler, once for a version of torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from convsmith.nn.shift_forms import Moves, is_channels_last

SOURCE = Path(__file__).with_suffix(".cpp")

torch.library.define(
    "convsmith::shift",
    "(Tensor x, int kernel_size, int dilation, int stride, bool interleaved, int sign, bool channels_last) -> Tensor",
    tags=(torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag),
)


@torch.library.register_fake("convsmith::shift")  # type: ignore[untyped-decorator]
def _allocate(
    x: Tensor, kernel_size: int, dilation: int, stride: int, interleaved: bool, sign: int, channels_last: bool
) -> Tensor:
    batch, channels, height, width = x.shape
    form = torch.channels_last if channels_last else torch.contiguous_format
    size = batch, channels, -(-height // stride), -(-width // stride)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=form)


def by_operator(x: Tensor, moves: Moves) -> Tensor:
    """The shifted map, in the memory format of `x`; only where `is_built()`."""
    last = is_channels_last(x)
    x = x if last else x.contiguous()
    moved: Tensor = torch.ops.convsmith.shift(x, *moves, last)
    return moved


def is_built() -> bool:
    """Whether the operator has been compiled, now or before, and is loaded."""
    return _build()


# What `torch.compiler.assume_constant_result` does, which would first import the compiler, and that takes seconds.
vars(is_built)["_dynamo_marked_constant"] = True


@cache
def _build() -> bool:
    try:
        torch.ops.load_library(_library())  # type: ignore[no-untyped-call]
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).info("the shift operator could not be built, slices stand for it: %s", error)
        return False
    return True


def _library() -> Path:
    """The shared library, compiled if it is not there."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir
    from torch.utils.cpp_extension import include_paths, library_paths

    compiler = [os.environ.get("CXX", "g++"), "-std=c++20", "-O3", "-march=native", "-shared", "-fPIC"]
    paths = [*(f"-I{folder}" for folder in include_paths()), *(f"-L{folder}" for folder in library_paths())]
    command = [*compiler, *paths, str(SOURCE), "-ltorch_cpu", "-lc10"]
    key = hashlib.sha256(SOURCE.read_bytes() + f"{command} {torch.__version__}".encode()).hexdigest()[:16]
    library = Path(cache_dir()) / "convsmith" / f"shift_{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, timeout=300)
            os.replace(made, library)
    return library
