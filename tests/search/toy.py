"""Small spaces and evaluations without training, importable by the processes that the tests start."""

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import convsmith as cs
from convsmith.nn import ConvNormAct

ROOT = Path(__file__).parents[2]
WIDTHS, KERNELS = (8, 16, 24, 32), (1, 3, 5, 7)


def toy_space(blocks=3):
    """16**blocks networks."""
    return cs.Architecture(
        name="toy",
        stages=[[cs.spec(ConvNormAct, cs.choice(*WIDTHS), kernel_size=cs.choice(*KERNELS)) for _ in range(blocks)]],
    )


def widths(architecture):
    return [block.get("out_channels") for block in architecture.stages[0]]


def kernels(architecture):
    return [block.get("kernel_size") for block in architecture.stages[0]]


def evaluate(architecture, *, seed, report):
    """Wide is good, large kernels are slow, and a little depends on the seed."""
    report(0, 0.5)
    return {"score": sum(widths(architecture)) + seed / 2**31, "cost": float(sum(kernels(architecture)))}


def logged(architecture, *, seed, report):
    """`evaluate`, noted in a file when it starts and when it ends, and not at once."""
    log(f"start {seed}")
    if os.environ.get("TOY_MOST") == str(len(lines(Path(os.environ["TOY_LOG"]), "start"))):
        time.sleep(600)  # to be killed
    time.sleep(float(os.environ.get("TOY_SECONDS", "0.02")))
    log(f"end {seed}")
    return evaluate(architecture, seed=seed, report=report)


def log(line):
    with open(os.environ["TOY_LOG"], "a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def troubled(architecture, *, seed, report):
    """What the first width says: 8 crashes, 16 hangs, 24 raises, 32 works."""
    width = widths(architecture)[0]
    if width == 8:
        ctypes.string_at(0)
    if width == 16:
        report(1, 0.25)
        # A child of the worker, which has to go with it.
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        log(f"child {child.pid}")
        time.sleep(600)
    if width == 24:
        raise ZeroDivisionError("no luck")
    return evaluate(architecture, seed=seed, report=report)


def threads(architecture, *, seed, report):
    import torch

    return {"score": float(torch.get_num_threads()), "pid": float(os.getpid()), "parent": float(os.getppid())}


@dataclass
class Scripted:
    """Proposes a fixed list, one after the other, whatever it is asked for."""

    script: list = field(default_factory=list)
    asked: int = field(default=0, init=False)

    def ask(self, space, history, rng):
        self.asked += 1
        return dict(self.script[min(self.asked, len(self.script)) - 1])


def decisions(*indices):
    return {f"stages.0.{i // 2}.{('out_channels', 'kernel_size')[i % 2]}": index for i, index in enumerate(indices)}


def start(code, log):
    """An interpreter of its own that runs the code, in a session of its own, noting evaluations in the log."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOY_LOG": str(log)}
    # A test run in the background of a shell ignores SIGINT, and so would its children.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT, start_new_session=True)


def wait_for(condition, seconds=60.0):
    """Poll until the condition holds; a machine may be slow, so there is much patience before this fails."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def alive(pid):
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lines(log, word):
    """What follows a word in the lines of the log that begin with it."""
    return [line.split()[1] for line in log.read_text().splitlines() if line.startswith(word)] if log.exists() else []


def hanging(architecture, *, seed, report):
    log(f"pid {os.getpid()}")
    time.sleep(600)


def run_script(path, log):
    """Run a script to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOY_LOG": str(log)}
    return subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=False)
