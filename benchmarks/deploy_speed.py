"""Our way to ONNX Runtime and OpenVINO against the two ways that they document, on the same networks.

    python benchmarks/deploy_speed.py --models /tmp/models --build            # writes the models, takes minutes
    python benchmarks/deploy_speed.py --models /tmp/models --out benchmarks   # measures them

Documented are `torch.onnx.export` of the eager network into ONNX Runtime, and `openvino.convert_model` of it (of the
program of `torch.export` where that fails) compiled for the CPU, each for the measured batch size. Ours are the lean
network and our ONNX model, in both; ONNX Runtime gets the form that stays in its layout. All in float32, on one thread,
with interleaved rounds in one process. `ratio` is the best of ours over the best of theirs, chosen by their medians, as
the median over rounds of each round's ratio. Writes `DATE_deploy_speed.csv`. Below 1 ours is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import openvino
import torch
from _table import arguments, median, one_thread_keeping_memory, quartiles, ratios, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.deploy import clock, onnx
from convsmith.deploy.blocks import BLOCK
from convsmith.deploy.lean import lean
from convsmith.deploy.silence import silent

NAMES = (
    *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x2_0", "shufflenet_v1_g3", "mobilenet_v1"),
    *("mobilenet_v2", "igc_l4m32", "clcnet_a", "shiftnet_c", "condensenet_74_c4", "googlenet", "nasnet_a_mobile"),
    *("densenet121", "resnet50", "se_resnet50", "xception"),
)
TOLERANCE = 1e-3  # of the largest output, between a candidate and eager
OPENVINO = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}


def example(name: str, batch: int) -> Tensor:
    size = cs.zoo.variants()[name].input_size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return cs.create_model(name).eval()


def build(name: str, batches: list[int], folder: Path) -> None:
    """Write the models of both sides, those that are not there yet."""
    eager = network(name)
    for batch in batches:
        x = example(name, batch)
        stem = f"{name}_{batch}"
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
    x = example(name, 1)
    (folder / f"{name}_ours.onnx").write_bytes(onnx.convert(lean(eager, x), x, {}))
    (folder / f"{name}_ours_blocks.onnx").write_bytes(onnx.convert(lean(eager, x, block=BLOCK), x, {}))


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


def compare(name: str, batch: int, folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    x, expected = example(name, batch), torch.load(folder / f"{name}_{batch}.pt")
    theirs = folder / f"{name}_{batch}_theirs.onnx"
    calls = {
        "theirs_onnxruntime": in_onnxruntime(theirs, x),
        "theirs_openvino": in_openvino(theirs.with_suffix(".xml"), x),
        "ours_onnxruntime": in_onnxruntime(folder / f"{name}_ours_blocks.onnx", x),
        "ours_openvino": in_openvino(folder / f"{name}_ours.onnx", x),
    }
    for side, call in calls.items():
        difference = (torch.as_tensor(call()) - expected).abs().max() / expected.abs().max()
        if not difference <= TOLERANCE:
            raise ValueError(f"{side} differs from eager by {difference:.2g} on {name}, batch {batch}")
    found = clock.measure(calls, rounds=rounds, budget_seconds=seconds)
    best = {
        side: min((found[key] for key in found if key.startswith(side)), key=lambda timing: timing.median_ms)
        for side in ("ours", "theirs")
    }
    compared = ratios(best["ours"], best["theirs"])
    return {
        "network": name,
        "batch": batch,
        "ratio": median(compared),
        "ratio_quartiles": quartiles(compared),
        "ours": next(key for key in found if found[key] is best["ours"]),
        "theirs": next(key for key in found if found[key] is best["theirs"]),
        **{f"{key}_ms": round(timing.median_ms, 3) for key, timing in found.items()},
        "rounds": len(compared),
    }


def main() -> None:
    parser = arguments(__doc__, rounds=15, seconds=12)
    parser.add_argument("--models", type=Path, required=True, help="the folder of the models")
    parser.add_argument("--build", action="store_true", help="write the models, measure nothing")
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    if given.build:
        given.models.mkdir(parents=True, exist_ok=True)
        for name in given.names:
            build(name, given.batches, given.models)
            print(name, flush=True)
        return
    machine |= {runtime: version(runtime) for runtime in ("onnxruntime", "openvino")}
    rows = (
        compare(name, batch, given.models, given.rounds, given.seconds)
        for name in given.names
        for batch in given.batches
    )
    written = write(given.out, "deploy_speed", rows, machine)
    found = [float(str(row["ratio"])) for row in written]
    print(f"median {median(found)}, largest {max(found):.3f}")


if __name__ == "__main__":
    main()
