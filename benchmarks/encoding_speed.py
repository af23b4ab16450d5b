"""The encoding layer against its formula with all residuals (N, HW, K, D) at once, and against torch's own cdist.

Forward, and forward with backward, float32, one thread, on maps as EncNet has them (512 channels, 32 codewords) and on
narrower ones. All take turns in one process; a ratio is the median over rounds of the other's time over ours. The peak
is the most bytes allocated at one time, as torch's profiler counts them, beyond input and parameters. The released
layer is an extension in C++ and CUDA that is not installed here; the form with cdist is the best that torch's
operators give without our algebra.
Writes `DATE_encoding_speed.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _table import arguments, median, one_thread_keeping_memory, ratios, write
from torch import Tensor

from convsmith.deploy import clock
from convsmith.nn import Encoding

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.nn.peak_memory import peak_bytes

#        N  D    K   side
SHAPES = ((4, 64, 16, 16), (1, 128, 32, 30), (1, 512, 32, 30), (1, 512, 32, 60))


def naive(layer: Encoding, x: Tensor) -> Tensor:
    residuals = x.flatten(2).transpose(1, 2).unsqueeze(2) - layer.codewords
    assignment = (layer.scale * residuals.square().sum(3)).softmax(2)
    return (assignment.unsqueeze(3) * residuals).sum(1)


def with_cdist(layer: Encoding, x: Tensor) -> Tensor:
    features = x.flatten(2).transpose(1, 2)
    assignment = (layer.scale * torch.cdist(features, layer.codewords).square()).softmax(2).transpose(1, 2)
    return assignment @ features - assignment.sum(2, keepdim=True) * layer.codewords


def forward(encode: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.no_grad():
        encode(x)


def forward_backward(encode: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor], grad: Tensor) -> None:
    torch.autograd.grad(encode(x), [x, *parameters], grad)


def compare(shape: tuple[int, int, int, int], rounds: int, seconds: float) -> list[dict[str, object]]:
    images, channels, codewords, side = shape
    torch.manual_seed(0)
    layer = Encoding(channels, num_codewords=codewords)
    x = torch.randn(images, channels, side, side, requires_grad=True)
    encoders = {"ours": layer, "naive": partial(naive, layer), "cdist": partial(with_cdist, layer)}
    for encode in encoders.values():
        torch.testing.assert_close(encode(x), layer(x), rtol=1e-4, atol=1e-2)
    backward = partial(forward_backward, parameters=list(layer.parameters()), grad=torch.randn_like(layer(x)))
    rows = []
    for name, run in (("forward", forward), ("forward and backward", backward)):
        calls = {encoder: partial(run, encode, x) for encoder, encode in encoders.items()}
        peaks = {encoder: peak_bytes(call) for encoder, call in calls.items()}
        with clock.threads(1):
            found = clock.measure(calls, rounds=rounds, warmup=1, budget_seconds=seconds)
        ours = found["ours"]
        row: dict[str, object] = {"maps": f"{images}x{channels}x{side}x{side}", "codewords": codewords, "pass": name}
        for other in ("naive", "cdist"):
            row[f"{other}_ratio"] = median(ratios(found[other], ours), 2)
            row[f"{other}_peak_ratio"] = round(peaks[other] / peaks["ours"], 2)
        row |= {f"{encoder}_ms": round(timing.median_ms, 3) for encoder, timing in found.items()}
        row |= {f"{encoder}_peak_bytes": peak for encoder, peak in peaks.items()}
        rows.append(row | {"rounds": len(ours.samples_ms)})
    return rows


def main() -> None:
    given = arguments(__doc__, rounds=15, seconds=60).parse_args()
    rows = (row for shape in SHAPES for row in compare(shape, given.rounds, given.seconds))
    write(given.out, "encoding_speed", rows, one_thread_keeping_memory())


if __name__ == "__main__":
    main()
