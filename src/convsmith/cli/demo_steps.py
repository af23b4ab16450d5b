"""The steps of `convsmith demo`, each resumable: what is in the run's folder is not done again."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from convsmith import data, deploy, measure, report, search, tasks, train, zoo
from convsmith.arch import Architecture, write_whole
from convsmith.cli.output import say
from convsmith.network import Network, build, save_weights

BASELINES = ("resnet18", "mobilenet_v2", "shufflenet_v2_x1_0")
SHAPE = (1, 1, 8, 8)
TASK = tasks.Classification(10, label_smoothing=0.1)
FINALISTS = 3  # the search trains briefly: the most promising ones are trained in full, and validation decides


class Scale(NamedTuple):
    """How long the demo takes."""

    baseline_epochs: int
    trials: int
    search_epochs: int
    final_epochs: int


FULL, QUICK = Scale(10, 32, 6, 45), Scale(1, 4, 1, 3)


def run_demo(folder: Path, *, quick: bool, seed: int) -> dict[str, Any]:
    """Do all steps and return the results, which also stand in `results.json`."""
    scale = QUICK if quick else FULL
    speed = measure.device_speed()
    rate = f"{speed.convolution_gmacs_per_s:.0f} GMACs/s"
    say(f"1/7 this device: {speed.name}, {speed.cores} cores; one thread makes {rate} in convolutions")
    say(f"2/7 training {', '.join(BASELINES)}, their strides fitted to 8x8 images")
    baselines = {name: _baseline(name, scale.baseline_epochs, seed, folder / "baselines" / name) for name in BASELINES}
    reference = max(BASELINES, key=lambda name: _merit(baselines[name]))
    budget = _budget(folder, baselines, reference)
    say(f"3/7 searching under {budget:.3f} ms, half the latency of {reference}, the most accurate on validation images")
    history = _search(budget, scale, seed, folder)
    say(f"4/7 training the {FINALISTS} best in full; validation decides")
    number, result = _winner(history, budget, scale.final_epochs, seed, folder / "finalists")
    say("5/7 measuring all of them again, in turns, and judging them on test images never seen before")
    networks = {"winner": result.network, **{name: own.network for name, own in baselines.items()}}
    winner, *others = _judge(networks)
    say("6/7 exporting ONNX and verifying it")
    found_by = f"regularized_evolution seed {seed}, trial {number}"
    files, exported = _ship(result.network, found_by, folder)
    say(f"    differs from eager by at most {exported.largest_difference:.1e} of the largest output")
    say("7/7 writing the page")
    results = {
        "winner": {**winner, "budget_ms": budget},
        "baselines": [{**row, "budget_ms": budget} for row in others],
        "reference": reference,
        "test_images": len(data.load("digits").test),
        "device": dataclasses.asdict(speed),
        "export": {**dataclasses.asdict(exported), "path": str(exported.path)},
        "artifacts": {"report": str(folder / "report.html"), "onnx": str(exported.path), **files},
    }
    write_whole(folder / "results.json", json.dumps(results, indent=1) + "\n")
    report.write(folder, folder / "report.html")
    return results


def _baseline(name: str, epochs: int, seed: int, folder: Path) -> train.TrainResult:
    architecture = zoo.for_small_inputs(zoo.get(name, num_classes=10, in_channels=1), SHAPE[-1])
    # 0.02: on so few images, deep networks learn more slowly with the recipe's rate (see `recipes.basic`).
    return _train(architecture, dataclasses.replace(train.recipes.basic(), epochs=epochs, lr=0.02, seed=seed), folder)


def _train(architecture: Architecture, recipe: train.Recipe, folder: Path) -> train.TrainResult:
    torch.manual_seed(recipe.seed)
    result = train.fit(TASK.network(architecture), TASK, data.load("digits"), recipe, run_dir=folder)
    say(f"    {folder.name}: {100 * result.metrics['accuracy']:.1f} % on validation images")
    return result


def _merit(result: train.TrainResult) -> tuple[float, float]:
    return result.metrics["accuracy"], -result.metrics["loss"]


def _budget(folder: Path, baselines: dict[str, train.TrainResult], reference: str) -> float:
    """Half of the reference's latency; measured once for a run, as its search depends on it."""
    path = folder / "budget.json"
    if path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8"))["budget_ms"])
    latencies = measure.latencies({name: result.network for name, result in baselines.items()}, SHAPE)
    budget = latencies[reference].median_ms / 2
    measured = {name: own.median_ms for name, own in latencies.items()}
    write_whole(
        path, json.dumps({"budget_ms": budget, "reference": reference, "latency_ms": measured}, indent=1) + "\n"
    )
    return budget


def _search(budget: float, scale: Scale, seed: int, folder: Path) -> search.History:
    return search.search(
        search.spaces.get("stages", num_classes=10, in_channels=1, input_size=SHAPE[-1]),
        search.strategies.get("regularized_evolution", population_size=12, sample_size=4),
        search.TrainAndMeasure(
            "digits", dataclasses.replace(train.recipes.basic(), epochs=scale.search_epochs), task=TASK
        ),
        trials=scale.trials,
        objective="accuracy",
        constraints=[search.latency_constraint(budget, SHAPE)],
        seed=seed,
        run_dir=folder,
    )


def _winner(
    history: search.History, budget: float, epochs: int, seed: int, folder: Path
) -> tuple[int, train.TrainResult]:
    """Number and training of the best of the finalists: those whose latency, measured again, keeps the budget."""
    ranked = sorted(history.complete, key=history.score, reverse=True)[: 3 * FINALISTS]
    networks = {str(trial.number): build(history.space.resolve(trial.decisions)) for trial in ranked}
    latencies = measure.latencies(networks, SHAPE)
    kept = [trial for trial in ranked if latencies[str(trial.number)].median_ms <= budget][:FINALISTS]
    if not kept:
        raise RuntimeError(
            f"none of the {len(ranked)} best networks keeps {budget:.3f} ms when measured again: the machine is busy; "
            "start again when it is quiet"
        )
    recipe = dataclasses.replace(train.recipes.basic(), epochs=epochs, seed=seed)
    trained = {t.number: _train(history.space.resolve(t.decisions), recipe, folder / str(t.number)) for t in kept}
    number = max(trained, key=lambda number: _merit(trained[number]))
    return number, trained[number]


def _judge(networks: dict[str, Any]) -> list[dict[str, Any]]:
    """Test accuracy with its standard error, latency and cost of each network."""
    test = data.load("digits").test
    latencies = measure.latencies(networks, SHAPE)
    rows = []
    for name, network in networks.items():
        accuracy = train.evaluate(network, TASK, test)["accuracy"]
        cost = measure.cost(network.architecture, SHAPE)
        rows.append(
            {
                "name": name,
                "test_accuracy": accuracy,
                "test_accuracy_error": math.sqrt(accuracy * (1 - accuracy) / len(test)),
                "latency_ms": latencies[name].median_ms,
                "params": cost.params,
                "macs": cost.macs,
            }
        )
    return rows


def _ship(trained: Any, found_by: str, folder: Path) -> tuple[dict[str, str], deploy.ExportResult]:
    """Write architecture, weights and ONNX file of the winner."""
    winner: Network = build(trained.architecture.replace(name="winner", found_by=found_by))
    winner.load_state_dict(trained.state_dict())
    paths = {"architecture": folder / "winner.json", "weights": folder / "weights.safetensors"}
    winner.architecture.save(paths["architecture"])
    save_weights(winner, paths["weights"])
    example = next(iter(data.load("digits").test.batches(2)))[0]
    exported = deploy.export(winner.eval(), folder / "model.onnx", example)
    return {name: str(path) for name, path in paths.items()}, exported
