"""Tables as data, for the page of a run and for the command line: an architecture, block by block."""

from __future__ import annotations

from dataclasses import dataclass

from convsmith.arch import Architecture
from convsmith.measure import cost
from convsmith.network import output_shapes
from convsmith.report.calls import arguments_text, layer_words


@dataclass(frozen=True)
class BlockRow:
    """One block of an architecture at a given input.

    `stage` is `stem`, `stage 1` (the first of `stages`), `neck` or `head`; `arguments` are those that differ from the
    block's defaults, as they are written in a call, and `words` the same for reading (`layer_words`). `output` is the
    current map behind the block, (C, H, W), or the logits, (classes,). `params` and `macs` are of one image.
    """

    path: str
    stage: str
    block: str
    arguments: str
    words: str
    output: tuple[int, ...]
    params: int
    macs: int

    @property
    def output_size(self) -> str:
        """The output in words: `24 × 56 × 56`."""
        return " × ".join(map(str, self.output))


def architecture_rows(architecture: Architecture, input_shape: tuple[int, int, int]) -> list[BlockRow]:
    """A row for each block, for one image of `input_shape` (C, H, W).

    Auxiliary heads have no row, as they do not run in `forward`. ValueError where the input does not fit.
    """
    counts = cost(architecture, (1, *input_shape)).by_module
    return [
        BlockRow(
            path=path,
            stage=stage_of(path),
            block=spec.block,
            arguments=arguments_text(spec),
            words=layer_words(spec),
            output=shapes[-1][1:],
            params=counts[path].params,
            macs=counts[path].macs,
        )
        for path, spec, shapes in output_shapes(architecture, (1, *input_shape))
    ]


@dataclass(frozen=True)
class Resolution:
    """The blocks whose maps have one size: by how much smaller than the input, and their share of all MACs."""

    stride: int
    output: tuple[int, int]
    blocks: int
    params: int
    macs: int
    share_of_macs: float


def resolutions(rows: list[BlockRow], input_height: int) -> list[Resolution]:
    """What an architecture spends at each size of map, from the rows of `architecture_rows`; the head has no map.

    Networks that downsample fast, such as ShuffleNet (stride 8 behind three layers), spend little on large maps.
    """
    total = sum(row.macs for row in rows) or 1
    sized = [row for row in rows if len(row.output) == 3]
    return [
        Resolution(
            stride=round(input_height / size[0]),
            output=size,
            blocks=len(group := [row for row in sized if row.output[1:] == size]),
            params=sum(row.params for row in group),
            macs=(macs := sum(row.macs for row in group)),
            share_of_macs=macs / total,
        )
        for size in dict.fromkeys((row.output[1], row.output[2]) for row in sized)
    ]


def stage_of(path: str) -> str:
    """The stage of a block's path in words: `stem`, `stage 1`, `neck` or `head`."""
    part, _, index = path.partition(".")
    return f"stage {int(index.partition('.')[0]) + 1}" if part == "stages" else part
