"""The lecture's detection table: five backbones of 300 M and 500 M at 800 x 1200, batch 4, our speed beside its.

    python benchmarks/detection_table.py --out benchmarks

Measured here is the backbone alone, on one thread of this CPU, float32; the lecture's figures are Light-Head R-CNN with
that backbone on a GPU, in batches of four per second. Compare the order of the rows, not the figures. `relative` is the
speed over Xception's of the same size; all networks of a size take turns.

Which network stands for a row: the member of the family that the zoo's builder gives at the width multiplier whose
cost at 224 x 224 is nearest to 300 M or 500 M (ShuffleNet v1 with three groups, ShuffleNet v2 as in the authors' code).
Interpretations are "Xception", whose block is not published (see `zoo/xception_145m.py`), and v2*, described by one
sentence, whose lecture row is not that of the paper. Writes `DATE_detection_table.csv`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write

import convsmith as cs
from convsmith.deploy import backends, clock
from convsmith.zoo.mobilenet_v2 import mobilenet_v2
from convsmith.zoo.shufflenet_v1 import shufflenet_v1
from convsmith.zoo.shufflenet_v2 import X1_5, X2_0, shufflenet_v2
from convsmith.zoo.shufflenet_v2_deep import shufflenet_v2_star
from convsmith.zoo.xception_145m import xception_145m

SHAPE = (4, 3, 800, 1200)
BACKENDS = ("eager", "onnxruntime", "openvino")


def xception(width_multiplier: float) -> cs.Architecture:
    widths = (144, 288, 576)
    return xception_145m(widths=tuple(round(width * width_multiplier) for width in widths))


# fmt: off
ROWS = {  # the lecture's batches per second on a GPU
    "300M": {
        "Xception":       (partial(xception, 1.5),                                25.3, "interpretation of the block"),
        "ShuffleNet v1":  (partial(shufflenet_v1, groups=3, width_multiplier=1.5), 19.0, ""),
        "MobileNet v2":   (partial(mobilenet_v2, width_multiplier=1.0),           23.5, ""),
        "ShuffleNet v2":  (partial(shufflenet_v2, widths=X1_5, split="paper"),    27.3, ""),
        "ShuffleNet v2*": (partial(shufflenet_v2_star, widths=X1_5),              21.3, "interpretation of the unit"),
    },
    "500M": {
        "Xception":       (partial(xception, 2.0),                                20.8, "interpretation of the block"),
        "ShuffleNet v1":  (partial(shufflenet_v1, groups=3, width_multiplier=2.0), 15.0, ""),
        "MobileNet v2":   (partial(mobilenet_v2, width_multiplier=1.4),           18.0, ""),
        "ShuffleNet v2":  (partial(shufflenet_v2, widths=X2_0, split="paper"),    21.8, ""),
        "ShuffleNet v2*": (partial(shufflenet_v2_star, widths=X2_0),              16.5, "interpretation of the unit"),
    },
}
# fmt: on


def compare(size: str, backend: str, rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    runs = {}
    for name, (architecture, _, _) in ROWS[size].items():
        torch.manual_seed(0)
        network = cs.create_model(architecture()).eval()
        runs[name] = partial(backends.get(backend).prepare(network, x, 1, "float32"), x)
    found = clock.measure(runs, rounds=rounds, warmup=1, budget_seconds=seconds)
    del runs
    gc.collect()
    for name, timing in found.items():
        architecture, lecture, note = ROWS[size][name]
        cost, compared = cs.measure.cost(architecture(), SHAPE), ratios(found["Xception"], timing)
        yield {
            "network": name,
            "size": size,
            "backend": backend,
            "macs_at_224": cs.measure.cost(architecture(), (1, 3, 224, 224)).macs,
            "gmacs_per_image": round(cost.macs / SHAPE[0] / 1e9, 3),
            "images_per_s": round(1e3 * SHAPE[0] / timing.median_ms, 3),
            "gmacs_per_s": round(cost.macs / timing.median_ms / 1e6, 1),
            "relative": median(compared),
            "relative_quartiles": quartiles(compared),
            "lecture_batches_per_s": lecture,
            "lecture_relative": round(lecture / ROWS[size]["Xception"][1], 3),
            "rounds": len(compared),
            "note": note,
        }


def main() -> None:
    parser = arguments(__doc__, rounds=7, seconds=40)
    parser.add_argument("--backends", nargs="*", default=[name for name in BACKENDS if name in backends.installed()])
    parser.add_argument("--sizes", nargs="*", default=list(ROWS), choices=list(ROWS))
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    rows = (
        row
        for backend in given.backends
        for size in given.sizes
        for row in compare(size, backend, given.rounds, given.seconds)
    )
    shown = ("network", "size", "backend", "macs_at_224", "images_per_s", "relative", "lecture_relative")
    write(given.out, "detection_table", rows, machine, shown=shown)


if __name__ == "__main__":
    main()
