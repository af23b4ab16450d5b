"""Operators of our own in C++ for the CPU (`*_cpu.cpp`): one library, compiled once for a machine and version of torch.

It is compiled for the processor that it will run on, hence without a choice of instructions at run time. Vectors are
those of the compiler (`vector_size`), as wide as the processor's registers, so that the sources name instructions
only where maps larger than the caches are written past them.

`build_operators` compiles it, and so does the first program of `torch.compile` that wants one of them. From then on
eager passes take them, too, in this process and in later ones. Where the library is not there, operators of torch do
the same in more time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

SOURCES = tuple(sorted(Path(__file__).parent.glob("*_cpu.cpp")))
HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC")
OPERATORS = ("shift", "channel_shuffle")
LARGEST_ITEM = 8  # bytes of a value
_PLAIN = (Tensor, nn.Parameter)


def build_operators() -> bool:
    """Compile the operators of the CPU if they are not there, and load them; whether that succeeded.

    The compiler is that of the environment variable `CXX`, else g++; it takes ten to twenty seconds, once. The library
    lies in `$XDG_CACHE_HOME/convsmith`, or `~/.cache/convsmith`. What goes wrong is logged (`convsmith.nn.native`,
    INFO).
    """
    return is_built()


def is_built() -> bool:
    """Whether the operators have been compiled, now or before, and are loaded."""
    return _load() or _build()


# What `torch.compiler.assume_constant_result` does, which would first import the compiler, and that takes seconds.
vars(is_built)["_dynamo_marked_constant"] = True


def serves(x: Tensor) -> bool:
    """Whether an eager pass takes an operator for `x`: compiled before, and no tracer or mode follows the values."""
    # Each question is a tenth of a microsecond, and small maps take two.
    if not (_load() and x.is_cpu and type(x) in _PLAIN and x.element_size() <= LARGEST_ITEM):
        return False
    if x.layout is not torch.strided or x.is_quantized or x._is_zerotensor() or is_batched(x):
        return False
    # Without gradients no derivative is recorded, and a tangent would be lost.
    tangents = forward_ad._current_level >= 0 and not torch.is_grad_enabled()
    return not (tangents or _get_tracing_state() or is_transformed() or is_followed())


def is_plain_call(x: Tensor) -> bool:
    """Whether the operators are loaded and this is a tensor, and no tracer, transform or mode follows the values."""
    if not _load() or type(x) not in _PLAIN or _get_tracing_state() or _are_functorch_transforms_active():
        return False
    return not _len_torch_dispatch_stack() or not is_followed()


def is_batched(x: Tensor) -> bool:
    """Whether this is a batch of the older vmap, by which `torch.autograd.grad` runs batches of gradients."""
    return is_legacy_batchedtensor(x)


def is_transformed() -> bool:
    """Whether a transform of `torch.func`, or differentiation in forward mode, is at work."""
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


# Answered while a program is traced, as `is_built` is: the tracer of torch 2.11 would make the question a part of it.
vars(is_transformed)["_dynamo_marked_constant"] = True


def is_followed() -> bool:
    """Whether a mode at work follows values from operator to operator (`measure.reach`), as it cannot through bits."""
    if not _len_torch_dispatch_stack():
        return False
    return any(getattr(mode, "follows_values", False) for mode in _get_current_dispatch_mode_stack())


@cache
def _load() -> bool:
    """Load the library if it is there."""
    try:
        library = _library()
        if not library.exists():
            return False
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        if not all(torch._C._dispatch_has_kernel_for_dispatch_key(f"convsmith::{name}", "CPU") for name in OPERATORS):
            raise OSError(f"{library} lacks {' or '.join(OPERATORS)}")
    except (OSError, RuntimeError) as error:  # no home; written for another system
        _say(error)
        return False
    return True


@cache
def _build() -> bool:
    """Compile the library and load it."""
    try:
        from torch.utils.cpp_extension import include_paths, library_paths

        compiler, library = shlex.split(_compiler()), _library()
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder, ThreadPoolExecutor() as side_by_side:
            objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
            compiling = [*compiler, *FLAGS, *(f"-I{path}" for path in include_paths()), "-c"]
            commands = ([*compiling, str(source), "-o", made] for source, made in zip(SOURCES, objects, strict=True))
            list(side_by_side.map(_run, commands))
            linked = Path(folder) / library.name
            paths = (f"-L{path}" for path in library_paths())
            _run([*compiler, "-shared", *objects, *paths, "-ltorch_cpu", "-lc10", "-o", str(linked)])
            os.replace(linked, library)
    except subprocess.CalledProcessError as error:
        _say(error.stderr.decode(errors="replace")[-2000:])
        return False
    except (ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        _say(error)  # a ValueError of a half-quoted `CXX`
        return False
    _load.cache_clear()
    return _load()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def _library() -> Path:
    """Where the library of these sources, this torch, compiler and processor lies."""
    key = hashlib.sha256(f"{torch.__version__} {torch.__file__} {_compiler()} {FLAGS} {_processor()}".encode())
    for source in SOURCES + HEADERS:
        key.update(source.read_bytes())
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    caches = given if given.is_absolute() else Path.home() / ".cache"
    return caches / "convsmith" / f"operators_{key.hexdigest()[:16]}.so"


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


def _processor() -> str:
    """What instructions there are: the library is made for this processor, and a home may be that of many machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return platform.machine() + "".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features"))))


def _say(error: object) -> None:
    logging.getLogger(__name__).info("operators could not be built, others of torch stand for them: %s", error)
