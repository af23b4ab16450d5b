"""The classic architectures: one paper per file, tables with reference figures."""

from convsmith.zoo.create import create_model, find
from convsmith.zoo.peers import export_state_dict, load_pretrained
from convsmith.zoo.registry import about, families, get, names, paper, variants
from convsmith.zoo.small import for_small_inputs
from convsmith.zoo.variant import About, Variant

__all__ = [
    "About",
    "Variant",
    "about",
    "create_model",
    "export_state_dict",
    "families",
    "find",
    "for_small_inputs",
    "get",
    "load_pretrained",
    "names",
    "paper",
    "variants",
]
