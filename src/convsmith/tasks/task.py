"""What training knows of a task: its network, its loss, and the figures by which it is judged."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor, nn

from convsmith.arch import Architecture

Target = TypeVar("Target")
Seen = TypeVar("Seen", contravariant=True)
Outputs = Tensor | tuple[Tensor, tuple[Tensor, ...]]  # of `network(x)`, or of `network.forward_aux(x)`


class Metric(Protocol[Seen]):
    """A figure gathered over the batches of one pass; a new pass takes a new object."""

    def update(self, outputs: Tensor, targets: Seen) -> None:
        """Take in the outputs of one batch."""

    def compute(self) -> float:
        """The figure over all batches so far."""


class Task(Protocol[Target]):
    """The training loop's view of a task. A task is a frozen dataclass: its fields are recorded in a run."""

    @property
    def objective(self) -> str:
        """The metric that a search maximises unless told otherwise."""

    def network(self, backbone: Architecture) -> nn.Module:
        """A fresh network that solves the task on this backbone."""

    def check(self, targets: Target) -> None:
        """Raise ValueError for targets that are none of this task's. It reads values, so targets are on the CPU."""

    def loss(self, outputs: Outputs, targets: Target) -> Tensor:
        """The scalar to minimise, a mean over the batch; with auxiliary outputs, their share included."""

    def metrics(self) -> dict[str, Metric[Target]]:
        """Fresh metrics of one pass over a split, by name."""
