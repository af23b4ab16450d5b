"""The libraries that have networks of the zoo, and how they build one by its name."""

from __future__ import annotations

from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch import nn

from convsmith.zoo.variant import PYTORCHCV, TIMM, TORCHVISION

BUILDERS = {
    TORCHVISION: ("torchvision.models", "get_model"),
    TIMM: ("timm", "create_model"),
    PYTORCHCV: ("pytorchcv.model_provider", "get_model"),
}
UNKNOWN = ("unknown model", "invalid pretrained tag")  # what timm says, in a RuntimeError


def build_peer(library: str, model: str, **arguments: Any) -> nn.Module:
    """The library's network of a name; ValueError where it has none, ImportError where the library is missing."""
    module, function = BUILDERS[library]
    if find_spec(library) is None:
        raise ImportError(f"weights of {library} need that library; pip install {library}")
    try:
        with redirect_stdout(StringIO()):  # pytorchcv prints while it fetches
            network: nn.Module = getattr(import_module(module), function)(model, **arguments)
    except (ValueError, RuntimeError, KeyError, AssertionError) as error:  # the last: pytorchcv's CIFAR forms, by name
        if isinstance(error, RuntimeError) and not str(error).lower().startswith(UNKNOWN):
            raise  # a download that failed, say
        raise ValueError(
            f"{library} has no such network or weights: {model} ({' '.join(str(error).split()) or arguments}); "
            f"name one of its own as {library}/NAME"
        ) from None
    return network


def on_meta(library: str, model: str, *, num_classes: int | None = None, aux: bool = False) -> nn.Module:
    """The same on the meta device, for its names and shapes: `aux` with auxiliary heads where that is an argument."""
    arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if library == TORCHVISION and model in ("googlenet", "inception_v3"):
        arguments |= {"aux_logits": aux, "init_weights": False}
    with torch.device("meta"):
        return build_peer(library, model, **arguments)
