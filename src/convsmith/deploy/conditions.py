"""What else the machine did during a measurement, and how fast its cores ran, as far as the kernel tells.

Standard library only, in the Python of 3.9, as in `rounds`. What the kernel tells is read below `root`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convsmith.deploy.cores import IDLE, IOWAIT, ROOT, STEAL, core_times, read

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
FEWEST_TICKS = 50  # the kernel counts the cores' time in ticks of some ten milliseconds: fewer tell no share


@dataclass(frozen=True)
class Conditions:
    """The state of the machine during a measurement; None where the system does not tell, or not in so short a time.

    `cores` are those that the threads were allowed, `pinned` whether they were held on them. `load_average` is of the
    minute before the last round; `runnable` is the mean number of other threads that ran or waited to, on any core, as
    seen before each round. `others_share` and `stolen_share` are the parts of the cores' time that went to other
    processes and to other guests of the machine's host; `waited_share` is the part of the time in which the own threads
    were ready to compute and had no core. `slowest_mhz` and `fastest_mhz` are of the mean frequency of the cores.
    """

    cores: tuple[int, ...]
    pinned: bool
    seconds: float
    load_average: float | None
    runnable: float | None
    others_share: float | None
    stolen_share: float | None
    waited_share: float | None
    slowest_mhz: float | None
    fastest_mhz: float | None
    governor: str | None


@dataclass(frozen=True)
class Snapshot:
    """The kernel's counters at one moment, of the cores that are watched; times in seconds."""

    wall: float
    own: float
    total: float
    busy: float
    stolen: float
    ran: dict[int, float]  # thread -> on a core
    waited: dict[int, float]  # thread -> ready, but on none
    runnable: int | None
    load_average: float | None
    mhz: float | None


class Watch:
    """Looks at the machine at each call of `note`; `conditions` is what happened between the first and the last."""

    def __init__(self, cores: Sequence[int] | None, *, root: Path = ROOT):
        """Watch the cores that the threads are pinned to; None stands for all that they may use."""
        self.pinned = cores is not None
        self.cores = tuple(cores) if cores is not None else _allowed()
        self.root = root
        self.snapshots: list[Snapshot] = []

    def note(self) -> None:
        """Look at the machine."""
        self.snapshots.append(snapshot(self.cores, root=self.root))

    def conditions(self) -> Conditions:
        """What happened from the first note to the last; at least two were made."""
        first, last = self.snapshots[0], self.snapshots[-1]
        own, busy, total = last.own - first.own, last.busy - first.busy, last.total - first.total
        long_enough = total >= FEWEST_TICKS / TICKS_PER_SECOND
        ran, waited = (
            sum(after - before.get(thread, 0.0) for thread, after in now.items())
            for before, now in ((first.ran, last.ran), (first.waited, last.waited))
        )
        runnable = [look.runnable for look in self.snapshots if look.runnable is not None]
        mhz = [look.mhz for look in self.snapshots if look.mhz is not None]
        return Conditions(
            cores=self.cores,
            pinned=self.pinned,
            seconds=last.wall - first.wall,
            load_average=last.load_average,
            runnable=max(sum(runnable) / len(runnable) - 1, 0.0) if runnable else None,  # one is this process
            others_share=max(busy - own, 0.0) / total if long_enough else None,
            stolen_share=(last.stolen - first.stolen) / total if long_enough else None,
            waited_share=waited / (ran + waited) if ran + waited > 0 else None,
            slowest_mhz=min(mhz, default=None),
            fastest_mhz=max(mhz, default=None),
            governor=read(self.root / f"sys/devices/system/cpu/cpu{self.cores[0]}/cpufreq/scaling_governor") or None,
        )


def snapshot(cores: Sequence[int], *, root: Path = ROOT) -> Snapshot:
    """The counters of these cores and of this process's threads as they are now."""
    times = [spent for core, spent in core_times(root).items() if core in cores]
    total, stolen = sum(map(sum, times)), sum(spent[STEAL] for spent in times)
    idle = sum(spent[IDLE] + spent[IOWAIT] for spent in times)
    schedules = _schedules(root)
    return Snapshot(
        wall=time.perf_counter(),
        own=time.process_time(),
        total=total / TICKS_PER_SECOND,
        busy=(total - idle - stolen) / TICKS_PER_SECOND,
        stolen=stolen / TICKS_PER_SECOND,
        ran={thread: fields[0] / 1e9 for thread, fields in schedules.items()},
        waited={thread: fields[1] / 1e9 for thread, fields in schedules.items()},
        runnable=_runnable(root),
        load_average=_load_average(root),
        mhz=frequency_mhz(cores, root=root),
    )


def frequency_mhz(cores: Sequence[int], *, root: Path = ROOT) -> float | None:
    """The mean frequency of the cores now, by cpufreq or else by /proc/cpuinfo; None where neither tells."""
    by_cpufreq = [read(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    if cores and all(text.isdigit() for text in by_cpufreq):
        return sum(map(int, by_cpufreq)) / len(by_cpufreq) / 1e3
    found, core = [], -1
    for line in read(root / "proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdigit():
            core = int(value)
        elif key == "cpu MHz" and core in cores:
            found.append(float(value))
    return sum(found) / len(found) if found else None


def from_json(document: dict[str, Any]) -> Conditions:
    """Conditions that another device sent, as plain data."""
    return Conditions(**{**document, "cores": tuple(document["cores"])})


def _schedules(root: Path) -> dict[int, tuple[int, int]]:
    """Thread -> nanoseconds on a core, and nanoseconds ready but waiting for one."""
    folder = root / "proc/self/task"
    try:
        threads = [name for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return {}
    found = {}
    for thread in threads:
        fields = read(folder / thread / "schedstat").split()
        if len(fields) >= 2:
            found[int(thread)] = int(fields[0]), int(fields[1])
    return found


def _runnable(root: Path) -> int | None:
    for line in read(root / "proc/stat").splitlines():
        if line.startswith("procs_running"):
            return int(line.split()[1])
    return None


def _load_average(root: Path) -> float | None:
    fields = read(root / "proc/loadavg").split()
    return float(fields[0]) if fields else None


def _allowed() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
