"""Results remembered by specs: until one of their blocks is defined anew, as cells of notebooks do."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

from convsmith.arch.registry import when_redefined

P = ParamSpec("P")
R = TypeVar("R")


def remembered(*, most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function of specs and plain values to remember its `most` latest results.

    A spec names its blocks and not their code, and blocks are arguments of blocks: where any name gets another
    constructor all results are forgotten.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cached = lru_cache(maxsize=most)(function)
        when_redefined(cached.cache_clear)
        return cast(Callable[P, R], cached)

    return decorate
