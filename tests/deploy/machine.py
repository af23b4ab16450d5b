"""A machine as its kernel's files tell it, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files below a root, such as `proc/loadavg`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def stat(times: Mapping[int, Sequence[int]], *, running: int = 1) -> str:
    """/proc/stat for cores with ticks as user, nice, system, idle, iowait, irq, softirq, steal."""
    total = [sum(column) for column in zip(*times.values(), strict=True)]
    lines = [f"cpu  {' '.join(map(str, total))} 0 0"]
    lines += [f"cpu{core} {' '.join(map(str, ticks))} 0 0" for core, ticks in times.items()]
    return "\n".join([*lines, "intr 12 0 3", "ctxt 99", f"procs_running {running}", "procs_blocked 0", ""])
