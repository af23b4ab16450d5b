"""Forward time of the zoo's networks over that of the same networks of torchvision, timm and pytorchcv.

    python benchmarks/zoo_speed.py --out benchmarks            # a member of each family
    python benchmarks/zoo_speed.py --names '*'   # all that have a peer: some hours

Eager, float32, one thread, eval mode, batch 1 and 8 at the network's own input size. Ours and the peer's take turns in
one process; the ratio is the median over rounds of each round's ratio, so a slow minute meets both. The allocator is
told to keep activations, for both sides: left alone, it moves the ratio by several per cent from process to process.
Writes `DATE_zoo_speed.csv`. A ratio below 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from datetime import date
from functools import partial
from pathlib import Path

import torch

import convsmith as cs
from convsmith.deploy import clock
from convsmith.deploy.allocator import keep_memory
from convsmith.measure.device import processor_name

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.zoo.peers import build_peer, has_peer

NAMES = (
    *("resnet18", "resnet50", "mobilenet_v2", "shufflenet_v1_g3", "shufflenet_v2_x1_0", "densenet121", "googlenet"),
    "nasnet_a_mobile",
)


def compare(name: str, batch: int, rounds: int, seconds: float) -> dict[str, object]:
    variant = cs.zoo.variants()[name]
    x = torch.randn(batch, 3, variant.input_size, variant.input_size, generator=torch.Generator().manual_seed(0))
    ours, peer = cs.create_model(name).eval(), build_peer(variant).float()
    with clock.threads(1), torch.inference_mode():
        found = clock.measure(
            {"ours": partial(ours, x), "peer": partial(peer, x)}, rounds=rounds, budget_seconds=seconds
        )
    pairs = list(zip(found["ours"].samples_ms, found["peer"].samples_ms, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    return {
        "network": name,
        "peer": variant.source,
        "batch": batch,
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": f"{ratios[len(ratios) // 4]:.3f}-{ratios[3 * len(ratios) // 4]:.3f}",
        "ours_ms": round(found["ours"].median_ms, 3),
        "peer_ms": round(found["peer"].median_ms, 3),
        "rounds": len(pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--names", nargs="*", help="globs; the default is a member of each family")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60, help="after which no round of a network starts")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    arguments = parser.parse_args()
    names = [n for glob in arguments.names for n in cs.zoo.names(glob)] if arguments.names else list(NAMES)
    allocator = "keeps memory" if keep_memory() else "as it is"
    machine = {"machine": processor_name(), "allocator": allocator, "threads": 1, "torch": torch.__version__}
    machine["date"] = date.today().isoformat()
    rows: list[dict[str, object]] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    kind = "zoo_speed_all" if arguments.names else "zoo_speed"
    with open(arguments.out / f"{date.today().isoformat()}_{kind}.csv", "w", newline="") as file:
        for name in names:
            for batch in arguments.batches if has_peer(cs.zoo.variants()[name]) else ():
                rows.append(compare(name, batch, arguments.rounds, arguments.seconds) | machine)
                writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
                if len(rows) == 1:
                    writer.writeheader()
                writer.writerow(rows[-1])
                file.flush()  # a long run that is stopped keeps what it has measured
                print({key: rows[-1][key] for key in ("network", "batch", "ratio", "ratio_quartiles")}, flush=True)
    ratios = [float(str(row["ratio"])) for row in rows]
    print(f"median {statistics.median(ratios):.3f}, largest {max(ratios):.3f}")


if __name__ == "__main__":
    main()
