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
FINALISTS = 3  # the search trains briefly: the most promising ones are trained in full, and validation decides


class Scale(NamedTuple):
    """How long the demo takes."""

    baseline_epochs: int
    trials: int
    search_epochs: int
    winner_epochs: int


FULL, QUICK = Scale(12, 40, 6, 40), Scale(1, 4, 1, 3)


def run_demo(folder: Path, *, quick: bool, seed: int) -> dict[str, Any]:
    """Do all steps and return the results, which also stand in `results.json`."""
    scale = QUICK if quick else FULL
    speed = measure.device_speed()
    say(
        f"1/7 this device: {speed.name}, {speed.cores} cores; one thread makes {speed.convolution_gmacs_per_s:.0f} "
        f"GMACs/s and copies {speed.copy_gbytes_per_s:.0f} GB/s"
    )
    digits, task = data.load("digits"), tasks.Classification(10)

    say(f"2/7 training {', '.join(BASELINES)}, their strides fitted to 8x8 images")
    baselines: dict[str, train.TrainResult] = {}
    for name in BASELINES:
        classic = zoo.get(name, num_classes=digits.num_classes, in_channels=1)
        architecture = zoo.for_small_inputs(classic, digits.input_shape[-1])
        recipe = dataclasses.replace(train.recipes.basic(), epochs=scale.baseline_epochs, seed=seed)
        baselines[name] = _train(architecture, recipe, folder / "baselines" / name)
    reference = max(BASELINES, key=lambda name: baselines[name].metrics["accuracy"])
    budget = _budget(folder, baselines, reference)

    say(f"3/7 searching under {budget:.3f} ms, half the latency of {reference}, the most accurate on validation images")
    history = search.search(
        search.spaces.get("stages", num_classes=10, in_channels=1, input_size=8),
        search.strategies.get("regularized_evolution", population_size=12, sample_size=4),
        search.TrainAndMeasure("digits", dataclasses.replace(train.recipes.basic(), epochs=scale.search_epochs)),
        trials=scale.trials,
        objective="accuracy",
        constraints=[search.latency_constraint(budget, SHAPE)],
        seed=seed,
        run_dir=folder,
    )

    say(f"4/7 training the {FINALISTS} best in full; validation decides")
    recipe = dataclasses.replace(train.recipes.basic(), epochs=scale.winner_epochs, seed=seed)
    finalists = _finalists(history, budget)
    trained = {
        t.number: _train(history.space.resolve(t.decisions), recipe, folder / "finalists" / str(t.number))
        for t in finalists
    }
    chosen = max(trained, key=lambda number: trained[number].metrics["accuracy"])
    network = trained[chosen].network
    assert isinstance(network, Network)
    winner = network.architecture.replace(name="winner", found_by=f"regularized_evolution seed {seed}, trial {chosen}")

    say("5/7 measuring all of them again, in turns, and judging them on test images never seen before")
    networks = {"winner": network, **{name: result.network for name, result in baselines.items()}}
    latencies = measure.latencies(networks, SHAPE)
    rows = []
    for name, judged in networks.items():
        accuracy = train.evaluate(judged, task, digits.test, batch_size=256)["accuracy"]
        cost = measure.cost(judged.architecture, SHAPE)  # type: ignore[arg-type]
        rows.append(
            {
                "name": name,
                "test_accuracy": accuracy,
                "test_accuracy_error": math.sqrt(accuracy * (1 - accuracy) / len(digits.test)),
                "latency_ms": latencies[name].median_ms,
                "params": cost.params,
                "macs": cost.macs,
            }
        )

    say("6/7 exporting ONNX and verifying it")
    paths = {
        name: folder / file for name, file in (("architecture", "winner.json"), ("weights", "weights.safetensors"))
    }
    winner.save(paths["architecture"])
    final = build(winner)
    final.load_state_dict(network.state_dict())
    save_weights(final, paths["weights"])
    example = next(iter(digits.test.batches(2)))[0]
    exported = deploy.export(final.eval(), folder / "model.onnx", example)
    say(f"    differs from eager by at most {exported.largest_difference:.1e} of the largest output")

    say("7/7 writing the page")
    artifacts = {"report": folder / "report.html", "onnx": exported.path, **paths}
    results = {
        "winner": {**rows[0], "budget_ms": budget},
        "baselines": rows[1:],
        "reference": reference,
        "test_images": len(digits.test),
        "device": dataclasses.asdict(speed),
        "export": {**dataclasses.asdict(exported), "path": str(exported.path)},
        "artifacts": {name: str(path) for name, path in artifacts.items()},
    }
    write_whole(folder / "results.json", json.dumps(results, indent=1) + "\n")
    report.write(folder, artifacts["report"])
    return results


def _train(architecture: Architecture, recipe: train.Recipe, folder: Path) -> train.TrainResult:
    digits, task = data.load("digits"), tasks.Classification(10)
    torch.manual_seed(recipe.seed)
    result = train.fit(task.network(architecture), task, digits, recipe, run_dir=folder)
    say(f"    {folder.name}: {100 * result.metrics['accuracy']:.1f} % on validation images")
    return result


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


def _finalists(history: search.History, budget: float) -> list[search.Trial]:
    """The best trials whose latency, measured again in turns, keeps the budget: one measurement may be lucky."""
    ranked = sorted(history.complete, key=history.score, reverse=True)[: 3 * FINALISTS]
    networks = {str(t.number): build(history.space.resolve(t.decisions)) for t in ranked}
    latencies = measure.latencies(networks, SHAPE)
    kept = [trial for trial in ranked if latencies[str(trial.number)].median_ms <= budget]
    if not kept:
        raise RuntimeError(
            f"none of the {len(ranked)} best networks keeps {budget:.3f} ms when measured again; the machine is busy"
        )
    return kept[:FINALISTS]
