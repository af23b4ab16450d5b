"""ExecuTorch programs timed by its `executor_runner` on another device, where no Python is needed.

A burst is one run of it with so many executions, the first ones untimed: it loads the program anew each time. The runs
take turns as the clock's do. It writes a line for each execution, to standard error or to Android's log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convsmith.deploy.conditions import Conditions
from convsmith.deploy.rounds import Call, in_turns
from convsmith.measure.remote.result import Found, Settings
from convsmith.measure.remote.transport import Deadline, RemoteError, Transport

UNTIMED = 3
ITERATION = re.compile(r"Iteration (\d+) of \d+: ([\d.]+) ms")
TOTAL = re.compile(r"Model executed successfully (\d+) time\(s\) in ([\d.]+) ms")
# Each line: the number of a core, its largest frequency in kHz (0 where unknown), and its frequency now.
DESCRIBE = """
for core in /sys/devices/system/cpu/cpu[0-9]*; do
    most=$(cat "$core/cpufreq/cpuinfo_max_freq" 2>/dev/null)
    now=$(cat "$core/cpufreq/scaling_cur_freq" 2>/dev/null)
    echo "core ${core##*cpu} ${most:-0} ${now:-0}"
done
echo "load $(cat /proc/loadavg 2>/dev/null)"
echo "governor $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
echo "device $(getprop ro.product.model 2>/dev/null || uname -nm)"
taskset 1 true >/dev/null 2>&1 && echo "taskset yes"
"""
# Android's log has what the runner wrote there, by its process number.
LOGGED = """
"$@" </dev/null 2>&1 & process=$!
wait $process; code=$?
command -v logcat >/dev/null && logcat -d -v raw --pid=$process 2>/dev/null
exit $code
"""


@dataclass(frozen=True)
class Device:
    """What the device says of itself: core -> largest and present frequency in kHz, and words by their key."""

    cores: dict[int, tuple[int, int]]
    words: dict[str, str]

    def fastest(self, count: int) -> tuple[int, ...]:
        """The cores of the largest frequency, of equals the last."""
        ranked = sorted(self.cores, key=lambda core: (-self.cores[core][0], -core))
        return tuple(sorted(ranked[:count]))

    def mhz(self, cores: tuple[int, ...]) -> list[float]:
        """The mean present frequency of the cores, if it is known."""
        known = [self.cores[core][1] / 1e3 for core in cores if self.cores[core][1]]
        return [sum(known) / len(known)] if known else []


@dataclass(frozen=True)
class Execution:
    """One program on the device; a call by itself does nothing, since each burst warms up on its own."""

    device: Transport
    command: tuple[str, ...]
    deadline: Deadline

    def __call__(self) -> None:
        """Nothing."""

    def seconds(self, calls: int) -> float:
        """The time of so many executions."""
        command = [*self.command, f"--num_executions={calls + UNTIMED}"]
        answer = self.device.run(["sh", "-c", LOGGED, "sh", *command], seconds=self.deadline.left())
        text = f"{answer.out}\n{answer.err}"
        if answer.code:
            raise RemoteError(f"the runner failed on the device with exit code {answer.code} ({_told(text)})")
        each = {int(number): float(ms) for number, ms in ITERATION.findall(text)}
        if len(each) == calls + UNTIMED:
            return sum(ms for number, ms in each.items() if number > UNTIMED) / 1e3
        if total := TOTAL.search(text):  # runners before these lines: the first executions are in the figure
            return float(total[2]) / int(total[1]) * calls / 1e3
        raise RemoteError(f"the runner on the device told no times ({_told(text)}); give ExecuTorch's executor_runner")


def measure(
    device: Transport,
    folder: str,
    programs: Mapping[str, Path],
    *,
    runner: Path,
    settings: Settings,
    deadline: Deadline,
) -> Found:
    """Send the runner and the programs, and have them timed in turns on the device's fastest cores.

    Raises RemoteError for what goes wrong there.
    """
    device.send(runner, f"{folder}/runner", seconds=deadline.left())
    device.run(["chmod", "+x", f"{folder}/runner"], seconds=deadline.left())
    before = _describe(device, deadline)
    cores = before.fastest(settings.threads)
    pinned = "taskset" in before.words and bool(cores)
    prefix = ("taskset", f"{sum(1 << core for core in cores):x}") if pinned else ()
    calls: dict[str, Call] = {}
    for index, (name, program) in enumerate(programs.items()):
        path = f"{folder}/{index}.pte"
        device.send(program, path, seconds=deadline.left())
        command = (*prefix, f"{folder}/runner", f"--model_path={path}", f"--cpu_threads={settings.threads}")
        calls[name] = Execution(device, command, deadline)
    looks: list[Device] = []
    start = time.monotonic()
    timings = in_turns(
        calls,
        _burst,
        rounds=settings.rounds,
        warmup=1,
        budget_seconds=settings.budget_seconds * len(calls),
        watch=lambda: looks.append(_describe(device, deadline)),
    )
    conditions = _conditions(looks, cores, pinned=pinned, seconds=time.monotonic() - start)
    return Found(timings, conditions, before.words.get("device", ""), "executorch")


def _burst(call: Call, calls: int) -> float:
    assert isinstance(call, Execution)
    return call.seconds(calls)


def _describe(device: Transport, deadline: Deadline) -> Device:
    cores, words = {}, {}
    for line in device.run(["sh", "-c", DESCRIBE], seconds=deadline.left()).out.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "core":
            number, most, now = map(int, value.split())
            cores[number] = most, now
        elif value:
            words[key] = value
    return Device(cores, words)


def _conditions(looks: list[Device], cores: tuple[int, ...], *, pinned: bool, seconds: float) -> Conditions:
    load = looks[-1].words.get("load", "").split()
    mhz = [frequency for look in looks for frequency in look.mhz(cores)]
    return Conditions(
        cores=cores,
        pinned=pinned,
        seconds=seconds,
        load_average=float(load[0]) if load else None,
        runnable=None,
        others_share=None,
        stolen_share=None,
        waited_share=None,
        slowest_mhz=min(mhz, default=None),
        fastest_mhz=max(mhz, default=None),
        governor=looks[-1].words.get("governor"),
    )


def _told(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:300] if lines else "no message"
