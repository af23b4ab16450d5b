"""Which input channels an output channel depends on: the channel dependency graph (Zhang D-Q. 2018, arXiv:1712.06145).

A chain of grouped convolutions has a full channel receptive field if every output depends on every input. The graph is
found in Boolean arithmetic: a module runs on one image of one pixel per input channel, which is True in the channels
that depend on this input. A convolution is a logical or within each group; what only moves channels runs as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from convsmith.nn.channel_map import ChannelMap, grouped, shuffled as shuffle
from convsmith.nn.channels import check_divisible

Widths = int | tuple[int, ...]
Stack = nn.Module | Sequence[nn.Module] | Sequence[tuple[int, int]]


def channel_dependency_graph(stack: Stack, *, shuffled: bool = True, in_channels: Widths | None = None) -> Tensor:
    """The graph as a Boolean matrix (outputs, inputs): whether the output depends on the input, whatever the weights.

    A norm over several channels, global statistics in squeeze-and-excitation and the like are dependencies too, and so
    are the offsets of a deformable convolution: through them each output depends on what the offset convolution reads.
    A cell of a network, which takes and gives a tuple of maps, has the channels of all of them, one map after another.

    Args:
        stack: Grouped convolutions as pairs `(channels, groups)`: each reads `channels` channels in `groups` groups and
            writes as many as the next one reads, the last one as many as it reads itself. Or a module, or a list
            or `ModuleList` of modules that follow one another: convolutions of any groups, norms, activations, pooling
            and whatever routes channels. A module is seen in eval mode; its weights are not read, it may be on the meta
            device. The masks of a `LearnedGroupConv2d` count as weights: its `condensed()` form shows what is left.
        shuffled: Whether between two pairs a channel shuffle stands, by the groups of the first one, which spreads each
            of its groups as widely as can be. Modules shuffle for themselves.
        in_channels: The input channels of a module (default: those that its first convolution reads), a tuple for one
            that takes a tuple of maps.

    Raises ValueError for channels that the groups do not divide, for what is neither modules nor pairs, and for a
    module with an operator of which it is not known what it depends on.
    """
    parts: list[Any] = list(stack) if isinstance(stack, Sequence) or _is_list(stack) else [stack]
    if not parts:
        raise ValueError("a channel dependency graph needs at least one convolution, got none; give (channels, groups)")
    if all(isinstance(part, nn.Module) for part in parts):
        return _of_module(nn.Sequential(*parts), in_channels)
    for part in parts:
        if not isinstance(part, Sequence) or [type(number) for number in part] != [int, int] or part[0] < 1:
            raise ValueError(
                "a stack has modules alone, or alone pairs (channels, groups) of at least one channel, got "
                f"{part!r} in it; give nn.Conv2d in the place of a pair among modules"
            )
    return _of_pairs(parts, shuffled)


def _is_list(stack: object) -> TypeGuard[nn.ModuleList]:
    """Whether it is a list of modules alone: some, such as a stage of cells, say themselves how these follow."""
    return isinstance(stack, nn.ModuleList) and type(stack).forward is nn.Module.forward


def has_full_channel_receptive_field(stack: Stack, *, shuffled: bool = True, in_channels: Widths | None = None) -> bool:
    """Whether every output channel depends on every input channel; arguments as in `channel_dependency_graph`.

    Two shuffled convolutions `[(C, g1), (C, g2)]` have a full channel receptive field exactly if g1 * g2 <= C: a group
    of the second one reads C / g2 neighbouring channels, and the shuffle laid the g1 groups side by side.
    """
    return bool(channel_dependency_graph(stack, shuffled=shuffled, in_channels=in_channels).all())


def _of_pairs(pairs: list[tuple[int, int]], shuffled: bool) -> Tensor:
    reached = torch.eye(pairs[0][0], dtype=torch.bool)
    for i, (channels, groups) in enumerate(pairs):
        out_channels = pairs[min(i + 1, len(pairs) - 1)][0]
        check_divisible(channels=channels, groups=groups)
        check_divisible(out_channels=out_channels, groups=groups)
        reached = grouped(reached, groups, out_channels)
        if shuffled and i + 1 < len(pairs):
            reached = shuffle(reached, groups)
    return reached.T


def _of_module(module: nn.Module, in_channels: Widths | None) -> Tensor:
    if in_channels is None:
        told = (getattr(layer, "in_channels", None) for layer in module.modules())
        in_channels = next((channels for channels in told if isinstance(channels, int)), None)
        if in_channels is None:
            raise ValueError("the module has no convolution to tell its input channels; give in_channels")
    widths = in_channels if isinstance(in_channels, tuple) else (in_channels,)
    image = torch.eye(sum(widths), dtype=torch.bool)[..., None, None].as_subclass(ChannelMap)
    maps = torch.split(image, list(widths), 1)
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.no_grad():
            found = module(maps if isinstance(in_channels, tuple) else maps[0])
    except (RuntimeError, TypeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the channel dependencies of a module are found on maps of one pixel and {in_channels} channels, which "
            f"it cannot take ({reason}); give its in_channels, or a part of it"
        ) from error
    finally:
        for layer in training:
            layer.training = True
    outputs = found if isinstance(found, tuple) else (found,)
    return torch.cat([_of_channels(output.as_subclass(Tensor)) for output in outputs])


def _of_channels(reached: Tensor) -> Tensor:
    """(inputs, outputs) or (inputs, outputs, H, W) -> (outputs, inputs)."""
    return reached.flatten(2).any(2).T if reached.dim() > 2 else reached.T
