"""Advice for the design of a network: one rule a file, each from the network to findings with figures."""

from convsmith.measure.advice.finding import TASKS, Finding, Gain, Task
from convsmith.measure.advice.norms import NormChoice, choose_norm

__all__ = ["TASKS", "Finding", "Gain", "NormChoice", "Task", "choose_norm"]
