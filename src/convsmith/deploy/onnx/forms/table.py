"""The table of forms, and how one is entered.

A form gets the graph, the recorded call, and the operator's arguments in the order of its schema. It returns the name
of the output, or of each output; NotQuickError says that the arguments are ones which it cannot express.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from convsmith.deploy.onnx.graph import Graph
from convsmith.deploy.onnx.record import Call

Form: TypeAlias = Callable[..., Any]
FORMS: dict[str, Form] = {}


def operator(*names: str) -> Callable[[Form], Form]:
    """Enter a form under names of operators, `.default` left out."""

    def enter(form: Form) -> Form:
        for name in names:
            FORMS[name if "." in name else f"{name}.default"] = form
        return form

    return enter


def form_of(call: Call) -> Form | None:
    """The form of a recorded call, None where there is none."""
    return FORMS.get(f"{call.name}.{call.overload}")


def node(kind: str) -> Form:
    """The form of an operator that ONNX has under that name, without arguments."""

    def form(g: Graph, call: Call, *inputs: Any) -> Any:
        return g.node(kind, inputs)

    return form
