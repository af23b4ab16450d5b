"""A device whose law is known: kernels take what a formula says, in a runtime that does what the rules say."""

import math
import zlib
from dataclasses import dataclass
from importlib.metadata import version

from convsmith.measure.device import processor_name
from convsmith.measure.predictor import predictor as module, trees, turns
from convsmith.measure.predictor.kernels import kernels
from convsmith.measure.predictor.onnxruntime.executed import executed
from convsmith.measure.predictor.onnxruntime.profile import KernelTime, times_of
from convsmith.measure.predictor.openvino.engine import OPENVINO
from convsmith.measure.predictor.runtime import Runtime

PER_KERNEL_US, PER_SUM = -0.5, 1.02  # what the whole network takes beside the sum of its profile


@dataclass
class FakeNetwork:
    """A loaded network; every time wavers by up to two per cent, the same each time."""

    kernels: list[KernelTime]
    latency_ms: float
    slowness: float = 1.0

    def profile_ms(self):
        return self.latency_ms

    def times_us(self, ran, profiles):
        return times_of(ran, self.kernels)

    def burst_ms(self):
        return self.latency_ms * self.slowness


def time_us(kernel):
    """The law: cliffs between classes, and a cost that bends where a working set leaves the cache."""
    macs, read, written, weights, *_ = kernel.law
    rate = 20e3 if kernel.group.startswith("blocked") else 4e3
    bytes_ = read + written + weights
    time = 1.5 + macs / rate + bytes_ / (30e3 if bytes_ < 1e6 else 12e3)
    return 5 * time if "11, 11" in kernel.variant else time  # a kernel that no random network has


def load(graph, *, seen=None):
    if seen is not None:
        seen.append(graph)
    ran = executed(graph, block=16)
    times = []
    for op, kernel in zip(ran.ops, kernels(ran), strict=True):
        waver = 1 + 0.02 * math.sin(zlib.crc32(repr(kernel.numbers).encode()))
        shapes = [tuple(ran.shapes.get(name, ()) for name in names if name) for names in (op.inputs, op.outputs)]
        times.append(KernelTime(op.kind.removeprefix("nchwc."), *shapes, time_us(kernel) * waver))
    total = PER_SUM * sum(t.time_us for t in times) + PER_KERNEL_US * len(times)
    return FakeNetwork(times, total / 1e3)


@dataclass
class FakeOpenVino:
    """A network whose kernels are OpenVINO's; the law knows no cliffs between them."""

    times: list[float]
    latency_ms: float

    def profile_ms(self):
        return self.latency_ms

    def times_us(self, ran, profiles):
        assert len(ran.ops) == len(self.times)
        return self.times

    def burst_ms(self):
        return self.latency_ms


def load_openvino(graph):
    ran = OPENVINO.executed(graph, 16)
    times = [time_us(kernel) for kernel in OPENVINO.kernels(ran)]
    return FakeOpenVino(times, PER_SUM * sum(times) / 1e3)


class FakeRuntime(Runtime):
    """A back end on the fake device."""

    def load(self, graph):
        return load(graph)


def install(monkeypatch, runtime_version=None, processor=None, loading=load, backend="onnxruntime"):
    """Let calibrations measure the fake device, of this processor and back end where no other ones are named."""
    here = processor_name(), version(backend)
    runtime = FakeRuntime("cpu", processor or here[0], backend, runtime_version or here[1], 1, 16)
    monkeypatch.setattr(FakeRuntime, "load", lambda self, graph: loading(graph))
    monkeypatch.setattr(trees, "TREES", 8)  # enough for so simple a law
    monkeypatch.setattr(trees, "BOOSTED", 40)
    monkeypatch.setattr(turns, "CHUNK", 16)  # and so few at a time
    monkeypatch.setattr(module, "runtime_of", lambda device, backend, threads: runtime)
    monkeypatch.setattr(module, "Runtime", FakeRuntime)
    return runtime
