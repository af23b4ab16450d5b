"""PolyNet: A Pursuit of Structural Diversity in Very Deep Networks.  Zhang et al., CVPR 2017, arXiv:1611.05725.

`polynet` is the Very Deep PolyNet: the schema of Inception-ResNet with PolyInception modules for its residual ones.

Differs from the paper: as in the released network, which pytorchcv has, the powers of a poly module share convolutions
but not norms and closing convolutions, and the modules are scaled by 1 to 0.7, falling linearly. We read this scale as
the share of a training in which a path of the module is kept ("stochastic paths"), and drop paths accordingly.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Branches, Classifier, ConvNormAct, DropPath, MaxPool, PolyResidual, ReLU, ScaledResidual
from convsmith.nn.branches import Branch
from convsmith.zoo.variant import PYTORCHCV, About, Variant


def conv(
    channels: int, kernel_size: int | tuple[int, int] = 1, *, stride: int = 1, padding: int | None = None
) -> BlockSpec:
    """Convolution, norm, ReLU."""
    return spec(ConvNormAct, channels, kernel_size=kernel_size, stride=stride, padding=padding)


def side_by_side(*branches: Branch, stride: int = 1) -> BlockSpec:
    """The branches of a figure, concatenated."""
    return spec(Branches, branches=branches, stride=stride)


MAX = spec(MaxPool, stride=1, padding=0)  # a branch's stride is that of its module

# The stem of Inception v4, its three concatenations.
STEM_A = side_by_side(MAX, conv(96, 3, padding=0), stride=2)
STEM_B = side_by_side(
    (conv(64), conv(96, 3, padding=0)),
    (conv(64), conv(64, (7, 1)), conv(64, (1, 7)), conv(96, 3, padding=0)),
)
STEM_C = side_by_side(MAX, conv(192, 3, padding=0), stride=2)

# F at the three sizes: its branches, and the channels that its closing 1 x 1 convolution goes back to.
A = ((conv(32), conv(48, 3), conv(64, 3)), (conv(32), conv(32, 3)), conv(32)), 384
B = ((conv(128), conv(160, (1, 7)), conv(192, (7, 1))), conv(192)), 1152
C = ((conv(192), conv(224, (1, 3)), conv(256, (3, 1))), conv(192)), 2048

REDUCTION_A = side_by_side((conv(256), conv(256, 3), conv(384, 3, padding=0)), conv(384, 3, padding=0), MAX, stride=2)
REDUCTION_B = side_by_side(
    (conv(256), conv(256, 3), conv(256, 3, padding=0)),
    (conv(256), conv(256, 3, padding=0)),
    (conv(256), conv(384, 3, padding=0)),
    MAX,
    stride=2,
)

VERY_DEEP = (("2-way",) * 10, ("poly-3", "2-way") * 10, ("poly-3", "2-way") * 5)


def module(kind: str, branches: tuple[Branch, ...], channels: int, scale: float) -> BlockSpec:
    """A PolyInception module (Sec. 3.1): "2-way" is I + F + G, "poly-2" I + F + F^2, "mpoly-2" I + F + GF.

    Other digits stand for more or fewer summands; "1-way" is the module of Inception-ResNet. Between two factors stands
    a ReLU.
    """
    order = int(next(filter(str.isdigit, kind), "0"))
    f = (side_by_side(*branches), spec(ConvNormAct, channels, kernel_size=1, act="identity"))
    drop = spec(DropPath, rate=round(1 - scale, 6))
    if order and kind == f"{order}-way":
        return spec(ScaledResidual, paths=((*f, drop),) * order, scale=scale)
    if order and kind == f"poly-{order}":
        return spec(PolyResidual, branches=branches, order=order, scale=scale, drop_path_rate=drop.get("rate"))
    if order and kind == f"mpoly-{order}":  # I + (I + (I + ...) G) F
        factors: tuple[BlockSpec, ...] = f
        for _ in range(order - 1):
            factors = (*f, spec(ScaledResidual, paths=((spec(ReLU), *factors),), act="identity"))
        return spec(ScaledResidual, paths=((*factors, drop),), scale=scale)
    raise ValueError(f'a module of PolyNet must be named as "2-way", "poly-3" or "mpoly-2", got {kind!r}')


def polynet(*, modules: tuple[tuple[str, ...], ...] = VERY_DEEP, num_classes: int = 1000) -> Architecture:
    """The schema of Fig. 5 with these modules in stages A, B and C."""
    count = sum(map(len, modules))
    scales = iter([round(1 - 0.3 * i / max(1, count - 1), 6) for i in range(count)])  # six digits, as released
    a, b, c = (
        [module(kind, *inception, next(scales)) for kind in kinds]
        for inception, kinds in zip((A, B, C), modules, strict=True)
    )
    return Architecture(
        stem=[conv(32, 3, stride=2, padding=0), conv(32, 3, padding=0), conv(64, 3), STEM_A],
        stages=[[STEM_B], [STEM_C, *a], [REDUCTION_A, *b], [REDUCTION_B, *c]],
        head=spec(Classifier, num_classes, dropout=0.2),
    )


ABOUT = About(row=47, year=2017, topic="Model search")

# fmt: off
VARIANTS = (
    #       name       builder      params            MACs   at  source
    Variant("polynet", polynet, 95_366_600, 34_699_493_472, 331, PYTORCHCV),
)
# fmt: on
