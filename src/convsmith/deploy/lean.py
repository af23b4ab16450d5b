"""What every shipped network goes through: shifts, norms and shuffles that cost nothing are taken out."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.deploy.fold import fold_where_valid
from convsmith.deploy.shift import fold_shift_where_valid
from convsmith.deploy.shuffles import unshuffle_where_valid


def lean(network: nn.Module, example: Tensor) -> nn.Module:
    """The network with shifts as convolutions, norms folded and channel shuffles removed, each where it stays true.

    Shifts come first, as a norm behind one folds into it; shuffles last, as norms keep the order of their channels.
    """
    for step in (fold_shift_where_valid, fold_where_valid, unshuffle_where_valid):
        network = step(network, example)
    return network
