"""A calibration's file that several processes may grow at the same time: what others added is never lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from convsmith.measure.predictor.reading import load
from convsmith.measure.predictor.speed import Speed
from convsmith.measure.predictor.table import COLUMNS, Table


@dataclass
class Kept:
    """A file of which a table holds the first `known` networks; the table's networks behind those are not in it yet.

    `stamp` tells the file as it was read or written last; None where there was none.
    """

    path: Path
    known: int = 0
    stamp: tuple[int, ...] | None = None

    def grow(self, table: Table, write: Callable[[Table, int], None]) -> None:
        """Have a table written by `write`, behind what others added to the file since; one process at a time.

        `write` is given the table to write, and from which network on it was not in the file that was read last.

        Raises ValueError where the file is of another calibration now, and OSError where it cannot be written.
        """
        with locked(self.path):
            merged = table
            if stamp_of(self.path) not in (None, self.stamp):
                merged = self._merged(table)
            write(merged, self.known)
            self.known, self.stamp = len(merged), stamp_of(self.path)

    def _merged(self, own: Table) -> Table:
        """The file's networks and behind them those that are not in it, at the speed of the file's reference."""
        merged, _, _ = load(self.path)
        reference_ms = merged.about.reference_ms
        same = replace(own.about, reference_ms=reference_ms) == merged.about
        own = replace(own, latencies_ms=list(own.latencies_ms), times_us=list(own.times_us))
        own.at_speed(Speed(reference_ms))
        if self.stamp is None or not same or not _begins_alike(own, merged, self.known):
            raise ValueError(
                f"{self.path} must be the file that was read, with more behind it, and it holds another calibration "
                "now; load it again, and measure again what is to be added"
            )
        for name in COLUMNS:
            getattr(merged, name).extend(getattr(own, name)[self.known :])
        return merged


def take_number(path: Path, least: int) -> int:
    """A number from `least` on that no other call for the same file is given.

    The hidden file that is locked holds the next one, which counts while the file itself is there: a calibration that
    was removed begins anew. Where the system has no locks, the number is `least`.
    """
    with locked(path) as note:
        if note is None:
            return least
        note.seek(0)
        written = note.read(20)
        number = max(least, int(written) if written.isdecimal() and path.exists() else 0)
        note.seek(0)
        note.truncate()
        note.write(str(number + 1))
    return number


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str] | None]:
    """Inside of this block no other process is in one for the same file; a hidden file beside it is what is locked.

    Gives that file. Where the system has no such locks (Windows), nothing keeps others out, and it is None.
    """
    try:
        import fcntl
    except ImportError:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield file


def _begins_alike(one: Table, other: Table, count: int) -> bool:
    """Whether both have the same first networks."""
    times, others = np.array(one.latencies_ms[:count]), np.array(other.latencies_ms[:count])
    return one.names[:count] == other.names[:count] and np.allclose(times, others, rtol=1e-6, equal_nan=True)


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes whenever a file is replaced; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
