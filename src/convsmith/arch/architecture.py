"""An architecture: a frozen tree of recorded calls, `stem -> stages -> neck -> head`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from convsmith.arch import files, tree
from convsmith.arch.choice import Choice, freeze, key_of
from convsmith.arch.spec import BlockSpec
from convsmith.arch.writing import write_whole

Chain = tuple[BlockSpec, ...]


@dataclass(frozen=True)
class Reference:
    """What a network was counted to have: learnable scalars, multiply-accumulates of one image, and its side."""

    params: int
    macs: int
    input_size: int


@dataclass(frozen=True, init=False, eq=False, repr=False, kw_only=True)
class Architecture:
    """A network as data; with choices in it, a search space.

    `stem`, each of `stages`, and `neck` are chains of specs, `head` makes the logits of the last map. `aux` names
    auxiliary heads: `(stage, block, spec)` reads the map behind that block. Lists are frozen into tuples.
    `reference` and `found_by` are notes and no part of equality.
    """

    stem: Chain = ()
    stages: tuple[Chain, ...] = ()
    neck: Chain = ()
    head: BlockSpec | None = None
    in_channels: int = 3
    name: str = "architecture"
    aux: tuple[tuple[int, int, BlockSpec], ...] = ()
    reference: Reference | None = None
    found_by: str | None = None

    if TYPE_CHECKING:  # derived, so no fields
        _key: tuple[Any, ...]
        _hash: int

    def __init__(
        self,
        *,
        stem: Iterable[BlockSpec] = (),
        stages: Iterable[Iterable[BlockSpec]],
        neck: Iterable[BlockSpec] = (),
        head: BlockSpec | None = None,
        in_channels: int = 3,
        name: str = "architecture",
        aux: Iterable[tuple[int, int, BlockSpec]] = (),
        reference: Reference | None = None,
        found_by: str | None = None,
    ):
        if type(in_channels) is not int or in_channels < 1:
            raise ValueError(f"in_channels must be a positive int, got {in_channels!r}")
        if not isinstance(name, str) or not name:
            raise ValueError(f"an architecture's name must be a non-empty string, got {name!r}")
        values: dict[str, Any] = {
            "stem": _chain(stem, "stem"),
            "stages": tuple(_chain(stage, f"stages[{i}]") for i, stage in enumerate(stages)),
            "neck": _chain(neck, "neck"),
            "head": None if head is None else _link(head, "head"),
            "in_channels": in_channels,
            "name": name,
        }
        values["aux"] = _aux(freeze(tuple(aux)), values["stages"])
        key = tuple(key_of(value) for value in values.values())
        for attribute, value in {
            **values,
            "reference": reference,
            "found_by": found_by,
            "_key": key,
            "_hash": hash(key),
        }.items():
            object.__setattr__(self, attribute, value)

    def replace(self, **changes: Any) -> Architecture:
        """The same architecture with other fields; `reference` and `found_by` are dropped unless they are given."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Architecture(**{**fields, "reference": None, "found_by": None, **changes})

    def choices(self) -> list[tuple[str, tuple[Any, ...]]]:
        """`(path, options)` of every choice, those inside of options included, in order of the tree."""
        return [(path, choice.options) for path, choice in tree.all_choices(self).items()]

    def size(self) -> int:
        """The number of different decisions that the space admits; 1 for an architecture without choices."""
        return tree.size(self)

    def sample(self, rng: Random) -> Architecture:
        """An architecture of the space, each open choice decided uniformly over its options."""
        return self.resolve(tree.random_decisions(self, rng))

    def resolve(self, decisions: Mapping[str, int]) -> Architecture:
        """The architecture that the decisions (path or name of each open choice -> index of its option) name."""
        resolved: Architecture = tree.apply(self, decisions)
        return resolved

    def blocks(self) -> list[tuple[str, BlockSpec]]:
        """`(path, spec)` of stem, stages, neck and head in order of execution, e.g. `("stages.0.1", ...)`."""
        chains = [("stem", self.stem), *((f"stages.{i}", s) for i, s in enumerate(self.stages)), ("neck", self.neck)]
        listed = [(f"{path}.{i}", spec) for path, chain in chains for i, spec in enumerate(chain)]
        return listed if self.head is None else [*listed, ("head", self.head)]

    def dilate(self, stage: int) -> Architecture:
        """The same network with the strides of one stage replaced by dilation (Chen et al. 2017, arXiv:1706.05587).

        Blocks up to and including the strided one keep their dilation; those behind it, in later stages too, are
        dilated by the stride that was taken away. Their weights keep their shapes.
        """
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"stage must be below the {len(self.stages)} stages of {self.name}, got {stage}")
        factor, stages = 1, list(self.stages)
        for i in range(stage, len(stages)):
            chain = []
            for spec in stages[i]:
                stride = spec.get("stride", 1)
                taken = stride if i == stage else 1
                if (factor > 1 or taken > 1) and not spec.has("dilation"):
                    raise ValueError(
                        f"{spec.block} in stage {i} of {self.name} takes no dilation, so the stage keeps its stride"
                    )
                changes = {"dilation": spec.get("dilation") * factor} if factor > 1 else {}
                chain.append(
                    spec.replace(**changes, **({"stride": 1} if taken > 1 else {})) if changes or taken > 1 else spec
                )
                factor *= taken
            stages[i] = tuple(chain)
        return self.replace(stages=stages)

    def to_json(self) -> str:
        """The file format `convsmith/architecture/1`, one block a line."""
        return files.dumps(self)

    @staticmethod
    def from_json(text: str) -> Architecture:
        """Read the file format. ValueError says what is wrong and where; only registered blocks are constructed."""
        return files.loads(text)

    def save(self, path: str | Path) -> None:
        """Write the file whole: to a temporary name, flushed, renamed."""
        write_whole(Path(path), self.to_json())

    @staticmethod
    def load(path: str | Path) -> Architecture:
        """Read an architecture file; ValueError names the file, the place in it and what is wrong there."""
        return files.load(Path(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Architecture.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        depth = "-".join(str(len(stage)) for stage in self.stages)
        holes = f", choices={len(self.choices())}" if tree.has_choice(self) else ""
        return f"Architecture({self.name!r}, in_channels={self.in_channels}, depths={depth}, head={self.head!r}{holes})"


def canonical(architecture: Architecture) -> Architecture:
    """The architecture under one name and without identities: what isomorphic candidates have in common."""

    def without_identities(chain: Chain) -> Chain:
        return tuple(spec for spec in chain if getattr(spec, "block", None) != "identity")  # a choice has no block yet

    stages = architecture.stages if architecture.aux else tuple(map(without_identities, architecture.stages))
    stem, neck = without_identities(architecture.stem), without_identities(architecture.neck)
    return architecture.replace(name="canonical", stem=stem, stages=stages, neck=neck)


def adapt(
    architecture: Architecture, *, num_classes: int | None = None, in_channels: int | None = None
) -> Architecture:
    """The same network for another number of classes (head and auxiliary heads) or of input channels."""

    def for_classes(head: Any) -> Any:
        if isinstance(head, Choice):
            return Choice(tuple(map(for_classes, head.options)), head.name)
        if not head.has("num_classes"):
            raise ValueError(
                f"the head {head.block} of {architecture.name} takes no num_classes; replace the head instead"
            )
        return head.replace(num_classes=num_classes)

    changes: dict[str, Any] = {}
    if num_classes is not None and architecture.head is not None:
        changes["head"] = for_classes(architecture.head)
        changes["aux"] = [(stage, block, for_classes(head)) for stage, block, head in architecture.aux]
    if in_channels is not None:
        changes["in_channels"] = in_channels
    adapted = architecture.replace(**changes)
    return adapted.replace(found_by=architecture.found_by) if adapted != architecture else architecture


def _link(node: Any, where: str, *, chains: bool = False) -> Any:
    """A spec, or a choice of specs; where `chains` may stand, of tuples of these too."""
    if isinstance(node, Choice):
        for option in node.options:
            for item in option if chains and isinstance(option, tuple) else (option,):
                _link(item, f"an option of {where}", chains=chains)
        return node
    if isinstance(node, BlockSpec):
        return node
    shown = getattr(node, "__qualname__", repr(node))
    raise TypeError(f"{where} must be a recorded block, spec(Block, ...), got {shown}")


def _chain(nodes: Any, where: str) -> Any:
    if isinstance(nodes, Choice):  # a whole chain left open is a chain of one choice that is spliced in
        return (_link(nodes, where, chains=True),)
    if isinstance(nodes, BlockSpec) or not isinstance(nodes, Iterable):
        raise TypeError(f"{where} must be a list of recorded blocks, got {nodes!r}")
    return tuple(_link(freeze(node), f"{where}[{i}]", chains=True) for i, node in enumerate(nodes))


def _aux(aux: tuple[Any, ...], stages: tuple[Any, ...]) -> tuple[tuple[int, int, BlockSpec], ...]:
    for entry in aux:
        if not (isinstance(entry, tuple) and len(entry) == 3 and isinstance(entry[2], BlockSpec)):
            raise TypeError(f"aux must hold (stage, block, spec) entries, got {entry!r}")
        stage, block, _ = entry
        if not (0 <= stage < len(stages) and 0 <= block < len(stages[stage])):
            raise ValueError(f"an auxiliary head must read behind an existing block, got stage {stage}, block {block}")
    return aux
