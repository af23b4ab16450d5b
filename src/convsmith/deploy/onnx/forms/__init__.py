"""How each operator of torch is said in ONNX: one function per operator, by its name and overload."""

from convsmith.deploy.onnx.forms import elementwise, layers, pooling, shapes
from convsmith.deploy.onnx.forms.table import form_of

__all__ = ["elementwise", "form_of", "layers", "pooling", "shapes"]
