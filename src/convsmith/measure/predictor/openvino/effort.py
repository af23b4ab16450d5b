"""How much a convolution makes the processor do in OpenVINO, beyond its multiply-accumulates.

Its kernels keep the channels of a pixel together and compute them in vectors, of each group on its own; a vector that
the channels do not fill costs as much as a full one. Convolutions of more than one tap copy their padded input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convsmith.measure.predictor.graph import Shape

VECTOR, PER_CYCLE = 16, 2.0


@dataclass(frozen=True, slots=True)
class Effort:
    """`steps` are cycles of multiplication, `copied` bytes of input that are moved besides."""

    steps: float = 0.0
    copied: float = 0.0


def convolution_effort(kernel: str, weight: Shape, groups: int, source: Shape, target: Shape) -> Effort:
    """The effort of a convolution of a map `source` (N, C, H, W) to a map `target`."""
    taps = math.prod(weight[2:])
    if kernel.endswith("_dw"):
        vectors, depth = -(-groups // VECTOR), 1
    else:
        vectors, depth = groups * -(-(weight[0] // groups) // VECTOR), weight[1]
    steps = target[0] * math.prod(target[2:]) * vectors * depth * taps / PER_CYCLE
    return Effort(steps, 4.0 * math.prod(source) if kernel == "brgconv" else 0.0)
