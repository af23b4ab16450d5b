"""Times ONNX models with ONNX Runtime: what runs on the other device.

It is sent there with `deploy.rounds`, `deploy.cores` and `deploy.conditions`, and needs Python 3.9, onnxruntime and
what that brings along. It takes its settings as JSON in its argument, and prints one line of JSON behind MARK.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import signal
import sys
from pathlib import Path
from typing import Any

from convsmith.deploy.conditions import Watch
from convsmith.deploy.cores import pinned, read
from convsmith.deploy.rounds import Call, burst, in_turns

MARK = "CONVSMITH-RESULT "
TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def main() -> None:
    """Do what the argument says, and print the result or the reason why there is none."""
    settings = json.loads(sys.argv[1])
    # Should the connection be lost, nothing runs on here for long.
    signal.alarm(max(int(settings["seconds"]), 1))
    try:
        document = measure(settings) if settings["models"] else describe()
    except ImportError as error:
        document = {"missing": error.name or str(error)}
    except Exception as error:
        document = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    sys.stdout.write("\n" + MARK + json.dumps(document) + "\n")


def describe() -> dict[str, Any]:
    """What this device is, and what would run the models."""
    import onnxruntime

    lines = read(Path("/proc/cpuinfo")).splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    board = read(Path("/proc/device-tree/model")).strip("\0")
    return {
        "device": board or (named or [platform.processor()])[0] or platform.machine(),
        "runtime": f"onnxruntime {onnxruntime.__version__}",
    }


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """The samples of each model, taken in turns."""
    threads = settings["threads"]
    calls = {name: session_call(path, settings["batch"], threads) for name, path in settings["models"].items()}
    with pinned(threads) as cores:
        watch = Watch(cores)
        timings = in_turns(
            calls,
            burst,
            rounds=settings["rounds"],
            warmup=3,
            budget_seconds=settings["budget_seconds"] * len(calls),
            watch=watch.note,
        )
    return {
        "timings": {name: [timing.samples_ms, timing.calls_per_round] for name, timing in timings.items()},
        "conditions": dataclasses.asdict(watch.conditions()),
    }


def session_call(path: str, batch: int, threads: int) -> Call:
    """One run of a model over normal noise; ValueError for inputs that noise cannot stand for."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    generator = numpy.random.default_rng(0)
    inputs = {
        entry.name: generator.standard_normal(shape(entry.name, entry.shape, batch)).astype(type_of(entry))
        for entry in session.get_inputs()
    }
    return lambda: session.run(None, inputs)


def shape(name: str, sizes: list[Any], batch: int) -> list[int]:
    """An input's shape with the batch in the place of a free first size."""
    if not sizes or not all(isinstance(size, int) for size in sizes[1:]):
        raise ValueError(f"only the batch of an input may be free, and {name} is {sizes}; export it with fixed sizes")
    if isinstance(sizes[0], int) and sizes[0] != batch:
        raise ValueError(f"the batch of the input {name} is fixed to {sizes[0]}, and {batch} is asked for")
    return [batch, *sizes[1:]]


def type_of(entry: Any) -> str:
    """NumPy's name of an input's type, which must be a floating-point one."""
    if entry.type not in TYPES:
        raise ValueError(f"inputs must be {', '.join(TYPES)}, and {entry.name} is {entry.type}")
    return TYPES[entry.type]
