"""What this device can do at best: the two roofs under which every layer stands (Williams et al. 2009).

The roof of arithmetic is the best rate of a large convolution or matrix product over what is installed: torch, ONNX
Runtime, OpenVINO. The roof of memory depends on how much is touched: caches are several times faster than memory. It is
measured by copying and by changing a map in place, over working sets from a cache's to several times all caches'.
"""

from __future__ import annotations

import bisect
import importlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch.nn import functional as F

from convsmith.deploy import clock
from convsmith.deploy.backends.openvino import settings
from convsmith.deploy.rounds import Burst, Call, Timing, burst, in_turns
from convsmith.deploy.telemetry import unreported

# Channels and side of 3 x 3 convolutions that run near the peak of any core, each by one or the other library.
CONVOLUTIONS = ((256, 56), (512, 14))
PRODUCT_SIDE = 1024
WORKING_SETS = tuple(2**power * 2**10 for power in range(5, 18, 2))  # 32 KiB to 128 MiB
ROUNDS, SECONDS = 9, 2.0
SLOW_SECONDS = 0.1  # what takes longer, as in a type that the processor lacks, is called once or twice
LONGEST_START_SECONDS = 1.0


@dataclass(frozen=True)
class Roofs:
    """The device's best rates, in the type and with the threads of the network that is measured against them.

    `copies` are pairs of a working set in bytes and the gigabytes per second read plus written, from the smallest set
    up; `source` says what reached `gmacs_per_s`.
    """

    gmacs_per_s: float
    source: str
    copies: tuple[tuple[int, float], ...]

    def gbytes_per_s(self, working_set_bytes: int) -> float:
        """The best rate over working sets of at least this size: a small one is slowed by the call, not the cache."""
        sizes = [size for size, _ in self.copies]
        at = min(bisect.bisect_left(sizes, working_set_bytes), len(sizes) - 1)
        return max(rate for _, rate in self.copies[at:])

    def place(self, macs: int, memory_bytes: int, ms: float) -> dict[str, Any]:
        """Where a layer stands: its rate, intensity, the roof above it, and its shares of the peak and of that roof.

        `intensity` is in multiply-accumulates per byte. `roof` is `compute` where its arithmetic at the peak takes
        longer than its traffic at the bandwidth, else `bandwidth`; `of_roof` is that shortest time over its own.
        """
        compute_ms = macs / self.gmacs_per_s / 1e6
        traffic_ms = memory_bytes / self.gbytes_per_s(memory_bytes) / 1e6
        roof: Literal["compute", "bandwidth"] = "compute" if compute_ms > traffic_ms else "bandwidth"
        return {
            "gmacs_per_s": macs / ms / 1e6 if ms else 0.0,
            "gbytes_per_s": memory_bytes / ms / 1e6 if ms else 0.0,
            "intensity": macs / memory_bytes if memory_bytes else 0.0,
            "roof": roof,
            "of_peak": compute_ms / ms if ms else 0.0,
            "of_roof": max(compute_ms, traffic_ms) / ms if ms else 0.0,
        }


@lru_cache(maxsize=8)
def device_roofs(*, device: str = "cpu", threads: int = 1, dtype: torch.dtype = torch.float32) -> Roofs:
    """Measure the roofs of a device, in some seconds; remembered for as long as the process lives.

    One thread of the CPU is timed by processor time, as `profile` times the network that stands under the roofs.
    """
    peaks = {**_torch_peaks(device, dtype)}
    if device == "cpu" and dtype == torch.float32:
        peaks |= _onnxruntime_peaks(threads) | _openvino_peaks(threads)
    copies = dict(_copies(device, dtype))
    with clock.threads(threads), torch.inference_mode():
        rates = {name: macs / ms / 1e6 for name, (macs, ms) in _timed(peaks, device, threads).items()}
        bandwidths = {name: moved / ms / 1e6 for name, (moved, ms) in _timed(copies, device, threads).items()}
    best = max(rates, key=lambda name: rates[name])
    return Roofs(
        gmacs_per_s=rates[best],
        source=best,
        copies=tuple((size, max(bandwidths[f"{how} {size}"] for how in ("copy", "in place"))) for size in WORKING_SETS),
    )


Work = tuple[int, Callable[[], object]]  # multiply-accumulates or bytes, and what does them


def _timed(works: dict[str, Work], device: str, threads: int) -> dict[str, tuple[int, float]]:
    """The best sample of each: what the device can do, whatever else it does at the moment."""
    calls = {name: call for name, (_, call) in works.items()}
    alone = device == "cpu" and threads == 1
    best = _slow(calls, _processor_burst if alone else burst) if device == "cpu" else {}
    quick = {name: call for name, call in calls.items() if name not in best}
    found: dict[str, Timing] = {}
    if quick and alone:
        found = in_turns(quick, _processor_burst, rounds=ROUNDS, warmup=3, budget_seconds=SECONDS)
    elif quick:
        found = clock.measure(quick, rounds=ROUNDS, budget_seconds=SECONDS, device=device)
    best |= {name: min(timing.samples_ms) for name, timing in found.items()}
    return {name: (work, best[name]) for name, (work, _) in works.items()}


def _slow(calls: dict[str, Call], timed: Burst) -> dict[str, float]:
    """Milliseconds of each call that takes long, the first time and, as that may prepare something, the second."""
    found = {}
    for name, call in calls.items():
        took = timed(call, 1)
        if SLOW_SECONDS < took < LONGEST_START_SECONDS:
            took = timed(call, 1)
        if took > SLOW_SECONDS:
            found[name] = 1e3 * took
    return found


def _processor_burst(call: Call, calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - start


def _torch_peaks(device: str, dtype: torch.dtype) -> dict[str, Work]:
    works: dict[str, Work] = {}
    for channels, side in CONVOLUTIONS:
        x, weight = (
            torch.randn(shape, generator=torch.Generator().manual_seed(0))
            .to(device, dtype)
            .contiguous(memory_format=torch.channels_last)
            for shape in ((1, channels, side, side), (channels, channels, 3, 3))
        )
        works[_convolution("torch", channels, side)] = (
            _macs(channels, side),
            partial(F.conv2d, x, weight, padding=1),
        )
    a = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    product = partial(torch.mm, a, a, out=torch.empty_like(a))
    return works | {f"torch, matrix product of side {PRODUCT_SIDE}": (PRODUCT_SIDE**3, product)}


def _onnxruntime_peaks(threads: int) -> dict[str, Work]:
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return {}
    onnx, onnxruntime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    works: dict[str, Work] = {}
    for channels, side in CONVOLUTIONS:
        weight = torch.ones(channels, channels, 3, 3).numpy()
        inputs, outputs = (
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, side, side])]
            for name in ("x", "y")
        )
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
        graph = onnx.helper.make_graph([node], "peak", inputs, outputs, [onnx.numpy_helper.from_array(weight, "w")])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        x = torch.ones(1, channels, side, side).numpy()
        works[_convolution("ONNX Runtime", channels, side)] = (
            _macs(channels, side),
            partial(session.run, None, {"x": x}),
        )
    return works


def _openvino_peaks(threads: int) -> dict[str, Work]:
    if find_spec("openvino") is None:
        return {}
    openvino = unreported("openvino")
    operators, chosen = importlib.import_module("openvino.opset13"), settings(threads, "float32")
    works: dict[str, Work] = {}
    for channels, side in CONVOLUTIONS:
        x = operators.parameter([1, channels, side, side], openvino.Type.f32)
        weight = operators.constant(torch.ones(channels, channels, 3, 3).numpy())
        y = operators.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1])
        request = openvino.Core().compile_model(openvino.Model([y], [x]), "CPU", chosen).create_infer_request()
        request.set_input_tensor(openvino.Tensor(torch.ones(1, channels, side, side).numpy()))
        works[_convolution("OpenVINO", channels, side)] = (_macs(channels, side), request.infer)
    return works


def _copies(device: str, dtype: torch.dtype) -> Iterator[tuple[str, Work]]:
    for size in WORKING_SETS:
        # Two maps of half the size to copy, one of the whole size to change: both read and write `moved` bytes.
        numbers = size // dtype.itemsize
        source = torch.zeros(numbers // 2, device=device, dtype=dtype)
        changed = torch.zeros(numbers, device=device, dtype=dtype)
        yield f"copy {size}", (size, partial(torch.empty_like(source).copy_, source))
        yield f"in place {size}", (2 * size, partial(torch.relu_, changed))


def _convolution(library: str, channels: int, side: int) -> str:
    return f"{library}, 3 x 3 convolution of {channels} channels at {side} x {side}"


def _macs(channels: int, side: int) -> int:
    return math.prod((channels, channels, 9, side, side))
