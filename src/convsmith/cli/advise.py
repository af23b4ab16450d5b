"""convsmith advise: what to change about a network for a task and a device, and what it would gain."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json, Model
from convsmith.cli.calibrations import calibration_file
from convsmith.cli.findings import document, print_findings, saved
from convsmith.cli.memory import kept_memory
from convsmith.cli.output import print_json, say
from convsmith.cli.sizes import InputSize
from convsmith.cli.subjects import one_subject

if TYPE_CHECKING:
    from convsmith.measure import LatencyPredictor

TaskName = Literal["classification", "detection", "segmentation", "gan", "multi-task", "weights"]


@app.command(epilog="Example: convsmith advise mobilenet_v2 --task detection --device-batch 2 --devices 8")
def advise(
    architecture: Model,
    task: Annotated[TaskName, typer.Option(help="What the network is for.")] = "classification",
    device_batch: Annotated[int, typer.Option(min=1, help="Images on a device in one training step.")] = 32,
    devices: Annotated[int, typer.Option(min=1, help="Devices that train together.")] = 1,
    device: Annotated[str, typer.Option(help="Where to measure, as torch names it.")] = "cpu",
    input_size: InputSize = None,
    timed: Annotated[
        bool, typer.Option(help="Measure what layers cost and what edits gain; else count, or predict.")
    ] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A file of `convsmith calibrate`, that of onnxruntime on one thread by default where there is one: "
            "gains are predicted by it, not measured.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="A folder for the edited architectures.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Turn the lecture on CNN model design into findings with figures, each with an edit and its gain."""
    from convsmith import measure, zoo
    from convsmith.arch import check_takes_files

    if save is not None:
        check_takes_files(save)
    subject = one_subject(architecture)
    with kept_memory(device) if timed else nullcontext():
        found = measure.advise(
            subject.architecture or subject.build(),
            task=task,
            batch_per_device=device_batch,
            devices=devices,
            device=device,
            input_shape=subject.shape(1, input_size),
            timed=timed,
            predictor=_predictor(calibration, device),
        )
    about = zoo.about(subject.name) if subject.name in zoo.variants() else None
    if about is not None and about.use:
        reason = f"the lecture on CNN model design, row {about.row}: {about.use}"
        found = [*found, measure.Finding("use", (), None, "", reason, "take it where this fits")]
    files = saved(found, save) if save is not None else {}
    if json:
        print_json([{**document(finding), "file": files.get(finding.rule)} for finding in found])
        return
    print_findings(found, title=f"{subject.name} for {task}")
    for finding in found:
        say(f"{finding.rule}: {finding.reason}")
    if input_size is None and task in ("detection", "segmentation"):
        side = subject.shape()[-1]
        say(f"judged at {side}x{side}, the network's own input; --input-size takes that of the images of this task")
    if files:
        say(f"wrote {', '.join(files.values())}")


def _predictor(calibration: Path | None, device: str) -> LatencyPredictor | None:
    """Of the file that is named, which must be this device's, or of the one that lies where `calibrate` puts it."""
    from convsmith import measure

    file = calibration or calibration_file(device, "onnxruntime", 1)
    if calibration is None and not file.is_file():
        return None
    try:
        predictor = measure.LatencyPredictor.load(file)
    except (ValueError, ImportError) as error:
        if calibration is not None:
            raise
        say(f"gains are not predicted: {error}")
        return None
    about, held = predictor.about, predictor.held_out
    say(
        f"gains are predicted for {about.backend} on {about.threads} thread{'s' * (about.threads > 1)} by {file}; "
        f"{held.within_10:.0%} of networks held out of it were within 10 %"
    )
    return predictor
