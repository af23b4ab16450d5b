"""What a network is, as data: recorded calls of blocks, choices, architectures, their files, and the registry."""

from convsmith.arch.architecture import Architecture, Reference, adapt, canonical
from convsmith.arch.choice import Choice, choice
from convsmith.arch.files import dump_spec
from convsmith.arch.registry import block, block_names, registered, when_redefined
from convsmith.arch.remembered import remembered
from convsmith.arch.spec import BlockSpec, changed_arguments, spec
from convsmith.arch.tree import (
    Decisions,
    apply,
    complete,
    has_choice,
    mutate,
    neighbours,
    open_choices,
    random_decisions,
    resolve,
)
from convsmith.arch.writing import check_takes_files, check_writable, write_whole, write_whole_bytes

__all__ = [
    "Architecture",
    "BlockSpec",
    "Choice",
    "Decisions",
    "Reference",
    "adapt",
    "apply",
    "block",
    "block_names",
    "canonical",
    "changed_arguments",
    "check_takes_files",
    "check_writable",
    "choice",
    "complete",
    "dump_spec",
    "has_choice",
    "mutate",
    "neighbours",
    "open_choices",
    "random_decisions",
    "registered",
    "remembered",
    "resolve",
    "spec",
    "when_redefined",
    "write_whole",
    "write_whole_bytes",
]
