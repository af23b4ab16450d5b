"""Where the time of ShuffleNet v1 (g = 3) and MobileNet v2 goes: the pies of ShuffleNet v2's Fig. 2, on this machine.

    python benchmarks/profile_pies.py --out benchmarks

`measure.profile` at 224 x 224, one thread, float32: the share of each category in the time of one pass, and what is in
no operator. Every back end that can be profiled and is installed; the allocator keeps activations. The paper's and the
lecture's pies (GPU and ARM) are pictures without figures, so none stand beside ours. `of_peak` is the network's rate
over the device's best. Writes `DATE_profile_pies.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator

from _table import arguments, one_thread_keeping_memory, write

import convsmith as cs
from convsmith.deploy import backends
from convsmith.measure.profile import PROFILERS

NETWORKS = ("shufflenet_v1_g3", "mobilenet_v2")


def pie(name: str, backend: str, batch: int, rounds: int, seconds: float) -> dict[str, object]:
    shape = (batch, 3, 224, 224)
    found = cs.measure.profile(
        cs.create_model(name), shape, backend=backend, passes=rounds, budget_seconds=seconds, threads=1
    )
    rate = sum(step.macs for step in found.steps) / found.total_ms / 1e6
    return {
        "network": name,
        "backend": backend,
        "batch": batch,
        "latency_ms": round(found.latency_ms, 3),
        "profiled_ms": round(found.profiled_ms, 3),
        "operators": len(found.steps),
        **{category: round(share.share, 4) for category, share in found.by_category.items()},
        "of_peak": round(rate / found.roofs.gmacs_per_s, 3),
        "peak_gmacs_per_s": round(found.roofs.gmacs_per_s, 1),
    }


def rows(batches: list[int], rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for name in NETWORKS:
        for batch in batches:
            for backend in (own for own in backends.installed() if own in PROFILERS):
                yield pie(name, backend, batch, rounds, seconds)


def main() -> None:
    parser = arguments(__doc__, rounds=60, seconds=8)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    write(given.out, "profile_pies", rows(given.batches, given.rounds, given.seconds), machine)


if __name__ == "__main__":
    main()
