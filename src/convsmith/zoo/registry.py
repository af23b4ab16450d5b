"""The zoo by name."""

from __future__ import annotations

import difflib
import fnmatch
from functools import cache
from importlib import import_module

from convsmith.arch import Architecture
from convsmith.zoo.variant import About, Variant

FAMILIES = (
    "resnet",
    "resnext",
    "senet",
    "resnet_deformable",
    "nin",
    "deep_roots",
    "xception",
    "aligned_xception",
    "xception_145m",
    "waterfall_xception",
    "mobilenet_v1",
    "mobilenet_v2",
    "shufflenet_v1",
    "shufflenet_v2",
    "shufflenet_v2_deep",
    "igcnet",
    "clcnet",
    "fractalnet",
    "shiftnet",
    "shiftresnet",
    "densenet",
    "condensenet",
    "gunn",
    "googlenet",
    "inception_v3",
    "inception_v4",
    "inception_resnet",
    "polynet",
    "nasnet",
    "pnasnet",
    "amoebanet",
    "darts",
)


@cache
def variants() -> dict[str, Variant]:
    """Every variant by name, in the order of the families."""
    found: dict[str, Variant] = {}
    for family in FAMILIES:
        for variant in import_module(f"convsmith.zoo.{family}").VARIANTS:
            if variant.name in found:
                raise ValueError(f"two variants of the zoo have the name {variant.name!r}; rename one")
            found[variant.name] = variant
    return found


@cache
def families() -> dict[str, str]:
    """The family of every variant: the name of its file in the zoo."""
    return {v.name: family for family in FAMILIES for v in import_module(f"convsmith.zoo.{family}").VARIANTS}


def paper(name: str) -> str:
    """The citation of a variant's family: the first line of its file."""
    return (import_module(f"convsmith.zoo.{families()[name]}").__doc__ or "").splitlines()[0]


def about(name: str) -> About:
    """What the lecture says of a variant's family."""
    found: About = import_module(f"convsmith.zoo.{families()[name]}").ABOUT
    return found


def names(pattern: str = "*") -> list[str]:
    """The names that match a glob such as `"shufflenet*"`, in the order of the zoo."""
    return [name for name in variants() if fnmatch.fnmatchcase(name, pattern)]


def get(name: str, *, num_classes: int | None = None, in_channels: int = 3, aux_heads: bool = False) -> Architecture:
    """The architecture of a name; `num_classes` None is the paper's own number (1000, or 10 for CIFAR forms).

    Auxiliary heads are there only when asked for. An unknown name raises ValueError with close matches.
    """
    if name not in variants():
        close = difflib.get_close_matches(name, variants(), n=3)
        remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else "`convsmith list` shows them all"
        raise ValueError(f"unknown architecture {name!r}; {remedy}")
    return variants()[name].architecture(num_classes=num_classes, in_channels=in_channels, aux_heads=aux_heads)
