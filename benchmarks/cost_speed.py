"""Time of `measure.count` over that of a real forward pass, for eight networks of torchvision and timm.

    python benchmarks/cost_speed.py --out benchmarks
    python benchmarks/cost_speed.py --rounds 40 --names resnet50 nasnetalarge

Eager, float32, one thread, eval mode, batch 1. Counting and passing take turns in one process; `ratio` is the median
over rounds of each round's ratio, so a slow minute meets both. `first_ratio` is that of the first call in a fresh
process, by processor time: nothing is remembered from an earlier count. Below 1, counting is quicker than one pass.
Writes `DATE_MACHINE_cost_speed.csv`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import time
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch import nn

from convsmith.deploy import clock
from convsmith.measure import count
from convsmith.measure.device import processor_name

SIZES = {
    **dict.fromkeys(("resnet18", "resnet50", "mobilenet_v2", "shufflenet_v2_x1_0", "densenet121"), 224),
    **{"googlenet": 224, "efficientnet_b0": 224, "nasnetalarge": 331},
}


def build(name: str) -> nn.Module:
    if name == "nasnetalarge":
        import timm

        return timm.create_model(name).eval()
    import torchvision

    options = {"init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, **options).eval()


def first_call(name: str) -> dict[str, float]:
    network, x = build(name), torch.randn(1, 3, SIZES[name], SIZES[name])
    with clock.threads(1), torch.inference_mode():
        passes = []
        for _ in range(7):
            start = time.process_time()
            network(x)
            passes.append(time.process_time() - start)
        start = time.process_time()
        count(network, tuple(x.shape))
        counting = time.process_time() - start
    return {
        "first_ratio": round(counting / statistics.median(passes[1:]), 3),
        "first_count_ms": round(1e3 * counting, 2),
    }


def in_a_fresh_process(name: str, repeats: int = 3) -> dict[str, float]:
    command = [sys.executable, __file__, "--first", name]
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeats)]
    return sorted(found, key=lambda one: one["first_ratio"])[repeats // 2]


def compare(name: str, rounds: int) -> dict[str, object]:
    network, shape = build(name), (1, 3, SIZES[name], SIZES[name])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with clock.threads(1), torch.inference_mode():
        candidates = {"count": partial(count, network, shape), "forward": partial(network, x)}
        found = clock.measure(candidates, rounds=rounds, budget_seconds=60)
    ratios = sorted(a / b for a, b in zip(found["count"].samples_ms, found["forward"].samples_ms, strict=True))
    return {
        "network": name,
        "input_size": SIZES[name],
        "macs": count(network, shape).macs,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": f"{ratios[len(ratios) // 4]:.3f}-{ratios[3 * len(ratios) // 4]:.3f}",
        "count_ms": round(found["count"].median_ms, 2),
        "forward_ms": round(found["forward"].median_ms, 2),
        "rounds": len(ratios),
        **in_a_fresh_process(name),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--names", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--first", choices=list(SIZES), help="print the first call of this process only, as JSON")
    arguments = parser.parse_args()
    if arguments.first:
        print(json.dumps(first_call(arguments.first)))
        return
    machine = {"machine": processor_name(), "threads": 1, "torch": torch.__version__, "date": date.today().isoformat()}
    rows = []
    for name in arguments.names:
        rows.append(compare(name, arguments.rounds) | machine)
        print({key: rows[-1][key] for key in ("network", "ratio", "ratio_quartiles", "first_ratio")}, flush=True)
    for column in ("ratio", "first_ratio"):
        values = [float(str(row[column])) for row in rows]
        print(f"{column}: median {statistics.median(values):.3f}, largest {max(values):.3f}")
    slug = re.sub(r"[^a-z0-9]+", "-", processor_name().lower()).strip("-")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / f"{date.today().isoformat()}_{slug}_cost_speed.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
