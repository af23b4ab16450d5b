"""From an architecture to a module: the chain `stem -> stages -> neck -> head`, channels threaded through."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, Choice, has_choice
from convsmith.network.weights import save_weights

Maps = Tensor | tuple[Tensor, ...]
Channels = int | tuple[int, ...]


class Network(nn.Module):
    """A built architecture.

    What flows along the chain is one map, or a tuple of maps whose last is the current one: a block that carries two
    maps takes and returns a tuple, any other block is handed the last map.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        refuse_choices(architecture)
        self.architecture = architecture
        self.feature_channels: list[int] = []
        aux_channels: dict[tuple[int, int], int] = {}
        self.stem, channels = _chain(architecture.stem, architecture.in_channels, "stem")
        self.stages = nn.ModuleList()
        for i, specs in enumerate(architecture.stages):
            stage = nn.ModuleList()
            for j, spec in enumerate(specs):
                module, channels = build_block(spec, channels, f"stages.{i}.{j}")
                stage.append(module)
                aux_channels[i, j] = last(channels)
            self.stages.append(stage)
            self.feature_channels.append(last(channels))
        self.neck, channels = _chain(architecture.neck, channels, "neck")
        self.aux = nn.ModuleList(
            build_block(spec, aux_channels[i, j], f"aux.{k}")[0] for k, (i, j, spec) in enumerate(architecture.aux)
        )
        self.out_channels = last(channels)
        if architecture.head is None:
            self.head: nn.Module = nn.Identity()
        else:
            self.head, channels = build_block(architecture.head, self.out_channels, "head")
            self.out_channels = last(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W); without a head, the last map."""
        maps = run_blocks(self.stem, x)
        for stage in self.stages:
            maps = run_blocks(stage, maps)
        return self.head(last_map(run_blocks(self.neck, maps)))

    def forward_aux(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and those of the auxiliary heads in the order of `architecture.aux`."""
        readers = {(i, j): head for head, (i, j, _) in zip(self.aux, self.architecture.aux, strict=True)}
        outputs: dict[tuple[int, int], Tensor] = {}
        maps = run_blocks(self.stem, x)
        for i, stage in enumerate(_modules(self.stages)):
            for j, module in enumerate(_modules(stage)):
                maps = run_blocks((module,), maps)
                if (i, j) in readers:
                    outputs[i, j] = readers[i, j](last_map(maps))
        logits = self.head(last_map(run_blocks(self.neck, maps)))
        return logits, tuple(outputs[i, j] for i, j, _ in self.architecture.aux)

    def features(self, x: Tensor) -> list[Tensor]:
        """The last map of every stage: (N, feature_channels[i], H / feature_strides[i], W / feature_strides[i])."""
        maps = run_blocks(self.stem, x)
        found = []
        for stage in self.stages:
            maps = run_blocks(stage, maps)
            found.append(last_map(maps))
        return found

    def save_weights(self, path: str | Path) -> None:
        """Write weights and architecture into one safetensors file, of which `convsmith.create_model` makes both."""
        save_weights(self, path)

    def pyramid(self, x: Tensor) -> dict[int, Tensor]:
        """The last map of each stride, by stride: what a detector or segmenter reads."""
        return dict(zip(self.feature_strides, self.features(x), strict=True))

    @cached_property
    def feature_strides(self) -> list[int]:
        """By how much smaller than the image each stage's map is, from passes of two sizes on the meta device."""
        sizes = (1024, 2048)
        with torch.device("meta"), torch.no_grad():
            twin = Network(self.architecture).eval()
            maps = [twin.features(torch.empty(1, self.architecture.in_channels, side, side)) for side in sizes]
        # The difference of two sizes: what unpadded borders take off is the same in both.
        return [round((sizes[1] - sizes[0]) / (b.shape[-1] - a.shape[-1])) for a, b in zip(*maps, strict=True)]


def build(architecture: Architecture) -> Network:
    """The network of an architecture, freshly initialised (see `initialise`).

    Raises ValueError, naming the place, for an open choice and for channels that a block refuses.
    """
    network = Network(architecture)
    initialise(network)
    return network


def initialise(network: nn.Module) -> None:
    """He's normal initialisation by fan-out for convolutions (He et al. 2015, arXiv:1502.01852), norms at 1 and 0.

    Fully connected layers are uniform in +-1/sqrt(fan-in); biases of convolutions are zero. Parameters of other
    modules keep the values that their constructors gave. A block whose convolutions start otherwise has a method
    `initialise()`, which is called last.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if callable(own := getattr(module, "initialise", None)):
            own()


def build_block(spec: BlockSpec, channels: Channels, path: str) -> tuple[nn.Module, Channels]:
    """The module of a spec behind these channels, and the channels behind it; errors name the place."""
    carries = spec.carries
    try:
        module = spec.build(last(channels) if carries == 1 else carried(channels, carries))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} ({spec.block}): {str(error).splitlines()[0]}") from None
    return module, module.out_channels


def carried(maps: Any, carries: int) -> tuple[Any, ...]:
    """The latest `carries` maps (or their channels); the oldest one stands in for those that are not there yet."""
    latest = maps[-carries:] if isinstance(maps, tuple) else (maps,)
    return (latest[0],) * (carries - len(latest)) + latest


def last(channels: Channels) -> int:
    """The channels of the current map."""
    return channels if isinstance(channels, int) else channels[-1]


def run_blocks(chain: Any, maps: Maps) -> Maps:
    """What a chain of blocks makes of the maps: one that carries several takes a tuple, any other the last of them."""
    for module in chain:
        maps = module(last_map(maps)) if module.carries == 1 else module(carried(maps, module.carries))
    return maps


def last_map(maps: Maps) -> Tensor:
    """The current map."""
    return maps[-1] if isinstance(maps, tuple) else maps


def _modules(modules: nn.Module) -> Iterable[nn.Module]:
    return cast(Iterable[nn.Module], modules)


def refuse_choices(architecture: Architecture) -> None:
    """Raise ValueError for a tree with choices, naming the first one and the ways on."""
    if has_choice(architecture):
        path, options = architecture.choices()[0]
        raise ValueError(
            f"{architecture.name} is a search space: {path} is open ({Choice(options)!r}); take space.sample(rng), "
            "space.resolve(decisions) or convsmith.network.supernet(space)"
        )


def _chain(specs: Iterable[BlockSpec], channels: Channels, path: str) -> tuple[nn.ModuleList, Channels]:
    modules = nn.ModuleList()
    for i, spec in enumerate(specs):
        module, channels = build_block(spec, channels, f"{path}.{i}")
        modules.append(module)
    return modules, channels
