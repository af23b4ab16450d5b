"""Data sets, transforms and loaders; small generated sets."""

from convsmith.data.dataset import DataSet, Split
from convsmith.data.load import load

__all__ = ["DataSet", "Split", "load"]
