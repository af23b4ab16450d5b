"""convsmith demo: the main job, from measuring this device to the file that is shipped, on handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json, RunDir, Seed, run_name
from convsmith.cli.memory import kept_memory
from convsmith.cli.output import print_json, print_table, say


@app.command(epilog="Example: convsmith demo")
def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer epochs and trials: under a minute, less accurate.")
    ] = False,
    seed: Seed = 0,
    run_dir: RunDir = None,
    json: Json = False,
) -> None:
    """Search a network for the handwritten digits of scikit-learn at half the latency of the best classic one.

    Measures this device, trains three classic networks, searches under half the latency of the most accurate of them,
    trains the winner, measures it again, exports and verifies ONNX and writes a page with everything. A few minutes on
    two cores; started again, it goes on where it was.
    """
    from convsmith.cli.demo_steps import run_demo

    folder = Path(run_dir or run_name("demo", *(["quick"] if quick else []), seed))
    with kept_memory():
        results = run_demo(folder, quick=quick, seed=seed)
    if json:
        print_json(results)
        return
    winner = results["winner"]
    print_table(
        ("network", ">test accuracy / %", ">latency / ms", ">params", ">MACs"),
        (
            (
                row["name"],
                f"{100 * row['test_accuracy']:.2f} ± {100 * row['test_accuracy_error']:.2f}",
                f"{row['latency_ms']:.3f}",
                f"{row['params']:,}",
                f"{row['macs']:,}",
            )
            for row in (winner, *results["baselines"])
        ),
    )
    say(
        f"latency budget {winner['budget_ms']:.3f} ms, half of {results['reference']}; ± is the standard error of "
        f"{results['test_images']} test images"
    )
    for what, path in results["artifacts"].items():
        say(f"{what}: {path}")
