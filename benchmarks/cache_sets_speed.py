"""What widths cost whose pixels share few sets of the first cache, in OpenVINO's kernel for groups of few channels.

    python benchmarks/cache_sets_speed.py --out benchmarks

Four 3 x 3 convolutions of groups of two or four channels, behind a pointwise one that makes their map, beside the same
of 16 channels less and more, in turns. `time_a_channel` is the median time divided by the width, over the mean of that
of the two neighbours. One thread, float32, batch 1. Writes `DATE_cache_sets_speed.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator

from _table import arguments, one_thread_keeping_memory, write
from torch import nn

import convsmith as cs
from convsmith.nn import ConvNormAct

IN_CHANNELS, CONVOLUTIONS, BESIDE = 16, 4, 16


def network(width: int, group: int) -> nn.Module:
    convolutions = [ConvNormAct(width, width, groups=width // group) for _ in range(CONVOLUTIONS)]
    return nn.Sequential(ConvNormAct(IN_CHANNELS, width, kernel_size=1), *convolutions).eval()


def rows(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for group in (2, 4):
        for side in (14, 28):
            for width in (128, 256, 400, 512, 768, 800, 1024):
                widths = (width, width - BESIDE, width + BESIDE)
                found = cs.measure.latencies(
                    {str(own): network(own, group) for own in widths},
                    (1, IN_CHANNELS, side, side),
                    backend="openvino",
                    rounds=rounds,
                    budget_seconds=seconds,
                )
                own, less, more = (found[str(each)].median_ms / each for each in widths)
                yield {
                    "group": group,
                    "side": side,
                    "width": width,
                    "median_ms": round(own * width, 4),
                    "time_a_channel": round(own / ((less + more) / 2), 3),
                }


def main() -> None:
    options = arguments(__doc__, rounds=15, seconds=1.0).parse_args()
    machine = one_thread_keeping_memory()
    write(options.out, "cache_sets_speed", rows(options.rounds, options.seconds), machine)


if __name__ == "__main__":
    main()
