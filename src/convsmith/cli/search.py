"""convsmith search: find a network for a data set under limits measured on this device."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import DataName, ImageSide, Json, RunDir, Seed, Threads, positive, run_name
from convsmith.cli.memory import kept_memory
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.search_options import check_limited, chosen_executor, latency_limit, strategy_options

Limit = Annotated[
    float | None, typer.Option(callback=positive, help="The largest admissible value.", show_default=False)
]


@app.command(epilog="Example: convsmith search --data digits --trials 40 --max-latency-ms 1.5 --epochs 5")
def search(
    data: DataName,
    space: Annotated[str, typer.Option(help="stages or mobile.")] = "stages",
    strategy: Annotated[
        str, typer.Option(help="random, local_search or regularized_evolution.")
    ] = "regularized_evolution",
    trials: Annotated[int, typer.Option(min=1, help="Complete trials, over all starts of this run.")] = 50,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs that a candidate is trained.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 64,
    objective: Annotated[str, typer.Option(help="The metric to maximise; a leading '-' minimises.")] = "accuracy",
    max_latency_ms: Limit = None,
    max_params: Limit = None,
    max_macs: Limit = None,
    max_activations: Limit = None,
    max_memory_bytes: Limit = None,
    latency: Annotated[str, typer.Option(help="measured, or predicted with the finalists measured.")] = "measured",
    calibration: Annotated[Path | None, typer.Option(help="For predicted: `convsmith calibrate`'s file.")] = None,
    backend: Annotated[str, typer.Option(help="What the latency is measured with.")] = "eager",
    threads: Threads = 1,
    population: Annotated[
        int | None, typer.Option(min=1, help="Population of the evolution; 20 by default.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Sample whose best is the parent; 5 by default.", show_default=False)
    ] = None,
    executor: Annotated[str, typer.Option(help="inline, or process: one worker per core.")] = "inline",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of --executor process.", show_default=False)
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option(callback=positive, help="Time of one trial, with --executor process.", show_default=False),
    ] = None,
    input_size: ImageSide = None,
    seed: Seed = 0,
    run_dir: RunDir = None,
    json: Json = False,
) -> None:
    """Search a space; the same command on the same run resumes, a larger --trials extends it."""
    from convsmith import data as data_sets, search as searching
    from convsmith.train import recipes

    if max_latency_ms is None:
        given = {"latency": (latency, "measured"), "calibration": (calibration, None), "backend": (backend, "eager")}
        check_limited({**given, "threads": (threads, 1)})
    images = data_sets.load(data, input_size=input_size)
    channels, side, _ = images.input_shape
    shape = (1, channels, side, side)
    limits = {"params": max_params, "macs": max_macs, "activations": max_activations, "memory_bytes": max_memory_bytes}
    constraints = [searching.cost_constraint(m, v, shape) for m, v in limits.items() if v is not None]  # type: ignore[arg-type]
    searched = searching.spaces.get(space, num_classes=images.num_classes, in_channels=channels, input_size=side)
    # Latencies are measured in this process, when a calibration is made and for each candidate.
    with kept_memory() if max_latency_ms is not None else nullcontext():
        if max_latency_ms is not None:
            how: Any = {"latency": latency, "backend": backend, "threads": threads, "calibration": calibration}
            constraints.append(latency_limit(max_latency_ms, shape, searched, **how))
        recipe = dataclasses.replace(recipes.get("basic"), epochs=epochs, batch_size=batch_size)
        folder = run_dir or run_name("search", data, space, strategy, seed)
        history = searching.search(
            searched,
            searching.strategies.get(strategy, **strategy_options(strategy, population, sample)),
            searching.TrainAndMeasure(data, recipe, input_size=input_size),
            trials=trials,
            objective=objective,
            constraints=constraints,
            seed=seed,
            run_dir=folder,
            executor=chosen_executor(executor, workers, timeout_s),
        )
    states = [trial.state for trial in history]
    if json:
        best = None if history.best is None else dataclasses.asdict(history.best)
        counts = {state: states.count(state) for state in ("complete", "failed", "infeasible")}
        file = None if best is None else str(folder / "best.json")
        print_json({"run_dir": str(folder), "counts": counts, "best": best, "architecture": file})
        return
    if not history.complete:
        say(f"{folder}: no trial is complete; relax the limits, or take another space")
        return
    best_first = sorted(history.complete, key=history.score, reverse=True)[:10]
    metrics = list(dict.fromkeys(metric for trial in best_first for metric in trial.metrics))
    print_table(
        (">trial", *(f">{metric}" for metric in metrics)),
        ((str(t.number), *(f"{t.metrics[m]:.5g}" if m in t.metrics else "" for m in metrics)) for t in best_first),
    )
    if any(metric.startswith("predicted_") for metric in metrics):
        say("latency_ms is measured where predicted_latency_ms stands beside it, and predicted elsewhere")
    say(
        f"{folder}: {len(history.complete)} complete trials; best.json holds the best network, `convsmith report` "
        "makes the page"
    )
