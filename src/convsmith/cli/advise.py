"""convsmith advise: what to change about a network for a task and a device, and what it would gain."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import InputSize, Json
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.subjects import one_subject

if TYPE_CHECKING:
    from convsmith.measure import Finding

TaskName = Literal["classification", "detection", "segmentation", "gan", "multi-task", "weights"]


@app.command(epilog="Example: convsmith advise mobilenet_v2 --task detection --device-batch 2 --devices 8")
def advise(
    architecture: Annotated[
        str, typer.Argument(metavar="MODEL", help="A zoo name, a .json file, timm:NAME or torchvision:NAME.")
    ],
    task: Annotated[TaskName, typer.Option(help="What the network is for.")] = "classification",
    device_batch: Annotated[int, typer.Option(min=1, help="Images on a device in one training step.")] = 32,
    devices: Annotated[int, typer.Option(min=1, help="Devices that train together.")] = 1,
    device: Annotated[str, typer.Option(help="Where to measure, as torch names it.")] = "cpu",
    input_size: InputSize = None,
    timed: Annotated[bool, typer.Option(help="Measure what layers cost and what edits gain; else count only.")] = True,
    save: Annotated[
        Path | None, typer.Option(help="A folder for the edited architectures.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Turn the lecture on CNN model design into findings with figures, each with an edit and its gain."""
    from convsmith import measure, zoo

    subject = one_subject(architecture)
    found = measure.advise(
        subject.architecture or subject.build(),
        task=task,
        batch_per_device=device_batch,
        devices=devices,
        device=device,
        input_shape=subject.shape(1, input_size),
        timed=timed,
    )
    about = zoo.about(subject.name) if subject.name in zoo.variants() else None
    if about is not None and about.use:
        reason = f"the lecture on CNN model design, row {about.row}: {about.use}"
        found = [*found, measure.Finding("use", (), None, "", reason, "take it where this fits")]
    files = _saved(found, save) if save is not None else {}
    if json:
        print_json([{**_document(finding), "file": files.get(finding.rule)} for finding in found])
        return
    print_table(
        ("rule", "~where", "~figure", ">time", ">edited latency", ">MACs", ">memory", "~edit"),
        ((f.rule, _where(f.where), _figure(f), _share(f.time_share), *_gains(f), f.edit) for f in found),
        title=f"{subject.name} for {task}",
    )
    for finding in found:
        say(f"{finding.rule}: {finding.reason}")
    if input_size is None and task in ("detection", "segmentation"):
        side = subject.shape()[-1]
        say(f"judged at {side}x{side}, the network's own input; --input-size takes that of the images of this task")
    if files:
        say(f"wrote {', '.join(files.values())}")


def _saved(found: list[Finding], folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for finding in found:
        if finding.architecture is not None:
            path = folder / f"{finding.rule.replace(' ', '_').lower()}.json"
            finding.architecture.save(path)
            files[finding.rule] = str(path)
    return files


def _document(finding: Finding) -> dict[str, Any]:
    fields = {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding) if f.name != "architecture"}
    gain = None if finding.gain is None else {**dataclasses.asdict(finding.gain), "how": finding.gain.how}
    return {**fields, "gain": gain}


def _where(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:2]) + (f" and {len(paths) - 2} more" if len(paths) > 2 else "")


def _figure(finding: Finding) -> str:
    return "" if finding.value is None else f"{finding.value:.3g} {finding.unit}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _gains(finding: Finding) -> tuple[str, str, str]:
    gain = finding.gain
    if gain is None:
        return "", "", ""
    latency = "" if gain.latency_ratio is None else f"x {gain.latency_ratio:.2f} {gain.how}"
    return latency, f"x {gain.macs_ratio:.2f}", f"x {gain.memory_ratio:.2f}"
