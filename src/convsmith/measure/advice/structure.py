"""Shortcuts, attention and the mixing of channels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.measure.advice.case import Case, fits
from convsmith.measure.advice.edits import changed
from convsmith.measure.advice.finding import LECTURE, Finding
from convsmith.measure.advice.joins import gates_in, longest_chain, weighs_by_products
from convsmith.network import output_shapes
from convsmith.network.build import Maps, last_map, run_blocks
from convsmith.nn import ChannelShuffle, InvertedResidual, SqueezeExcite, has_full_channel_receptive_field

_MOVING = (  # channels, or reading all of them
    "channel_shuffle native_channel_shuffle convsmith::channel_shuffle transpose permute movedim index_select index "
    "layer_norm native_layer_norm softmax"
)
MOVING = frozenset(_MOVING.split())
SE_RATIO = 1 / 16  # Hu et al. 2018, arXiv:1709.01507, Sec. 6.1
DEEPEST_PLAIN = (
    10  # He et al. 2016, arXiv:1512.03385, Fig. 1: plain networks of 20 layers already lose to shallower ones
)


def shortcuts(case: Case) -> Iterator[Finding]:
    """A long chain of convolutions in which no map is added to, or kept beside, one made of it by more layers.

    The chain is the longest without a shortcut, also in a network that has shortcuts elsewhere.
    """
    depth, found = longest_chain(case.flow)
    if depth <= DEEPEST_PLAIN:
        return
    edited, where = _with_shortcuts(case, {case.flow[i].module for i in found})
    yield Finding(
        rule="shortcuts",
        where=where,
        value=depth,
        unit="convolutions in one chain, without a shortcut",
        reason=f"deep chains train worse than shallower ones, with shortcuts they do not ({LECTURE}: shortcut matters, "
        "feature reuse; He et al. 2016, arXiv:1512.03385)",
        edit="add the input of each block of unchanged shape to its output",
        architecture=edited,
    )


def attention(case: Case) -> Iterator[Finding]:
    """No squeeze-and-excitation, nor anything else that multiplies a map by weights made from it."""
    if not case.convolutions or gates_in(case.flow) or weighs_by_products(case.flow):
        return
    yield Finding(
        rule="attention",
        where=(),
        value=0.0,
        unit="gated maps",
        reason=f"channel attention raises accuracy for few MACs ({LECTURE}: recommended; Hu et al. 2018, "
        "arXiv:1709.01507: ResNet-50 from 24.8 to 23.3 % error)",
        edit="add squeeze-and-excitation to each block, or behind each stage",
        architecture=_with_attention(case),
    )


def channel_reach(case: Case) -> Iterator[Finding]:
    """Stages of grouped convolutions in which some output channel never sees some input channel.

    The rule is about groups behind groups: a stage of several convolutions must mix its channels by itself, while one
    grouped convolution alone is mixed by the next convolution, in whatever stage that is, unless it has groups too and
    nothing moves channels between. Of an architecture the stages are its own. Of another module they are its children;
    layers that stand beside one another in an `nn.Sequential` are one stage, from the first convolution to the last.
    """
    for paths, stage, in_channels in _stages(case):
        convolutions = [own for own in case.flow if own.is_convolution and _is_in(own.module, paths)]
        grouped = [own for own in convolutions if own.groups > 1]
        if not grouped:
            continue
        where = paths if len(paths) == 1 else tuple(dict.fromkeys(own.module for own in grouped))
        reason = (
            "a grouped convolution reads its own group; without a shuffle or a pointwise convolution between, groups "
            f"never meet ({LECTURE}: channel shuffle; Zhang D-Q. 2018, arXiv:1712.06145)"
        )
        try:
            full = has_full_channel_receptive_field(stage, in_channels=in_channels)
        except (ValueError, TypeError) as error:
            undecided = f"whether each output channel sees each input channel could not be decided ({error})"
            yield Finding("channel receptive field", where, None, "", undecided, "check the groups by hand")
            continue
        if not full and (len(convolutions) > 1 or _meets_groups(case, convolutions[0].module)):
            yield Finding(
                rule="channel receptive field",
                where=where,
                value=max(own.groups for own in grouped),
                unit="groups that do not meet",
                reason=reason,
                edit="shuffle the channels between grouped convolutions",
                architecture=_shuffled(case, where[0]),
            )


class _Stage(nn.ModuleList):
    """A stage of an architecture, of which the next one reads the current map."""

    def forward(self, maps: Maps) -> Tensor:
        return last_map(run_blocks(self, maps))


Stage = tuple[tuple[str, ...], nn.Module, int | tuple[int, ...] | None]


def _stages(case: Case) -> Iterator[Stage]:
    """The paths of each stage's parts, the stage, and the channels that it reads, where they are known."""
    if case.architecture is not None:
        yield from _stages_of(case, case.architecture)
        return
    children = list(case.network.named_children())
    if not isinstance(case.network, nn.Sequential):
        yield from (((path,), child, _read(case, (path,))) for path, child in children)
        return
    convolving = {own.module for own in case.flow if own.is_convolution}
    for are_leaves, run in groupby(children, key=lambda child: _is_leaf(child[1])):
        parts = list(run)
        if not are_leaves:
            yield from (((path,), child, _read(case, (path,))) for path, child in parts)
            continue
        layers = [i for i, (path, _) in enumerate(parts) if path in convolving]
        if layers:
            chosen = dict(parts[layers[0] : layers[-1] + 1])
            yield tuple(chosen), nn.Sequential(*chosen.values()), _read(case, tuple(chosen))


def _stages_of(case: Case, architecture: Architecture) -> Iterator[Stage]:
    before: tuple[tuple[int, ...], ...] = (tuple(case.input_shape),)
    known = ""
    for path, own, behind in output_shapes(architecture, case.input_shape):
        stage = path.rpartition(".")[0]
        if stage.startswith("stages.") and stage != known:
            known, widths = stage, tuple(shape[1] for shape in before[-own.carries :])
            blocks = _Stage(case.network.get_submodule(stage).children())
            yield (stage,), blocks, widths if len(widths) > 1 else widths[0]
        before = behind


def _read(case: Case, paths: tuple[str, ...]) -> int | None:
    """The channels of the map that the first operator inside of these modules reads."""
    first = next((own for own in case.flow if _is_in(own.module, paths)), None)
    shape = first.read_shapes[0] if first is not None and first.read_shapes else ()
    return shape[1] if len(shape) == 4 else None


def _is_in(module: str, paths: tuple[str, ...]) -> bool:
    return any(module == path or module.startswith(f"{path}.") for path in paths)


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _meets_groups(case: Case, path: str) -> bool:
    """Whether a grouped convolution hands its groups on to another one before anything mixes or moves channels.

    Depthwise convolutions are no groups of many channels: they neither hand on nor end it.
    """
    handed: set[int] = set()
    for i, operation in enumerate(case.flow):
        reads = handed.intersection(operation.reads)
        grouped = operation.is_convolution and operation.groups > 1 and not operation.is_depthwise
        if reads and grouped:
            return True
        mixes = (operation.is_layer and not operation.is_depthwise) or operation.name in MOVING
        if (reads and not mixes) or (grouped and operation.module == path):
            handed.add(i)
    return False


def _with_shortcuts(case: Case, having: set[str]) -> tuple[Architecture | None, tuple[str, ...]]:
    """Depthwise separable blocks of unchanged shape as inverted residuals without expansion; all such blocks.

    Blocks in whose modules a shortcut is already, by their paths, are left out.
    """
    if case.architecture is None:
        return None, ()
    before, same = case.input_shape, []
    for path, _, behind in output_shapes(case.architecture, case.input_shape):
        plain = not any(module == path or module.startswith(f"{path}.") for module in having)
        if path.startswith("stages.") and behind[-1] == before and plain:
            same.append(path)
        before = behind[-1]

    def change(path: str, own: BlockSpec) -> BlockSpec:
        if path not in same or own.block != "depthwise_separable":
            return own
        kept = {name: own.get(name) for name in ("kernel_size", "dilation", "norm", "act")}
        return spec(InvertedResidual, own.get("out_channels"), expansion=1.0).replace(**kept)

    edited = changed(case.architecture, change)
    usable = edited != case.architecture and fits(edited, case.input_shape)
    return (edited if usable else None), tuple(same)


def _with_attention(case: Case) -> Architecture | None:
    if case.architecture is None:
        return None
    edited = changed(
        case.architecture, lambda path, own: own.replace(se_ratio=SE_RATIO) if own.has("se_ratio") else own
    )
    if edited == case.architecture:
        edited = case.architecture.replace(stages=[(*stage, spec(SqueezeExcite)) for stage in case.architecture.stages])
    return edited if fits(edited, case.input_shape) else None


def _shuffled(case: Case, stage: str) -> Architecture | None:
    """A shuffle by its groups behind each grouped block of the stage but the last; None where that is not enough."""
    architecture = case.architecture
    if architecture is None:
        return None
    index = int(stage.rpartition(".")[2])
    chain: list[BlockSpec] = []
    for own in architecture.stages[index]:
        groups = own.get("groups", 1)
        chain += [own, spec(ChannelShuffle, groups=groups)] if groups > 1 else [own]
    if chain and chain[-1].block == "channel_shuffle":
        chain.pop()
    stages = list(architecture.stages)
    stages[index] = tuple(chain)
    edited = architecture.replace(stages=stages)
    return edited if edited != architecture and fits(edited, case.input_shape) else None
