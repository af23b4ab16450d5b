"""Shift against the depthwise convolution with one-hot kernels and against a copy, and shifts in deployed networks.

    python benchmarks/shift_speed.py --out benchmarks

float32, one thread, the allocator told to keep memory; what is compared takes turns in one process. A ratio is the
median over rounds of each round's ratio, and below 1 ours is faster. `eager` takes the operator in C++, which is built
first, `slices` what stands for it where there is no compiler. Of these and `compiled`: `forward` is a pass
without gradients, `training` a pass and the gradient of its input; `over_nchw` and `over_nhwc` are over the convolution
of the same map in either memory format (`layout` is ours), `over_copy` over `x.clone()`, compiled where ours is, and in
training over `-x`, whose gradient is one pass over memory, too: that of a clone is the gradient itself.
Not every channels-last map with interleaved channels is within 1.5 copies: of 512 x 28 x 28 in 5 x 5 a register of the
result takes 2.15 ns where the copy's takes 0.95; without reading the map it would take 1.46, without writing the result
1.55, without the choices between rows and columns 1.91: what moves memory bounds it. Of the smallest maps a call of
the operator in a compiled program takes 16 microseconds, that of the copy 12.
`deployed`: networks in ONNX Runtime, batch 1, their shifts and norms folded (ours), over those whose shifts slice, pad
and join (`over_plain`), that have none (`over_none`) and, of a unit, whose second 1 x 1 convolution takes the kernel of
the shift (`over_dense`). Writes `DATE_shift_speed.csv`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from _table import arguments, measured, one_thread_keeping_memory, write
from torch import Tensor, nn

import convsmith as cs
from convsmith.deploy import fold_norm, onnx
from convsmith.deploy.passes.shift import fold_shift
from convsmith.nn import Shift, ShiftUnit, native

# Channels, side and kernel size: the maps between the 1 x 1 convolutions of ShiftNet A and C and of ShiftResNet, and
# narrow ones.
MAPS = (
    *((256, 56, 5), (512, 28, 5), (768, 14, 3), (1024, 7, 3)),
    *((32, 56, 3), (144, 32, 3), (64, 56, 5), (256, 14, 3), (512, 7, 3)),
)
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# Channels, side, kernel size, expansion: units of ShiftNet A, each at either stride.
UNITS = ((64, 56, 5, 4.0), (128, 28, 5, 3.0), (256, 14, 3, 2.0), (512, 7, 3, 1.0))
NETWORKS = {"shiftnet_a": 224, "shiftnet_b": 224, "shiftnet_c": 224, "shiftresnet20_e3": 32}
PARTS = ("eager", "slices", "compiled", "deployed")


class Copy(nn.Module):
    """The input, copied; where its gradient is wanted negated, which copies the gradient as well."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return -x if torch.is_grad_enabled() else x.clone()


def call_of(module: nn.Module, x: Tensor, direction: str) -> Callable[[], object]:
    if direction == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return module(x)

        return forward
    leaf = x.detach().requires_grad_()
    gradient = torch.randn_like(x)
    return lambda: torch.autograd.grad(module(leaf), leaf, gradient)


def operator_rows(part: str, batches: list[int], rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    compiled: Callable[[nn.Module], nn.Module] = torch.compile if part == "compiled" else lambda module: module
    with operators(built=part != "slices"):
        yield from _operator_rows(part, compiled, batches, rounds, seconds)


@contextmanager
def operators(*, built: bool) -> Iterator[None]:
    """With or without the operators in C++."""
    load = native._load
    if built and not native.build_operators():
        raise RuntimeError("the operators must be built to be measured, and there is no compiler; set CXX")
    native._load = load if built else lambda: False  # type: ignore[assignment]
    try:
        yield
    finally:
        native._load = load


def _operator_rows(
    part: str, compiled: Callable[[nn.Module], nn.Module], batches: list[int], rounds: int, seconds: float
) -> Iterator[dict[str, object]]:
    for channels, side, kernel_size in MAPS:
        for batch in batches:
            x = torch.randn(batch, channels, side, side)
            for layout, memory_format in FORMATS.items():
                for assignment in ("contiguous", "interleaved"):
                    torch._dynamo.reset()
                    shift = Shift(channels, kernel_size=kernel_size, assignment=assignment)
                    for direction in ("forward", "training"):
                        laid_out = x.to(memory_format=memory_format)
                        calls = {
                            "ours": call_of(compiled(shift), laid_out, direction),
                            "copy": call_of(compiled(Copy()), laid_out, direction),
                        }
                        for name, order in FORMATS.items():
                            convolution = shift.as_convolution().to(memory_format=order)
                            calls[name.lower()] = call_of(compiled(convolution), x.to(memory_format=order), direction)
                        case = f"{batch}x{channels}x{side}x{side} k={kernel_size} {assignment} {layout} {direction}"
                        yield {"part": part, "case": case, **measured(calls, rounds, seconds)}


def without(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Shift):
                setattr(parent, name, nn.Identity())
    return module


def deployed_rows(rounds: int, seconds: float) -> Iterator[dict[str, object]]:
    def calls_of(forms: dict[str, nn.Module], x: Tensor) -> dict[str, Callable[[], object]]:
        return {
            name: partial(onnx.load(onnx.convert(fold_norm(form), x, {}), threads=1), x) for name, form in forms.items()
        }

    for channels, side, kernel_size, expansion in UNITS:
        for stride in (1, 2):
            # The channels double where the unit strides, as in the networks.
            unit = ShiftUnit(
                channels // stride, channels, kernel_size=kernel_size, stride=stride, expansion=expansion
            ).eval()
            dense, conv = without(unit), unit.project.conv
            dense.project.conv = nn.Conv2d(
                conv.in_channels, conv.out_channels, kernel_size, stride, kernel_size // 2, bias=False
            )
            x = torch.randn(1, channels // stride, side * stride, side * stride)
            forms = {"ours": fold_shift(unit), "plain": unit, "none": without(unit), "dense": dense}
            case = f"unit of {channels} channels, {side}x{side}, k={kernel_size}, E={expansion:g}, stride {stride}"
            yield {"part": "deployed", "case": case, **measured(calls_of(forms, x), rounds, seconds)}
    for name, size in NETWORKS.items():
        network = cs.create_model(name).eval()
        forms = {"ours": fold_shift(network), "plain": network, "none": without(network)}
        calls = calls_of(forms, torch.randn(1, 3, size, size))
        yield {"part": "deployed", "case": name, **measured(calls, rounds, seconds)}


def main() -> None:
    parser = arguments(__doc__, rounds=25, seconds=10)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    given = parser.parse_args()
    machine = one_thread_keeping_memory()
    over = [f"over_{name}" for name in ("nchw", "nhwc", "copy", "plain", "none", "dense")]
    shown = ["part", "case", "ours_ms", *over]
    rows = chain.from_iterable(
        deployed_rows(given.rounds, given.seconds)
        if part == "deployed"
        else operator_rows(part, given.batches, given.rounds, given.seconds)
        for part in given.parts
    )
    write(given.out, "shift_speed", rows, machine, columns=[*shown, *(f"{o}_quartiles" for o in over)], shown=shown)


if __name__ == "__main__":
    main()
