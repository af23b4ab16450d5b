"""Latency predicted from an architecture alone: executed kernels told by rules, their times learnt from this device."""

from convsmith.measure.predictor.fitted import HeldOut
from convsmith.measure.predictor.predictor import LatencyPredictor, UnknownKernelWarning
from convsmith.measure.predictor.table import About

__all__ = ["About", "HeldOut", "LatencyPredictor", "UnknownKernelWarning"]
