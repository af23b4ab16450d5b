"""What a calibration measures: random networks, each by a number that is taken once, and the caller's among them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

from convsmith.measure.predictor import soup
from convsmith.measure.predictor.graph import Graph
from convsmith.measure.predictor.kept import take_number
from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.table import Table
from convsmith.measure.predictor.turns import Job

GIVEN_EVERY = 4  # one network in so many is one of the caller's, while they last
NAMED = re.compile(r"random (\d+):")


class Numbers:
    """Numbers of random networks, none of which another process that grows the same file is given.

    Without a file they are those from 0 on. `free_behind` is a number from which on the table uses none.
    """

    def __init__(self, file: Path | None, *, free_behind: int = 0):
        self.file, self._next = file, free_behind

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        number = self._next if self.file is None else take_number(self.file, self._next)
        self._next = number + 1
        return number


def free_behind(table: Table) -> int:
    """A number from which on no random network of a table has its own."""
    named = (NAMED.match(name) for name in table.names)
    return max((1 + int(found[1]) for found in named if found), default=0)


def random_jobs(numbers: Iterable[int]) -> Iterator[Job]:
    """Networks of no family, the same for each number; the name tells what they are made of."""
    for number in numbers:
        drawn = soup.draw(Random(number))
        yield Job(f"random {number}: {', '.join(drawn.parts)}", drawn.graph)


def random_graph(number: int) -> Graph:
    """The random network of a number."""
    return soup.draw(Random(number)).graph


def new_jobs(
    given: Iterable[Job], table: Callable[[], Table], kernels: Callable[[Graph], Iterable[Kernel]]
) -> Iterator[Job]:
    """Those that neither the table, as it is at the time, nor one given before has the kernels of.

    They end where more known ones follow each other than there are: they repeat, as members of a small space do.
    """
    seen: set[tuple[Kernel, ...]] = set()
    looked_at = known_in_a_row = 0
    for job in given:
        if len(rows := table().kernels) != looked_at:  # to look at a thousand networks takes longer than to skip one
            seen.update(rows)
            looked_at = len(rows)
        own = tuple(kernels(job.graph))
        known_in_a_row = known_in_a_row + 1 if own in seen else 0
        if known_in_a_row > len(seen):
            return
        if own not in seen:
            seen.add(own)
            yield job


def mixed(random: Iterator[Job], given: Iterator[Job]) -> Iterator[Job]:
    """Random networks without end, every fourth place being one of the given ones while they last."""
    while True:
        yield from itertools.islice(random, GIVEN_EVERY - 1)
        yield from itertools.islice(given, 1)
