"""The classic architectures: one paper per file, tables with reference figures."""

from convsmith.zoo.create import create_model, find
from convsmith.zoo.registry import families, get, names, paper, variants
from convsmith.zoo.small import for_small_inputs
from convsmith.zoo.variant import Variant

__all__ = ["Variant", "create_model", "families", "find", "for_small_inputs", "get", "names", "paper", "variants"]
