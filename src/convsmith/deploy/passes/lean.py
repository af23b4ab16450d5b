"""What every shipped network goes through: what costs time and computes nothing is taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import Tensor, nn

from convsmith.deploy.agreement import TOLERANCES, eager_run, largest_difference, noise_like
from convsmith.deploy.passes.affine import fold_affine_draft
from convsmith.deploy.passes.blocks import block_draft
from convsmith.deploy.passes.draft import Change, Draft
from convsmith.deploy.passes.fold import fold_norm
from convsmith.deploy.passes.gates import fuse_draft
from convsmith.deploy.passes.merge import merge_draft
from convsmith.deploy.passes.shift import fold_shift
from convsmith.deploy.passes.shuffles import unshuffle_draft
from convsmith.deploy.passes.tidy import tidy_draft
from convsmith.deploy.passes.trace import NotTraceableError
from convsmith.deploy.passes.wiring import TangledError

Fold: TypeAlias = Callable[[nn.Module, Tensor], nn.Module]

# Shifts come first, as a norm behind one folds into it.
FOLDS: tuple[Fold, ...] = (lambda network, _: fold_shift(network), fold_norm)
# Norms before what needs nothing between two convolutions; shuffles last, as norms keep the order of their channels.
CHANGES: tuple[Change, ...] = (tidy_draft, fuse_draft, fold_affine_draft, merge_draft, unshuffle_draft)


def lean(network: nn.Module, example: Tensor, *, block: int | None = None) -> nn.Module:
    """The network in eval mode without what costs time and computes nothing, each step where it stays true.

    With `block`, for a back end that keeps its maps in blocks of so many channels, maps that would fall out of that
    layout are filled up (`blocks.block_channels`).

    The result of all steps is compared with the network, on one image of noise. If it differs or fails, as it may after
    a wrong turn of torch.fx, each step is tried by itself and left out if it is wrong.
    """
    # Before shuffles are removed: it does so too.
    filling = () if block is None else (partial(block_draft, block=block),)
    steps = (*CHANGES[:-1], *filling, CHANGES[-1])
    result = _applied(network, example, FOLDS, steps)
    if _agrees(network, result, example):
        return result
    result = network
    for folds, changes in (*(((fold,), ()) for fold in FOLDS), *(((), (change,)) for change in steps)):
        changed = _applied(result, example, folds, changes)
        result = changed if _agrees(network, changed, example) else result
    return result


def _applied(network: nn.Module, example: Tensor, folds: Sequence[Fold], changes: Sequence[Change]) -> nn.Module:
    """The network after the steps that torch.fx can follow; the network itself where nothing changes."""
    try:
        for fold in folds:
            network = fold(network, example)
        if not changes:
            return network
        draft = Draft(network, example)
        for change in changes:
            change(draft)
    except (NotTraceableError, TangledError):
        return network
    except RuntimeError:  # a traced graph that does not run
        return network
    return network if draft.result is None else draft.result


def _agrees(network: nn.Module, changed: nn.Module, example: Tensor) -> bool:
    """Whether the changed network gives what the network gives; false where it fails."""
    if changed is network:
        return True
    try:
        # Who uses the result compares it on the example and at another batch size, and eager takes its time.
        difference = largest_difference(eager_run(network), eager_run(changed), noise_like(example, 1), ())
    except (RuntimeError, TypeError):
        return False
    return difference <= TOLERANCES[example.dtype]
