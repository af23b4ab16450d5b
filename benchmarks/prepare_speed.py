"""How long `deploy.prepare` takes, the comparison with eager included.

    python benchmarks/prepare_speed.py --out benchmarks [--names resnet50 ...]

Each network in float32 on one thread, at batch 1 and the size of its variant, by each back end `--rounds` times in
turn, after a first small network that pays for the imports. Networks of other libraries have weights as they begin.
`exporter` is what made the ONNX model: `quick` is ours, which records one forward pass, `torch` the way for what that
does not follow. `prepare_s` is the median, `first_s` the first time, when
little of the memory was in use before; `compare_s` is what comparing takes of it: eager's passes over the example and
over two images. Writes `DATE_prepare_speed.csv`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version

import torch
from _table import arguments, one_thread_keeping_memory, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.cli.foreign import foreign
from convsmith.deploy import prepare
from convsmith.deploy.agreement import eager_run
from convsmith.deploy.onnx.quick import quick
from convsmith.deploy.onnx.refusals import NotQuickError
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.snapshot import snapshot

NAMES = (
    *("shufflenet_v2_x1_0", "mobilenet_v2", "googlenet", "resnet50", "se_resnet50", "resnext50_32x4d", "densenet121"),
    *("condensenet_74_c4", "inception_v3", "xception", "nasnet_a_mobile", "densenet201", "resnet152"),
    *("torchvision:efficientnet_b0", "torchvision:convnext_tiny", "torchvision:swin_t", "torchvision:swin_v2_t"),
    *("torchvision:vit_b_16", "torchvision:maxvit_t", "timm:mobilevit_s", "timm:edgenext_xx_small", "timm:coat_tiny"),
)
BACKENDS = ("onnxruntime", "openvino")


def seconds(network: nn.Module, x: Tensor, backend: str) -> float:
    gc.collect()  # what was there before is not looked through in this network's time
    start = time.perf_counter()
    prepare(network, x, backend=backend, threads=1)
    return time.perf_counter() - start


def eager_seconds(network: nn.Module, x: Tensor) -> float:
    run, two = eager_run(network), torch.cat((x, x))
    start = time.perf_counter()
    run(x)
    run(two)
    return time.perf_counter() - start


def made(name: str) -> tuple[nn.Module, int]:
    """A network of the zoo or of another library, and the side of its input."""
    if ":" in name:
        _, side, build = foreign(name)
        return build().eval(), side
    return cs.create_model(name).eval(), cs.zoo.variants()[name].input_size


def exporter(network: nn.Module, x: Tensor) -> str:
    try:
        quick(lean(snapshot(network, sharing=True), x), x, {})
    except NotQuickError:
        return "torch"
    return "quick"


def rows(names: list[str], rounds: int) -> Iterator[dict[str, object]]:
    for name in names:
        torch.manual_seed(0)
        network, side = made(name)
        x = torch.randn(1, 3, side, side)
        taken: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        passes = []
        for _ in range(rounds):
            passes.append(eager_seconds(network, x))
            for backend in BACKENDS:
                taken[backend].append(seconds(network, x, backend))
        for backend in BACKENDS:
            yield {
                "network": name,
                "backend": backend,
                "exporter": exporter(network, x),
                "prepare_s": round(statistics.median(taken[backend]), 2),
                "first_s": round(taken[backend][0], 2),
                "compare_s": round(statistics.median(passes), 2),
                "rounds": rounds,
            }


def main() -> None:
    parser = arguments(__doc__, rounds=3, seconds=0)
    parser.add_argument("--names", nargs="*", default=list(NAMES))
    given = parser.parse_args()
    machine = one_thread_keeping_memory() | {runtime: version(runtime) for runtime in BACKENDS}
    for backend in BACKENDS:
        prepare(cs.create_model("resnet18"), torch.randn(1, 3, 64, 64), backend=backend, threads=1)
    write(given.out, "prepare_speed", rows(given.names, given.rounds), machine)


if __name__ == "__main__":
    main()
