"""G3 of ShuffleNet v2 (Ma et al. 2018, arXiv:1807.11164): many small operators side by side leave cores idle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from torch import fx, nn

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.deploy.passes.trace import NotTraceableError, trace
from convsmith.measure.advice.case import Case, fits
from convsmith.measure.advice.edits import changed
from convsmith.measure.advice.finding import GUIDELINES, Finding
from convsmith.measure.cost import cost
from convsmith.measure.untouched import twin
from convsmith.network import output_shapes
from convsmith.network.shapes import Shapes
from convsmith.nn import BasicBlock, ShuffleUnitV2

COUNTED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
FEWEST = 4  # convolutions of a module that is looked at


def fragmentation(case: Case) -> Iterator[Finding]:
    """Blocks with more operators beside their longest chain than the paper's own unit has."""
    found: dict[str, int] = {}
    for path, module in case.blocks():
        if sum(isinstance(layer, nn.Conv2d) for layer in module.modules()) < FEWEST:
            continue
        beside = fragments(module)
        if beside is not None and beside > _of_the_papers_unit():
            found[path] = beside
    # Of modules inside one another the innermost one is the block.
    found = {path: n for path, n in found.items() if not any(other.startswith(f"{path}.") for other in found)}
    if found:
        yield Finding(
            rule="G3",
            where=tuple(found),
            value=max(found.values()),
            unit="convolutions and poolings beside the longest chain of a block",
            reason=f"the unit of ShuffleNet v2 has {_of_the_papers_unit()}; each is a call with its own start and "
            f"little work for parallel cores ({GUIDELINES}, G3)",
            edit="put one wide operator in the place of several narrow ones: a residual block of as many MACs",
            architecture=_in_one_chain(case, found),
        )


def fragments(module: nn.Module) -> int | None:
    """Convolutions and poolings beyond those on the longest chain; None where torch.fx cannot follow `forward`."""
    copied = twin(module).eval()
    try:
        graph, _ = trace(copied)
    except (NotTraceableError, ValueError):
        return None
    depths: dict[fx.Node, int] = {}
    total = 0
    for node in graph.nodes:
        own = int(node.op == "call_module" and isinstance(copied.get_submodule(str(node.target)), COUNTED))
        total += own
        depths[node] = own + max((depths[read] for read in node.all_input_nodes), default=0)
    return total - max(depths.values(), default=0)


@cache
def _of_the_papers_unit() -> int:
    found = fragments(ShuffleUnitV2(8, 16, stride=2))
    assert found is not None
    return found


def _in_one_chain(case: Case, paths: dict[str, int]) -> Architecture | None:
    """Each fragmented block as a basic block of the same shape, as wide inside as its MACs allow."""
    architecture = case.architecture
    if architecture is None:
        return None
    counts = cost(architecture, case.input_shape).by_module
    before: Shapes = (case.input_shape,)
    chosen: dict[str, BlockSpec] = {}
    for path, old, behind in output_shapes(architecture, case.input_shape):
        stride = round(before[-1][2] / behind[-1][2]) if len(behind[-1]) == 4 else 0
        if path in paths and old.carries == 1 and stride:
            chosen[path] = _residual(before[-1], behind[-1], stride, counts[path].macs)
        before = behind
    edited = changed(architecture, lambda path, own: chosen.get(path, own))
    return edited if chosen and fits(edited, case.input_shape) else None


def _residual(shape: tuple[int, ...], out: tuple[int, ...], stride: int, macs: int) -> BlockSpec:
    positions = out[0] * out[2] * out[3]
    shortcut = positions * shape[1] * out[1] if stride > 1 or shape[1] != out[1] else 0
    width = (macs - shortcut) // (positions * 9 * (shape[1] + out[1]))
    return spec(BasicBlock, out[1], stride=stride, hidden_channels=max(8, width - width % 8))
