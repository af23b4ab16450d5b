"""`deploy.prepare(..., backend="auto")` against the two ways that ONNX Runtime and OpenVINO document.

    python benchmarks/deploy_speed.py --models /tmp/models --build            # writes their models, takes minutes
    python benchmarks/deploy_speed.py --models /tmp/models --out benchmarks   # measures

Documented are `torch.onnx.export` of the eager network into ONNX Runtime, and `openvino.convert_model` of it (of the
program of `torch.export` where that fails) compiled for the CPU, each for the measured batch size; both are called in
the quickest way that they have, ONNX Runtime with a prepared feed, OpenVINO by a request whose input stays. Ours is
what `prepare` returns, called with a tensor, its checks and the new output included. All in float32, on one thread,
with interleaved rounds in one process. `ratio` is ours over the best of theirs by their medians, as the median over
rounds of each round's ratio: below 1 ours is faster. Each is loaded several times, as where a runtime's weights happen
to lie in memory makes a difference of one to four per cent between two loads of the same file. `prepare_*_s` are the
seconds of `prepare` with one back end at batch 1, with its comparison with eager. With `--norms fresh` norms are as
they are made: their shifts are zero, and torch's exporters leave the additions out. Ours keeps them, as a trained
network has others. `random` gives norms statistics. Writes `DATE_deploy_speed.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import onnxruntime
import openvino
import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.deploy import clock, prepare
from convsmith.deploy.silence import silent

NAMES = (
    *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x2_0", "shufflenet_v1_g3", "mobilenet_v1"),
    *("mobilenet_v2", "igc_l4m32", "clcnet_a", "shiftnet_c", "condensenet_74_c4", "googlenet", "nasnet_a_mobile"),
    *("densenet121", "resnet50", "se_resnet50", "xception"),
)
BACKENDS = ("onnxruntime", "openvino")
INSTANCES = 3
TOLERANCE = 1e-3  # of the largest output, between a candidate and eager
OPENVINO = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}


def example(name: str, batch: int) -> Tensor:
    size = cs.zoo.variants()[name].input_size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def network(name: str, norms: str) -> nn.Module:
    torch.manual_seed(0)
    made = cs.create_model(name).eval()
    for norm in made.modules() if norms == "random" else ():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.8, 1.25)
            if norm.affine:
                nn.init.normal_(norm.bias, 0, 0.1)
    return made


def stem_of(name: str, batch: int, norms: str) -> str:
    return f"{name}_{batch}" + "_random" * (norms == "random")


def build(name: str, batches: list[int], folder: Path, norms: str) -> None:
    """Write their models and eager's outputs, those that are not there yet."""
    eager = network(name, norms)
    for batch in batches:
        x = example(name, batch)
        stem = stem_of(name, batch, norms)
        with torch.inference_mode():
            torch.save(eager(x), folder / f"{stem}.pt")
        if not (folder / f"{stem}_theirs.onnx").exists():
            with silent():
                program = torch.onnx.export(eager, (x,), dynamo=True, verbose=False, external_data=False)
            (folder / f"{stem}_theirs.onnx").write_bytes(program.model_proto.SerializeToString())
        if not (folder / f"{stem}_theirs.xml").exists():
            with silent():
                try:
                    model = openvino.convert_model(eager, example_input=x, input=list(x.shape))
                except Exception:
                    model = openvino.convert_model(torch.export.export(eager, (x,)))
            openvino.save_model(model, folder / f"{stem}_theirs.xml", compress_to_fp16=False)


def in_onnxruntime(path: Path, x: Tensor) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)[0]


def in_openvino(path: Path, x: Tensor) -> Callable[[], object]:
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(x.shape))
    request = core.compile_model(model, "CPU", OPENVINO).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))

    def run() -> object:
        request.infer()
        return request.get_output_tensor().data

    return run


def compare(name: str, batch: int, folder: Path, norms: str, rounds: int, seconds: float) -> dict[str, object]:
    stem = stem_of(name, batch, norms)
    x, expected = example(name, batch), torch.load(folder / f"{stem}.pt")
    theirs = folder / f"{stem}_theirs.onnx"
    eager = network(name, norms)
    taken = (
        {f"prepare_{backend}_s": seconds_to_prepare(eager, x, backend) for backend in BACKENDS} if batch == 1 else {}
    )
    chosen = prepare(eager, x, threads=1)
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        "onnxruntime": lambda: in_onnxruntime(theirs, x),
        "openvino": lambda: in_openvino(theirs.with_suffix(".xml"), x),
        "ours": lambda: partial(prepare(eager, x, backend=chosen.backend, threads=1), x),
    }
    runs: dict[str, list[Callable[[], object]]] = {side: [] for side in makers}
    for i in range(INSTANCES):  # who is loaded first may get the better memory: each in turn
        for side in (*list(makers)[i:], *list(makers)[:i]):
            runs[side].append(makers[side]())
    for side, calls in runs.items():
        difference = max((torch.as_tensor(call()) - expected).abs().max() / expected.abs().max() for call in calls)
        if not difference <= TOLERANCE:
            raise ValueError(f"{side} differs from eager by {difference:.2g} on {name}, batch {batch}")
    found = clock.measure(
        {f"{side} {i}": call for side, calls in runs.items() for i, call in enumerate(calls)},
        rounds=rounds,
        budget_seconds=seconds,
    )
    timings = {side: [found[f"{side} {i}"] for i in range(INSTANCES)] for side in runs}
    middle = {side: median([timing.median_ms for timing in own]) for side, own in timings.items()}
    best = min(BACKENDS, key=lambda backend: middle[backend])
    compared = sorted(chain.from_iterable(map(ratios, timings["ours"], timings[best])))
    return {
        "network": name,
        "batch": batch,
        "norms": norms,
        "ratio": median(compared),
        "ratio_quartiles": quartiles(compared),
        "ours": chosen.backend,
        "theirs": best,
        "ours_ms": middle["ours"],
        **{f"theirs_{backend}_ms": middle[backend] for backend in BACKENDS},
        **{f"prepare_{backend}_s": "" for backend in BACKENDS},
        **taken,
        "samples": len(compared),
    }


def seconds_to_prepare(eager: nn.Module, x: Tensor, backend: str) -> float:
    start = time.perf_counter()
    prepare(eager, x, backend=backend, threads=1)
    return round(time.perf_counter() - start, 2)


def main() -> None:
    parser = arguments(__doc__, rounds=7, seconds=10)
    parser.add_argument("--models", type=Path, required=True, help="the folder of the models")
    parser.add_argument("--build", action="store_true", help="write the models, measure nothing")
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--norms", choices=("random", "fresh"), default="random")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    if given.build:
        given.models.mkdir(parents=True, exist_ok=True)
        for name in given.names:
            build(name, given.batches, given.models, given.norms)
            print(name, flush=True)
        return
    for backend in BACKENDS:  # so that no figure holds the import of a library
        prepare(nn.Conv2d(3, 4, 1), torch.ones(1, 3, 8, 8), backend=backend, threads=1)
    machine |= {runtime: version(runtime) for runtime in ("onnxruntime", "openvino")}
    rows = (
        compare(name, batch, given.models, given.norms, given.rounds, given.seconds)
        for name in given.names
        for batch in given.batches
    )
    written = write(given.out, "deploy_speed", rows, machine)
    found = [float(str(row["ratio"])) for row in written]
    print(f"median {median(found)}, largest {max(found):.3f}")


if __name__ == "__main__":
    main()
