"""What our operators, networks and guidelines take on an NVIDIA GPU.

    python benchmarks/cuda_speed.py --out benchmarks [--parts operators networks guidelines detection pies]

Passes are recorded as CUDA graphs and replayed, so that the device's time is measured and not that of Python's
launches; what is compared takes turns in one process, and a ratio is the median over rounds of each round's ratio,
below 1 where ours is faster. Each part writes `DATE_cuda_PART.csv`:

* operators: the shift (Triton) over a copy and over the depthwise convolution with one-hot kernels in both memory
  formats, the channel shuffle over a copy and over view - transpose - reshape; `training` is a pass with its gradient.
* networks: our networks in eager, TF32 as torch has it, channels last; the compiled forms and bfloat16 over it.
* guidelines: G1 to G4 of ShuffleNet v2 (`guidelines.py`) beside the paper's figures, which are a GPU's too.
* detection: the lecture's detection table (`detection_table.py`), a GPU's figures too.
* pies: where the time of ShuffleNet v1 and MobileNet v2 goes (`profile_pies.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import detection_table
import guidelines
import profile_pies
import shift_speed
import shuffle_speed
import torch
from _table import arguments, measured, median, quartiles, ratios, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.deploy import clock
from convsmith.measure.cuda_graph import captured
from convsmith.nn import ChannelShuffle, Shift

FORMATS = shift_speed.FORMATS
NETWORKS = ("resnet50", "mobilenet_v2", "shufflenet_v2_x1_0", "densenet121", "xception", "shiftnet_a")


def recorded(function: Callable[[Tensor], object], x: Tensor) -> Callable[[], object]:
    """Replays a call, or makes it where it cannot be recorded."""
    return captured(function, x) or partial(function, x)  # type: ignore[arg-type]


def call_of(module: Callable[[Tensor], Tensor], x: Tensor, direction: str) -> Callable[[], object]:
    if direction == "forward":
        return recorded(torch.no_grad()(module), x)
    gradient = torch.randn_like(module(x))

    def training(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(module(leaf), leaf, gradient)[0]

    return recorded(training, x)


def operators(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for channels, side, kernel_size in shift_speed.MAPS:
        for layout, form in FORMATS.items():
            x = torch.randn(32, channels, side, side, device="cuda").to(memory_format=form)
            for assignment in ("contiguous", "interleaved"):
                shift = Shift(channels, kernel_size=kernel_size, assignment=assignment).cuda()
                convolutions = {
                    name.lower(): (shift.as_convolution().to(memory_format=order), x.to(memory_format=order))
                    for name, order in FORMATS.items()
                }
                for direction in ("forward", "training"):
                    for way in ("eager", "compiled"):
                        torch._dynamo.reset()
                        calls = {
                            "ours": call_of(torch.compile(shift) if way == "compiled" else shift, x, direction),
                            "copy": call_of(shift_speed.Copy(), x, direction),
                            **{name: call_of(module, y, direction) for name, (module, y) in convolutions.items()},
                        }
                        case = f"32x{channels}x{side}x{side} k={kernel_size} {assignment} {layout} {direction} {way}"
                        yield {
                            "operator": "shift",
                            "case": case,
                            **measured(calls, rounds, seconds, device="cuda", digits=5),
                        }
    for n, channels, side in shuffle_speed.SHAPES:
        for layout, form in FORMATS.items():
            x = torch.randn(n, channels, side, side, device="cuda").to(memory_format=form)
            for groups in shuffle_speed.GROUPS:
                functions = {
                    "ours": ChannelShuffle(channels, groups=groups),
                    "copy": shift_speed.Copy(),
                    "naive": partial(shuffle_speed.naive, groups=groups),
                }
                for direction in ("forward", "training"):
                    calls = {name: call_of(function, x, direction) for name, function in functions.items()}
                    case = f"{n}x{channels}x{side}x{side} groups {groups} {layout} {direction}"
                    yield {
                        "operator": "channel shuffle",
                        "case": case,
                        **measured(calls, rounds, seconds, device="cuda", digits=5),
                    }


def networks(rounds: int, seconds: float, backends: Sequence[str]) -> Iterator[dict[str, object]]:
    for name in NETWORKS:
        side = cs.zoo.variants()[name].input_size
        network = cs.create_model(name).eval().cuda().to(memory_format=torch.channels_last)
        x = torch.randn(64, 3, side, side, device="cuda").contiguous(memory_format=torch.channels_last)
        prepared = {
            f"{backend} {precision}": cs.deploy.prepare(network, x, backend=backend, precision=precision)
            for backend in backends
            for precision in ("float32", "bfloat16")
        }
        for batch in (1, 64):
            image = x[:batch].contiguous(memory_format=torch.channels_last)
            calls = {form: recorded(found.run, image) for form, found in prepared.items()}
            timings = clock.measure(calls, rounds=rounds, budget_seconds=seconds, device="cuda")
            for form, timing in timings.items():
                compared = ratios(timing, timings["eager float32"])
                yield {
                    "network": name,
                    "batch": batch,
                    "form": form,
                    "ms": round(timing.median_ms, 4),
                    "images_per_s": round(1e3 * batch / timing.median_ms, 1),
                    "over_eager": median(compared),
                    "over_eager_quartiles": quartiles(compared),
                    "difference": f"{prepared[form].difference:.1e}",
                }


def curves(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for guideline, variants in guidelines.GUIDELINES.items():
        for batch in (8, 128):
            calls, macs = {}, {}
            for variant, (channels, block, _) in variants.items():
                torch.manual_seed(0)
                network = nn.Sequential(*(block() for _ in range(guidelines.BLOCKS))).eval()
                shape = (batch, channels, guidelines.SIDE, guidelines.SIDE)
                macs[variant] = cs.measure.cost(network, shape).macs // batch
                calls[variant] = call_of(network.cuda(), torch.randn(shape, device="cuda"), "forward")
            timings = clock.measure(calls, rounds=rounds, budget_seconds=seconds, device="cuda")
            first, first_paper = next(iter(timings)), next(iter(variants.values()))[2]
            for variant, timing in timings.items():
                compared, paper = ratios(timings[first], timing), variants[variant][2]
                yield {
                    "guideline": guideline,
                    "network": variant,
                    "batch": batch,
                    "macs": macs[variant],
                    "ms": round(timing.median_ms, 4),
                    "gmacs_per_s": round(batch * macs[variant] / timing.median_ms / 1e6),
                    "relative": median(compared),
                    "relative_quartiles": quartiles(compared),
                    "paper": round(paper / first_paper, 3) if paper else "",
                }


def detection(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for size, rows in detection_table.ROWS.items():
        x = torch.randn(detection_table.SHAPE, device="cuda")
        calls = {}
        for name, (architecture, _, _) in rows.items():
            torch.manual_seed(0)
            calls[name] = call_of(cs.create_model(architecture()).eval().cuda(), x, "forward")
        timings = clock.measure(calls, rounds=rounds, budget_seconds=seconds, device="cuda")
        for name, timing in timings.items():
            architecture, lecture, note = rows[name]
            compared = ratios(timings["Xception"], timing)
            yield {
                "network": name,
                "size": size,
                "batches_per_s": round(1e3 / timing.median_ms, 1),
                "relative": median(compared),
                "relative_quartiles": quartiles(compared),
                "lecture_batches_per_s": lecture,
                "lecture_relative": round(lecture / rows["Xception"][1], 3),
                "gmacs_per_image": round(cs.measure.cost(architecture(), x.shape).macs / len(x) / 1e9, 3),
                "note": note,
            }


def pies(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    for name in profile_pies.NETWORKS:
        for batch in (1, 64):
            found = cs.measure.profile(
                cs.create_model(name), (batch, 3, 224, 224), device="cuda", passes=rounds, budget_seconds=seconds
            )
            launches = [slowdown.message for slowdown in found.slowdowns if slowdown.name == "launches"]
            yield {
                "network": name,
                "batch": batch,
                "latency_ms": round(found.latency_ms, 3),
                "attributed_ms": round(found.attributed_ms, 3),
                "operators": len(found.steps),
                **{category: round(share.share, 4) for category, share in found.by_category.items()},
                "unknown": " ".join(found.unknown),
                "launches": launches[0].partition(":")[0] if launches else "",
            }


PARTS: dict[str, Callable[..., Iterator[dict[str, object]]]] = {
    "operators": operators,
    "networks": networks,
    "guidelines": curves,
    "detection": detection,
    "pies": pies,
}
OVER = [f"over_{name}" for name in ("copy", "nchw", "nhwc", "naive")]


def main() -> None:
    parser = arguments(__doc__, rounds=15, seconds=2)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--backends", nargs="*", default=["eager", "compile"], help="of the networks, eager first")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    torch.set_num_threads(1)
    device = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for part in given.parts:
        options = {"backends": given.backends} if part == "networks" else {}
        columns = ["operator", "case", "ours_ms", *OVER, *(f"{o}_quartiles" for o in OVER)]
        write(
            given.out,
            f"cuda_{part}",
            PARTS[part](given.rounds, given.seconds, **options),
            device,
            columns=columns if part == "operators" else None,
        )


if __name__ == "__main__":
    main()
