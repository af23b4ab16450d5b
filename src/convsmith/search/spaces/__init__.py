"""Search spaces: ordinary architectures with choices, one paper per file."""

from convsmith.search.spaces.mobile import mobile
from convsmith.search.spaces.registry import get, names
from convsmith.search.spaces.stages import stages

__all__ = ["get", "mobile", "names", "stages"]
