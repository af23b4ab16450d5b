"""How long a search waits for the cost of a candidate whose blocks were seen before, in whatever order.

    python benchmarks/cost_of_candidates.py --out benchmarks

Blocks are counted once and remembered by their spec and the shapes in front of them. Candidates are sampled from a
space, counted once to warm the memory, and then other candidates are counted, all of whose blocks are known. Also the
classic networks, counted again. One thread; medians over candidates. Writes `DATE_cost_of_candidates.csv`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from random import Random

import torch

import convsmith as cs
from convsmith.measure.device import processor_name
from convsmith.search import spaces


def milliseconds(architectures: Sequence[cs.Architecture], shape: tuple[int, int, int, int]) -> dict[str, float]:
    for architecture in architectures:
        cs.measure.cost(architecture, shape)
    samples = []
    for architecture in reversed(architectures):
        start = time.perf_counter()
        cs.measure.cost(architecture, shape)
        samples.append(1e3 * (time.perf_counter() - start))
    return {"median_ms": round(statistics.median(samples), 4), "largest_ms": round(max(samples), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name, size in (("stages", 32), ("mobile", 224)):
        space = spaces.get(name, num_classes=10, in_channels=3, input_size=size)
        sampled = [space.sample(Random(seed)) for seed in range(100)]
        rows.append({"what": f"100 samples of {name}", **milliseconds(sampled, (1, 3, size, size))})
    classics = ("resnet18", "mobilenet_v2", "densenet121", "resnet152", "nasnet_a_mobile")
    rows += [{"what": name, **milliseconds([cs.zoo.get(name)] * 20, (1, 3, 224, 224))} for name in classics]
    for row in rows:
        row |= {"machine": processor_name(), "torch": torch.__version__, "date": date.today().isoformat()}
        print({key: row[key] for key in ("what", "median_ms", "largest_ms")})
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / f"{date.today().isoformat()}_cost_of_candidates.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
