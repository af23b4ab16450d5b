"""The receptive field against the input and the task."""

from __future__ import annotations

from collections.abc import Iterator

from convsmith.arch import Architecture, BlockSpec, registered, spec
from convsmith.measure.advice.case import Case, fits
from convsmith.measure.advice.edits import changed
from convsmith.measure.advice.finding import LECTURE, LOCALISATION, Finding
from convsmith.measure.receptive_field import ReceptiveField, receptive_field
from convsmith.network.shapes import Shape

SMALL = 64  # sizes of fields do not depend on the input; a small one is quick


def field_size(case: Case) -> Iterator[Finding]:
    """A field of the last map that is too small for the task.

    To classify, the middle value must see the whole input. To locate, the value at a corner must, as every place is
    judged with what is around it: the field is as large as the input on each side of its middle. Nothing is said of a
    network in which something behind that map sees everything, as behind attention, nor of inputs that are no images.
    """
    if len(case.input_shape) != 4:
        return
    try:
        field = _field(case, case.architecture)
    except ValueError as error:
        yield Finding("receptive field", (), None, "", f"not judged, as it could not be found: {error}", "")
        return
    if field.size is None or field.whole_behind is not None:
        return
    sides = case.input_shape[2:]
    factor = 2 if case.task in LOCALISATION else 1
    needed = tuple(factor * side - (factor - 1) for side in sides)
    if all(own >= need for own, need in zip(field.size, needed, strict=True)):
        return
    what = "each value" if factor == 2 else "the middle value"
    yield Finding(
        rule="receptive field",
        where=(field.path,),
        value=min(field.size),
        unit="pixels",
        reason=f"for {case.task} {what} of the last map should see the input of {' x '.join(map(str, sides))}, which "
        f"takes a field of {' x '.join(map(str, needed))}; of the theoretical field a part is effective ({LECTURE}: "
        "representation or receptive field; Luo et al. 2016, arXiv:1701.04128)",
        edit="larger kernels in the late stages, where maps are small; in a ShuffleNet v2 the units of v2*",
        architecture=_larger(case, needed),
    )


def _field(case: Case, architecture: Architecture | None) -> ReceptiveField:
    if architecture is None:
        return receptive_field(case.network, case.input_shape)
    small: Shape = (1, case.input_shape[1], *(min(SMALL, side) for side in case.input_shape[2:]))
    shape = small if fits(architecture, small) else case.input_shape
    return receptive_field(architecture, shape)


def _larger(case: Case, needed: tuple[int, ...]) -> Architecture | None:
    """The smallest edit that reaches it: the last stage's kernels two wider, then those of the stage before too."""
    if case.architecture is None:
        return None
    last = None
    for first in reversed(range(len(case.architecture.stages))):

        def change(path: str, own: BlockSpec, first: int = first) -> BlockSpec:
            late = path.startswith("stages.") and int(path.split(".")[1]) >= first
            return _wider(own) if late else own

        edited = changed(case.architecture, change)
        if edited == (last or case.architecture) or not fits(edited, case.input_shape):
            continue
        last = edited
        field = _field(case, edited)
        if field.size is not None and min(field.size) >= max(needed):
            return edited
    return last


def _wider(own: BlockSpec) -> BlockSpec:
    if own.block == "shuffle_unit_v2":
        arguments = {name: value for name, value in own.arguments if name != "out_channels"}
        star = spec(registered("shuffle_unit_v2_star").constructor, own.get("out_channels"))
        return star.replace(**{name: value for name, value in arguments.items() if star.has(name)})
    kernel = own.get("kernel_size")
    return own.replace(kernel_size=kernel + 2) if type(kernel) is int and 1 < kernel < 7 else own
