"""Networks in int8 over the same in float32, by ONNX Runtime and OpenVINO.

    python benchmarks/quantize_speed.py --out benchmarks

Quantised by `deploy.quantize` from four batches of noise. The weights are random, so the differences say nothing of
accuracy: layers that were not trained amplify every rounding (`convsmith quantize` reports what a trained network
loses). Batch 1 at 224 x 224, one thread. The two
runtimes in float32 and int8 take turns in one process; a ratio is the median over rounds of each round's ratio, below 1
where int8 is faster. Writes `DATE_quantize_speed.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.deploy import clock, onnx, quantize
from convsmith.deploy.int8 import RUNTIMES
from convsmith.deploy.passes.lean import lean

NAMES = ("resnet50", "mobilenet_v2", "shufflenet_v2_x1_0")


def with_norms_of(network: nn.Module, batches: list[Tensor]) -> nn.Module:
    """The network in eval mode with the batches' statistics: with those of a new norm, its maps vanish with depth."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the plain average
    with torch.no_grad():
        for batch in batches:
            network(batch)
    return network.eval()


def compare(name: str, rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 224, 224) for _ in range(4)]
    network = with_norms_of(cs.create_model(name), batches)
    model = onnx.convert(lean(network, batches[0]), batches[0], {})
    results, calls, prepared_s = {}, {}, {}
    for backend, runtime in RUNTIMES.items():
        start = time.perf_counter()
        results[backend] = quantize(network, batches, backend=backend, threads=1)
        prepared_s[backend] = time.perf_counter() - start
        calls[backend, "float32"] = partial(runtime.load(model, 1), batches[0][:1])
        calls[backend, "int8"] = partial(results[backend].run, batches[0][:1])
    found = clock.measure(calls, rounds=rounds, budget_seconds=seconds)
    for backend, result in results.items():
        compared = ratios(found[backend, "int8"], found[backend, "float32"])
        over_best = [
            eight / min(plain)
            for eight, *plain in zip(
                found[backend, "int8"].samples_ms,
                *(found[other, "float32"].samples_ms for other in RUNTIMES),
                strict=True,
            )
        ]
        yield {
            "network": name,
            "backend": backend,
            "int8_over_float32": median(compared),
            "quartiles": quartiles(compared),
            "int8_over_best_float32": median(over_best),
            "float32_ms": round(found[backend, "float32"].median_ms, 3),
            "int8_ms": round(found[backend, "int8"].median_ms, 3),
            "largest_difference": round(result.largest_difference, 4),
            "mean_difference": round(result.mean_difference, 4),
            "int8_layers": result.int8_layers,
            "layers": result.layers,
            "quantize_s": round(prepared_s[backend], 1),
            "rounds": len(compared),
        }


def main() -> None:
    parser = arguments(__doc__, rounds=25, seconds=20)
    parser.add_argument("--names", nargs="*", default=NAMES)
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    rows = (row for name in given.names for row in compare(name, given.rounds, given.seconds))
    write(given.out, "quantize_speed", rows, machine)


if __name__ == "__main__":
    main()
