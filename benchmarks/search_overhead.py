"""What a search costs beside its evaluations: milliseconds per trial, each on the disk before the next one starts.

Regularised evolution over the `stages` space for 32 x 32 inputs, with an evaluation that takes no time. The first and
the last thousand trials say whether the cost grows with the history. Writes DATE_search_overhead.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from convsmith.search import search, spaces, strategies


def measure(folder: Path, trials: int) -> list[float]:
    """Milliseconds from the end of each evaluation to the beginning of the next one."""
    ended: float | None = None
    overheads: list[float] = []

    def evaluate(architecture, *, seed, report):
        nonlocal ended
        if ended is not None:
            overheads.append((time.perf_counter() - ended) * 1e3)
        # Any smooth function of the architecture will do: the sum of all integers in it.
        blocks = [block for stage in architecture.stages for block in stage]
        score = sum(value for block in blocks for _, value in block.arguments if isinstance(value, int))
        ended = time.perf_counter()
        return {"score": -float(score)}

    strategy = strategies.get("regularized_evolution", population_size=100, sample_size=25)
    space = spaces.stages(input_size=32)
    history = search(space, strategy, evaluate, trials=trials, objective="score", run_dir=folder)
    copies = sum(trial.same_as is not None for trial in history)
    print(f"{len(history)} trials, {copies} of them copies of known ones, {len(history[-1].decisions)} decisions each")
    return overheads


def fsync_ms(folder: Path) -> float:
    """The median time of one durable write of 4 kB, which no durable trial can undercut."""
    times = []
    with open(folder / "probe", "wb") as file:
        for _ in range(200):
            start = time.perf_counter()
            file.write(os.urandom(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the CSV, and of the search")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:  # the disk that is asked about, not a RAM disk
        overheads = measure(Path(folder), arguments.trials)
        probe = fsync_ms(Path(folder))
    part = min(1000, len(overheads) // 2)
    first, last = overheads[:part], overheads[-part:]
    row = {
        "trials": arguments.trials,
        "mean_ms": round(statistics.fmean(overheads), 3),
        "median_ms": round(statistics.median(overheads), 3),
        "first_thousand_mean_ms": round(statistics.fmean(first), 3),
        "last_thousand_mean_ms": round(statistics.fmean(last), 3),
        "last_to_first": round(statistics.median(last) / statistics.median(first), 3),
        "fsync_4kB_ms": round(probe, 3),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sqlite": sqlite3.sqlite_version,
    }
    path = arguments.out / f"{date.today()}_search_overhead.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    for name, value in row.items():
        print(f"{name:>24}  {value}")


if __name__ == "__main__":
    main()
