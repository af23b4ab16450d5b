"""The back ends that can run a network; importing one registers it."""

from convsmith.deploy.backends import compile, eager, executorch, onnxruntime, openvino, tensorrt
from convsmith.deploy.backends.registry import Artefact, Backend, get, installed, names

__all__ = [
    "Artefact",
    "Backend",
    "compile",
    "eager",
    "executorch",
    "get",
    "installed",
    "names",
    "onnxruntime",
    "openvino",
    "tensorrt",
]
