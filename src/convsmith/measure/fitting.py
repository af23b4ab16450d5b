"""Inputs that a network does not take are told in one sentence, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from convsmith.deploy.silence import raised_by_torch, reason
from convsmith.deploy.snapshot import required_inputs
from convsmith.network.shapes import Shape

FAILURES = (RuntimeError, AssertionError, IndexError, TypeError)  # of operators that do not take what they are given


class InputError(ValueError):
    """An input that a network does not take: what is wrong, and what to do about it where Python is written."""

    def __init__(self, wrong: str, remedy: str):
        super().__init__(f"{wrong}; {remedy}")
        self.wrong = wrong


@contextmanager
def fitted(network: nn.Module, input_shape: Shape) -> Iterator[None]:
    """Turn what an operator says of an input that does not fit into an InputError that names the module.

    An error that the code of a `forward` raises by itself, in no operator, passes as it is; a ValueError is converted
    where torch's own code raised it.
    """
    try:
        yield
    except (*FAILURES, ValueError) as error:
        if isinstance(error, ValueError) and not raised_by_torch(error):
            raise
        if type(error) is not RuntimeError and not _running(error):
            raise
        name, needed = type(network).__name__, required_inputs(network)
        if len(needed) > 1:
            raise InputError(
                f"what is measured takes one input, and {name} takes {', '.join(needed)}",
                "give all of them, as shapes or tensors, to cs.measure.count: count(module, (1, 3, 224, 224), (1, 10))",
            ) from error
        raise InputError(
            f"{name} must take an input of shape {input_shape}, and fails in {place(network, error)} ({reason(error)})",
            "give input_shape, batch included, as the network takes it",
        ) from error


def place(network: nn.Module, error: BaseException) -> str:
    """The innermost module of the network whose code was running when the error was raised: its path, and itself."""
    return _named(network, _running(error))


def _running(error: BaseException) -> list[nn.Module]:
    """The modules whose code was running when the error was raised, the outermost first."""
    found: list[nn.Module] = []
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and (not found or found[-1] is not owner):
            found.append(owner)
        trace = trace.tb_next
    return found


def _named(network: nn.Module, parts: list[nn.Module]) -> str:
    """The innermost module by its path; a copy may have run in the network's place."""
    if not parts:
        return type(network).__name__
    paths = {id(part): path for path, part in parts[0].named_modules()}
    shown = str(parts[-1])
    shown = type(parts[-1]).__name__ if "\n" in shown else shown  # with all that is in it
    return f"{paths.get(id(parts[-1]), '')} {shown}".strip()
