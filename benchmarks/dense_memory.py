"""Memory and time of a training step of dense blocks: plain, memory-efficient, and torchvision's of both kinds.

    python benchmarks/dense_memory.py --out benchmarks

Forward and backward, float32, one thread. Memory is the most that a step has allocated at any time, as torch's profiler
counts it, beyond parameters, their gradients and the input; it is exact. Time is a ratio to our plain blocks, the
median over interleaved rounds of each round's ratio. Cases: one block of DenseNet-BC-100 (16 layers, k = 12), its three
blocks with their transitions, and one block of 100 layers. Writes `DATE_dense_memory.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write
from torch import Tensor, nn
from torchvision.models.densenet import _DenseBlock, _Transition

from convsmith.deploy import clock
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
        compared = ratios(found[form], found["plain"])
        rows.append(
            {
                "case": case,
                "form": form,
                "batch": batch,
                "input_size": input_size,
                "peak_bytes": peaks[form],
                "memory_ratio": round(peaks[form] / peaks["plain"], 4),
                "time_ratio": median(compared, 4),
                "time_ratio_quartiles": quartiles(compared),
                "step_ms": round(found[form].median_ms, 3),
                "rounds": len(compared),
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__, rounds=15, seconds=240)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--input-size", type=int, default=32)
    given = parser.parse_args()
    rows = (row for case in CASES for row in compare(case, given.batch, given.input_size, given.rounds, given.seconds))
    shown = ("case", "form", "memory_ratio", "time_ratio")
    write(given.out, "dense_memory", rows, one_thread_keeping_memory(), shown=shown)


if __name__ == "__main__":
    main()
