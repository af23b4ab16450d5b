"""What a calibration holds for: a device, a runtime and its version, and a number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from convsmith.deploy import backends
from convsmith.measure.device import processor_name
from convsmith.measure.predictor.engine import Engine, Timed
from convsmith.measure.predictor.engines import ENGINES
from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.table import About

DEVICES = ("cpu",)


@dataclass(frozen=True)
class Runtime:
    """One runtime on one machine. `block` is how many channels its convolutions compute at once."""

    device: str
    processor: str
    backend: str
    version: str
    threads: int
    block: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        machine = f"{self.device} ({self.processor}), {self.block} channels at once"
        return f"{self.backend} {self.version} on {threads} of {machine}"

    @classmethod
    def of(cls, about: About) -> Runtime:
        """The runtime that a table was measured with."""
        return cls(about.device, about.processor, about.backend, about.runtime, about.threads, about.block)

    @property
    def engine(self) -> Engine:
        """What is known of the back end."""
        return ENGINES[self.backend]

    def load(self, graph: Graph) -> Timed:
        """A network in the runtime, with random weights."""
        return self.engine.load(graph, self.threads)

    def executed(self, graph: Graph) -> Graph:
        """The graph as the runtime executes it."""
        return self.engine.executed(graph, self.block)

    def kernels(self, ran: Graph) -> list[Kernel]:
        """The kernels of an executed graph."""
        return self.engine.kernels(ran)

    def check_here(self) -> None:
        """Raise ValueError where this machine or the runtime installed is another one, ImportError where none is."""
        backends.get(self.backend)
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
    if backend not in ENGINES:
        raise ValueError(
            f"a predictor can be calibrated for {' or '.join(ENGINES)}, got {backend!r}; measure latency with it"
        )


def runtime_of(device: str, backend: str, threads: int) -> Runtime:
    """The runtime installed here; ValueError for one that no rules are written down for."""
    check_supported(device, backend)
    return Runtime(device, processor_name(), backend, version(backend), threads, ENGINES[backend].block())
