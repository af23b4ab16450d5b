"""From an architecture to a module and back: building, supernets, shapes, weights."""

from convsmith.network.build import Network, build, initialise
from convsmith.network.shapes import block_output, output_shapes
from convsmith.network.supernet import inherit, supernet
from convsmith.network.weights import (
    adapt_weights,
    fit_weights,
    load_weights,
    read_weights,
    save_weights,
    stored_architecture,
    transplant,
)

__all__ = [
    "Network",
    "adapt_weights",
    "block_output",
    "build",
    "fit_weights",
    "inherit",
    "initialise",
    "load_weights",
    "output_shapes",
    "read_weights",
    "save_weights",
    "stored_architecture",
    "supernet",
    "transplant",
]
