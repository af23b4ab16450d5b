"""What a calibration measured: one plain file that grows with use, of one device, runtime and number of threads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from convsmith.arch import write_whole_bytes
from convsmith.measure.predictor.engines import ENGINES
from convsmith.measure.predictor.graph import Shape
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.speed import Speed
from convsmith.measure.predictor.trees import Array
from convsmith.measure.predictor.turns import Measured, size

FORMAT = "convsmith/latency/7"
LEAST_OF_A_BATCH = 16  # networks, before a batch counts as measured
KEY = "convsmith"  # of the file's metadata, whose value is JSON
COLUMNS = ("names", "input_shapes", "latencies_ms", "kernels", "times_us")  # of a table, an entry a network


@dataclass(frozen=True)
class About:
    """Where and with what a table was measured; `reference_ms` are the reference networks' latencies at the time."""

    device: str
    processor: str
    backend: str
    runtime: str
    threads: int
    block: int
    begun: str
    reference_ms: tuple[float, ...]


@dataclass
class Table:
    """Measured networks with their kernels, in the order of measuring; NaN is the latency of one only profiled."""

    about: About
    names: list[str] = field(default_factory=list)
    input_shapes: list[Shape] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    kernels: list[tuple[Kernel, ...]] = field(default_factory=list)
    times_us: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, measured: Iterable[Measured]) -> None:
        """More networks."""
        for network in measured:
            self.names.append(network.name)
            self.input_shapes.append(network.input_shape)
            self.latencies_ms.append(network.latency_ms)
            self.kernels.append(network.kernels)
            self.times_us.append(network.times_us)

    def __len__(self) -> int:
        return len(self.names)

    def timed(self) -> Array:
        """Which networks (networks,) were timed as a whole."""
        return ~np.isnan(self.latencies_ms)

    def at_speed(self, speed: Speed) -> None:
        """Let all times be those of a machine whose reference networks take so long."""
        usual = Speed(self.about.reference_ms)
        self.about = replace(self.about, reference_ms=speed.reference_ms)
        for place, latency_ms in enumerate(self.latencies_ms):
            slowdown = speed.slowdown(usual, size(latency_ms, self.times_us[place]))
            self.latencies_ms[place] = latency_ms * slowdown
            self.times_us[place] = tuple(time * slowdown for time in self.times_us[place])

    def outside(self, input_shape: Shape) -> list[str]:
        """What of an input (N, C, H, W) no measured networks had, in words: its batch, or its size."""
        batches = Counter(shape[0] for shape in self.input_shapes)
        held = sorted(batch for batch, networks in batches.items() if networks >= LEAST_OF_A_BATCH)
        sides = [side for shape in self.input_shapes for side in shape[2:]] or [0]
        found = []
        if input_shape[0] not in held:
            found.append(f"a batch of {input_shape[0]}, measured {', '.join(map(str, held))}")
        if min(input_shape[2:]) < min(sides) or max(input_shape[2:]) > max(sides):
            sizes = "x".join(map(str, input_shape[2:]))
            found.append(f"an input of {sizes} pixels, measured {min(sides)} to {max(sides)}")
        return found

    def save(self, path: Path, more: Mapping[str, Array], notes: Mapping[str, Any]) -> None:
        """Write the file whole: the table, arrays of a fitted model, and notes on them as plain JSON values."""
        from safetensors.numpy import save

        flat = [kernel for own in self.kernels for kernel in own]
        groups, variants = sorted({k.group for k in flat}), sorted({k.variant for k in flat})
        place = {name: i for names in (groups, variants) for i, name in enumerate(names)}
        group_place = {name: i for i, name in enumerate(groups)}
        document = {
            "format": FORMAT,
            "numbers": ENGINES[self.about.backend].numbers,
            "about": asdict(self.about),
            "networks": self.names,
            "groups": groups,
            "variants": variants,
            "notes": dict(notes),
        }
        arrays = {
            "table.input_shape": np.array(self.input_shapes, dtype=np.int32).reshape(-1, 4),
            "table.latency_ms": np.nan_to_num(self.latencies_ms),  # zero where it was not timed
            "table.count": np.array([len(own) for own in self.kernels], dtype=np.int32),
            "table.time_us": np.array([time for own in self.times_us for time in own], dtype=np.float32),
            "table.group": np.array([group_place[k.group] for k in flat], dtype=np.int32),
            "table.variant": np.array([place[k.variant] for k in flat], dtype=np.int32),
            "table.law": _matrix([k.law for k in flat]),
            "table.numbers": _matrix([k.numbers for k in flat]),
        }
        write_whole_bytes(path, save({**arrays, **more}, metadata={KEY: json.dumps(document)}))


def _matrix(rows: Sequence[Sequence[float]]) -> Array:
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 0)
