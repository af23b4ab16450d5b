"""Networks that predictions are held against: as files, and what they take.

    python benchmarks/predictor_truth.py export --folder truth             # networks as files, not timed
    python benchmarks/predictor_truth.py time --folder truth --series 1    # three times, some minutes apart
    python benchmarks/predictor_truth.py alone --folder truth --part 0     # single kernels of ONNX Runtime, in parts
    python benchmarks/predictor_truth.py calibrate --calibration cpu.safetensors  # nine minutes, between two series

For OpenVINO each with `--backend openvino`, and a folder of its own.

Networks are members of each search space at several sizes and of each family of the zoo up to 6 G multiply-accumulates
and 45 M parameters, or the smallest of a family of larger ones, exported as `deploy.prepare` does; AmoebaNet's with
fewer filters and cells. The truth is the median over series of interleaved bursts, each network divided by how much
slower than at the calibration the reference networks of its size are, which are timed many times in every round. In a
series it is the mean of the faster half.
`alone` times each distinct executed kernel of these networks as a model of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
import torch
from _alone import distinct, key_of, time_alone_us

import convsmith as cs
from convsmith.cli.calibrate import MOST_MACS, MOST_PARAMS
from convsmith.deploy import onnx
from convsmith.deploy.passes.lean import lean
from convsmith.measure.predictor.describe import train_constants
from convsmith.measure.predictor.engines import ENGINES
from convsmith.measure.predictor.graph import Graph, read
from convsmith.measure.predictor.runtime import runtime_of
from convsmith.measure.predictor.speed import References, Speed, undisturbed
from convsmith.search import spaces
from convsmith.zoo import amoebanet
from convsmith.zoo.registry import FAMILIES

T = TypeVar("T")

SIZES = {"mobile": (96, 160, 224), "stages": (32, 64, 128, 224)}
MEMBERS, FIRST_SEED, FIRST_MEMBER = 36, 77_000, 500_000
AMOEBANETS = {"a": amoebanet.OF_A, "b": amoebanet.OF_B, "c": amoebanet.OF_C, "d": amoebanet.OF_D}
ROUNDS, BETWEEN = 7, 12


def candidates() -> dict[str, tuple[str, cs.Architecture, int]]:
    """Networks by name: their group, architecture and input size."""
    found = {}
    for space, sizes in SIZES.items():
        for i in range(MEMBERS):
            size = sizes[i % len(sizes)]
            tree = spaces.get(space, num_classes=10 + 90 * (i % 2), in_channels=3, input_size=size)
            found[f"{space}-{size}-{i}"] = f"space {space}", tree.sample(Random(FIRST_SEED + i)), size
    for family in (name for name in FAMILIES if name != "amoebanet"):
        for name, architecture, reference in of_family(family):
            found[name] = f"zoo {family}", architecture, reference.input_size
    for letter, cells in AMOEBANETS.items():
        own = {key: value for key, value in cells.items() if key != "aux_grid"}
        for filters, size in ((32, 224), (64, 160)):
            small = amoebanet.amoebanet(**own, filters=filters, repeats=2)  # type: ignore[arg-type]
            found[f"amoebanet_{letter}_f{filters}"] = "zoo amoebanet", small, size
    return found


def of_family(family: str) -> list[tuple[str, cs.Architecture, cs.arch.Reference]]:
    """The networks of one family's file up to the limits, or else the one with the fewest multiply-accumulates."""
    own = [
        (variant.name, architecture, architecture.reference)
        for variant in import_module(f"convsmith.zoo.{family}").VARIANTS
        for architecture in [cs.zoo.get(variant.name)]
        if architecture.reference is not None
    ]
    small = [one for one in own if _is_small(one[2])]
    return small or sorted(own, key=lambda one: one[2].macs)[:1]


def _is_small(reference: cs.arch.Reference) -> bool:
    return reference.macs <= MOST_MACS and reference.params <= MOST_PARAMS


def export(folder: Path, wanted: list[str], backend: str) -> None:
    """Write what is not there yet: the model as it is deployed, the architecture, and its group and input shape."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (group, architecture, size) in candidates().items():
        path = folder / f"{name}.onnx"
        if (wanted and name not in wanted) or path.exists():
            continue
        shape = (1, architecture.in_channels, size, size)
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        try:
            network = cs.network.build(architecture).eval()
            train_constants(network)
            model = onnx.convert(lean(network, example, block=ENGINES[backend].filled), example, {})
        except (ValueError, RuntimeError) as error:
            print(f"{name}: left out ({error})", flush=True)
            continue
        architecture.save(folder / f"{name}.json")
        (folder / f"{name}.about").write_text(json.dumps({"group": group, "shape": shape}))
        path.write_bytes(model)
        print(name, flush=True)


def about(folder: Path, name: str) -> tuple[str, tuple[int, ...]]:
    """The group and the input shape of a network."""
    found = json.loads((folder / f"{name}.about").read_text())
    return str(found["group"]), tuple(found["shape"])


def graph_of(folder: Path, name: str) -> Graph:
    """The graph that the runtime is given."""
    import onnx as package

    return read(package.load(str(folder / f"{name}.onnx")), [about(folder, name)[1]])


def time_series(folder: Path, series: int, seconds: float, backend: str) -> None:
    """One series: rounds over all networks, each in an order of its own; those that the back end refuses are left out.

    All are loaded at once, so that the bursts of each lie apart: a disturbance of the machine lasts for seconds.
    """
    start = time.monotonic()
    engine = ENGINES[backend]
    references = References(runtime_of("cpu", backend, 1))
    rng = Random(series)
    loaded = {}
    for path in sorted(folder.glob("*.onnx")):
        try:
            loaded[path.stem] = engine.session(path.read_bytes(), about(folder, path.stem)[1], 1)
        except ValueError as error:
            print(f"{path.stem}: left out ({error})", flush=True)
    samples: dict[str, list[float]] = {name: [] for name in loaded}
    beside = []
    for _ in range(ROUNDS):
        for place, name in enumerate(rng.sample(list(loaded), len(loaded))):
            if place % BETWEEN == 0:
                beside.append(references.speed())
            samples[name].append(loaded[name].burst_ms())
        if time.monotonic() - start > seconds:
            break
    speed = Speed.of(beside).reference_ms
    found = {name: (undisturbed(own), speed) for name, own in samples.items()}
    (folder / f"series-{series}.json").write_text(json.dumps(found))


def members() -> Iterator[tuple[cs.Architecture, tuple[int, ...]]]:
    """Members of both spaces and their input shapes, others than those of the truth."""
    for n in itertools.count():
        space = ("mobile", "stages", "stages")[n % 3]
        size = SIZES[space][n // 3 % len(SIZES[space])]
        tree = spaces.get(space, num_classes=10 + 90 * (n % 2), in_channels=3, input_size=size)
        yield tree.sample(Random(FIRST_MEMBER + n)), (1, 3, size, size)


def zoo() -> Iterator[tuple[cs.Architecture, tuple[int, ...]]]:
    """The networks of the zoo that the truth has, each named as there, and their input shapes, in a random order.

    Without the large ones: each takes as long to measure as many small ones.
    """
    own = [(name, *about) for name, about in candidates().items() if about[0].startswith("zoo ")]
    for name, _, architecture, size in Random(0).sample(own, len(own)):
        reference = architecture.reference
        if reference is None or _is_small(reference):
            yield architecture.replace(name=name), (1, architecture.in_channels, size, size)


def in_turns(*several: Iterator[T]) -> Iterator[T]:
    """One of each, as long as any lasts."""
    for ones in itertools.zip_longest(*several):
        yield from (one for one in ones if one is not None)


def calibrate(path: Path, backend: str, minutes: float) -> None:
    """A calibration with members of both spaces and networks of the zoo in turns as every fourth network."""
    predictor = cs.measure.LatencyPredictor.calibrate(
        "cpu", backend, minutes=minutes, path=path, architectures=in_turns(zoo(), members())
    )
    print(predictor.networks, predictor.held_out)


def truth(
    folder: Path, usual: Speed, *, without: int | None = None
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Milliseconds by name at the calibration's speed, and how far each two series agree.

    That is the shares of networks within 5 and 10 %. Medians over the series, of networks that are in all. `without` is
    the place of a reference network that does not count.
    """
    paths = sorted(folder.glob("series-*.json"))
    series = [json.loads(path.read_text()) for path in paths]
    names = [name for name in series[0] if all(name in own for own in series)]
    times = np.array([[_at_speed(*own[name], usual, without) for name in names] for own in series])
    repeated = {}
    for i in range(len(paths)):
        for j in range(i):
            apart = np.abs(times[i] / times[j] - 1)
            repeated[f"{paths[j].stem} and {paths[i].stem}"] = (
                float((apart <= 0.05).mean()),
                float((apart <= 0.1).mean()),
            )
    return dict(zip(names, np.median(times, axis=0).tolist(), strict=True)), repeated


def _at_speed(ms: float, beside: Sequence[float], usual: Speed, without: int | None) -> float:
    now, then = (
        Speed(tuple(own for place, own in enumerate(times) if place != without))
        for times in (beside, usual.reference_ms)
    )
    return ms / now.slowdown(then, ms)


def alone(folder: Path, part: int, seconds: float) -> None:
    """Time distinct kernels, from the networks in a random order, until the time is over; parts go on from the last."""
    engine = ENGINES["onnxruntime"]
    block, start, path = engine.block(), time.monotonic(), folder / "alone.json"
    names = sorted((path.stem for path in folder.glob("*.onnx")), key=lambda name: Random(name).random())
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() and part else {}
    for name in names:
        for key, (graph, op) in distinct([engine.executed(graph_of(folder, name), block)]).items():
            if key not in known:
                known[key] = time_alone_us(graph, op)
        if time.monotonic() - start > seconds:
            break
    path.write_text(json.dumps(known))
    print(f"{len(known)} kernels, up to {name}", flush=True)


def alone_ms(folder: Path, graph: Graph) -> float | None:
    """The sum over an executed graph of what each kernel takes alone; None where one was not timed."""
    known = _times_alone(folder / "alone.json")
    times = [known.get(key_of(graph, op)) for op in graph.ops]
    return None if None in times else sum(time for time in times if time is not None) / 1e3


@lru_cache
def _times_alone(path: Path) -> dict[str, float]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("export", "time", "alone", "calibrate"))
    parser.add_argument("--folder", type=Path, default=Path("truth"))
    parser.add_argument("--calibration", type=Path, default=Path("cpu.safetensors"))
    parser.add_argument("--minutes", type=float, default=9, help="of a calibration")
    parser.add_argument("--names", nargs="*", default=[])
    parser.add_argument("--series", type=int, default=1)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--backend", choices=tuple(ENGINES), default="onnxruntime", help="what runs them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.step == "export":
        export(given.folder, given.names, given.backend)
    elif given.step == "time":
        time_series(given.folder, given.series, given.seconds, given.backend)
    elif given.step == "calibrate":
        calibrate(given.calibration, given.backend, given.minutes)
    else:
        alone(given.folder, given.part, given.seconds)


if __name__ == "__main__":
    main()
