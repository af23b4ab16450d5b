"""What a calibration holds for: a device, a runtime and its version, and a number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from convsmith.deploy import backends
from convsmith.measure.device import processor_name
from convsmith.measure.predictor import executed as onnxruntime_rules
from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.table import About
from convsmith.measure.predictor.turns import Load, load_with

DEVICES, BACKENDS = ("cpu",), ("onnxruntime",)


@dataclass(frozen=True)
class Runtime:
    """One runtime on one machine. `block` is how many channels its convolutions compute at once."""

    device: str
    processor: str
    backend: str
    version: str
    threads: int
    block: int

    @classmethod
    def of(cls, about: About) -> Runtime:
        """The runtime that a table was measured with."""
        return cls(about.device, about.processor, about.backend, about.runtime, about.threads, about.block)

    @property
    def restated(self) -> str:
        """The version of the runtime whose rules are written down."""
        return onnxruntime_rules.RESTATED

    @property
    def load(self) -> Load:
        """Loads graphs into the runtime."""
        return load_with(self.threads)

    def executed(self, graph: Graph) -> Graph:
        """The graph as the runtime executes it."""
        return onnxruntime_rules.executed(graph, block=self.block)

    def check_here(self) -> None:
        """Raise ValueError where this machine or the runtime installed is another one."""
        here = (processor_name(), version(self.backend))
        if here != (self.processor, self.version):
            raise ValueError(
                f"the calibration must be of this machine and runtime ({here[0]}, {self.backend} {here[1]}), and it is "
                f"of {self.processor}, {self.backend} {self.version}; calibrate again, or load it with elsewhere=True "
                "to predict for that machine"
            )

    def check_same(self, other: Runtime, file: Path) -> None:
        """Raise ValueError where a file of this runtime cannot go on with measurements of the other."""
        if self != other:
            raise ValueError(
                f"{file} must hold a calibration of {other}, and holds one of {self}; name another file, or remove it"
            )


def check_supported(device: str, backend: str) -> None:
    """Raise ValueError for a device or back end that no rules are written down for, or that is not known at all."""
    if device not in DEVICES:
        raise ValueError(
            f"a predictor can be calibrated for {' or '.join(DEVICES)}, got {device!r}; measure latency there"
        )
    backends.get(backend)
    if backend not in BACKENDS:
        raise ValueError(
            f"a predictor can be calibrated for {' or '.join(BACKENDS)}, got {backend!r}; measure latency with it"
        )


def runtime_of(device: str, backend: str, threads: int) -> Runtime:
    """The runtime installed here; ValueError for one that no rules are written down for."""
    check_supported(device, backend)
    return Runtime(device, processor_name(), backend, version(backend), threads, _block(load_with(1)))


def _block(load: Callable[[Graph], object]) -> int:
    """How many channels a blocked convolution computes at once; 0 where the runtime keeps maps plain.

    Asked of the runtime: a convolution to 24 channels writes 32 of them in blocks of 16, and 24 in blocks of 8.
    """
    shapes: dict[str, Shape] = {"input": (1, 3, 8, 8), "weight": (24, 3, 3, 3), "output": (1, 24, 6, 6)}
    graph = Graph([Op("Conv", ["input", "weight"], ["output"])], ["input"], ["output"], shapes, {"weight": None})
    ran = load(graph).kernels  # type: ignore[attr-defined]
    if not any(kernel.kind == "ReorderOutput" for kernel in ran):
        return 0
    return 16 if ran[0].outputs[0][1] == 32 else 8
