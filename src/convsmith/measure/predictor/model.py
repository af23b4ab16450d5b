"""How long each kernel takes, and from the sum of the kernels to the latency of the network.

Per class of kernels a law with coefficients that cannot be negative (a start, multiply-accumulates, bytes read, written
and of weights), and trees for the logarithm of what the law leaves over. The trees also see how long the whole pass
takes by the laws: what a kernel needs may be gone from the caches after it. The network's latency is the sum, its
number of kernels and a constant, each with one coefficient: the profiler's share in each kernel is taken out so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convsmith.measure.predictor.kernels import Kernel, rough
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

    def times_us(self, law: Array, numbers: Array, pass_: float | Array) -> Array:
        """Microseconds of each kernel (rows,) of such a pass, or of passes (rows,)."""
        seen = _with_passes(numbers, pass_)
        told: Array = np.exp(sum(trees.predict(seen) for trees in self.trees)) * self.law_us(law)
        return told


class Models:
    """The models of all classes; kernels that were met before, in passes as long, cost nothing."""

    def __init__(self, groups: Mapping[str, GroupModel]):
        self.groups = groups
        self._law_us: dict[Kernel, float] = {}
        self._times_us: dict[float, dict[Kernel, float]] = defaultdict(dict)

    def kernels_us(self, kernels: Iterable[Kernel], pass_: float) -> dict[Kernel, float]:
        """Microseconds of each distinct kernel of such passes: of a class without a model by `ANY`, or else nothing."""
        return self._by_class(kernels, lambda model, law, numbers: model.times_us(law, numbers, pass_))

    def sums_us(self, networks: Sequence[Sequence[Kernel]]) -> Array:
        """The sum of each network's kernels (networks,)."""
        new: dict[float, list[Kernel]] = defaultdict(list)
        passes = self.passes(networks)
        for pass_, own in zip(passes, networks, strict=True):
            known = self._times_us[pass_]
            new[pass_] += [kernel for kernel in own if kernel not in known]
        for pass_, kernels in new.items():
            self._times_us[pass_].update(self.kernels_us(kernels, pass_))
        told = zip(passes, networks, strict=True)
        return np.array([sum(map(self._times_us[pass_].__getitem__, own)) for pass_, own in told])

    def passes(self, networks: Sequence[Sequence[Kernel]]) -> list[float]:
        """How long a pass of each network takes by the laws: a logarithm to base 2 of microseconds, told roughly."""
        new = [kernel for own in networks for kernel in own if kernel not in self._law_us]
        self._law_us.update(self._by_class(new, lambda model, law, numbers: model.law_us(law)))
        return [rough(sum(map(self._law_us.__getitem__, own))) for own in networks]

    def _by_class(
        self, kernels: Iterable[Kernel], told: Callable[[GroupModel, Array, Array], Array]
    ) -> dict[Kernel, float]:
        """What each class tells of its kernels, from their laws' terms and their numbers."""
        classes: dict[str, list[Kernel]] = defaultdict(list)
        for kernel in dict.fromkeys(kernels):
            classes[kernel.group].append(kernel)
        found: dict[Kernel, float] = {}
        for name, own in classes.items():
            model = self.groups.get(name, self.groups.get(ANY))
            law, numbers = np.array([k.law for k in own]), np.array([k.numbers for k in own])
            times = np.zeros(len(own)) if model is None else told(model, law, numbers)
            found.update(zip(own, times.tolist(), strict=True))
        return found


def fit_models(rows: Mapping[str, Rows]) -> Models:
    """The models of all classes that have rows."""
    return Models({**fit_groups(rows, {}), ANY: _fit_any(rows)})


def fit_groups(rows: Mapping[str, Rows], others: Mapping[str, GroupModel]) -> dict[str, GroupModel]:
    """The models of all classes of networks, of which those of `others` are known."""
    laws = {name: _by_law(own) for name, own in rows.items() if name not in others}
    known = {**others, **laws}
    pass_us = np.zeros(1 + max(own.network.max() for own in rows.values()))
    for name, own in rows.items():
        np.add.at(pass_us, own.network, own.count * known[name].law_us(own.law))
    passes = np.array([rough(us) for us in pass_us])
    return {**others, **{name: _fit_trees(law, rows[name], passes) for name, law in laws.items()}}


def _by_law(rows: Rows) -> GroupModel:
    return GroupModel(_fit_law(rows.law, rows.time_us), (), rows.law.min(axis=0), rows.law.max(axis=0))


def _fit_trees(model: GroupModel, rows: Rows, passes: Array) -> GroupModel:
    """The model of one class with trees, where there are enough rows, given how long each network's pass takes."""
    if len(rows) < LEAST_ROWS:
        return model
    numbers = _with_passes(rows.numbers, passes[rows.network])
    return replace(model, trees=fit_trees(numbers, np.log(rows.time_us / model.law_us(rows.law))))


def _with_passes(numbers: Array, passes: float | Array) -> Array:
    return np.column_stack([numbers, np.broadcast_to(passes, len(numbers))])


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
