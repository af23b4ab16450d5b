"""What every shipped network goes through: what costs time and computes nothing is taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TypeAlias

from torch import Tensor, nn

from convsmith.deploy.agreement import TOLERANCES, Reference, eager_run, noise_like
from convsmith.deploy.passes.affine import fold_affine_draft
from convsmith.deploy.passes.blocks import block_draft
from convsmith.deploy.passes.draft import Change, Draft
from convsmith.deploy.passes.fold import fold_draft, fold_norm, plain_weights
from convsmith.deploy.passes.gates import fuse_draft
from convsmith.deploy.passes.merge import merge_draft
from convsmith.deploy.passes.shift import fold_shift
from convsmith.deploy.passes.shuffles import unshuffle_draft
from convsmith.deploy.passes.tidy import tidy_draft
from convsmith.deploy.snapshot import snapshot
from convsmith.nn import Shift

Fold: TypeAlias = Callable[[nn.Module, Tensor], nn.Module]
Rewrite: TypeAlias = Callable[..., nn.Module]  # `lean`, with what is known of the network or who compares


def _fold_shift(network: nn.Module, _: Tensor) -> nn.Module:
    shifts = any(isinstance(module, Shift) for module in network.modules())
    return fold_shift(network) if shifts else network


def _fold_norm(network: nn.Module, example: Tensor) -> nn.Module:
    return fold_norm(network, example, sharing=True)


# Shifts come first, as a norm behind one folds into it; norms last: in a draft they are folded by `fold_draft`.
FOLDS: tuple[Fold, ...] = (_fold_shift, _fold_norm)
# Norms before what needs nothing between two convolutions; shuffles last, as norms keep the order of their channels.
CHANGES: tuple[Change, ...] = (tidy_draft, fuse_draft, fold_affine_draft, merge_draft, unshuffle_draft)


def lean(
    network: nn.Module,
    example: Tensor,
    *,
    block: int | None = None,
    output: Tensor | None = None,
    compared: bool = True,
) -> nn.Module:
    """The network in eval mode without what costs time and computes nothing, each step where it stays true.

    With `block`, for a back end that keeps its maps in blocks of so many channels, maps that would fall out of that
    layout are filled up (`blocks.block_channels`).

    The result of all steps is compared with the network, on one image: of noise, or the example, where it is one image
    of which the network's `output` is known. If it differs or fails, as it may after a wrong turn of torch.fx, each
    step is tried by itself and left out if it is wrong. Where it is not `compared`, who asks for it must compare what
    becomes of it with the network, and ask again if that differs.

    What comes back shares parameters with the network: convert or change it once it is done with the network.
    """
    # Before shuffles are removed: it does so too.
    filling = () if block is None else (partial(block_draft, block=block),)
    steps = (*CHANGES[:-1], *filling, CHANGES[-1])
    result = _applied(network, example, FOLDS, steps)
    if not compared:
        return result
    reference = _Reference(network, example, output)
    if reference.agrees(result):
        return result
    result = network
    for folds, changes in (*(((fold,), ()) for fold in FOLDS), *(((), (change,)) for change in steps)):
        changed = _applied(result, example, folds, changes)
        result = changed if reference.agrees(changed) else result
    return result


def _applied(network: nn.Module, example: Tensor, folds: Sequence[Fold], changes: Sequence[Change]) -> nn.Module:
    """The network after the steps that torch.fx can follow; the network itself where nothing changes."""
    folded = network
    try:
        for fold in folds if not changes else folds[:-1]:
            folded = fold(folded, example)
        if not changes:
            return folded
        draft = Draft(plain_weights(snapshot(folded, sharing=True)), example, own=True)
        for change in (fold_draft, *changes) if folds else changes:
            change(draft)
        if (result := draft.result) is not None:
            return result
    except Exception:  # what cannot be followed, or a graph that was misread and does not run, for any reason
        pass
    # Anew, as the draft may have changed what it began with.
    return _applied(network, example, folds, ()) if changes and folds else folded


class _Reference:
    """What the network gives for one image, found out when a changed network is first compared with it.

    Who uses the changed network compares it on the example and at another batch size, and eager takes its time.
    """

    def __init__(self, network: nn.Module, example: Tensor, output: Tensor | None):
        self.network = network
        # A constant image would tell little.
        is_known = output is not None and len(example) == 1 and bool((example != example.flatten()[0]).any())
        self.image, self.output = (example, output) if is_known else (noise_like(example, 1), None)

    def agrees(self, changed: nn.Module) -> bool:
        """Whether a changed network gives the same; false where it fails."""
        if changed is self.network:
            return True
        known = self._known
        try:
            difference = known.difference(eager_run(changed))
        except Exception:  # whatever a forward raises that was misread
            return False
        return difference <= TOLERANCES[self.image.dtype]

    @cached_property
    def _known(self) -> Reference:
        return Reference(eager_run(self.network), self.image, (), known=self.output)
