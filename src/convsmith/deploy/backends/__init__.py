"""The back ends that can run a network; importing one registers it."""

from convsmith.deploy.backends import eager, onnxruntime
from convsmith.deploy.backends.registry import Backend, get, installed, names

__all__ = ["Backend", "eager", "get", "installed", "names", "onnxruntime"]
