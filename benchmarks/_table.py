"""What the benchmark scripts share: arguments, the machine, ratios of interleaved rounds, and a dated table."""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import torch

from convsmith.deploy import clock
from convsmith.deploy.allocator import keep_memory
from convsmith.deploy.clock import Call, Timing
from convsmith.measure.device import processor_name


def arguments(doc: str | None, *, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """A parser with `--out`, `--rounds` and `--seconds`, the docstring as its help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="after which no round of a case starts")
    return parser


def one_thread_keeping_memory() -> dict[str, object]:
    """Let torch compute with one thread and the allocator keep activations; what a table says of the machine."""
    torch.set_num_threads(1)
    allocator = "keeps memory" if keep_memory() else "as it is"
    return {"machine": processor_name(), "allocator": allocator, "threads": 1, "torch": torch.__version__}


def ratios(ours: Timing, theirs: Timing) -> list[float]:
    """Ours over theirs in each round, sorted."""
    return sorted(a / b for a, b in zip(ours.samples_ms, theirs.samples_ms, strict=True))


def median(values: Sequence[float], digits: int = 3) -> float:
    """The rounded median."""
    return round(statistics.median(values), digits)


def quartiles(values: Sequence[float]) -> str:
    """The first and the third quartile of sorted values."""
    return f"{values[len(values) // 4]:.3f}-{values[3 * len(values) // 4]:.3f}"


def measured(
    calls: Mapping[str, Call], rounds: int, seconds: float, *, device: str = "cpu", digits: int = 4
) -> dict[str, object]:
    """Milliseconds of the call named `ours`, and its ratio to each of the others in the rounds that they share."""
    timings = clock.measure(calls, rounds=rounds, budget_seconds=seconds, device=device)
    ours = timings.pop("ours")
    found: dict[str, object] = {"ours_ms": round(ours.median_ms, digits)}
    for name, timing in timings.items():
        compared = ratios(ours, timing)
        found |= {f"over_{name}": median(compared), f"over_{name}_quartiles": quartiles(compared)}
    return found


def write(
    out: Path,
    kind: str,
    rows: Iterable[dict[str, object]],
    machine: dict[str, object],
    *,
    columns: Sequence[str] | None = None,
    shown: Sequence[str] | None = None,
) -> list[dict[str, object]]:
    """Write `DATE_kind.csv` row by row, so that a long run that is stopped keeps what it has measured; print each row.

    `columns` are all that a row may have, those of the first one by default; `shown` are printed, all by default.
    """
    today, written = date.today().isoformat(), []
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"{today}_{kind}.csv", "w", newline="") as file:
        for row in rows:
            if not written:
                writer = csv.DictWriter(file, [*(columns or row), *machine, "date"], lineterminator="\n")
                writer.writeheader()
            written.append(row)
            writer.writerow({**row, **machine, "date": today})
            file.flush()
            print({key: value for key, value in row.items() if shown is None or key in shown}, flush=True)
    return written
