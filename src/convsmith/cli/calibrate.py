"""convsmith calibrate: measure many networks on this device, so that the latencies of others can be predicted."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json, Threads, positive
from convsmith.cli.calibration_progress import shown
from convsmith.cli.calibrations import calibration_file
from convsmith.cli.output import print_json, say

if TYPE_CHECKING:
    from convsmith.arch import Architecture

    Given: TypeAlias = tuple[Architecture, tuple[int, int, int, int]]

MOST_MACS, MOST_PARAMS = 6e9, 45e6  # of a network of the zoo: larger ones take minutes from many small ones


@app.command(epilog="Example: convsmith calibrate --device cpu --backend onnxruntime --minutes 9 --space mobile")
def calibrate(
    device: Annotated[str, typer.Option(help="Where to measure: cpu.")] = "cpu",
    backend: Annotated[str, typer.Option(help="What to measure with: onnxruntime or openvino.")] = "onnxruntime",
    threads: Threads = 1,
    minutes: Annotated[
        float, typer.Option(callback=positive, help="Time to measure, over all starts on one file; fitting adds one.")
    ] = 8.0,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="A search space whose members are measured among the random networks; of several, in turns.",
            show_default=False,
        ),
    ] = None,
    zoo: Annotated[
        bool, typer.Option(help="Measure the zoo's networks too, but for the largest; in turns with members of spaces.")
    ] = True,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the members' input; 224 by default.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; by default one under calibrations/.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Measure random networks and the zoo's, and fit a predictor; the same command goes on where a stopped one was."""
    from convsmith import measure

    file = out or calibration_file(device, backend, threads)
    if input_size is not None and space is None:
        raise ValueError("--input-size is that of the members of --space, and none is given; add it, or leave it out")
    given = _in_turns(_zoo(file) if zoo else iter(()), _members(space, input_size or 224, file) if space else iter(()))
    with shown(60 * minutes) as progress:
        predictor = measure.LatencyPredictor.calibrate(
            device, backend, threads=threads, minutes=minutes, architectures=given, path=file, progress=progress
        )
    held_out = predictor.held_out
    if json:
        about = dataclasses.asdict(predictor.about)
        print_json(
            {"file": str(file), **about, "networks": predictor.networks, "held_out": dataclasses.asdict(held_out)}
        )
        return
    say(
        f"{file}: {predictor.networks} networks; of {held_out.networks} held out {held_out.within_10:.1%} are within "
        f"10 %, {held_out.within_5:.1%} within 5 %; mean error {held_out.mean_error:.1%}, bias {held_out.bias:+.1%}"
    )


def _members(names: list[str], input_size: int, file: Path) -> Iterator[Given]:
    from convsmith.measure.predictor.jobs import Numbers
    from convsmith.search import spaces

    found = [spaces.get(name, num_classes=1000, in_channels=3, input_size=input_size) for name in names]
    numbered = zip(Numbers(file.resolve()), itertools.cycle(found), strict=False)
    return ((space.sample(Random(number)), (1, 3, input_size, input_size)) for number, space in numbered)


def _zoo(file: Path) -> Iterator[Given]:
    """The zoo's networks up to the limits but for those that the file has, in another order at each start."""
    from convsmith import zoo
    from convsmith.measure.predictor import reading
    from convsmith.measure.predictor.jobs import Numbers

    measured = set(reading.load(file)[0].names) if file.exists() else set()
    left = [name for name in zoo.variants() if name not in measured]
    Random(next(Numbers(file.resolve()))).shuffle(left)
    for name in left:
        own = zoo.get(name)
        size = own.reference
        if size is not None and size.macs <= MOST_MACS and size.params <= MOST_PARAMS:
            yield own, (1, own.in_channels, size.input_size, size.input_size)


def _in_turns(*several: Iterator[Given]) -> Iterator[Given]:
    for ones in itertools.zip_longest(*several):
        yield from (one for one in ones if one is not None)
