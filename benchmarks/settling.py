"""How many passes it takes until a network that comes behind others is at its speed.

    python benchmarks/settling.py --rounds 14 --out benchmarks

Networks of 0.2 to 40 ms are visited in turns, forwards and backwards, and run so many times in a row at each visit. The
columns say what the first, second and further passes take as multiples of the median of passes 9 to 14 of the same
visit: the median over the visits, and in the last row of each back end over its networks. `deploy.rounds` and the
predictor leave out as many passes before each sample as `settling_calls` says. One thread, batch 1.
Writes `DATE_settling.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

import torch
from _table import arguments, one_thread_keeping_memory, write

import convsmith as cs
from convsmith.deploy import backends
from convsmith.deploy.rounds import burst, no_garbage_collection, settling_calls

NETWORKS = {
    "shufflenet_v2_x0_5": 96,
    "mobilenet_v2_x0_35": 96,
    "shufflenet_v2_x1_0": 160,
    "condensenet_86_cifar": 32,
    "mobilenet_v2": 160,
    "mobilenet_v1": 224,
    "googlenet_paper": 224,
    "resnet18": 224,
    "resnet50": 224,
}
PASSES, SETTLED, SHOWN = 14, 8, 10


def rows(rounds: int) -> Iterator[dict[str, object]]:
    for backend in ("onnxruntime", "openvino"):
        if backend not in backends.installed():
            continue
        runs = {}
        for name, size in NETWORKS.items():
            example = torch.randn(1, 3, size, size)
            network = cs.create_model(name).eval()
            runs[f"{name} at {size}"] = (cs.deploy.prepare(network, example, backend=backend, threads=1), example)
        visits: dict[str, list[list[float]]] = {name: [] for name in runs}
        with no_garbage_collection():
            for turn in range(rounds):
                for name in list(runs)[:: 1 if turn % 2 else -1]:
                    run, example = runs[name]
                    visits[name].append([burst(partial(run, example), 1) for _ in range(PASSES)])
        relative = {}
        for name, seconds in visits.items():
            settled = [median(own[SETTLED:]) for own in seconds]
            relative[name] = [
                median(own[place] / base for own, base in zip(seconds, settled, strict=True)) for place in range(SHOWN)
            ]
            own_ms = 1e3 * median(settled)
            yield _row(backend, name, relative[name], round(own_ms, 3), settling_calls(median(settled)))
        yield _row(backend, "median", [median(own) for own in zip(*relative.values(), strict=True)], "", "")


def _row(backend: str, what: str, passes: list[float], ms: object, left_out: object) -> dict[str, object]:
    numbered = {f"pass_{place}": round(own, 3) for place, own in enumerate(passes, start=1)}
    return {"backend": backend, "what": what, "settled_ms": ms, "left_out": left_out, **numbered}


def main() -> None:
    options = arguments(__doc__, rounds=14, seconds=0.0).parse_args()
    machine = one_thread_keeping_memory()
    with cs.deploy.clock.threads(1):
        write(options.out, "settling", rows(options.rounds), machine)


if __name__ == "__main__":
    main()
