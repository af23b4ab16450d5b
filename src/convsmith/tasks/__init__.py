"""What a network is trained for: head, loss, metrics."""

from convsmith.tasks.classification import Accuracy, Classification, MeanLoss
from convsmith.tasks.task import Metric, Outputs, Task

__all__ = ["Accuracy", "Classification", "MeanLoss", "Metric", "Outputs", "Task"]
