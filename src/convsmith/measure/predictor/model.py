"""How long each kernel takes, and from the sum of the kernels to the latency of the network.

Per class of kernels a law with coefficients that cannot be negative (a start, multiply-accumulates, bytes read, written
and of weights), and boosted trees on the logarithm of what the law leaves over. The network's latency is the sum, its
number of kernels and a constant, each with one coefficient: the profiler's share in each kernel is taken out so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convsmith.measure.predictor.kernels import Kernel
from convsmith.measure.predictor.trees import Array, Trees, fit_trees

ANY = "any kernel"  # the class for kernels of a class that was never measured
LEAST_FOR_TREES = 40
SHORTEST_US = 0.3
ROBUST_STEPS, ROBUST_ERROR = 10, 0.01
FOLDS = 4


@dataclass(frozen=True)
class GroupModel:
    """One class: the law's coefficients, the trees where there are enough rows, and the range of the law's terms."""

    law: Array
    trees: Trees | None
    lowest: Array
    highest: Array

    def times_us(self, law: Array, numbers: Array) -> Array:
        """Microseconds of each kernel (rows,)."""
        times: Array = np.maximum(_terms(law) @ self.law, SHORTEST_US)
        if self.trees is not None:
            times *= np.exp(self.trees.predict(numbers))
        return times


@dataclass(frozen=True)
class Rows:
    """Measured kernels of one class, each once a network: of which network, their numbers, and their mean time."""

    network: Array
    law: Array
    numbers: Array
    time_us: Array


def rows_by_group(kernels: Sequence[Sequence[Kernel]], times_us: Sequence[Sequence[float]]) -> dict[str, Rows]:
    """The rows of each class."""
    met: dict[tuple[int, Kernel], list[float]] = defaultdict(list)
    for network, (own, times) in enumerate(zip(kernels, times_us, strict=True)):
        for kernel, time in zip(own, times, strict=True):
            met[network, kernel].append(max(time, SHORTEST_US))
    groups: dict[str, list[tuple[int, Kernel, float]]] = defaultdict(list)
    for (network, kernel), times in met.items():
        groups[kernel.group].append((network, kernel, sum(times) / len(times)))
    return {
        name: Rows(
            np.array([network for network, _, _ in rows]),
            np.array([kernel.law for _, kernel, _ in rows]),
            np.array([kernel.numbers for _, kernel, _ in rows]),
            np.array([time for _, _, time in rows]),
        )
        for name, rows in groups.items()
    }


def fit_group(
    rows: Rows, chosen: Array | None = None, *, fit: Callable[[Array, Array], Trees] = fit_trees
) -> GroupModel:
    """The model of one class, from all rows or from the chosen ones."""
    chosen = np.ones(len(rows.time_us), dtype=bool) if chosen is None else chosen
    law, numbers, times = rows.law[chosen], rows.numbers[chosen], rows.time_us[chosen]
    coefficients = _fit_law(law, times)
    trees = None
    if len(times) >= LEAST_FOR_TREES:
        trees = fit(numbers, np.log(times / np.maximum(_terms(law) @ coefficients, SHORTEST_US)))
    return GroupModel(coefficients, trees, law.min(axis=0), law.max(axis=0))


def fit_any(rows: Mapping[str, Rows]) -> GroupModel:
    """One law for all kernels: the best that is known of a class that was never measured."""
    law = np.concatenate([own.law for own in rows.values()])
    times = np.concatenate([own.time_us for own in rows.values()])
    return GroupModel(_fit_law(law, times), None, law.min(axis=0), law.max(axis=0))


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


def sums_of(models: Mapping[str, GroupModel], kernels: Sequence[Sequence[Kernel]]) -> Array:
    """The sum of the predicted times of each network's kernels."""
    found = predict_kernels(models, (kernel for own in kernels for kernel in own))
    return np.array([sum(found[kernel] for kernel in own) for own in kernels])


def predict_kernels(models: Mapping[str, GroupModel], kernels: Iterable[Kernel]) -> dict[Kernel, float]:
    """Microseconds of each distinct kernel; one of a class that has no model by `ANY`, or else nothing."""
    groups: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in dict.fromkeys(kernels):
        groups[kernel.group].append(kernel)
    found: dict[Kernel, float] = {}
    for name, own in groups.items():
        model = models.get(name, models.get(ANY))
        if model is not None:
            law, numbers = np.array([k.law for k in own]), np.array([k.numbers for k in own])
            found.update(zip(own, model.times_us(law, numbers).tolist(), strict=True))
        else:
            found.update(dict.fromkeys(own, 0.0))
    return found


def out_of_fold(kernels: Sequence[Sequence[Kernel]], rows: Mapping[str, Rows], **options: Any) -> Array:
    """The sum of each network's kernels as predicted by models that have not seen the network."""
    folds = np.arange(len(kernels)) % FOLDS
    sums = np.zeros(len(kernels))
    for fold in range(FOLDS):
        models = {
            name: fit_group(own, chosen, **options)
            for name, own in rows.items()
            if (chosen := folds[own.network] != fold).any()
        }
        held_out = np.flatnonzero(folds == fold)
        sums[held_out] = sums_of(models, [kernels[int(i)] for i in held_out])
    return sums
