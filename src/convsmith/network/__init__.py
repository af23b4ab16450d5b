"""From an architecture to a module and back: building, supernets, shapes, weights."""

from convsmith.network.build import Network, build, initialise
from convsmith.network.shapes import block_output, output_shapes
from convsmith.network.supernet import inherit, supernet
from convsmith.network.weights import load_weights, read_weights, save_weights, transplant

__all__ = [
    "Network",
    "block_output",
    "build",
    "inherit",
    "initialise",
    "load_weights",
    "output_shapes",
    "read_weights",
    "save_weights",
    "supernet",
    "transplant",
]
