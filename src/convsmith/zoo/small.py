"""Classic networks on small images, without resizing the images."""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec
from convsmith.network import output_shapes

POOLS = ("max_pool", "avg_pool")


def for_small_inputs(architecture: Architecture, input_size: int) -> Architecture:
    """The network with its first strides set to 1, as many as it takes until the last map is at least 2 x 2.

    The stem is changed first, then one stage after the other, as the CIFAR forms of the literature are made from the
    ImageNet ones; a pooling layer whose stride goes is left out. Weights keep their shapes. ValueError where no
    strides are left and the map is still smaller.
    """
    if input_size < 2:
        raise ValueError(f"input_size must be at least 2, got {input_size}")
    while not _large_enough(architecture, input_size):
        shrunk = _without_first_stride(architecture)
        if shrunk is None:
            raise ValueError(
                f"{architecture.name} cannot take inputs of {input_size}x{input_size}: its last map is below 2x2 "
                "even without strides; take a larger input or another network"
            )
        architecture = shrunk
    return architecture


def _large_enough(architecture: Architecture, input_size: int) -> bool:
    try:
        shapes = output_shapes(architecture.replace(head=None), (2, architecture.in_channels, input_size, input_size))
    except ValueError:
        return False
    return min(shapes[-1][2][-1][2:]) >= 2


def _without_first_stride(architecture: Architecture) -> Architecture | None:
    chains = [architecture.stem, *architecture.stages]
    for i, chain in enumerate(chains):
        for j, spec in enumerate(chain):
            if spec.get("stride", 1) > 1:
                replaced: list[BlockSpec] = [] if spec.block in POOLS else [spec.replace(stride=1)]
                chains[i] = (*chain[:j], *replaced, *chain[j + 1 :])
                if not replaced:
                    architecture = _shift_aux(architecture, i - 1, j)
                return architecture.replace(stem=chains[0], stages=chains[1:])
    return None


def _shift_aux(architecture: Architecture, stage: int, removed: int) -> Architecture:
    moved = [(s, b - 1 if s == stage and b > removed else b, head) for s, b, head in architecture.aux]
    return architecture.replace(aux=moved)
