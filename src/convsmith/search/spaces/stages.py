"""A space of plain stages, for inputs of any size: what is decided, is decided once for all blocks of a stage.

The design space of Designing Network Design Spaces (Radosavovic, Kosaraju, Girshick, He & Dollar, CVPR 2020,
arXiv:2003.13678, Sec. 3.2, "AnyNet": stem, stages of equal blocks, head), with the type of the block left open too.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, choice, spec
from convsmith.nn import BasicBlock, Bottleneck, Classifier, ConvNormAct, DepthwiseSeparable, InvertedResidual, MaxPool
from convsmith.search.spaces.sizing import halvings

MAX_STAGES = 4


def stages(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    input_size: int = 32,
    widths: tuple[int, ...] = (8, 16, 32, 64),
    depths: tuple[int, ...] = (1, 2, 3),
    kernel_sizes: tuple[int, ...] = (3, 5),
    expansions: tuple[float, ...] = (2.0, 4.0, 6.0),
) -> Architecture:
    """Width, depth, block type, kernel size, expansion and squeeze-and-excitation of each stage, and the stem.

    `widths` are those of the first stage, doubled from stage to stage; a stage but the first opens with a max-pooling
    of stride 2. There are as many stages, four at most, as leave a last map of 4 x 4: two for 8 x 8 inputs, three for
    16 x 16, four from 32 x 32 on; from 64 x 64 on the stem downsamples as well. The stem may halve the maps once
    more ("fast downsampling"), which leaves a last map of at least 2 x 2.

    With the default options the stem has 8 forms, a stage 312, and the space 8 * 312**stages networks: 778,752 for
    8 x 8 inputs, 7.6e10 from 32 x 32 on.
    """
    count = min(MAX_STAGES, 1 + halvings(input_size))
    strides = halvings(input_size) - (count - 1)  # of the stem

    def stem(halved: int) -> tuple[BlockSpec, ...]:
        convolution = spec(ConvNormAct, choice(*widths, name="stem_width"), stride=2 if halved else 1)
        return (convolution, *[spec(MaxPool)] * (halved - 1))

    def stage(number: int) -> list[BlockSpec]:
        def of_stage(what: str) -> str:
            return f"stage{number}_{what}"

        width = choice(*(width * 2 ** (number - 1) for width in widths), name=of_stage("width"))
        kernel_size = choice(*kernel_sizes, name=of_stage("kernel_size"))
        se_ratio = choice(0.0, 0.25, name=of_stage("se_ratio"))
        expansion = choice(*expansions, name=of_stage("expansion"))
        bottleneck_ratio = choice(0.25, 0.5, name=of_stage("bottleneck_ratio"))
        block = choice(
            spec(InvertedResidual, width, kernel_size=kernel_size, expansion=expansion, se_ratio=se_ratio, act="relu"),
            spec(DepthwiseSeparable, width, kernel_size=kernel_size),
            spec(BasicBlock, width, kernel_size=kernel_size, se_ratio=se_ratio),
            spec(Bottleneck, width, kernel_size=kernel_size, bottleneck_ratio=bottleneck_ratio, se_ratio=se_ratio),
            name=of_stage("block"),
        )
        repeated = choice(*((block,) * depth for depth in depths), name=of_stage("depth"))
        return [repeated] if number == 1 else [spec(MaxPool), repeated]  # type: ignore[list-item]

    return Architecture(
        name="stages",
        in_channels=in_channels,
        stem=[choice(stem(strides), stem(strides + 1), name="stem")],  # type: ignore[list-item]
        stages=[stage(number) for number in range(1, count + 1)],
        head=spec(Classifier, num_classes),
    )
