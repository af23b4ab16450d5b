"""Why the quick way to a model ends: with an answer, or with a question for the slow one."""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=Exception)


class BranchError(Exception):
    """Forward decided by values or by the batch size; the message says by which operator, and in which module.

    `caught` says that forward went on, by another way than with values.
    """

    caught = False


class NotQuickError(Exception):
    """The quick conversion cannot follow; another may."""


class Refusals:
    """What a forward pass was refused first, and in which module: its own code may catch the error and go on.

    `path` holds the names of the modules that are running, the innermost last.
    """

    def __init__(self, path: list[str]):
        self.path = path
        self.first: tuple[Exception, str] | None = None

    def kept(self, error: E) -> E:
        """The error, which is remembered if it is the first one."""
        self.first = self.first or (error, self.path[-1])
        return error
