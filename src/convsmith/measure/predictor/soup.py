"""Random networks of no family, for calibration: single operators in any order, and random motifs that repeat.

What a predictor shall know is which kernels run and what surrounds them, so alignments, kernels, depths and resolutions
are drawn far wider than any family has them. The MACs to reach are drawn log-uniformly, and a network of motifs is as
wide as it must be for them (what does not come near is drawn anew, its MACs too): as many narrow ones that stop early
would teach little of large weights and of many maps. A network is kept with the names of its motifs or steps, so that
what a fit owes to one of them can be told by leaving it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from convsmith.measure.predictor.down import down
from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.motifs import MOTIFS
from convsmith.measure.predictor.steps import ACTS, STEPS, Sizes
from convsmith.measure.predictor.writer import Writer

RESOLUTIONS = (16, 32, 32, 48, 64, 96, 112, 128, 160, 176, 192, 224, 224, 256, 299)
MACS = (2e6, 1.5e9)
REPEATS = (1, 2, 2, 3, 3, 4, 6, 8, 12)
WIDER = (0.2, 5.0)  # at least and at most, than first drawn
LARGEST_MAP = 4_000_000  # elements
SMALLEST = 3  # pixels of a side that are halved once more: networks for small images end with maps of 2 x 2
FEWEST_OPS, MOST_OPS = 8, 500
OPSETS = (*(18,) * 7, 20)  # of the quick way to ONNX, and of torch's exporter
REPEATED_SHARE = 0.7  # of the networks: those of motifs
STEP_SHARE = 0.6  # of the kinds of steps, in a network of single steps


@dataclass(frozen=True)
class Drawn:
    """A random network, and the names of the motifs or steps that it is made of."""

    graph: Graph
    parts: tuple[str, ...]


def draw(rng: Random) -> Drawn:
    """One random network."""
    while True:
        target = math.exp(rng.uniform(*map(math.log, MACS)))
        made = _repeated(rng, target) if rng.random() < REPEATED_SHARE else _single(rng, target)
        if made is not None:
            return made


def _stem(w: Writer, rng: Random, sizes: Sizes) -> str:
    x = "input"
    kernel = rng.choice((3, 3, 5, 7))
    stride = 2 if w.shapes[x][1] >= 64 and rng.random() < 0.9 else 1
    x = w.act(w.conv(x, sizes.some(), (kernel, kernel), stride=stride), rng.choice(ACTS))
    if rng.random() < 0.4 and w.shapes[x][1] >= 32:
        x = w.pool(x, "MaxPool", 3, 2, ceil=rng.random() < 0.2)
    return w.response_norm(x, 5) if rng.random() < 0.05 else x


def _end(w: Writer, x: str, rng: Random) -> Graph:
    if rng.random() < 0.3:
        x = w.act(w.conv(x, min(1536, 2 * w.shapes[x][0])), rng.choice(ACTS))
    if rng.random() < 0.9 or w.shapes[x][0] * w.shapes[x][1] * w.shapes[x][2] > 30_000:
        x = w.global_pool(x)
    x = w.flatten(x)
    if rng.random() < 0.15:
        x = w.act(w.linear(x, rng.choice((256, 1000, 2048, 4096))), "relu")
    return w.graph(w.linear(x, rng.choice((10, 100, 1000, 1000, 1000))), opset=rng.choice(OPSETS))


def _start(rng: Random) -> Writer:
    side = rng.choice(RESOLUTIONS)
    return Writer((1, rng.choice((3, 3, 3, 3, 1)), side, side))


def _single(rng: Random, target: float) -> Drawn | None:
    """Single steps of some kinds in any order."""
    w = _start(rng)
    sizes = Sizes(rng, w.shapes["input"][1])
    x = _stem(w, rng, sizes)
    kept = {step for step in STEPS if rng.random() < STEP_SHARE}
    kinds = [step for step in STEPS if step in kept] or [STEPS[0]]
    used: dict[str, None] = {}
    for _ in range(rng.randint(8, 28)):
        if w.macs > target:
            break
        step = rng.choice(kinds)
        used[_name(step)] = None
        x = step(w, x, rng, sizes)
        if math.prod(w.shapes[x]) > LARGEST_MAP:
            return None
        if w.shapes[x][1] > SMALLEST and rng.random() < 0.15:
            x = down(w, x, rng, sizes)
    return None if w.macs > 3 * target or len(w.ops) < FEWEST_OPS else Drawn(_end(w, x, rng), tuple(used))


def _repeated(rng: Random, target: float) -> Drawn | None:
    """Motifs of a few steps, each repeated, in stages that halve the map and widen it; as wide as the target asks."""
    seed = rng.getrandbits(64)
    first = _stages(Random(seed), 1.0)
    if first is None:
        return None
    wider = min(max(WIDER[0], math.sqrt(target / first[0].macs)), WIDER[1])
    found = _stages(Random(seed), wider)
    if found is None or not target / 3 < found[0].macs < 3 * target:
        return None
    w, x, used = found
    if len(w.ops) < FEWEST_OPS or max(map(math.prod, w.shapes.values())) > LARGEST_MAP:
        return None
    return Drawn(_end(w, x, rng), used)


def _stages(rng: Random, wider: float) -> tuple[Writer, str, tuple[str, ...]] | None:
    """All but the end: the writer, the last map, and the names of the motifs."""
    w = _start(rng)
    sizes = Sizes(rng, w.shapes["input"][1], wider)
    x = _stem(w, rng, sizes)
    act = rng.choice(ACTS[:-1])
    growth = rng.choice((1.4, 1.6, 2.0, 2.0))
    kinds = rng.sample(MOTIFS, rng.choice((1, 1, 2)))
    used: dict[str, None] = {}
    for stage in range(rng.randint(2, 5)):
        if stage and w.shapes[x][1] > SMALLEST:
            x = down(w, x, rng, sizes)
            sizes.width *= growth
        kind = rng.choice(kinds)
        used[_name(kind)] = None
        shape = kind(rng, sizes)
        for _ in range(rng.choice(REPEATS)):
            if len(w.ops) > MOST_OPS:
                return None
            x = shape(w, x, act)
    return w, x, tuple(used)


def _name(part: Callable[..., object]) -> str:
    return part.__name__.strip("_")
