"""Post-training quantisation to int8: calibration, and what each runtime makes of it."""

from convsmith.deploy.int8 import onnxruntime, openvino
from convsmith.deploy.int8.calibration import checked_batches
from convsmith.deploy.int8.runtime import Int8Model, Runtime

RUNTIMES: dict[str, Runtime] = {"onnxruntime": onnxruntime.RUNTIME, "openvino": openvino.RUNTIME}

__all__ = ["RUNTIMES", "Int8Model", "Runtime", "checked_batches", "onnxruntime", "openvino"]
