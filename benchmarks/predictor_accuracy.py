"""How far predicted latencies are from measured ones, on networks that no calibration has measured.

    python benchmarks/predictor_accuracy.py --folder truth --calibration cpu.safetensors --out benchmarks

Predictions are told from the architectures alone. The truth is that of `predictor_truth.py`, at the speed of the
calibration. Baselines: proportional to MACs and linear in MACs, parameters, activations and kernels, both fitted on all
of the calibration's networks, those of the zoo among them; the sum of the kernels' times as predicted in context, not
corrected; the sum of each kernel's measured time alone, where `alone` timed them all.

Every family of the zoo is held out as a whole: where its networks are in the calibration, it is predicted by a fit
without them. Some motifs of the random networks imitate a family, though: `strict` is predicted by a fit without the
networks that have those motifs, without members of search spaces and without the zoo. One row per network and one per
group; writes `DATE_predictor_accuracy.csv`, for another back end with its name behind.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import _table
import numpy as np
from predictor_truth import about, alone_ms, graph_of, truth

import convsmith as cs
from convsmith.measure.predictor.fitted import Fitted, fit_folds, fit_without
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.speed import Speed
from convsmith.measure.predictor.table import Table

Row: TypeAlias = dict[str, object]

METHODS = ("predicted", "strict", "macs", "linear", "sum", "alone")
# What of the random networks is like a family's blocks.
IMITATES = {
    ("bottleneck", "basic", "residual"): ("resnet", "resnext", "senet", "resnet_deformable", "fractalnet"),
    ("bottleneck", "residual", "narrow", "branches"): ("gunn",),
    ("inverted", "separable"): (
        *("mobilenet_v1", "mobilenet_v2", "xception", "aligned_xception", "xception_145m", "waterfall_xception"),
        *("shiftnet", "shiftresnet"),
    ),
    ("shuffled", "grouped", "interleaved", "clashing"): ("shufflenet_v1", "igcnet", "clcnet", "nin", "deep_roots"),
    ("split_unit", "halves"): ("shufflenet_v2", "shufflenet_v2_deep"),
    ("dense", "condensed", "pre_norm", "branches"): ("densenet", "condensenet"),
    ("inception", "branches", "pooled"): ("googlenet", "inception_v3", "inception_resnet"),
    ("cell", "separable", "branches"): ("nasnet", "pnasnet", "amoebanet", "darts"),
}


def compare(folder: Path, calibration: Path, out: Path, label: str) -> None:
    """Predict the networks of a folder, hold them against their truth, and write the table."""
    predictor = cs.measure.LatencyPredictor.load(calibration)
    write(folder, predictor, predictions(folder, predictor), out, label)


def predictions(folder: Path, predictor: cs.measure.LatencyPredictor) -> list[Row]:
    """Milliseconds of each network by each method that needs no truth."""
    table = predictor._table
    # The baselines learn from those networks of the calibration that were timed as a whole; it knows their kernels.
    timed = table.timed()
    latencies = np.array(table.latencies_ms)[timed]
    terms = np.array([figures(own) for own in table.kernels])[timed]
    scale = float(np.median(latencies / terms[:, 0]))
    linear = np.linalg.lstsq(terms / latencies[:, None], np.ones(len(latencies)), rcond=None)[0]
    rows: list[Row] = []
    networks: dict[str, list[Kernel]] = {}
    sums = fit_folds(table)[1]
    for name, fitted in sorted(unseen_by(folder, predictor, sums).items()):
        architecture = cs.Architecture.load(folder / f"{name}.json")
        own = networks[name] = predictor._kernels(architecture, about(folder, name)[1])
        times = fitted.models.kernels_us(own, *fitted.models.passes([own]))
        unknown = {kernel for kernel in own if kernel.variant not in fitted.known}
        rows.append({
            "what": name,
            "group": about(folder, name)[0],
            "predicted_ms": fitted.predict_ms([own])[0],
            "macs_ms": scale * figures(own)[0],
            "linear_ms": float(figures(own) @ linear),
            "sum_ms": sum(times[kernel] for kernel in own) / 1e3,
            "unknown": len(unknown),
            "unknown_share": sum(times[k] for k in own if k in unknown) / max(1e-9, sum(times[k] for k in own)),
        })  # fmt: skip
    for motifs, families in IMITATES.items():
        imitated = {f"zoo {family}" for family in families}
        chosen = [row for row in rows if row["group"] in imitated]
        if chosen:
            strict = without(table, motifs, sums)
            for row in chosen:
                row["strict_ms"] = strict.predict_ms([networks[str(row["what"])]])[0]
    return rows


def unseen_by(folder: Path, predictor: cs.measure.LatencyPredictor, sums: np.ndarray) -> dict[str, Fitted]:
    """For each network the model that has not seen it, nor another one of its family."""
    table, groups = predictor._table, dict[str, list[str]]()
    for path in folder.glob("*.onnx"):
        groups.setdefault(about(folder, path.stem)[0], []).append(path.stem)
    seen = {group: names for group, names in groups.items() if not set(names).isdisjoint(table.names)}
    models = {group: fit_without(table, names, sums) for group, names in seen.items()}
    return {name: models.get(group, predictor._fitted) for group, names in groups.items() for name in names}


def write(folder: Path, predictor: cs.measure.LatencyPredictor, rows: list[Row], out: Path, label: str) -> None:
    """The table: groups first, then networks."""
    usual = Speed(predictor.about.reference_ms)
    measured, repeated = truth(folder, usual)
    rows = [{**row, "measured_ms": measured[str(row["what"])]} for row in rows if row["what"] in measured]
    if predictor.about.backend == "onnxruntime":
        for row in rows:
            row["alone_ms"] = alone_ms(folder, predictor._runtime.executed(graph_of(folder, str(row["what"]))))
    columns = ["label", "what", "group", "networks", "measured_ms", "unknown", "unknown_share"]
    columns += [f"{method}_ms" for method in METHODS]
    columns += [f"{method}_{figure}" for method in METHODS for figure in ("within_5", "within_10", "mape", "bias")]
    made = predictor.about
    machine = {"machine": made.processor, "backend": made.backend, "runtime": made.runtime, "threads": made.threads}
    parts = {"all": rows} | {kind: [r for r in rows if str(r["group"]).startswith(kind)] for kind in ("space", "zoo")}
    parts |= {group: [r for r in rows if r["group"] == group] for group in sorted({str(r["group"]) for r in rows})}
    parts["below 0.5 ms"] = [row for row in rows if float(str(row["measured_ms"])) < 0.5]
    parts["without unknown kernels"] = [row for row in rows if not row["unknown"]]
    parts["timed alone"] = [row for row in rows if row.get("alone_ms") is not None]
    summaries = [summary(group, own) for group, own in parts.items() if own]
    summaries += repeatability(f"of {len(usual.reference_ms)} references", repeated, len(rows))
    for place, reference_ms in enumerate(usual.reference_ms):
        repeated = truth(folder, usual, without=place)[1]
        summaries += repeatability(f"without the reference of {reference_ms:.1f} ms", repeated, len(rows))
    held = predictor.held_out
    own_error: Row = {"what": "held out of the calibration", "group": "calibration", "networks": held.networks}
    own_error |= {"predicted_within_5": held.within_5, "predicted_within_10": held.within_10}
    summaries.append({**own_error, "predicted_mape": held.mean_error, "predicted_bias": held.bias})
    shown = [{key: _rounded(row[key]) for key in columns if key in row} for row in (*summaries, *rows)]
    backend = "" if predictor.about.backend == "onnxruntime" else f"_{predictor.about.backend}"
    _table.write(
        out, f"predictor_accuracy{backend}", ({"label": label, **row} for row in shown), machine, columns=columns
    )


def without(table: Table, motifs: Sequence[str], sums: np.ndarray) -> Fitted:
    """The model of the random networks that have none of the motifs."""
    parts = {name: name.partition(": ")[2].split(", ") for name in table.names if name.startswith("random ")}
    kept = {name for name, own in parts.items() if not set(own) & set(motifs)}
    print(f"without {', '.join(motifs)}: {len(kept)} of {len(table)} networks", flush=True)
    return fit_without(table, set(table.names) - kept, sums)


def summary(group: str, rows: list[Row]) -> Row:
    """The shares within 5 and 10 %, mean absolute error and mean error of each method, where it has a figure."""
    found: Row = {"what": f"all of {group}", "group": group, "networks": len(rows)}
    for method in METHODS:
        own = [row for row in rows if row.get(f"{method}_ms") is not None]
        if not own:
            continue
        error = np.array([float(str(row[f"{method}_ms"])) / float(str(row["measured_ms"])) - 1 for row in own])
        size = np.abs(error)
        found |= {f"{method}_within_5": (size <= 0.05).mean(), f"{method}_within_10": (size <= 0.1).mean()}
        found |= {f"{method}_mape": size.mean(), f"{method}_bias": error.mean()}
    return found


def repeatability(how: str, repeated: Mapping[str, tuple[float, float]], networks: int) -> list[Row]:
    """How far each two series of the truth agree, a row for each two."""
    return [
        {
            "what": f"the truth itself, {how}, {pair}",
            "group": "repeatability",
            "networks": networks,
            "predicted_within_5": within_5,
            "predicted_within_10": within_10,
        }
        for pair, (within_5, within_10) in repeated.items()
    ]


def figures(kernels: Sequence[Kernel]) -> np.ndarray:
    """MACs, bytes of weights, bytes written, and the number of kernels."""
    law = np.array([kernel.law[:4] for kernel in kernels])
    return np.array([law[:, 0].sum(), law[:, 3].sum(), law[:, 2].sum(), len(law)])


def _rounded(value: object) -> object:
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--label", default="", help="how the calibration was made")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(given.folder, given.calibration, given.out, given.label)


if __name__ == "__main__":
    main()
