"""How long predicting the latency of one architecture takes, of networks that the process never met.

    python benchmarks/predictor_speed.py --calibration cpu.safetensors --out benchmarks    # or several files

A calibration of either back end, as `convsmith calibrate` or `predictor_truth.py calibrate` make it, or several. In
each batch `LatencyPredictor.predict_ms` is given `--networks` members of a search space at once, as a search would,
none of which was sampled before. `first_ms` is of the first batch, whose blocks the process meets for the first time,
`median_ms` of all `--rounds` batches, the later of which have some blocks in common with those before. Both are per
network, on one thread; each space and calibration has a process of its own, in which one other network pays for the
imports. Writes `DATE_predictor_speed.csv`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch
from _table import arguments, median, write

import convsmith as cs
from convsmith.measure import LatencyPredictor
from convsmith.measure.device import processor_name
from convsmith.search import spaces

SIZES = {"mobile": 224, "stages": 32}
FIRST_SEED = 900_000


def row(path: Path, space: str, networks: int, batches: int) -> dict[str, object]:
    """What batches of different members take, in a process that met none of their blocks."""
    torch.set_num_threads(1)
    predictor, size = LatencyPredictor.load(path), SIZES[space]
    tree = spaces.get(space, num_classes=10, in_channels=3, input_size=size)
    predictor.predict_ms(cs.zoo.get("resnet18"), (1, 3, 224, 224), unknown="ignore")
    taken = []
    for first in range(FIRST_SEED, FIRST_SEED + networks * batches, networks):
        members = [tree.sample(Random(seed)) for seed in range(first, first + networks)]
        start = time.perf_counter()
        predictor.predict_ms(members, (1, 3, size, size), unknown="ignore")
        taken.append(1e3 * (time.perf_counter() - start) / networks)
    return {
        "backend": predictor.about.backend,
        "space": space,
        "input": size,
        "networks": networks,
        "batches": batches,
        "first_ms": round(taken[0], 2),
        "median_ms": median(taken, 2),
        "slowest_ms": round(max(taken), 2),
    }


def rows(paths: Sequence[Path], networks: int, batches: int) -> Iterator[dict[str, object]]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for path, space in itertools.product(paths, SIZES):
            yield pool.submit(row, path, space, networks, batches).result()


def main() -> None:
    parser = arguments(__doc__, rounds=8, seconds=0)
    parser.add_argument("--calibration", type=Path, nargs="+", required=True, help="one file, or one of each back end")
    parser.add_argument("--networks", type=int, default=64, help="of one batch")
    given = parser.parse_args()
    machine = {"machine": processor_name(), "threads": 1, "torch": torch.__version__}
    write(given.out, "predictor_speed", rows(given.calibration, given.networks, given.rounds), machine)


if __name__ == "__main__":
    main()
