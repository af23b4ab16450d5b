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

        _check(name, model, torchvision.models.list_models())
        return 3, _side_in_torchvision(model), lambda: _of_torchvision(model)
    if library == "timm":
        try:
            import timm
        except ImportError:
            raise ImportError(f"{name} needs timm; pip install timm") from None
        _check(name, model, timm.list_models(include_tags="." in model))  # published names have a tag of their weights
        config = timm.get_pretrained_cfg(model)
        channels, size, _ = config.input_size if config else (3, 224, 224)
        return channels, size, lambda: timm.create_model(model).eval()
    raise ValueError(f"unknown library {library!r} in {name!r}; other libraries are timm:NAME and torchvision:NAME")


def _side_in_torchvision(model: str) -> int:
    """The side of the images that the network's weights are for; 224 where they do not say.

    Of several the smallest: others were tuned on larger images, which a vision transformer built without weights does
    not take.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(model)
    crops = [getattr(own.transforms, "keywords", {}).get("crop_size") for own in weights]
    return min((max(crop) if isinstance(crop, tuple) else crop for crop in crops if crop), default=224)


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


def _check(name: str, model: str, known: list[str]) -> None:
    if model not in known:
        close = difflib.get_close_matches(model, known, n=3)
        library = name.partition(":")[0]
        lists = "timm.list_models()" if library == "timm" else "torchvision.models.list_models()"
        remedy = f"; did you mean {' or '.join(close)}?" if close else f"; {lists} names them all"
        raise ValueError(f"unknown network {name!r}{remedy}")
