"""Latency told from an architecture alone: calibrated once per device, runtime and number of threads."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, overload

from convsmith.arch import Architecture, check_writable
from convsmith.deploy.clock import check_threads
from convsmith.deploy.uncollected import uncollected
from convsmith.measure.predictor import reading
from convsmith.measure.predictor.checked import calibration
from convsmith.measure.predictor.describe import describe
from convsmith.measure.predictor.fitted import FEWEST_NETWORKS, Fitted, HeldOut, fit, refit
from convsmith.measure.predictor.graph import Shape
from convsmith.measure.predictor.jobs import Numbers, free_behind, mixed, new_jobs, random_jobs
from convsmith.measure.predictor.kept import Kept, stamp_of
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.runtime import Runtime, runtime_of
from convsmith.measure.predictor.speed import Speed
from convsmith.measure.predictor.table import About, Table
from convsmith.measure.predictor.trees import Array
from convsmith.measure.predictor.turns import Job, Turns

MINUTES = 9.0
MOST_SKIPPED = 0.1

Progress: TypeAlias = Callable[[int, float], None]
Unknown: TypeAlias = Literal["warn", "measure", "ignore"]


class UnknownKernelWarning(UserWarning):
    """A prediction rests on kernels, a batch or an input size that were never measured."""


class LatencyPredictor:
    """Predicts the latency of architectures on one device with one runtime and one number of threads.

    Made by `calibrate` or `load`. `about` says what was calibrated, `held_out` how wrong it is on networks unseen.
    """

    def __init__(self, table: Table, fitted: Fitted, runtime: Runtime):
        self._table, self._fitted, self._runtime = table, fitted, runtime
        self._turns: Turns | None = None
        self._kept: Kept | None = None

    @property
    def about(self) -> About:
        """What was calibrated."""
        return self._table.about

    @property
    def held_out(self) -> HeldOut:
        """The error on networks that the model had not seen."""
        return self._fitted.held_out

    @property
    def networks(self) -> int:
        """How many networks were measured."""
        return len(self._table)

    @classmethod
    def calibrate(
        cls,
        device: str = "cpu",
        backend: str = "onnxruntime",
        *,
        threads: int = 1,
        minutes: float = MINUTES,
        architectures: Iterable[tuple[Architecture, Shape]] = (),
        path: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> LatencyPredictor:
        """Measure random networks on this device for some minutes, and fit.

        Args:
            device: `cpu`.
            backend: `onnxruntime` or `openvino`.
            threads: How many threads compute, no more than there are cores: waiting for one would be in the times.
            minutes: Time to measure, over all calls on the same `path`; fitting comes on top.
            architectures: Networks with input shapes (N, C, H, W) to measure among the random ones, such as members of
                the space that will be searched; at most one in four is one of these, and none is measured twice.
            path: A file to keep what is measured, written after each twenty networks: a call on the same file goes
                on where a stopped one was, and one that has had its minutes measures nothing. What other processes add
                to it meanwhile stays in it.
            progress: Called with the number of networks and the seconds measured so far.

        Raises ValueError for arguments that are not offered, for a file of another device or one that another process
        begins at the same time, and where the runtime does not behave as the rules of this version say.
        """
        check_threads(threads, most_per_core=1)
        if not (math.isfinite(minutes) and minutes > 0):
            raise ValueError(f"minutes must be a finite positive number, got {minutes}")
        runtime = runtime_of(device, backend, threads)
        file = None if path is None else Path(path)
        kept = None
        if file is not None:
            check_writable(file.resolve())
            kept = Kept(file.resolve(), stamp=stamp_of(file))  # before it is read: what comes later is seen
        known = _open(file, runtime)
        if kept is not None and known is not None:
            kept.known = len(known[0])
        arrays, notes = ({}, {}) if known is None else known[1:]
        seconds = float(notes.get("seconds", 0.0))
        turns = Turns(runtime, usual=Speed(known[0].about.reference_ms) if known else None)
        table = known[0] if known else Table(_about(runtime, turns.usual))
        start = time.monotonic() - seconds
        numbers = Numbers(None if kept is None else kept.path, free_behind=free_behind(table))
        given = new_jobs(
            (Job(a.name, describe(a, tuple(shape), runtime.engine.filled)) for a, shape in architectures),
            lambda: table,
            lambda graph: runtime.kernels(runtime.executed(graph)),
        )

        def is_enough() -> bool:
            return seconds >= 60 * minutes and int(table.timed().sum()) >= FEWEST_NETWORKS

        if file is not None and "model" in notes and is_enough():
            return cls.load(file)
        for measured in () if is_enough() else turns.measure(mixed(random_jobs(numbers), given)):
            if known is None and not len(table):
                table = Table(_about(runtime, turns.usual))
            table.add(measured)
            seconds = time.monotonic() - start
            if kept is not None:
                table = _grown(kept, table, {**notes, "seconds": seconds}, arrays)
                turns.usual = Speed(table.about.reference_ms)
            if progress is not None:
                progress(len(table), seconds)
            _check_rules(turns.skipped, len(table), runtime)
            if is_enough():
                break
        if "model" not in notes:  # the usual speed of these minutes, not that of the first networks
            table.at_speed(Speed.of(turns.speeds or [turns.usual]))
            turns.usual = Speed(table.about.reference_ms)
        predictor = cls(table, fit(table), runtime)
        predictor._seconds = seconds
        predictor._turns = turns
        predictor._kept = kept
        predictor._keep()
        return predictor

    _seconds = 0.0

    @overload
    def predict_ms(self, architecture: Architecture, input_shape: Shape, *, unknown: Unknown = ...) -> float: ...
    @overload
    def predict_ms(
        self, architecture: Sequence[Architecture], input_shape: Shape, *, unknown: Unknown = ...
    ) -> list[float]: ...
    def predict_ms(
        self, architecture: Architecture | Sequence[Architecture], input_shape: Shape, *, unknown: Unknown = "warn"
    ) -> float | list[float]:
        """Milliseconds of one forward pass over a batch of `input_shape` (N, C, H, W); of several at once, a list.

        `unknown` says what to do where a network has kernels that no measured network had, or where none had such a
        batch or input size: warn, measure the network now (which adds it to what is known, and to the file), or go on.

        Raises ValueError for another word, where the input does not fit, and for networks to measure when this is
        another machine.
        """
        if unknown not in get_args(Unknown):
            raise ValueError(f"unknown is one of {', '.join(get_args(Unknown))}, got {unknown!r}")
        several = [architecture] if isinstance(architecture, Architecture) else list(architecture)
        shape = tuple(input_shape)
        with uncollected():
            found = [self._kernels(one, shape) for one in several]
            strange = [] if unknown == "ignore" else self._strange(found, shape)
            predicted = [] if strange else self._fitted.predict_ms(found)
        if strange:
            if unknown == "measure":  # but not again
                measured = set(self._table.kernels)
                strange = [i for i in strange if tuple(found[i]) not in measured]
                if strange:
                    self.update([several[i] for i in strange], shape)
            else:
                names = "; ".join(self._unknown(found[strange[0]], shape)[:3])
                warnings.warn(
                    f"{several[strange[0]].name} is predicted from what was never measured ({names}); "
                    "give unknown='measure', or calibrate with such networks",
                    UnknownKernelWarning,
                    stacklevel=2,
                )
            predicted = self._fitted.predict_ms(found)
        return predicted[0] if isinstance(architecture, Architecture) else predicted

    def unknown(self, architecture: Architecture, input_shape: Shape) -> list[str]:
        """What no measured network had, in words: the batch, the input size, kernels. Empty where there is nothing."""
        shape = tuple(input_shape)
        return self._unknown(self._kernels(architecture, shape), shape)

    def update(self, architectures: Sequence[Architecture], input_shape: Shape) -> None:
        """Measure these networks now and learn from them.

        The file that was loaded, or that `calibrate` was given, grows by them, and what other processes added to it
        meanwhile is learnt from too; a warning tells where it cannot grow.

        Raises ValueError on another machine than the calibrated one.
        """
        self._runtime.check_here()
        if self._turns is None:
            self._turns = Turns(self._runtime, usual=Speed(self.about.reference_ms))
        jobs = [Job(one.name, describe(one, tuple(input_shape), self._runtime.engine.filled)) for one in architectures]
        for measured in self._turns.measure(jobs, insist=True):
            self._table.add(measured)
            self._learn([kernel for network in measured for kernel in network.kernels])
        try:
            self._keep()
        except (OSError, ValueError) as error:
            warnings.warn(f"what was measured is not kept: {error}", RuntimeWarning, stacklevel=2)

    def _learn(self, kernels: Sequence[Kernel]) -> None:
        """Fit anew what these kernels, which the table has now, tell more about: what was not known, or else all."""
        new = {kernel.group for kernel in kernels if self._fitted.unknown([kernel])}
        self._fitted = refit(self._fitted, self._table, new or {kernel.group for kernel in kernels})

    def _keep(self) -> None:
        """Grow the file, if there is one, and take over what others added to it."""
        if self._kept is None:
            return
        path = self._kept.path

        def write(table: Table, others: int) -> None:
            if table is not self._table:
                self._table = table
                if self._turns is not None:
                    self._turns.usual = Speed(table.about.reference_ms)
                self._learn([kernel for own in table.kernels[others:] for kernel in own])
            self.save(path)

        self._kept.grow(self._table, write)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, which `load` reads on this machine or another."""
        arrays, notes = self._fitted.arrays()
        self._table.save(Path(path), arrays, {**notes, "seconds": self._seconds})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, elsewhere: bool = False) -> LatencyPredictor:
        """The predictor of a file.

        Raises ValueError for a file of another machine or runtime, and ImportError for one of a runtime that is not
        installed, unless `elsewhere` says that latencies of that other one are wanted: then nothing can be measured on
        demand.
        """
        kept = Kept(Path(path).resolve(), stamp=stamp_of(Path(path)))
        table, arrays, notes = reading.load(kept.path)
        kept.known = len(table)
        runtime = Runtime.of(table.about)
        if not elsewhere:
            runtime.check_here()
        if "model" in notes:
            with calibration(kept.path):
                fitted = Fitted.from_arrays(arrays, notes, width=runtime.engine.width)
        else:
            fitted = fit(table)
        predictor = cls(table, fitted, runtime)
        predictor._seconds = float(notes.get("seconds", 0.0))
        predictor._kept = kept
        return predictor

    def _strange(self, several: list[list[Kernel]], input_shape: Shape) -> list[int]:
        """The places of those of several networks of one input that have what no measured network had."""
        if self._table.outside(input_shape):
            return list(range(len(several)))
        return [place for place, own in enumerate(several) if self._fitted.unknown(own)]

    def _unknown(self, own: list[Kernel], input_shape: Shape) -> list[str]:
        return self._table.outside(input_shape) + self._fitted.unknown(own)

    def _kernels(self, architecture: Architecture, input_shape: Shape) -> list[Kernel]:
        graph = describe(architecture, input_shape, self._runtime.engine.filled)
        return self._runtime.kernels(self._runtime.executed(graph))


def _open(file: Path | None, runtime: Runtime) -> tuple[Table, dict[str, Array], dict[str, Any]] | None:
    if file is None or not file.exists():
        return None
    table, arrays, notes = reading.load(file)
    Runtime.of(table.about).check_same(runtime, file)
    return table, arrays, notes


def _grown(kept: Kept, table: Table, notes: Mapping[str, Any], arrays: Mapping[str, Array]) -> Table:
    """The table after the file has grown by what is new in it: with what others added meanwhile.

    The model that was there, notes and arrays, stays until there is a new one.
    """
    written = [table]

    def write(merged: Table, others: int) -> None:
        written.append(merged)
        merged.save(kept.path, arrays, notes)

    kept.grow(table, write)
    return written[-1]


def _about(runtime: Runtime, usual: Speed) -> About:
    return About(
        device=runtime.device,
        processor=runtime.processor,
        backend=runtime.backend,
        runtime=runtime.version,
        threads=runtime.threads,
        block=runtime.block,
        begun=date.today().isoformat(),
        reference_ms=usual.reference_ms,
    )


def _check_rules(skipped: dict[str, str], measured: int, runtime: Runtime) -> None:
    if len(skipped) > MOST_SKIPPED * (measured + len(skipped)) and len(skipped) > FEWEST_NETWORKS:
        raise ValueError(
            f"{runtime.backend} {runtime.version} must run the kernels that the rules of this version of convsmith "
            f"foresee, and {len(skipped)} of {measured + len(skipped)} networks differ ({list(skipped.values())[-1]}); "
            f"install the version that they were written for ({runtime.engine.restated})"
        )
