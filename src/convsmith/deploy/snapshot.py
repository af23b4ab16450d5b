"""A copy of a module as it is now, for inference."""

from __future__ import annotations

import copy
from collections import OrderedDict
from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn

from convsmith.arch import Architecture

_COLLECTIONS = (OrderedDict, dict, set)


def module_of(network: Any) -> nn.Module:
    """The module that was given, without what `torch.compile` put around it; ValueError for what is none."""
    if isinstance(network, nn.Module):
        return getattr(network, "_orig_mod", network)
    given = f"the architecture {network.name}" if isinstance(network, Architecture) else repr(network)
    raise ValueError(f"a network must be a torch.nn.Module, got {given[:80]}; build it by cs.create_model")


def required_inputs(module: nn.Module) -> list[str]:
    """The arguments that a forward pass cannot go without."""
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    try:
        parameters = signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled or traced one, say
        return []
    return [own.name for own in parameters if own.default is Parameter.empty and own.kind in places]


def snapshot(module: nn.Module, *, sharing: bool = False) -> nn.Module:
    """A deep copy in eval mode, which with `sharing` has the module's own parameters.

    Raises ValueError for what is no module, and for a module that cannot be copied.
    """
    module = module_of(module)
    known: dict[int, object] = {id(parameter): parameter for parameter in module.parameters()} if sharing else {}
    known |= computed(module)
    for part in module.modules():  # each has a dozen that are empty, for its hooks: most of what there is to copy
        known.update((id(own), type(own)()) for own in vars(part).values() if type(own) in _COLLECTIONS and not own)
    try:
        return copy.deepcopy(module, known).eval()
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"a network must be copyable by copy.deepcopy, and {type(module).__name__} is not ({reason}); "
            "keep tensors that are computed from others out of its attributes"
        ) from error


def computed(module: nn.Module) -> dict[int, object]:
    """Clones, by id, of attributes and buffers that torch refuses to copy: tensors with a gradient function.

    Such is the weight of a pruned layer, or of one under torch's old weight norm: a hook computes it at every call.
    """
    values = [value for part in module.modules() for value in (*vars(part).values(), *part._buffers.values())]
    return {id(v): v.detach().clone() for v in values if isinstance(v, Tensor) and not v.is_leaf}
