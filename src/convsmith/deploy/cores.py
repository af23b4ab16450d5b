"""Threads held on chosen cores, so that the scheduler does not move them while they are timed.

Standard library only, in the Python of 3.9, as in `rounds`. What the kernel tells is read below `root`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path("/")
LOOK_SECONDS = 0.1  # ten of the ticks in which the kernel counts
BUSY_FIELDS = slice(0, 8)  # of a line of /proc/stat: user nice system idle iowait irq softirq steal
IDLE, IOWAIT, STEAL = 3, 4, 7


@contextmanager
def pinned(count: int) -> Iterator[tuple[int, ...] | None]:
    """Hold every thread of this process on `count` of the cores that it may use, the idlest of the fastest.

    Gives the cores, all of them where there are no more than `count`; None where the system cannot hold threads. After
    the block each thread may run where it could before, and threads that were started in it where their process could.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    chosen = choose(count, allowed)
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    try:
        for thread in before:
            _set(thread, chosen)
        yield chosen
    finally:
        for thread in _threads():
            _set(thread, before.get(thread, allowed))


def choose(count: int, allowed: Iterable[int], *, root: Path = ROOT) -> tuple[int, ...]:
    """The `count` cores on which to compute: those of the largest capacity first, of these the idlest.

    Hardware threads of one core come after all cores have one. Among equals comes the core on which the caller runs,
    so that processes which measure at once do not all choose the same, then the last: the first serves most interrupts.
    """
    cores = sorted(allowed)
    if len(cores) <= count:
        return tuple(cores)
    current = _current(root)
    busy = _busy_shares(root)
    siblings = {core: _siblings(core, root) for core in cores}

    def order(core: int) -> tuple[float, float, bool, int]:
        neighbourhood = max(busy.get(sibling, 0.0) for sibling in siblings[core])
        return -_capacity(core, root), round(neighbourhood, 1), core != current, -core

    first: list[int] = []
    second: list[int] = []
    for core in sorted(cores, key=order):
        (second if any(sibling in first for sibling in siblings[core]) else first).append(core)
    return tuple(sorted((first + second)[:count]))


def core_times(root: Path = ROOT) -> dict[int, list[int]]:
    """Core -> its ticks as user, nice, system, idle, iowait, irq, softirq, stolen; empty where the kernel is silent."""
    times = {}
    for line in read(root / "proc/stat").splitlines():
        name, *fields = line.split()[:9] or [""]
        if name.startswith("cpu") and name[3:].isdigit():
            times[int(name[3:])] = [int(field) for field in fields[BUSY_FIELDS]]
    return times


def read(path: Path) -> str:
    """The text of a file of the kernel; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _busy_shares(root: Path) -> dict[int, float]:
    before = core_times(root)
    time.sleep(LOOK_SECONDS)
    shares = {}
    for core, after in core_times(root).items():
        spent = [new - old for new, old in zip(after, before.get(core, after))]  # noqa: B905  (Python 3.9)
        shares[core] = (sum(spent) - spent[IDLE] - spent[IOWAIT]) / sum(spent) if sum(spent) > 0 else 0.0
    return shares


def _current(root: Path) -> int | None:
    fields = read(root / "proc/thread-self/stat").rpartition(")")[2].split()
    return int(fields[36]) if len(fields) > 36 else None  # `processor` of proc(5), the 39th field


def _capacity(core: int, root: Path) -> float:
    folder = root / f"sys/devices/system/cpu/cpu{core}"
    text = read(folder / "cpu_capacity") or read(folder / "cpufreq/cpuinfo_max_freq")
    return float(text) if text.isdigit() else 0.0


def _siblings(core: int, root: Path) -> list[int]:
    text = read(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    found = {core}
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


def _set(thread: int, cores: Iterable[int]) -> None:
    with suppress(OSError):  # the thread has ended, or its cores were taken away
        os.sched_setaffinity(thread, cores)
