"""Networks compiled by PyTorch and lowered to ExecuTorch, against eager and ONNX Runtime.

    python benchmarks/runtimes_speed.py --out benchmarks

Each prepared by `deploy.prepare` in float32 for one thread, once for both batch sizes, and checked against eager. All
take turns in one process at 224 x 224; a ratio is the median over rounds of each round's ratio, below 1 where the back
end is faster. `prepare_s` counts building and checking in this process's order: the first network also pays for the
imports, and PyTorch's compiler keeps what it has compiled before in its cache on disk.
Writes `DATE_runtimes_speed.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write

import convsmith as cs
from convsmith import deploy
from convsmith.deploy import clock

NAMES = ("resnet50", "mobilenet_v2", "shufflenet_v2_x1_0")
BACKENDS = ("eager", "onnxruntime", "compile", "executorch")


def compare(name: str, rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    torch.manual_seed(0)
    network = cs.create_model(name).eval()
    runs, prepared_s = {}, {}
    for backend in BACKENDS:
        start = time.perf_counter()
        runs[backend] = deploy.prepare(network, torch.randn(2, 3, 224, 224), backend=backend, threads=1)
        prepared_s[backend] = time.perf_counter() - start
    for batch in (1, 8):
        x = torch.randn(batch, 3, 224, 224)
        calls = {backend: partial(run, x) for backend, run in runs.items()}
        found = clock.measure(calls, rounds=rounds, budget_seconds=seconds)
        for backend in BACKENDS:
            row: dict[str, object] = {
                "network": name,
                "batch": batch,
                "backend": backend,
                "ms": round(found[backend].median_ms, 3),
            }
            for other in ("eager", "onnxruntime"):
                compared = ratios(found[backend], found[other])
                row |= {f"over_{other}": median(compared), f"over_{other}_quartiles": quartiles(compared)}
            yield {**row, "prepare_s": round(prepared_s[backend], 1), "rounds": len(found[backend].samples_ms)}


def main() -> None:
    parser = arguments(__doc__, rounds=25, seconds=25)
    parser.add_argument("--names", nargs="*", default=NAMES)
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    rows = (row for name in given.names for row in compare(name, given.rounds, given.seconds))
    write(given.out, "runtimes_speed", rows, machine, shown=("network", "batch", "backend", "ms", "over_eager"))


if __name__ == "__main__":
    main()
