"""What it takes to prepare a network for each back end, and how fast it then is beside eager.

    python benchmarks/backends_speed.py --out benchmarks [--batches 1 8] [--names resnet18 timm:convnext_tiny ...]

Ten networks of ours and timm's at their own sizes, on one thread, in float32 and bfloat16. `prepare_s` is the time of
what a back end does alone (folding, conversion, compiling), `compare_s` that of the comparison with eager at three
batch sizes, which `deploy.prepare` adds. What runs takes turns in one process; `over_eager` is the median over rounds
of each round's ratio to eager in float32, below 1 where the back end is faster. Back ends that take many seconds to
prepare are left out. Writes `DATE_backends_speed.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write
from torch import nn

import convsmith as cs
from convsmith.deploy import backends, clock
from convsmith.deploy.agreement import Reference, eager_run
from convsmith.deploy.snapshot import snapshot

NAMES = (
    *("mobilenet_v2", "shufflenet_v2_x1_0", "resnet50", "densenet121", "xception"),
    *("timm:mobilenetv3_large_100", "timm:efficientnet_b0", "timm:convnext_tiny"),
    *("timm:regnety_016", "timm:ghostnet_100"),
)  # fmt: skip
PRECISIONS = ("float32", "bfloat16")
COLUMNS = ("network", "batch", "backend", "precision", "ms", "over_eager", "over_eager_quartiles", "difference")


def network_of(name: str) -> tuple[nn.Module, int]:
    """A network in eval mode, and the side of its input."""
    if name.startswith("timm:"):
        import timm

        made = timm.create_model(name.removeprefix("timm:"))
        return made.eval(), made.default_cfg["input_size"][-1]
    architecture = cs.zoo.get(name)
    return cs.create_model(architecture).eval(), architecture.reference.input_size if architecture.reference else 224


def rows(names: Sequence[str], batches: Sequence[int], rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for name in names:
        network, side = network_of(name)
        for batch in batches:
            x = torch.randn(batch, 3, side, side)
            reference = Reference(eager_run(network), x)
            runs, facts = {}, {}
            for backend in backends.installed(thorough=False):
                for precision in PRECISIONS:
                    if precision not in backends.get(backend).precisions:
                        continue
                    start = time.perf_counter()
                    run = backends.get(backend).prepare(snapshot(network), x, 1, precision)
                    made = time.perf_counter()
                    difference = reference.difference(run)
                    runs[backend, precision] = partial(run, x)
                    facts[backend, precision] = {
                        "prepare_s": round(made - start, 2),
                        "compare_s": round(time.perf_counter() - made, 2),
                        "difference": f"{difference:.1e}",
                    }
            timings = clock.measure(
                {"/".join(key): run for key, run in runs.items()}, rounds=rounds, budget_seconds=seconds
            )
            for key in runs:
                compared = ratios(timings["/".join(key)], timings["eager/float32"])
                yield {
                    "network": name,
                    "batch": batch,
                    "backend": key[0],
                    "precision": key[1],
                    "ms": round(timings["/".join(key)].median_ms, 3),
                    "over_eager": median(compared),
                    "over_eager_quartiles": quartiles(compared),
                    **facts[key],
                }


def main() -> None:
    parser = arguments(__doc__, rounds=9, seconds=5)
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--batches", nargs="*", type=int, default=(1, 8))
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    # Not of a network's preparation: what the packages import when they are first used.
    for name in backends.installed(thorough=False):
        backends.get(name).prepare(nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 8, 8), 1, "float32")
    found = rows(given.names, given.batches, given.rounds, given.seconds)
    write(given.out, "backends_speed", found, machine, columns=[*COLUMNS, "prepare_s", "compare_s"])


if __name__ == "__main__":
    main()
