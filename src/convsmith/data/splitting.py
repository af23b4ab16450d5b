"""Stratified splits fixed by a seed."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeVar

Source = TypeVar("Source")
Labelled = tuple[Source, int]

HELD_OUT = 0.15  # of each class, for a validation or a test split that a data set does not bring along


def cut(
    items: Sequence[Labelled[Source]], held_out: tuple[float, ...], *, seed: int, class_names: Sequence[str]
) -> list[list[Labelled[Source]]]:
    """Split (source, label) pairs into a first part and one held-out part per fraction, class by class.

    Of n items of a class a held-out part gets `round(fraction * n)`, at least one; the first part gets the rest. Parts
    keep the order of `items`. `class_names` serve the error message.

    Raises:
        ValueError: when a class has fewer items than there are parts.
    """
    positions: dict[int, list[int]] = defaultdict(list)
    for position, (_, label) in enumerate(items):
        positions[label].append(position)
    # Python's generator, because its stream is the same in every version; torch and numpy do not promise that
    rng = random.Random(seed)
    chosen: list[list[int]] = [[] for _ in range(1 + len(held_out))]
    for label, members in sorted(positions.items()):
        if len(members) < len(chosen):
            raise ValueError(
                f"a class needs at least {len(chosen)} images to be split into {len(chosen)} parts, "
                f"got {len(members)} in {class_names[label]}; add images or remove the class"
            )
        rng.shuffle(members)
        count = len(members)
        for part, fraction in enumerate(held_out, start=1):
            size = max(1, round(fraction * count))
            chosen[part] += members[-size:]
            del members[-size:]
        chosen[0] += members
    return [[items[position] for position in sorted(part)] for part in chosen]


def complete(
    parts: Mapping[str, Sequence[Labelled[Source]]], *, seed: int, class_names: Sequence[str]
) -> dict[str, list[Labelled[Source]]]:
    """Make train, validation and test out of the parts that a data set brings along; "train" must be among them.

    Only train: 70 / 15 / 15 %. Train and one held-out part, whatever it is called: that part is the test split, because
    figures are published on it and a search must not see it, and 15 % of train become validation.
    """
    validation, test = parts.get("validation"), parts.get("test")
    if test is None:
        validation, test = None, validation
    missing = tuple(HELD_OUT for part in (validation, test) if part is None)
    train, *made = cut(parts["train"], missing, seed=seed, class_names=class_names)
    if test is None:
        test = made.pop()
    if validation is None:
        validation = made.pop()
    return {"train": train, "validation": list(validation), "test": list(test)}
