"""The table of forms, and how one is entered.

A form gets the graph, the recorded call, and the operator's arguments in the order of its schema. It returns the name
of the output, or of each output; NotQuickError says that the arguments are ones which it cannot express.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from convsmith.deploy.onnx.graph import Graph
from convsmith.deploy.onnx.record import Call, Value

Form: TypeAlias = Callable[..., Any]
FORMS: dict[str, Form] = {}

_MOVING = (
    "view _unsafe_view squeeze unsqueeze permute transpose t expand repeat cat stack split split_with_sizes unbind "
    "slice select index_select index channel_shuffle pixel_shuffle roll as_strided clone alias detach copy _to_copy "
    "zeros ones full new_zeros new_ones new_full zeros_like ones_like full_like"
)
_ASKING = "gt ge lt le eq ne bitwise_not"
_CALCULATING = "add sub rsub mul div pow maximum minimum where masked_fill cumsum"
ANY_TYPE, ARITHMETIC = frozenset(f"{_MOVING} {_ASKING}".split()), frozenset(_CALCULATING.split())
SUMS = frozenset(("sum", "amax", "amin", "abs", "neg"))


def operator(*names: str) -> Callable[[Form], Form]:
    """Enter a form under names of operators, `.default` left out."""

    def enter(form: Form) -> Form:
        for name in names:
            FORMS[name if "." in name else f"{name}.default"] = form
        return form

    return enter


def form_of(call: Call) -> Form | None:
    """The form of a recorded call, None where there is none, or none for values of these types."""
    return FORMS.get(f"{call.name}.{call.overload}") if _holds(call) else None


def _holds(call: Call) -> bool:
    """Whether ONNX has the operator for the type of the values: most are of floating-point numbers."""
    if call.name in ANY_TYPE or not call.outputs:
        return True
    made = call.outputs[0].dtype
    if call.name in ARITHMETIC:  # its operands are brought to the type of the result
        return made != torch.bool
    read = next((part.dtype for part in call.arguments.values() if isinstance(part, Value)), made)
    if call.name in SUMS:
        return read != torch.bool
    return read.is_floating_point and made.is_floating_point


def node(kind: str) -> Form:
    """The form of an operator that ONNX has under that name, without arguments."""

    def form(g: Graph, call: Call, *inputs: Any) -> Any:
        return g.node(kind, inputs)

    return form
