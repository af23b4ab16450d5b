"""What a network costs: of any module by one counted pass, of an architecture by adding up its blocks.

A block's counts are remembered by its spec and the shapes in front of it, so that a search can ask for the cost of
every candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from convsmith.arch import Architecture, BlockSpec, remembered
from convsmith.deploy.snapshot import module_of
from convsmith.measure.count import Counts, ModuleCounts, OperatorCounts, count
from convsmith.measure.fitting import fitted
from convsmith.measure.untouched import in_eval_mode
from convsmith.network import output_shapes
from convsmith.network.build import carried
from convsmith.network.shapes import Shape, Shapes, check_shape


@dataclass(frozen=True)
class Cost:
    """What one forward pass over the whole of an input costs; see `Counts` for what each number means.

    `parts` are the counted pieces by path: the blocks of an architecture, or the one module.
    """

    params: int
    macs: int
    activations: int
    memory_bytes: int
    parts: tuple[tuple[str, Counts], ...]

    @property
    def macs_per_byte(self) -> float:
        """Arithmetic intensity: multiply-accumulates for each byte that is read or written; 0 where none is."""
        return self.macs / self.memory_bytes if self.memory_bytes else 0.0

    @cached_property
    def by_stage(self) -> Mapping[str, ModuleCounts]:
        """Counts of an architecture by "stem", "stages.0", ..., "neck", "head", and "aux" where there is one.

        Auxiliary heads have params only, as they do not run in `forward`. Of a module it is empty: `by_module` tells
        its parts.
        """
        stages: dict[str, list[ModuleCounts]] = {}
        for path, counts in self.parts if self.parts and self.parts[0][0] else ():
            stage = path.rsplit(".", 1)[0] if "." in path else path
            stages.setdefault(stage, []).append(counts.by_module[""])
        found = {stage: _sum(blocks) for stage, blocks in stages.items()}
        aux = self.params - sum(stage.params for stage in found.values())
        return {**found, "aux": ModuleCounts(aux, 0, 0, 0, 0, None)} if found and aux else found

    @cached_property
    def by_module(self) -> Mapping[str, ModuleCounts]:
        """Counts by module path as in `named_modules`, "" being the whole."""
        output = self.parts[-1][1].output if self.parts else None
        whole = ModuleCounts(self.params, self.macs, self.activations, self.memory_bytes, 1, output)
        found = {"": whole}
        for path, counts in self.parts:
            for inner, module in counts.by_module.items():
                name = ".".join(filter(None, (path, inner)))
                if name:
                    found[name] = module
        return found

    @cached_property
    def by_operator(self) -> Mapping[str, OperatorCounts]:
        """Counts by operator ("convolution", "batch_norm", ...)."""
        found: dict[str, OperatorCounts] = {}
        for _, counts in self.parts:
            for name, own in counts.by_operator.items():
                known = found.get(name, OperatorCounts(0, 0, 0))
                found[name] = OperatorCounts(
                    known.calls + own.calls, known.macs + own.macs, known.memory_bytes + own.memory_bytes
                )
        return found

    @cached_property
    def uncounted(self) -> Mapping[str, int]:
        """Calls of operators that have no formula and are not known to be free of multiply-accumulates."""
        return dict(sum((Counter(counts.uncounted) for _, counts in self.parts), Counter()))


def cost(network: nn.Module | Architecture, input_shape: Shape = (1, 3, 224, 224)) -> Cost:
    """Params, MACs, activations and memory traffic of one forward pass over a batch of `input_shape` (N, C, H, W).

    Both in eval mode: of a module, whatever library it is from and whatever mode it is in, one pass is watched on the
    meta device, which leaves it untouched (`count` watches a pass in the module's own mode). Of an architecture the
    blocks are added up; its auxiliary heads count among the params only, as they do not run in `forward`. ValueError
    where the input does not fit.
    """
    if not isinstance(network, Architecture):
        network, input_shape = module_of(network), check_shape(input_shape)
        with in_eval_mode(network), fitted(network, input_shape):
            return _total((("", count(network, input_shape)),))
    input_shape = check_shape(input_shape, images=True)
    shapes: Shapes = (input_shape,)
    parts: list[tuple[str, Counts]] = []
    channels: dict[tuple[int, int], int] = {}
    for path, spec, behind in output_shapes(network, input_shape):
        parts.append((path, _block_counts(spec, carried(shapes, spec.carries))))
        shapes = behind
        if network.aux and path.startswith("stages."):
            _, stage, block = path.split(".")
            channels[int(stage), int(block)] = behind[-1][1]
    aux = sum(_block_params(spec, channels[stage, block]) for stage, block, spec in network.aux)
    return _total(tuple(parts), extra_params=aux)


def _total(parts: tuple[tuple[str, Counts], ...], extra_params: int = 0) -> Cost:
    counts = [own for _, own in parts]
    return Cost(
        params=sum(c.params for c in counts) + extra_params,
        macs=sum(c.macs for c in counts),
        activations=sum(c.activations for c in counts),
        memory_bytes=sum(c.memory_bytes for c in counts),
        parts=parts,
    )


def _sum(blocks: list[ModuleCounts]) -> ModuleCounts:
    return ModuleCounts(
        params=sum(block.params for block in blocks),
        macs=sum(block.macs for block in blocks),
        activations=sum(block.activations for block in blocks),
        memory_bytes=sum(block.memory_bytes for block in blocks),
        calls=1,
        output=blocks[-1].output,
    )


@remembered(most=65536)
def _block_counts(spec: BlockSpec, shapes: Shapes) -> Counts:
    channels = tuple(shape[1] for shape in shapes)
    with torch.device("meta"):
        module = spec.build(channels if spec.carries > 1 else channels[-1]).eval()
    return count(module, shapes if spec.carries > 1 else shapes[-1])


@remembered(most=4096)
def _block_params(spec: BlockSpec, channels: int) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in spec.build(channels).parameters())
