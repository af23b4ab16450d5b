"""How long each kernel takes, and from the sum of the kernels to the latency of the network.

Per class of kernels a law with coefficients that cannot be negative (a start, multiply-accumulates, bytes read, written
and of weights), and trees for the logarithm of what the law leaves over. The network's latency is the sum, its number
of kernels and a constant, each with one coefficient: the profiler's share in each kernel is taken out so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.rows import SHORTEST_US, Rows
from convsmith.measure.predictor.trees import Array, Trees, fit_trees

ANY = "any kernel"  # the class for kernels of a class that was never measured
LEAST_ROWS = 40  # of a class, for more than its law
ROBUST_STEPS, ROBUST_ERROR = 10, 0.01


@dataclass(frozen=True)
class GroupModel:
    """One class: the law's coefficients, trees where there are enough rows, and the range of the law's terms."""

    law: Array
    trees: tuple[Trees, ...]
    lowest: Array
    highest: Array

    def law_us(self, law: Array) -> Array:
        """Microseconds of each kernel (rows,) by the law alone."""
        times: Array = np.maximum(_terms(law) @ self.law, SHORTEST_US)
        return times

    def times_us(self, law: Array, numbers: Array) -> Array:
        """Microseconds of each kernel (rows,)."""
        told: Array = np.exp(sum(trees.predict(numbers) for trees in self.trees)) * self.law_us(law)
        return told


@dataclass(frozen=True)
class Models:
    """The models of all classes."""

    groups: Mapping[str, GroupModel]

    def kernels_us(self, kernels: Iterable[Kernel]) -> dict[Kernel, float]:
        """Microseconds of each distinct kernel; one of a class that has no model by `ANY`, or else nothing."""
        groups: dict[str, list[Kernel]] = defaultdict(list)
        for kernel in dict.fromkeys(kernels):
            groups[kernel.group].append(kernel)
        found: dict[Kernel, float] = {}
        for name, own in groups.items():
            law, numbers = np.array([k.law for k in own]), np.array([k.numbers for k in own])
            found.update(zip(own, self._times_us(name, law, numbers).tolist(), strict=True))
        return found

    def sums_us(self, networks: Sequence[Sequence[Kernel]]) -> Array:
        """The sum of each network's kernels (networks,)."""
        found = self.kernels_us(kernel for own in networks for kernel in own)
        return np.array([sum(found[kernel] for kernel in own) for own in networks])

    def _times_us(self, name: str, law: Array, numbers: Array) -> Array:
        model = self.groups.get(name, self.groups.get(ANY))
        return np.zeros(len(law)) if model is None else model.times_us(law, numbers)


def fit_models(rows: Mapping[str, Rows]) -> Models:
    """The models of all classes that have rows."""
    return Models({**{name: fit_group(own) for name, own in rows.items()}, ANY: _fit_any(rows)})


def fit_group(rows: Rows) -> GroupModel:
    """The model of one class."""
    coefficients = _fit_law(rows.law, rows.time_us)
    trees: tuple[Trees, ...] = ()
    if len(rows) >= LEAST_ROWS:
        law_us = np.maximum(_terms(rows.law) @ coefficients, SHORTEST_US)
        trees = fit_trees(rows.numbers, np.log(rows.time_us / law_us))
    return GroupModel(coefficients, trees, rows.law.min(axis=0), rows.law.max(axis=0))


def _fit_any(rows: Mapping[str, Rows]) -> GroupModel:
    """One law for all kernels: the best that is known of a class that was never measured."""
    law = np.concatenate([own.law for own in rows.values()])
    times = np.concatenate([own.time_us for own in rows.values()])
    return GroupModel(_fit_law(law, times), (), law.min(axis=0), law.max(axis=0))


def _terms(law: Array) -> Array:
    return np.concatenate([np.ones((len(law), 1)), law], axis=1)


def _fit_law(law: Array, times: Array) -> Array:
    """Coefficients of the law, none negative, for the smallest relative error."""
    from scipy.optimize import nnls

    terms = _terms(law)
    scale = terms.max(axis=0) + 1e-9
    coefficients, _ = nnls(terms / scale / times[:, None], np.ones(len(times)))
    return np.asarray(coefficients / scale)


@dataclass(frozen=True)
class Correction:
    """Microseconds of a network: a share of the sum of its kernels, something for each kernel, and a constant."""

    per_sum: float = 1.0
    per_kernel: float = 0.0
    constant: float = 0.0

    def __call__(self, sums: Array, counts: Array) -> Array:
        """Microseconds of each network (networks,); never below half of the sum."""
        return np.maximum(self.per_sum * sums + self.per_kernel * counts + self.constant, sums / 2)


def fit_correction(sums: Array, counts: Array, latencies_us: Array) -> Correction:
    """The smallest relative error, large ones weighing little more than their square root."""
    terms = np.stack([sums, counts, np.ones(len(sums))], axis=1) / latencies_us[:, None]
    weights = np.ones(len(sums))
    found = np.array([1.0, 0.0, 0.0])
    if len(sums) < 4:
        return Correction()
    for _ in range(ROBUST_STEPS):
        found = np.linalg.lstsq(terms * weights[:, None], weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(terms @ found - 1), ROBUST_ERROR))
    return Correction(*map(float, found))
