"""Time of LayerNorm and GroupNorm, in both memory formats, against torch.nn.GroupNorm and the formula in plain torch.

    python benchmarks/norm_speed.py --out benchmarks

float32, one thread, the allocator told to keep memory. `forward` is a pass in inference mode, `training` a pass and its
gradients. All candidates of a row take turns in one process; a ratio is the median over rounds of each round's ratio,
and below 1 ours is faster. `to_torch_nchw` compares with torch's own in (N, C, H, W) order, where it is quickest, and
`to_copy` with one copy of the map. `layer` is one group, `group` are 32. Writes `DATE_norm_speed.csv`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _table import arguments, median, one_thread_keeping_memory, ratios, write
from torch import Tensor, nn

from convsmith.deploy import clock
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

    return {
        "norm": kind,
        "shape": "x".join(map(str, shape)),
        "layout": layout,
        "direction": direction,
        **{f"to_{name}": median(ratios(found["ours"], found[name])) for name in candidates if name != "ours"},
        **{f"{name}_ms": round(timing.median_ms, 4) for name, timing in found.items()},
        "rounds": len(found["ours"].samples_ms),
    }


def main() -> None:
    given = arguments(__doc__, rounds=25, seconds=20).parse_args()
    rows = (
        compare(shape, kind, layout, direction, given.rounds, given.seconds)
        for kind in ("layer", "group")
        for shape in SHAPES
        for layout in FORMATS
        for direction in ("forward", "training")
    )
    write(given.out, "norm_speed", rows, one_thread_keeping_memory())


if __name__ == "__main__":
    main()
