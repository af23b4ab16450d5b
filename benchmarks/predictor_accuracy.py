"""How far predicted latencies are from measured ones, on networks that no calibration has measured.

    python benchmarks/predictor_accuracy.py export --folder truth            # networks as files, not timed
    python benchmarks/predictor_accuracy.py time --folder truth --series 1   # three times, some minutes apart
    python benchmarks/predictor_accuracy.py compare --folder truth --calibration cpu.safetensors --out benchmarks

Networks are members of each search space at several sizes, and of each family of the zoo, exported as `deploy.prepare`
does. The truth is the median over series of interleaved bursts, a reference network in every round; a series whose
common shift against the others exceeds two per cent is left out. `compare` predicts each network from its architecture,
and by three baselines fitted on the calibration's own networks: proportional to MACs; linear in MACs, parameters,
activations and kernels; the bare sum of the predicted kernels. One row per network and one per group; writes
`DATE_predictor_accuracy.csv`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from pathlib import Path
from random import Random

import _table
import numpy as np
import torch

import convsmith as cs
from convsmith.deploy import onnx
from convsmith.deploy.lean import lean
from convsmith.measure.predictor.engines import ENGINES
from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.model import predict_kernels
from convsmith.measure.predictor.turns import REFERENCE_SEED, random_graph
from convsmith.search import spaces

SIZES = {"mobile": (96, 160, 224), "stages": (32, 64, 128, 224)}
MEMBERS = 24
LARGEST_BYTES = 130 << 20
ROUNDS, CHUNK, LARGEST_SHIFT = 7, 24, 0.02


def candidates() -> dict[str, tuple[str, cs.Architecture, int]]:
    """Networks by name: their group, architecture and input size."""
    found = {}
    for space, sizes in SIZES.items():
        for i in range(MEMBERS):
            size = sizes[i % len(sizes)]
            tree = spaces.get(space, num_classes=10 + 90 * (i % 2), in_channels=3, input_size=size)
            found[f"{space}-{size}-{i}"] = f"space {space}", tree.sample(Random(9000 + i)), size
    for name in cs.zoo.names():
        architecture = cs.zoo.get(name)
        size = architecture.reference.input_size if architecture.reference else 224
        found[name] = f"zoo {name.partition('_')[0].rstrip('0123456789')}", architecture, size
    return found


def export(folder: Path, wanted: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (group, architecture, size) in candidates().items():
        path = folder / f"{name}.onnx"
        if (wanted and name not in wanted) or path.exists():
            continue
        shape = (1, architecture.in_channels, size, size)
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        try:
            network = cs.network.build(architecture).eval()
            model = onnx.convert(lean(network, example), example, {})
        except (ValueError, RuntimeError) as error:
            print(f"{name}: left out ({error})", flush=True)
            continue
        if len(model) <= LARGEST_BYTES:
            architecture.save(folder / f"{name}.json")
            (folder / f"{name}.about").write_text(json.dumps({"group": group, "shape": shape}))
            path.write_bytes(model)
            print(name, flush=True)


def time_series(folder: Path, series: int, seconds: float, backend: str) -> None:
    import time

    start = time.monotonic()
    graph: Graph = random_graph(REFERENCE_SEED)
    engine = ENGINES[backend]
    reference = engine.load(graph, 1)
    found: dict[str, float] = {}
    paths = sorted(folder.glob("*.onnx"), key=lambda path: Random(path.stem).random())
    for first in range(0, len(paths), CHUNK):
        loaded = {}
        for path in paths[first : first + CHUNK]:
            shape = tuple(json.loads(path.with_suffix(".about").read_text())["shape"])
            try:
                loaded[path.stem] = engine.session(path.read_bytes(), shape, 1)
            except ValueError as error:
                print(f"{path.stem}: left out ({error})", flush=True)
        samples: dict[str, list[float]] = {name: [] for name in loaded}
        rounds = []
        for turn in range(ROUNDS):
            rounds.append(reference.burst_ms())
            for name in loaded if turn % 2 == 0 else reversed(loaded):
                samples[name].append(loaded[name].burst_ms())
        found |= {name: statistics.median(own) for name, own in samples.items()}
        found[f"reference {first}"] = statistics.median(rounds)
        if time.monotonic() - start > seconds:
            break
    (folder / f"series-{series}.json").write_text(json.dumps(found))


def truth(folder: Path) -> dict[str, float]:
    """Milliseconds by name: medians over the series that agree with the others."""
    series = [json.loads(path.read_text()) for path in sorted(folder.glob("series-*.json"))]
    names = [n for n in series[0] if not n.startswith("reference") and all(n in own for own in series)]
    times = np.array([[own[name] for name in names] for own in series])
    shifts = np.median(times / np.median(times, axis=0), axis=1) - 1
    kept = np.abs(shifts) <= LARGEST_SHIFT
    print(f"common shifts {np.round(shifts, 4)}, kept {int(kept.sum())} of {len(series)} series", flush=True)
    return dict(zip(names, np.median(times[kept], axis=0).tolist(), strict=True))


def compare(folder: Path, calibration: Path, out: Path, label: str) -> None:
    predictor = cs.measure.LatencyPredictor.load(calibration)
    measured = truth(folder)
    # The baselines learn from the same networks; the table knows their kernels.
    kernels, latencies = predictor._table.kernels, np.array(predictor._table.latencies_ms)
    terms = np.array([figures(own) for own in kernels])
    scale = float(np.median(latencies / terms[:, 0]))
    linear = np.linalg.lstsq(terms / latencies[:, None], np.ones(len(latencies)), rcond=None)[0]
    rows: list[dict[str, object]] = []
    for name, milliseconds in measured.items():
        about = json.loads((folder / f"{name}.about").read_text())
        architecture, shape = cs.Architecture.load(folder / f"{name}.json"), tuple(about["shape"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = predictor.predict_ms(architecture, shape)
        own = predictor._kernels(architecture, shape)
        times = predict_kernels(predictor._fitted.groups, own)
        rows.append({
            "what": name,
            "group": about["group"],
            "measured_ms": milliseconds,
            "predicted_ms": predicted,
            "macs_ms": scale * figures(own)[0],
            "linear_ms": float(figures(own) @ linear),
            "sum_ms": sum(times[kernel] for kernel in own) / 1e3,
            "unknown": len(predictor.unknown(architecture, shape)),
        })  # fmt: skip
    columns = ["label", "what", "group", "networks", "measured_ms", "predicted_ms", "unknown"]
    columns += [f"{method}_{figure}" for method in METHODS for figure in ("within_5", "within_10", "mape", "bias")]
    machine = {"machine": predictor.about.processor, "runtime": predictor.about.runtime, "threads": 1}
    groups = ["all", "space", "zoo", *sorted({str(row["group"]) for row in rows})]
    summaries = [summary(group, [r for r in rows if matches(group, str(r["group"]))]) for group in groups]
    shown = [{key: _rounded(row[key]) for key in columns if key in row} for row in (*summaries, *rows)]
    _table.write(out, "predictor_accuracy", ({"label": label, **row} for row in shown), machine, columns=columns)


METHODS = ("predicted", "macs", "linear", "sum")


def matches(group: str, own: str) -> bool:
    return group == "all" or own == group or own.split()[0] == group


def summary(group: str, rows: list[dict[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {"what": f"all of {group}", "group": group, "networks": len(rows)}
    for method in METHODS:
        error = np.array([float(str(row[f"{method}_ms"])) / float(str(row["measured_ms"])) - 1 for row in rows])
        size = np.abs(error)
        found |= {f"{method}_within_5": (size <= 0.05).mean(), f"{method}_within_10": (size <= 0.1).mean()}
        found |= {f"{method}_mape": size.mean(), f"{method}_bias": error.mean()}
    return found


def figures(kernels: object) -> np.ndarray:
    """MACs, bytes of weights, bytes written, and the number of kernels."""
    law = np.array([kernel.law for kernel in kernels])  # type: ignore[attr-defined]
    return np.array([law[:, 0].sum(), law[:, 3].sum(), law[:, 2].sum(), len(law)])


def _rounded(value: object) -> object:
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("export", "time", "compare"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--names", nargs="*", default=[])
    parser.add_argument("--series", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=250)
    parser.add_argument("--backend", choices=tuple(ENGINES), default="onnxruntime", help="what `time` runs")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--label", default="", help="how the calibration was made")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.step == "export":
        export(given.folder, given.names)
    elif given.step == "time":
        time_series(given.folder, given.series, given.seconds, given.backend)
    else:
        compare(given.folder, given.calibration, given.out, given.label)


if __name__ == "__main__":
    main()
