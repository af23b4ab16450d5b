"""FractalNet: Ultra-Deep Neural Networks without Residuals.  Larsson et al., ICLR 2017, arXiv:1605.07648.

The network for CIFAR with the filters of the authors' generator of networks: its deepest column has 20 convolutions and
the classifier behind them. `single_column` of convsmith.nn takes one column out as a network of its own.

Differs from the paper: it gives its network of 20 convolutions 38.6 M parameters, the released filters (64, 128, 256,
512, 512) make 33.7 M, as in pytorchcv; the reason of the difference is not found. Paths are dropped for each image, not
for each batch. The network for ImageNet, FractalNet-34, is missing: its filters and the pooling around its first block
were found in copies by others alone, which disagree.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import Classifier, FractalBlock, MaxPool
from convsmith.zoo.variant import PYTORCHCV, About, Variant


def fractalnet_cifar(
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512, 512),
    drop_rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4),
    columns: int = 3,
    local_drop_rate: float = 0.15,
    global_drop_share: float = 0.5,
    num_classes: int = 10,
) -> Architecture:
    """Sec. 4: a fractal block of each width with its dropout, each followed by a pooling that halves the map."""
    pool = spec(MaxPool, kernel_size=2, padding=0)
    first, *later = (
        spec(
            FractalBlock,
            width,
            columns=columns,
            drop_rate=drop_rate,
            local_drop_rate=local_drop_rate,
            global_drop_share=global_drop_share,
        )
        for width, drop_rate in zip(widths, drop_rates, strict=True)
    )
    return Architecture(
        stages=[[first], *([pool, block] for block in later)],
        neck=[pool],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=24, year=2017, topic="Dense connections")

# fmt: off
VARIANTS = (
    #       name                builder               params         MACs  at  source     peer
    Variant("fractalnet_cifar", fractalnet_cifar, 33_724_618, 845_222_912, 32, PYTORCHCV, "fractalnet_cifar10"),
)
# fmt: on
