"""The layer, the head and whole networks of CondenseNet (Huang et al. 2018, arXiv:1711.09224), trained and shipped."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, block, spec
from convsmith.nn.channels import check_positive, inner_channels
from convsmith.nn.condensed_conv import CondensedConv2d
from convsmith.nn.dense import NormActConv
from convsmith.nn.learned_group import LearnedGroupConv2d
from convsmith.nn.norm import BATCH_NORM


@block("condense_layer")
class CondenseLayer(nn.Module):
    """A layer of CondenseNet (Fig. 1): learned 1 x 1, then grouped 3 x 3 convolution, both behind norm and activation.

    Its `growth_rate` maps follow the input. The 1 x 1 convolution has `bottleneck_ratio * growth_rate` outputs, or
    exactly `hidden_channels`. `condensed` makes it a `CondensedConv2d`, which has no use for `drop_rate`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        growth_rate: int = 32,
        groups: int = 4,
        condensation: int = 4,
        bottleneck_ratio: float = 4.0,
        dilation: int = 1,
        drop_rate: float = 0.0,
        condensed: bool = False,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        hidden = inner_channels(hidden_channels, growth_rate * bottleneck_ratio)
        if condensed:
            self.reduce: nn.Module = CondensedConv2d(
                in_channels, hidden, groups=groups, condensation=condensation, norm=norm, act=act
            )
        else:
            self.reduce = LearnedGroupConv2d(
                in_channels,
                hidden,
                groups=groups,
                condensation=condensation,
                drop_rate=drop_rate,
                norm=norm,
                act=act,
            )
        self.grow = NormActConv(hidden, growth_rate, groups=groups, dilation=dilation, norm=norm, act=act)
        self.out_channels = in_channels + growth_rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + growth_rate, H, W)."""
        return torch.cat((x, self.grow(self.reduce(x))), 1)


@block("condense_classifier")
class CondenseClassifier(nn.Module):
    """Global average pooling and a fully connected layer that keeps 1 / `condensation` of its features.

    The layer is a learned group convolution of one group on the pooled map: with the default it drops half of the
    features half way through the training. The released code drops as many, by the same measure, after it.
    `condensed` is the head as it is shipped, with its index of features.
    """

    def __init__(self, in_channels: int, num_classes: int, *, condensation: int = 2, condensed: bool = False):
        super().__init__()
        check_positive(num_classes=num_classes)
        self.pool = nn.AdaptiveAvgPool2d(1)
        layer = CondensedConv2d if condensed else LearnedGroupConv2d
        self.linear = layer(in_channels, num_classes, groups=1, condensation=condensation, norm=None, act="identity")
        self.out_channels = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.linear(self.pool(x)).flatten(1)


def condense_network(network: nn.Module) -> nn.Module:
    """A copy of a trained network with every learned group convolution as it is shipped; the outputs are the same.

    Names of modules stay, and the copy's `architecture` is that of the blocks with `condensed=True`, which fits the
    weights. Another block that holds a learned group convolution needs this argument too.
    """
    if isinstance(network, LearnedGroupConv2d):
        return network.condensed()
    network = copy.deepcopy(network)
    parents: list[Any] = list(network.modules())
    for parent in parents:
        for name, child in parent.named_children():
            if isinstance(child, LearnedGroupConv2d):
                setattr(parent, name, child.condensed())
        if isinstance(getattr(parent, "architecture", None), Architecture):
            parent.architecture = _condensed_architecture(parent.architecture)
    return network


def _condensed_architecture(architecture: Architecture) -> Architecture:
    parts = {part: _condensed(getattr(architecture, part)) for part in ("stem", "stages", "neck", "head", "aux")}
    condensed = architecture.replace(**parts, found_by=architecture.found_by)
    return architecture if condensed == architecture else condensed


def _condensed(node: Any) -> Any:
    if isinstance(node, tuple):
        return tuple(map(_condensed, node))
    if not isinstance(node, BlockSpec):
        return node
    arguments = {name: _condensed(value) for name, value in node.arguments}
    if node.block == "learned_group_conv2d":
        del arguments["drop_rate"]
        return spec(CondensedConv2d, **arguments)
    condensed = BlockSpec(node.block, arguments.items())
    return condensed.replace(condensed=True) if condensed.has("condensed") else condensed
