"""Time of LayerNorm and GroupNorm, in both memory formats, against torch.nn.GroupNorm and the formula in plain torch.

    python benchmarks/norm_speed.py --out benchmarks

float32, one thread, the allocator told to keep memory. `forward` is a pass in inference mode, `training` a pass and its
gradients. All candidates of a row take turns in one process; a ratio is the median over rounds of each round's ratio,
and below 1 ours is faster. `to_torch_nchw` compares with torch's own in (N, C, H, W) order, where it is quickest, and
`to_copy` with one copy of the map. `layer` is one group, `group` are 32. Writes `DATE_norm_speed.csv`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from convsmith.deploy import clock
from convsmith.deploy.allocator import keep_memory
from convsmith.measure.device import processor_name
from convsmith.nn import GroupNorm, LayerNorm

# The maps of ResNet-50 at 224 x 224 behind each kind of convolution, and of a wide one.
SHAPES = ((8, 64, 56, 56), (8, 256, 56, 56), (8, 128, 28, 28), (8, 512, 28, 28), (8, 256, 14, 14), (8, 1024, 14, 14))
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class Naive(nn.Module):
    """The formula: moments by `var_mean` of a view in groups, then the affine part."""

    def __init__(self, groups: int, channels: int):
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        grouped = x.unflatten(1, (self.groups, -1))
        variance, mean = torch.var_mean(grouped, (2, 3, 4), correction=0, keepdim=True)
        normalised = ((grouped - mean) * (variance + 1e-5).rsqrt()).flatten(1, 2)
        return normalised * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def call_of(norm: nn.Module, x: Tensor, direction: str) -> Callable[[], object]:
    if direction == "forward":

        def forward() -> Tensor:
            with torch.inference_mode():
                return norm(x)

        return forward
    x = x.detach().requires_grad_()
    dy = torch.randn_like(x)
    return lambda: torch.autograd.grad(norm(x), (x, *norm.parameters()), dy)


def compare(
    shape: tuple[int, ...], kind: str, layout: str, direction: str, rounds: int, seconds: float
) -> dict[str, object]:
    channels, groups = shape[1], 1 if kind == "layer" else 32
    norms = {
        "ours": LayerNorm(channels) if kind == "layer" else GroupNorm(channels, groups=groups),
        "torch": nn.GroupNorm(groups, channels),
        "naive": Naive(groups, channels),
    }
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    last = x.to(memory_format=FORMATS[layout])
    candidates = {name: call_of(norm, last, direction) for name, norm in norms.items()}
    candidates["torch_nchw"] = call_of(norms["torch"], x, direction)
    candidates["copy"] = last.clone
    with clock.threads(1):
        found = clock.measure(candidates, rounds=rounds, budget_seconds=seconds)

    def ratio(name: str) -> float:
        pairs = zip(found["ours"].samples_ms, found[name].samples_ms, strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    return {
        "norm": kind,
        "shape": "x".join(map(str, shape)),
        "layout": layout,
        "direction": direction,
        **{f"to_{name}": ratio(name) for name in candidates if name != "ours"},
        **{f"{name}_ms": round(timing.median_ms, 4) for name, timing in found.items()},
        "rounds": len(found["ours"].samples_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20, help="after which no round of a row starts")
    arguments = parser.parse_args()
    allocator = "keeps memory" if keep_memory() else "as it is"
    machine = {"machine": processor_name(), "allocator": allocator, "threads": 1, "torch": torch.__version__}
    machine["date"] = date.today().isoformat()
    rows: list[dict[str, object]] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / f"{date.today().isoformat()}_norm_speed.csv", "w", newline="") as file:
        for kind in ("layer", "group"):
            for shape in SHAPES:
                for layout in FORMATS:
                    for direction in ("forward", "training"):
                        row = compare(shape, kind, layout, direction, arguments.rounds, arguments.seconds)
                        rows.append(row | machine)
                        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
                        if len(rows) == 1:
                            writer.writeheader()
                        writer.writerow(rows[-1])
                        file.flush()  # a long run that is stopped keeps what it has measured
                        print({key: row[key] for key in list(row)[:8]}, flush=True)


if __name__ == "__main__":
    main()
