"""Networks of other libraries, by name: for measuring and deploying."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

Build: TypeAlias = "Callable[[], nn.Module]"


def foreign(name: str) -> tuple[int, int, Build]:
    """Channels and side of the input of a network named `timm:NAME` or `torchvision:NAME`, and what builds it.

    Raises ValueError for an unknown library or network, and ImportError for a library that is not installed.
    """
    library, _, model = name.partition(":")
    if library == "torchvision":
        import torchvision

        known = torchvision.models.list_models()
        return 3, 224, _checked(name, model, known, lambda: _of_torchvision(model))
    if library == "timm":
        try:
            import timm
        except ImportError:
            raise ImportError(f"{name} needs timm; pip install timm") from None
        build = _checked(name, model, timm.list_models(), lambda: timm.create_model(model).eval())
        config = timm.get_pretrained_cfg(model)
        channels, size, _ = config.input_size if config else (3, 224, 224)
        return channels, size, build
    raise ValueError(f"unknown library {library!r} in {name!r}; other libraries are timm:NAME and torchvision:NAME")


def _of_torchvision(model: str) -> nn.Module:
    """A network of torchvision, without its warnings that a default will change, which is its own affair.

    Those of detection and segmentation would fetch weights of their backbone.
    """
    import torchvision

    builder = torchvision.models.get_model_builder(model)
    options = {"weights_backbone": None} if "weights_backbone" in signature(builder).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network: nn.Module = builder(**options).eval()
    return network


def _checked(name: str, model: str, known: list[str], build: Build) -> Build:
    if model not in known:
        close = difflib.get_close_matches(model, known, n=3)
        library = name.partition(":")[0]
        lists = "timm.list_models()" if library == "timm" else "torchvision.models.list_models()"
        remedy = f"; did you mean {' or '.join(close)}?" if close else f"; {lists} names them all"
        raise ValueError(f"unknown network {name!r}{remedy}")
    return build
