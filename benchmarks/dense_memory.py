"""Memory and time of a training step of dense blocks: plain, memory-efficient, and torchvision's of both kinds.

    python benchmarks/dense_memory.py --out benchmarks

Forward and backward, float32, one thread. Memory is the most that a step has allocated at any time, as torch's profiler
counts it, beyond parameters, their gradients and the input; it is exact. Time is a ratio to our plain blocks, the
median over interleaved rounds of each round's ratio. Cases: one block of DenseNet-BC-100 (16 layers, k = 12), its three
blocks with their transitions, and one block of 100 layers. Writes `DATE_dense_memory.csv`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.densenet import _DenseBlock, _Transition

from convsmith.deploy import clock
from convsmith.deploy.allocator import keep_memory
from convsmith.measure.device import processor_name
from convsmith.nn import DenseBlock, Transition

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.nn.peak_memory import peak_bytes

GROWTH_RATE, CHANNELS = 12, 24
CASES = {"one block of 16 layers": (16,), "three blocks of 16 layers": (16, 16, 16), "one block of 100 layers": (100,)}


def ours(depths: tuple[int, ...], memory_efficient: bool) -> nn.Module:
    blocks, channels = nn.Sequential(), CHANNELS
    for i, depth in enumerate(depths):
        if i:
            blocks.append(transition := Transition(channels))
            channels = transition.out_channels
        block = DenseBlock(channels, num_layers=depth, growth_rate=GROWTH_RATE, memory_efficient=memory_efficient)
        blocks.append(block)
        channels = block.out_channels
    return blocks


def torchvisions(depths: tuple[int, ...], memory_efficient: bool) -> nn.Module:
    blocks, channels = nn.Sequential(), CHANNELS
    for i, depth in enumerate(depths):
        if i:
            blocks.append(_Transition(channels, channels // 2))
            channels //= 2
        blocks.append(_DenseBlock(depth, channels, 4, GROWTH_RATE, 0.0, memory_efficient))
        channels += depth * GROWTH_RATE
    return blocks


FORMS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "plain": partial(ours, memory_efficient=False),
    "memory-efficient": partial(ours, memory_efficient=True),
    "torchvision": partial(torchvisions, memory_efficient=False),
    "torchvision memory-efficient": partial(torchvisions, memory_efficient=True),
}


def step(network: nn.Module, x: Tensor) -> None:
    x.grad = None
    network(x).sum().backward()


def compare(case: str, batch: int, input_size: int, rounds: int, seconds: float) -> list[dict[str, object]]:
    x = torch.randn(batch, CHANNELS, input_size, input_size, requires_grad=True)
    steps = {form: partial(step, build(CASES[case]).train(), x) for form, build in FORMS.items()}
    for call in steps.values():
        call()  # the gradients of parameters are there from here on
    peaks = {form: peak_bytes(call) for form, call in steps.items()}
    with clock.threads(1):
        found = clock.measure(steps, rounds=rounds, warmup=1, budget_seconds=seconds)
    rows: list[dict[str, object]] = []
    for form in FORMS:
        pairs = zip(found[form].samples_ms, found["plain"].samples_ms, strict=True)
        ratios = sorted(a / b for a, b in pairs)
        rows.append(
            {
                "case": case,
                "form": form,
                "batch": batch,
                "input_size": input_size,
                "peak_bytes": peaks[form],
                "memory_ratio": round(peaks[form] / peaks["plain"], 4),
                "time_ratio": round(statistics.median(ratios), 4),
                "time_ratio_quartiles": f"{ratios[len(ratios) // 4]:.3f}-{ratios[3 * len(ratios) // 4]:.3f}",
                "step_ms": round(found[form].median_ms, 3),
                "rounds": len(ratios),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=240, help="after which no round of a case starts")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--input-size", type=int, default=32)
    arguments = parser.parse_args()
    machine = {"allocator": "keeps memory" if keep_memory() else "as it is", "machine": processor_name(), "threads": 1}
    machine |= {"torch": torch.__version__, "date": date.today().isoformat()}
    rows = []
    for case in CASES:
        for row in compare(case, arguments.batch, arguments.input_size, arguments.rounds, arguments.seconds):
            rows.append(row | machine)
            print({key: row[key] for key in ("case", "form", "memory_ratio", "time_ratio")}, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / f"{date.today().isoformat()}_dense_memory.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
