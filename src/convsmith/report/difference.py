"""How two architectures differ, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Literal

from convsmith.arch import Architecture, BlockSpec
from convsmith.report.calls import argument_text, arguments_text


@dataclass(frozen=True)
class Change:
    """What stands at one place of two architectures.

    `kind` is "same", "changed" (the same block with other arguments: `arguments` names them as `(name, before,
    after)`), "removed" or "added". The paths are None where a block is missing.
    """

    kind: Literal["same", "changed", "removed", "added"]
    before_path: str | None
    after_path: str | None
    before: BlockSpec | None
    after: BlockSpec | None

    @property
    def arguments(self) -> list[tuple[str, object, object]]:
        """The arguments that differ, `(name, before, after)`."""
        if self.before is None or self.after is None:
            return []
        after = dict(self.after.arguments)
        return [(name, old, after[name]) for name, old in self.before.arguments if old != after[name]]

    @property
    def text(self) -> str:
        """The change in words."""
        if self.kind == "changed" and self.before is not None:
            told = ", ".join(f"{name} {argument_text(old)} → {argument_text(new)}" for name, old, new in self.arguments)
            return f"{self.before.block}: {told}"
        spec = self.before or self.after
        return "" if spec is None else f"{spec.block}({arguments_text(spec)})"


def compare_architectures(before: Architecture, after: Architecture) -> list[Change]:
    """The blocks of two architectures beside each other, stem, stages, neck and head each for itself.

    Blocks are aligned so that as many as possible stay the same; between those, blocks of one kind count as changed.
    """
    found: list[Change] = []
    for part in ("stem", "stages", "neck", "head"):
        groups = zip_longest(_blocks(before, part), _blocks(after, part))
        found += (change for old, new in groups for change in _aligned(old or [], new or []))
    return found


def _blocks(architecture: Architecture, part: str) -> list[list[tuple[str, BlockSpec]]]:
    """The blocks of a part with their paths; `stages` gives a list for each stage."""
    groups: dict[str, list[tuple[str, BlockSpec]]] = {}
    for path, spec in architecture.blocks():
        first, *rest = path.split(".")
        if first == part:
            groups.setdefault(rest[0] if part == "stages" else "", []).append((path, spec))
    return list(groups.values())


def _aligned(old: list[tuple[str, BlockSpec]], new: list[tuple[str, BlockSpec]]) -> Iterator[Change]:
    matcher = SequenceMatcher(a=[spec for _, spec in old], b=[spec for _, spec in new], autojunk=False)
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        for i, j in zip_longest(range(a, a_end), range(b, b_end)):
            before_path, before = (None, None) if i is None else old[i]
            after_path, after = (None, None) if j is None else new[j]
            if tag == "equal":
                yield Change("same", before_path, after_path, before, after)
            elif before is not None and after is not None and before.block == after.block:
                yield Change("changed", before_path, after_path, before, after)
            else:
                if before is not None:
                    yield Change("removed", before_path, None, before, None)
                if after is not None:
                    yield Change("added", None, after_path, None, after)
