"""Classification of images: one label each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import Architecture, spec
from convsmith.network import build
from convsmith.nn import Classifier
from convsmith.tasks.task import Metric, Outputs

NO_LABEL = -(2**63)  # to be ignored; torch's own, -100, would hide a wrong label


@dataclass(frozen=True)
class Classification:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, arXiv:1512.00567, Sec. 7), judged by accuracy.

    A share `label_smoothing` of the target's mass is spread evenly over all `num_classes` labels. Auxiliary heads add
    `aux_weight` times the sum of their losses; 0.3 is GoogLeNet's (Szegedy et al. 2015, arXiv:1409.4842, Sec. 5).
    """

    num_classes: int
    label_smoothing: float = field(default=0.0, kw_only=True)
    aux_weight: float = field(default=0.3, kw_only=True)

    objective: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        if type(self.num_classes) is not int or self.num_classes < 2:
            raise ValueError(f"num_classes must be an int of at least 2, got {self.num_classes!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing!r}")
        if not 0 <= self.aux_weight < math.inf:
            raise ValueError(f"aux_weight must be finite and not negative, got {self.aux_weight!r}")

    def network(self, backbone: Architecture) -> nn.Module:
        """The network of an architecture, with a `Classifier` put on it if it has no head.

        Raises:
            ValueError: when its head makes another number of logits than there are classes.
        """
        if backbone.head is None:
            backbone = backbone.replace(head=spec(Classifier, self.num_classes))
        network = build(backbone)
        if network.out_channels != self.num_classes:
            raise ValueError(
                f"the head must make a logit per class, got {network.out_channels} logits of {backbone.name} for "
                f"{self.num_classes} classes; make the architecture with num_classes={self.num_classes}, or write that "
                "into the head of its file"
            )
        return network

    def check(self, targets: Tensor) -> None:
        """Raise ValueError unless targets are labels (N,) int64 within [0, num_classes)."""
        if targets.dtype != torch.int64 or targets.ndim != 1:
            raise ValueError(f"labels must be (N,) int64, got {tuple(targets.shape)} {targets.dtype}")
        low, high = (int(bound) for bound in targets.aminmax())
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"labels must be within [0, {self.num_classes}), got {low if low < 0 else high}; "
                "give the task the data set's num_classes"
            )

    def loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits (N, num_classes), or of (logits, auxiliary logits), and labels (N,) int64.

        Raises:
            ValueError: for logits of another shape, and for what is no label (see `check`). On devices other than the
                CPU a label outside must be found before: there it ends the process.
        """
        logits, aux = outputs if isinstance(outputs, tuple) else (outputs, ())
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must be (N, {self.num_classes}), got {tuple(logits.shape)}; "
                f"make the network with num_classes={self.num_classes}"
            )
        if targets.dtype != torch.int64 or targets.ndim != 1:
            self.check(targets)
        try:
            loss = self._cross_entropy(logits, targets)
        except IndexError:  # the kernel has looked at the labels, and says less about them
            self.check(targets)
            raise
        for aux_logits in aux:
            loss = loss + self.aux_weight * self._cross_entropy(aux_logits, targets)
        return loss

    def metrics(self) -> dict[str, Metric[Tensor]]:
        """`accuracy`, a fraction in [0, 1], and `loss`, with the smoothing that training has."""
        return {"accuracy": Accuracy(), "loss": MeanLoss(self.loss)}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, ignore_index=NO_LABEL, label_smoothing=self.label_smoothing)


class MeanLoss:
    """The mean of a loss over all images; each batch counts by its size."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]):
        self._loss = loss
        self._sum = torch.zeros(())
        self._count = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in the outputs (N, ...) of one batch."""
        # Summed where the outputs are: reading the value would wait for the device at each batch.
        self._sum = self._loss(outputs, targets) * len(outputs) + self._sum.to(outputs.device)
        self._count += len(outputs)

    def compute(self) -> float:
        """The mean so far; ValueError before the first batch."""
        return float(self._sum) / _some(self._count)


class Accuracy:
    """The fraction of images, in [0, 1], whose largest logit is that of their label."""

    def __init__(self) -> None:
        self._correct = torch.zeros((), dtype=torch.int64)
        self._count = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in logits (N, num_classes) and labels (N,) of one batch."""
        self._correct = (outputs.argmax(1) == targets).sum() + self._correct.to(outputs.device)
        self._count += len(targets)

    def compute(self) -> float:
        """The fraction so far; ValueError before the first batch."""
        return int(self._correct) / _some(self._count)


def _some(count: int) -> int:
    if count == 0:
        raise ValueError("a metric needs at least one image, got none; update it before compute")
    return count
