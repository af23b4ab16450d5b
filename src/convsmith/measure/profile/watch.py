"""A watch over the operators of a pass below autograd: what composes others is taken apart, views run unwatched."""

from __future__ import annotations

import time
from typing import Any

from convsmith.measure.observe import Observer
from convsmith.measure.operators import operator_of


class Watch(Observer):  # type: ignore[no-untyped-call]
    """Hands every operator that computes to `operator`, which a subclass extends."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, kwargs = operator_of(func), kwargs or {}
        if found.composite:
            with self:
                return found.in_parts(args, kwargs)
        return func(*args, **kwargs) if found.view else self.operator(func, args, kwargs)

    def operator(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run one operator."""
        return func(*args, **kwargs)


class TimeWatch(Watch):  # type: ignore[no-untyped-call]
    """Takes the time before and after each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[int] = []

    def operator(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run one operator between two readings of the clock."""
        mark = time.perf_counter_ns
        before = mark()
        result = func(*args, **kwargs)
        self.marks += (before, mark())
        return result

    def milliseconds(self) -> list[float]:
        """Of each operator, in order."""
        return [(end - start) / 1e6 for start, end in zip(self.marks[::2], self.marks[1::2], strict=True)]
