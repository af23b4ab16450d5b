"""Shortcuts, attention and the mixing of channels."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.measure.advice.case import Case, fits
from convsmith.measure.advice.edits import changed
from convsmith.measure.advice.finding import LECTURE, Finding
from convsmith.network import output_shapes
from convsmith.nn import ChannelShuffle, InvertedResidual, SqueezeExcite, has_full_channel_receptive_field

SHORTCUTS = ("add", "cat")
GATES = ("sigmoid", "hardsigmoid")
SE_RATIO = 1 / 16  # Hu et al. 2018, arXiv:1709.01507, Sec. 6.1
DEEPEST_PLAIN = (
    10  # He et al. 2016, arXiv:1512.03385, Fig. 1: plain networks of 20 layers already lose to shallower ones
)


def shortcuts(case: Case) -> Iterator[Finding]:
    """A deep network in which no map is added to, or kept beside, a later one."""
    depth = len(case.convolutions)
    if depth <= DEEPEST_PLAIN or any(name in case.cost.by_operator for name in SHORTCUTS):
        return
    edited, where = _with_shortcuts(case)
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
    """No squeeze-and-excitation, nor anything else that gates channels."""
    if any(name in case.cost.by_operator for name in GATES) or not case.convolutions:
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
    """Stages of grouped convolutions in which some output channel never sees some input channel."""
    for path, stage in _stages(case):
        convolutions = [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
        if not any(layer.groups > 1 for layer in convolutions):
            continue
        reason = (
            "a grouped convolution reads its own group; without a shuffle or a pointwise convolution between, groups "
            f"never meet ({LECTURE}: channel shuffle; Zhang D-Q. 2018, arXiv:1712.06145)"
        )
        try:
            full = has_full_channel_receptive_field(stage)
        except (ValueError, TypeError) as error:
            undecided = f"whether each output channel sees each input channel could not be decided ({error})"
            yield Finding("channel receptive field", (path,), None, "", undecided, "check the groups by hand")
            continue
        if not full:
            yield Finding(
                rule="channel receptive field",
                where=(path,),
                value=max(layer.groups for layer in convolutions),
                unit="groups that do not meet",
                reason=reason,
                edit="shuffle the channels between grouped convolutions",
                architecture=_shuffled(case, path),
            )


def _stages(case: Case) -> Iterator[tuple[str, nn.Module]]:
    if case.architecture is None:
        yield from case.network.named_children()
        return
    for i, chain in enumerate(case.architecture.stages):
        blocks = [case.network.get_submodule(f"stages.{i}.{j}") for j in range(len(chain))]
        if blocks:
            yield f"stages.{i}", nn.Sequential(*blocks)


def _with_shortcuts(case: Case) -> tuple[Architecture | None, tuple[str, ...]]:
    """Depthwise separable blocks of unchanged shape as inverted residuals without expansion; all such blocks."""
    if case.architecture is None:
        return None, ()
    before, same = case.input_shape, []
    for path, _, behind in output_shapes(case.architecture, case.input_shape):
        if path.startswith("stages.") and behind[-1] == before:
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
    architecture, index = case.architecture, int(stage.rpartition(".")[2]) if "." in stage else 0
    if architecture is None:
        return None
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
