"""Forward time of the zoo's networks over that of the same networks of torchvision, timm and pytorchcv.

    python benchmarks/zoo_speed.py --out benchmarks            # a member of each family
    python benchmarks/zoo_speed.py --names '*'   # all that have a peer: some hours

Eager, float32, one thread, eval mode, batch 1 and 8 at the network's own input size, weights and images in both
layouts. Ours and the peer's take turns in one process; the ratio is the median over rounds of each round's ratio, so a
slow minute meets both. The allocator is told to keep activations, for both sides: left alone, it moves the ratio by
several per cent from process to process. Writes `DATE_zoo_speed.csv`. A ratio below 1 means that ours is faster.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write

import convsmith as cs
from convsmith.deploy import clock

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.zoo.peers import build_peer, has_peer

NAMES = (
    *("resnet18", "resnet50", "mobilenet_v2", "shufflenet_v1_g3", "shufflenet_v2_x1_0", "densenet121", "googlenet"),
    "nasnet_a_mobile",
)


LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def compare(name: str, batch: int, layout: str, rounds: int, seconds: float) -> dict[str, object]:
    variant = cs.zoo.variants()[name]
    x = torch.randn(batch, 3, variant.input_size, variant.input_size, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=LAYOUTS[layout])
    ours, peer = (
        network.to(memory_format=LAYOUTS[layout])
        for network in (cs.create_model(name).eval(), build_peer(variant).float())
    )
    with clock.threads(1), torch.inference_mode():
        found = clock.measure(
            {"ours": partial(ours, x), "peer": partial(peer, x)}, rounds=rounds, budget_seconds=seconds
        )
    compared = ratios(found["ours"], found["peer"])
    return {
        "network": name,
        "peer": variant.source,
        "batch": batch,
        "layout": layout,
        "ratio": median(compared, 4),
        "ratio_quartiles": quartiles(compared),
        "ours_ms": round(found["ours"].median_ms, 3),
        "peer_ms": round(found["peer"].median_ms, 3),
        "rounds": len(compared),
    }


def main() -> None:
    parser = arguments(__doc__, rounds=25, seconds=60)
    parser.add_argument("--names", nargs="*", help="globs; the default is a member of each family")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS), choices=LAYOUTS)
    given = parser.parse_args()
    names = [n for glob in given.names for n in cs.zoo.names(glob)] if given.names else list(NAMES)
    rows = (
        compare(name, batch, layout, given.rounds, given.seconds)
        for name in names
        for batch in (given.batches if has_peer(cs.zoo.variants()[name]) else ())
        for layout in given.layouts
    )
    shown = ("network", "batch", "layout", "ratio", "ratio_quartiles")
    kind = "zoo_speed_all" if given.names else "zoo_speed"
    written = write(given.out, kind, rows, one_thread_keeping_memory(), shown=shown)
    found = [float(str(row["ratio"])) for row in written]
    print(f"median {median(found)}, largest {max(found):.3f}")


if __name__ == "__main__":
    main()
