"""Supernets: a space becomes one network that holds all of its candidates, and exchanges weights with them by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from convsmith.arch import Architecture, BlockSpec, Choice, Decisions, has_choice, resolve, spec
from convsmith.network.build import Network
from convsmith.nn.sequence import Mixed, Sequence


def supernet(space: Architecture) -> Architecture:
    """The space with each choice of blocks, and each block with choices among its arguments, as one `mixed` block.

    A block with open arguments is mixed over all their combinations, a choice of chains over `sequence`s. Options of
    one mixture must agree in shape, so widths and strides cannot be mixed; nor can the head.
    """
    return space.replace(
        stem=[_mixed(node, f"stem.{i}") for i, node in enumerate(space.stem)],
        stages=[
            [_mixed(node, f"stages.{i}.{j}") for j, node in enumerate(stage)] for i, stage in enumerate(space.stages)
        ],
        neck=[_mixed(node, f"neck.{i}") for i, node in enumerate(space.neck)],
    )


def inherit(network: Network, source: Network, space: Architecture, decisions: Decisions) -> None:
    """Copy into a candidate's network the weights that a supernet of the space has for these decisions.

    `network` is `build(space.resolve(decisions))`, `source` is `build(supernet(space))`. ValueError if a weight is
    missing or has another shape.
    """
    weights = source.state_dict()
    chosen: dict[str, torch.Tensor] = {}
    chains = [("stem", space.stem), *((f"stages.{i}", s) for i, s in enumerate(space.stages)), ("neck", space.neck)]
    for path, chain in chains:
        position = 0
        for i, node in enumerate(chain):
            for inside in _inside(node, f"{path}.{i}", decisions):
                prefix = f"{path}.{i}{inside}."
                found = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
                chosen.update({f"{path}.{position}.{key}": value for key, value in found.items()})
                position += 1
    own = network.state_dict()
    chosen.update({key: value for key, value in weights.items() if key.startswith(("head.", "aux."))})
    missing = [key for key in own if key not in chosen or chosen[key].shape != own[key].shape]
    if missing:
        raise ValueError(
            f"the supernet has no weight for {missing[0]} of {network.architecture.name}; are the decisions its own?"
        )
    network.load_state_dict({key: chosen[key] for key in own})


def _mixed(node: Any, path: str) -> BlockSpec:
    """The closed spec that stands in a supernet in place of a node of the space."""
    if isinstance(node, Choice):
        key = node.name or path
        options = tuple(
            spec(Sequence, blocks=tuple(_mixed(item, f"{key}:{i}.{j}") for j, item in enumerate(option)))
            if isinstance(option, tuple)
            else _mixed(option, f"{key}:{i}")
            for i, option in enumerate(node.options)
        )
        return spec(Mixed, options=options, name=node.name)
    if not has_choice(node):
        closed: BlockSpec = node
        return closed
    return spec(Mixed, options=tuple(option for _, option in _combinations(node, path)))


def _inside(node: Any, path: str, decisions: Mapping[str, int]) -> list[str]:
    """Where, below the supernet's module for a node, the modules stand that these decisions choose, in order."""
    if isinstance(node, Choice):
        key = node.name or path
        chosen = decisions.get(key, -1)
        if not 0 <= chosen < len(node.options):
            raise ValueError(f"the choice {key!r} needs a decision below {len(node.options)}, got {decisions.get(key)}")
        option = node.options[chosen]
        if not isinstance(option, tuple):
            return [f".options.{chosen}{rest}" for rest in _inside(option, f"{key}:{chosen}", decisions)]
        return [
            f".options.{chosen}.blocks.{j}{rest}"
            for j, item in enumerate(option)
            for rest in _inside(item, f"{key}:{chosen}.{j}", decisions)
        ]
    if not has_choice(node):
        return [""]
    for i, (decided, _) in enumerate(_combinations(node, path)):
        if all(decisions.get(key) == index for key, index in decided.items()):
            return [f".options.{i}"]
    raise ValueError(f"the decisions leave {path} open; give one for each of its choices")


def _combinations(node: BlockSpec, path: str) -> list[tuple[dict[str, int], BlockSpec]]:
    """Every way to decide the open arguments of a block, with the block it gives."""
    found: list[tuple[dict[str, int], BlockSpec]] = []
    pending: list[dict[str, int]] = [{}]
    while pending:
        decided = pending.pop(0)
        undecided: dict[str, Choice] = {}
        closed = resolve(node, _decide(decided, undecided), path)
        if undecided:
            key, choice = next(iter(undecided.items()))
            pending += [{**decided, key: index} for index in range(len(choice.options))]
        else:
            found.append((decided, closed))
    return found


def _decide(decided: Mapping[str, int], undecided: dict[str, Choice]) -> Callable[[str, Choice], Any]:
    def decide(key: str, choice: Choice) -> Any:
        if key not in decided:
            undecided[key] = choice
        return choice.options[decided.get(key, 0)]

    return decide
