"""Sizes of maps without data: one pass of each block on the meta device, remembered by spec and input shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from convsmith.arch import Architecture, BlockSpec, remembered
from convsmith.network.build import carried, refuse_choices

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]  # of the maps that flow along the chain, the current one last


def check_shape(input_shape: object, *, images: bool = False) -> Shape:
    """The shape as a tuple; ValueError for anything but a batch and further sizes, of `images` (N, C, H, W)."""
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else input_shape
    if (
        not isinstance(shape, tuple)
        or (len(shape) != 4 if images else len(shape) < 2)
        or any(type(size) is not int or size < 1 for size in shape)
    ):
        rule = "(N, C, H, W) in positive integers" if images else "a batch and further sizes, all positive integers"
        raise ValueError(f"an input shape is {rule}, got {shape}; give one such as (1, 3, 224, 224)")
    return shape


@remembered(most=65536)
def block_output(spec: BlockSpec, inputs: Shapes) -> Shapes:
    """The shapes behind one block; ValueError for an input that the block cannot take."""
    taken = carried(inputs, spec.carries)
    with torch.device("meta"), torch.no_grad():
        maps = tuple(torch.empty(shape) for shape in taken)
        try:
            module = spec.build(taken[-1][1] if spec.carries == 1 else tuple(shape[1] for shape in taken)).eval()
            outputs = module(maps if spec.carries > 1 else maps[-1])
        except (RuntimeError, ValueError) as error:
            raise ValueError(str(error).splitlines()[0]) from None
    return tuple(map(_shape, outputs if isinstance(outputs, tuple) else (outputs,)))


def output_shapes(
    architecture: Architecture, input_shape: Shape, *, behind: Callable[[BlockSpec, Shapes], Shapes] = block_output
) -> list[tuple[str, BlockSpec, Shapes]]:
    """`(path, spec, shapes behind it)` of every block for a batch of `input_shape` (N, C, H, W).

    `behind` is who tells the shapes behind a block, as `block_output` does.

    Raises ValueError, naming the block and what it was given, where the input does not fit the network.
    """
    refuse_choices(architecture)
    input_shape = check_shape(input_shape, images=True)
    if input_shape[1] != architecture.in_channels:
        raise ValueError(
            f"{architecture.name} takes {architecture.in_channels} channels, got an input of {input_shape[1]}; "
            "give in_channels where the network is made"
        )
    shapes: Shapes = (input_shape,)
    listed = []
    for path, spec in architecture.blocks():
        try:
            shapes = behind(spec, shapes if path != "head" else shapes[-1:])
        except (ValueError, TypeError) as error:
            size = "x".join(map(str, input_shape[2:]))
            raise ValueError(
                f"an input of {size} does not fit {architecture.name}: {path} ({spec.block}) got a map of "
                f"{'x'.join(map(str, shapes[-1][2:]))} and {shapes[-1][1]} channels ({error}); "
                "take a larger input, or zoo.for_small_inputs"
            ) from None
        listed.append((path, spec, shapes))
    return listed


def _shape(output: Any) -> Shape:
    if not isinstance(output, Tensor):
        raise ValueError(f"a block must return a map or a tuple of maps, got {type(output).__name__}")
    return tuple(output.shape)
