"""convsmith: design, measure, search, train and ship convolutional networks for a given device."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from convsmith.arch import Architecture, BlockSpec, block, choice, spec

if TYPE_CHECKING:
    from convsmith import arch, data, deploy, measure, network, nn, report, search, tasks, train, zoo
    from convsmith.network import transplant
    from convsmith.zoo import create_model, export_state_dict

__version__ = "0.1.0"
__all__ = [
    "Architecture",
    "BlockSpec",
    "arch",
    "block",
    "choice",
    "create_model",
    "data",
    "deploy",
    "export_state_dict",
    "measure",
    "network",
    "nn",
    "report",
    "search",
    "spec",
    "tasks",
    "train",
    "transplant",
    "zoo",
]

# Imported at first use, so that `import convsmith` does not wait for torch.
_FUNCTIONS = {
    "create_model": "convsmith.zoo",
    "export_state_dict": "convsmith.zoo",
    "transplant": "convsmith.network",
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"convsmith.{name}")
    raise AttributeError(f"module 'convsmith' has no attribute {name!r}")
