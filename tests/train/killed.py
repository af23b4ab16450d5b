"""A script for test_kill.py: under FOLDER, for each way to be killed, a training that is killed and then resumed.

The processes are forked from one that has imported torch and run nothing, because each import takes seconds.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the first optimiser of a process imports it
from torch import nn

from convsmith.arch import writing
from convsmith.train import fit
from tests.train.tiny import RECIPE, TASK, noisy_network, tiny_data, tiny_network

KILLED = {
    "in_the_first_epoch": lambda: kill_in_step(2),
    "in_the_third_epoch": lambda: kill_in_step(8),
    "writing_a_checkpoint": lambda: kill_before_renaming("epoch_0002.pt"),
    "writing_the_result": lambda: kill_before_renaming("metrics.json"),
    "from_outside": lambda: None,
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_step(number):
    steps = []

    def count(module, inputs):
        if module.training and isinstance(module, nn.BatchNorm2d):
            steps.append(id(module))
            if steps.count(steps[0]) == number:
                die()

    nn.modules.module.register_module_forward_pre_hook(count)


def kill_before_renaming(name):
    rename = os.replace
    writing.os.replace = lambda a, b: die() if Path(b).name == name else rename(a, b)


def start(make, run_dir, seed, way=None):
    """Train in a process of its own; the process's number."""
    process = os.fork()
    if process:
        return process
    try:
        if way:
            KILLED[way]()
        # From outside, it must be there to be killed: it never gets behind its last epoch.
        pauses = [0.2] * (RECIPE.epochs - 1) + [600] if way == "from_outside" else [0] * RECIPE.epochs
        fit(make(seed), TASK, tiny_data(), RECIPE, run_dir=run_dir, on_epoch=lambda *_: time.sleep(pauses.pop(0)))
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def main(folder):
    torch.set_num_threads(1)
    for make in (tiny_network, noisy_network):
        for way in KILLED:
            run_dir = folder / f"{make.__name__}_{way}"
            process = start(make, run_dir, 0, way)
            while way == "from_outside" and not (run_dir / "checkpoints" / "epoch_0002.pt").exists():
                time.sleep(0.005)
            if way == "from_outside":
                os.kill(process, signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            assert os.WIFSIGNALED(status), f"{way}: the process was not killed"
            assert not (run_dir / "metrics.json").exists()
            status = os.waitpid(start(make, run_dir, 1), 0)[1]
            assert status == 0, f"{way}: the resumed training failed"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
