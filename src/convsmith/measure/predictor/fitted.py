"""A table's fitted model: predictions for networks, what it does not know, and how wrong it is on networks unseen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any
from zlib import crc32

import numpy as np

from convsmith.measure.predictor.checked import array, mapping, number, of, texts
from convsmith.measure.predictor.kernels import LAW, Kernel
from convsmith.measure.predictor.model import Correction, GroupModel, Models, fit_correction, fit_groups, fit_models
from convsmith.measure.predictor.rows import Rows, rows_by_group
from convsmith.measure.predictor.table import Table
from convsmith.measure.predictor.trees import Array, Trees

FOLDS, FITTED_AT_ONCE = 4, 2
FEWEST_NETWORKS = 2 * FOLDS
BEYOND = 1.5  # times the largest of a class that was measured (or below the smallest): no longer to be trusted


@dataclass(frozen=True)
class HeldOut:
    """The error on networks that a model has not seen, by folds: shares within 5 and 10 %, mean absolute, and mean."""

    networks: int
    within_5: float
    within_10: float
    mean_error: float
    bias: float

    @classmethod
    def of(cls, predicted: Array, measured: Array) -> HeldOut:
        """The error of predictions (networks,) against measurements (networks,)."""
        error = predicted / measured - 1
        size = np.abs(error)
        shares = float((size <= 0.05).mean()), float((size <= 0.10).mean())
        return cls(len(error), *shares, float(size.mean()), float(error.mean()))


class Fitted:
    """The model of a table."""

    def __init__(self, models: Models, correction: Correction, held_out: HeldOut, known: set[str]):
        self.models, self.correction, self.held_out, self.known = models, correction, held_out, known
        self._strange: dict[Kernel, list[str]] = {}

    def predict_ms(self, networks: Sequence[Sequence[Kernel]]) -> list[float]:
        """Milliseconds of each network."""
        sums = self.models.sums_us(networks)
        counts = np.array([float(len(own)) for own in networks])
        return (self.correction(sums, counts) / 1e3).tolist()  # type: ignore[no-any-return]

    def unknown(self, kernels: Sequence[Kernel]) -> list[str]:
        """What a prediction for these kernels rests on without a measurement: variants never met, sizes never met."""
        found: dict[str, None] = {}
        for kernel in kernels:
            strange = self._strange.get(kernel)
            if strange is None:
                strange = self._strange[kernel] = self._strange_of(kernel)
            if strange:
                found.update(dict.fromkeys(strange))
        return list(found)

    def _strange_of(self, kernel: Kernel) -> list[str]:
        if kernel.variant not in self.known or kernel.group not in self.models.groups:
            return [kernel.variant]
        group = self.models.groups[kernel.group]
        return [
            f"{kernel.group} with {value:.3g} {name}, measured {lowest:.3g} to {highest:.3g}"
            for name, value, lowest, highest in zip(LAW, kernel.law, group.lowest, group.highest, strict=True)
            if value > BEYOND * highest or value < lowest / BEYOND
        ]

    def arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Everything as arrays and plain values, for a file."""
        arrays: dict[str, Array] = {}
        for name, group in self.models.groups.items():
            own = {"law": group.law, "lowest": group.lowest, "highest": group.highest}
            for place, trees in enumerate(group.trees):
                own |= {f"{place}.{key}": value for key, value in trees.arrays().items()}
            arrays |= {f"model.{name}.{key}": value for key, value in own.items()}
        notes = {
            "correction": asdict(self.correction),
            "held_out": asdict(self.held_out),
            "trees": {name: len(group.trees) for name, group in self.models.groups.items()},
        }
        return arrays, {"model": notes, "known": sorted(self.known)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], notes: Mapping[str, Any], *, width: int) -> Fitted:
        """The model of `arrays()` for kernels of so many numbers; DamagedError where something is not as it must be."""
        model, groups = mapping(of(notes, "model"), "model"), {}
        counts = mapping(of(model, "trees"), "trees")
        for name in counts:
            own = _beginning_with(f"model.{name}.", arrays)
            places = range(int(number(counts, name, lowest=0)))  # at the first that is missing DamagedError
            seen = width + 1  # the pass too
            trees = tuple(Trees.from_arrays(_beginning_with(f"{place}.", own), width=seen) for place in places)
            ends = [array(own, end, (len(LAW),)) for end in ("lowest", "highest")]
            groups[name] = GroupModel(array(own, "law", (1 + len(LAW),)), trees, *ends)
        correction = Correction(**_numbers(model, "correction", Correction))
        held_out = _numbers(model, "held_out", HeldOut)
        held_out["networks"] = int(held_out["networks"])
        return cls(Models(groups), correction, HeldOut(**held_out), set(texts(notes, "known")))


def _numbers(model: Mapping[str, Any], name: str, of_type: type) -> dict[str, Any]:
    """The numbers of a dataclass that has nothing else."""
    found = mapping(of(model, name), name)
    return {own.name: number(found, own.name) for own in fields(of_type)}


def _beginning_with(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def fit(table: Table) -> Fitted:
    """The model of all that a table holds; its error is that of networks left out, one fold at a time.

    Raises ValueError for a table with too few networks that were timed as a whole.
    """
    timed = table.timed()
    if timed.sum() < FEWEST_NETWORKS:
        raise ValueError(f"a predictor needs at least {FEWEST_NETWORKS} timed networks, got {timed.sum()}; measure on")
    whole, sums = fit_folds(table)
    sums, counts, measured_us = sums[timed], _counts(table)[timed], 1e3 * np.array(table.latencies_ms)[timed]
    return Fitted(
        whole,
        fit_correction(sums, counts, measured_us),
        HeldOut.of(_corrected(sums, counts, measured_us), measured_us),
        {kernel.variant for own in table.kernels for kernel in own},
    )


def fit_folds(table: Table) -> tuple[Models, Array]:
    """The models of all networks, and the sum of each network's kernels (networks,) by models that have not seen it."""
    rows = rows_by_group(table.kernels, table.times_us)
    folds = np.array([_fold(own) for own in table.kernels])
    kept = [folds != fold for fold in np.unique(folds)]
    with ThreadPoolExecutor(FITTED_AT_ONCE) as pool:  # scikit-learn lets other threads run while it grows a tree
        whole, *others = pool.map(lambda chosen: _fit_to(rows, chosen), [folds >= 0, *kept])
    sums = np.zeros(len(table))
    for models, chosen in zip(others, kept, strict=True):
        places = np.flatnonzero(~chosen)
        sums[places] = models.sums_us([table.kernels[place] for place in places])
    return whole, sums


def fit_without(table: Table, names: Collection[str], sums: Array) -> Fitted:
    """The model of the kernels of all networks of a table but those of these names; its error stays unknown.

    The correction of three numbers is fitted to the latencies of the same networks and their `sums` by `fit_folds`,
    whose models have seen up to three quarters of those left out.
    """
    kept = np.array([name not in names for name in table.names])
    timed = kept & table.timed()
    rows = rows_by_group(table.kernels, table.times_us)
    return Fitted(
        _fit_to(rows, kept),
        fit_correction(sums[timed], _counts(table)[timed], 1e3 * np.array(table.latencies_ms)[timed]),
        HeldOut(0, *[float("nan")] * 4),
        {kernel.variant for own, is_kept in zip(table.kernels, kept, strict=True) if is_kept for kernel in own},
    )


def _counts(table: Table) -> Array:
    return np.array([float(len(own)) for own in table.kernels])


def _fit_to(rows: Mapping[str, Rows], chosen: Array) -> Models:
    """The models of those networks that a mask (networks,) chooses."""
    own = {name: found.of(chosen) for name, found in rows.items()}
    return fit_models({name: found for name, found in own.items() if len(found)})


def _fold(kernels: Sequence[Kernel]) -> int:
    """The fold of a network: the same however often, and among which others, it was measured."""
    return crc32(np.array([kernel.numbers for kernel in kernels]).tobytes()) % FOLDS


def _corrected(sums: Array, counts: Array, measured_us: Array) -> Array:
    """Each network's latency by a correction that has not seen it."""
    folds = np.arange(len(sums)) % FOLDS
    found = np.zeros(len(sums))
    for fold in range(FOLDS):
        own = folds == fold
        found[own] = fit_correction(sums[~own], counts[~own], measured_us[~own])(sums[own], counts[own])
    return found


def refit(fitted: Fitted, table: Table, groups: set[str]) -> Fitted:
    """The model with these classes fitted anew; the correction and the error stay."""
    rows = rows_by_group(table.kernels, table.times_us)
    known = {kernel.variant for own in table.kernels for kernel in own}
    models = Models(fit_groups(rows, {name: own for name, own in fitted.models.groups.items() if name not in groups}))
    return Fitted(models, fitted.correction, fitted.held_out, known)
