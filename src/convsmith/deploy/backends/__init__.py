"""The back ends that can run a network; importing one registers it."""

from convsmith.deploy.backends import eager, onnxruntime
from convsmith.deploy.backends.registry import Artefact, Backend, get, installed, names

__all__ = ["Artefact", "Backend", "eager", "get", "installed", "names", "onnxruntime"]
