"""Channel shuffle against a plain copy, and ShuffleNet deployed without its shuffles against the one that has them.

    python benchmarks/shuffle_speed.py --out benchmarks

Operator: `ChannelShuffle` forward and backward, over `x.clone()` of the same map (copy), over view - transpose -
reshape (naive) and over `torch.nn.functional.channel_shuffle` (torch), in both memory formats; backward the copy is the
gradient of `-x`, one pass over memory that autograd calls, as it calls ours. Network: the folded network rewired by
`unshuffle`, over the folded one, by eager and ONNX Runtime, batch 1 and 8 at 224 x 224. All on one thread in float32.
What is compared takes turns in one process; a ratio is the median over rounds of each round's ratio, below 1 where ours
is faster. The operators in C++ are built first, where there is a compiler (column `operators`). Writes
`DATE_shuffle_speed.csv`.

On the smallest map, which a copy takes 5 to 6 us for, forward takes 1.3 to 1.9 copies: a call of the block that moves
nothing takes 2.5 us, that of `x.clone()` 0.9 (1x120x1x1), and so 1.3 is the least. Of the 2.5, 0.8 are the call of an
`nn.Module`, 1.2 torch's dispatch and memory for the result, and 0.5 the questions whether someone follows the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import torch
from _table import arguments, measured, one_thread_keeping_memory, write
from torch import Tensor
from torch.nn import functional as F

import convsmith as cs
from convsmith.deploy import onnx
from convsmith.deploy.passes.fold import fold_norm
from convsmith.deploy.passes.shuffles import unshuffle
from convsmith.nn import build_operators

# Batch, channels, side: units of ShuffleNet v1 and v2, in cache and out of it; and a call that moves next to nothing.
CALL = (1, 120, 1)
SHAPES = ((1, 120, 28), (8, 240, 28), (8, 480, 14), (32, 240, 28))
GROUPS = (2, 3, 4, 8)
MORE_GROUPS = (5, 6, 10, 12)
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
NETWORKS = ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x2_0", "shufflenet_v1_g3")


def naive(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def backward(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Callable[[], object]:
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    return lambda: torch.autograd.grad(y, leaf, gradient, retain_graph=True)


def operator_rows(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for n, c, side in (CALL, *SHAPES):
        for layout, memory_format in FORMATS.items():
            x = torch.randn(n, c, side, side).to(memory_format=memory_format)
            gradient = torch.randn_like(x)
            for groups in GROUPS[:1] if side == 1 else sorted((*GROUPS, *MORE_GROUPS)):
                functions = {
                    "ours": cs.nn.ChannelShuffle(c, groups=groups),
                    "naive": partial(naive, groups=groups),
                    "torch": partial(F.channel_shuffle, groups=groups),
                }
                forward = {name: partial(function, x) for name, function in functions.items()}
                forward["copy"], functions["copy"] = x.clone, torch.neg
                back = {name: backward(function, x, gradient) for name, function in functions.items()}
                for direction, calls in (("forward", forward), ("backward", back)):
                    with torch.set_grad_enabled(direction == "backward"):
                        found = measured(calls, rounds, seconds)
                    case = f"{n}x{c}x{side}x{side} {layout} groups {groups} {direction}"
                    yield {"part": "operator", "case": case, **found}


def network_rows(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for name in NETWORKS:
        folded = fold_norm(cs.create_model(name))
        rewired = unshuffle(folded)
        for batch in (1, 8):
            x = torch.randn(batch, 3, 224, 224)
            sessions = [onnx.load(onnx.convert(network, x, {}), threads=1) for network in (rewired, folded)]
            for backend, (ours, shuffled) in (("eager", (rewired, folded)), ("onnxruntime", sessions)):
                with torch.inference_mode():
                    found = measured({"ours": partial(ours, x), "shuffled": partial(shuffled, x)}, rounds, seconds)
                yield {"part": "network", "case": f"{name} batch {batch} {backend}", **found}


def main() -> None:
    parser = arguments(__doc__, rounds=25, seconds=20)
    parser.add_argument("--parts", nargs="*", default=["operator", "network"], choices=["operator", "network"])
    given = parser.parse_args()
    machine = {**one_thread_keeping_memory(), "operators": build_operators()}
    over = [f"over_{name}" for name in ("copy", "naive", "torch", "shuffled")]
    shown = ["part", "case", "ours_ms", *over]
    rows = chain.from_iterable(
        (operator_rows if part == "operator" else network_rows)(given.rounds, given.seconds) for part in given.parts
    )
    write(given.out, "shuffle_speed", rows, machine, columns=[*shown, *(f"{o}_quartiles" for o in over)], shown=shown)


if __name__ == "__main__":
    main()
