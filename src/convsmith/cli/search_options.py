"""What `convsmith search` makes of its options: the limit on latency, measured or predicted, and the executor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from convsmith.cli.calibrations import calibration_file, opened
from convsmith.cli.output import say

if TYPE_CHECKING:
    from convsmith.arch import Architecture
    from convsmith.search import Constraint, Executor


def latency_limit(
    maximum_ms: float,
    shape: tuple[int, ...],
    space: Architecture,
    *,
    latency: str,
    backend: str,
    threads: int,
    calibration: Path | None,
) -> Constraint:
    """The constraint. A calibration that no file is named for is made, with members of the space among its networks."""
    from convsmith import measure, search
    from convsmith.measure.predictor.runtime import check_supported

    if latency == "measured":
        if calibration is not None:
            raise ValueError("--calibration belongs to --latency predicted; add it, or leave the file out")
        return search.latency_constraint(maximum_ms, shape, backend=backend, threads=threads)
    if latency != "predicted":
        raise ValueError(f"--latency is measured or predicted, got {latency!r}")
    check_supported("cpu", backend)
    file = calibration or calibration_file("cpu", backend, threads)
    if calibration is not None or file.exists():
        predictor = opened(file, backend, threads)
    else:
        say(f"{file}: no calibration is there; making one takes some ten minutes, once")
        members = ((space.sample(Random(number)), shape) for number in range(100_000))
        predictor = measure.LatencyPredictor.calibrate(
            "cpu", backend, threads=threads, architectures=members, path=file
        )
    return search.predicted_latency_constraint(maximum_ms, shape, predictor)


def check_limited(options: Mapping[str, tuple[object, object]]) -> None:
    """Raise ValueError for an option (name -> value, default) of the limit on latency where there is no limit."""
    for name, (value, default) in options.items():
        if value != default:
            raise ValueError(f"--{name} says how a limit on latency is held, and none is given; add --max-latency-ms")


def chosen_executor(name: str, workers: int | None, timeout_s: float | None) -> Executor:
    """Where trials are evaluated."""
    from convsmith.search import InlineExecutor, ProcessExecutor

    if name == "process":
        return ProcessExecutor(workers, timeout_s=timeout_s)
    if name != "inline":
        raise ValueError(f"unknown executor {name!r}; there are inline and process")
    if workers is not None or timeout_s is not None:
        raise ValueError("--workers and --timeout-s belong to --executor process; add it, or leave them out")
    return InlineExecutor()


def strategy_options(strategy: str, population: int | None, sample: int | None) -> dict[str, int]:
    """The sizes of the evolution; ValueError where they are given for another strategy."""
    if strategy != "regularized_evolution":
        if population is not None or sample is not None:
            raise ValueError(f"--population and --sample belong to regularized_evolution, got --strategy {strategy}")
        return {}
    return {"population_size": 20 if population is None else population, "sample_size": 5 if sample is None else sample}
