"""Networks as ONNX models, and ONNX Runtime to run them."""

from convsmith.deploy.onnx.apart import GIVEN, MEMORY, Apart, held
from convsmith.deploy.onnx.convert import convert
from convsmith.deploy.onnx.packages import INPUT, OUTPUT
from convsmith.deploy.onnx.session import load, opset, session

__all__ = ["GIVEN", "INPUT", "MEMORY", "OUTPUT", "Apart", "convert", "held", "load", "opset", "session"]
