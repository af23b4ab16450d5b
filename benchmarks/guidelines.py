"""The four guidelines of ShuffleNet v2 (Ma et al. 2018, arXiv:1807.11164, Sec. 2), measured on this machine.

    python benchmarks/guidelines.py --out benchmarks

Ten blocks at 56 x 56, float32, one thread, as in the paper's Tables 1 to 4; all networks of a guideline have about the
same multiply-accumulates:

* G1: two 1 x 1 convolutions, c1 to c2 channels and back, at several ratios c1 : c2.
* G2: one 1 x 1 convolution, in several groups and as many channels as cost the same.
* G3: one, two or four 1 x 1 convolutions, in series or side by side and added.
* G4: a bottleneck (1 x 1, 3 x 3, 1 x 1) with and without ReLU and shortcut. The paper gives no width beyond c; here c
  is the inner width and 4 c the outer one, as in ResNet.

The networks of a guideline take turns; `relative` is the speed over that of the first one in the same rounds, `paper`
the same of the paper's GPU figures, of which our facts hold the two ends. Writes `DATE_guidelines.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.deploy import backends, clock

BLOCKS, SIDE = 10, 56
BACKENDS = ("eager", "onnxruntime", "openvino")


class Block(nn.Module):
    """The sum of paths, each a chain of 1 x 1 convolutions; or a bottleneck with what G4 takes away."""

    def __init__(self, *paths: nn.Module, shortcut: bool = False):
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y = self.paths[0](x)
        for path in self.paths[1:]:
            y = y + path(x)
        return y + x if self.shortcut else y


def conv(c1: int, c2: int, kernel_size: int = 1, groups: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(c1, c2, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # as default values would fade over twenty layers
    return layer


def there_and_back(c1: int, c2: int) -> Block:
    return Block(nn.Sequential(conv(c1, c2), conv(c2, c1)))


def grouped(groups: int, channels: int) -> Block:
    return Block(conv(channels, channels, groups=groups))


def series(count: int, channels: int) -> Block:
    return Block(nn.Sequential(*(conv(channels, channels) for _ in range(count))))


def parallel(count: int, channels: int) -> Block:
    return Block(*(conv(channels, channels) for _ in range(count)))


def bottleneck(c: int, *, relu: bool, shortcut: bool) -> Block:
    acts = [nn.ReLU() if relu else nn.Identity() for _ in range(3)]
    convs = [conv(4 * c, c), conv(c, c, 3), conv(c, 4 * c)]
    inner = nn.Sequential(*(part for pair in zip(convs, acts, strict=True) for part in pair))
    return Block(inner, shortcut=shortcut)


# fmt: off
GUIDELINES = {  # of each network: input channels, how its block is made, batches per second on the paper's GPU
    "G1 equal widths": {
        "1:1 (128, 128)":  (128, partial(there_and_back, 128, 128), 1480),
        "1:2 (90, 180)":   (90,  partial(there_and_back, 90, 180),  None),
        "1:6 (52, 312)":   (52,  partial(there_and_back, 52, 312),  None),
        "1:12 (36, 432)":  (36,  partial(there_and_back, 36, 432),  748),
    },
    "G2 few groups": {
        "1 group, 128":    (128, partial(grouped, 1, 128),          2451),
        "2 groups, 180":   (180, partial(grouped, 2, 180),          None),
        "4 groups, 256":   (256, partial(grouped, 4, 256),          None),
        "8 groups, 360":   (360, partial(grouped, 8, 360),          634),
    },
    "G3 little fragmentation": {
        "1 of 128":        (128, partial(series, 1, 128),           2446),
        "2 in series, 90": (90,  partial(series, 2, 90),            None),
        "4 in series, 64": (64,  partial(series, 4, 64),            None),
        "2 parallel, 90":  (90,  partial(parallel, 2, 90),          None),
        "4 parallel, 64":  (64,  partial(parallel, 4, 64),          691),
    },
    "G4 few elementwise operators": {
        "ReLU, shortcut":  (128, partial(bottleneck, 32, relu=True, shortcut=True),   2427),
        "shortcut":        (128, partial(bottleneck, 32, relu=False, shortcut=True),  None),
        "ReLU":            (128, partial(bottleneck, 32, relu=True, shortcut=False),  None),
        "neither":         (128, partial(bottleneck, 32, relu=False, shortcut=False), 2842),
    },
}
# fmt: on


def compare(guideline: str, backend: str, batch: int, rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    runs, macs = {}, {}
    for variant, (channels, block, _) in GUIDELINES[guideline].items():
        torch.manual_seed(0)
        network = nn.Sequential(*(block() for _ in range(BLOCKS))).eval()
        x = torch.randn(batch, channels, SIDE, SIDE)
        macs[variant] = cs.measure.cost(network, tuple(x.shape)).macs // batch
        runs[variant] = partial(cs.deploy.prepare(network, x, backend=backend, threads=1), x)
    found = clock.measure(runs, rounds=rounds, budget_seconds=seconds)
    first, first_paper = next(iter(found)), next(iter(GUIDELINES[guideline].values()))[2]
    for variant, timing in found.items():
        compared, paper = ratios(found[first], timing), GUIDELINES[guideline][variant][2]
        yield {
            "guideline": guideline,
            "network": variant,
            "backend": backend,
            "batch": batch,
            "macs": macs[variant],
            "ms": round(timing.median_ms, 4),
            "gmacs_per_s": round(batch * macs[variant] / timing.median_ms / 1e6, 1),
            "relative": median(compared),
            "relative_quartiles": quartiles(compared),
            "paper": round(paper / first_paper, 3) if paper else "",
            "rounds": len(compared),
        }


def main() -> None:
    parser = arguments(__doc__, rounds=15, seconds=4)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--backends", nargs="*", default=[name for name in BACKENDS if name in backends.installed()])
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    rows = (
        row
        for guideline in GUIDELINES
        for backend in given.backends
        for batch in given.batches
        for row in compare(guideline, backend, batch, given.rounds, given.seconds)
    )
    write(given.out, "guidelines", rows, machine, shown=("network", "backend", "batch", "ms", "relative", "paper"))


if __name__ == "__main__":
    main()
