"""A table's fitted model: predictions for networks, what it does not know, and how wrong it is on networks unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any
from zlib import crc32

import numpy as np

from convsmith.measure.predictor.checked import array, mapping, number, of, texts
from convsmith.measure.predictor.kernels import LAW, Kernel
from convsmith.measure.predictor.model import Correction, GroupModel, Models, fit_correction, fit_group, fit_models
from convsmith.measure.predictor.net import LEAST_NETWORKS, Net
from convsmith.measure.predictor.rows import rows_by_group
from convsmith.measure.predictor.table import Table
from convsmith.measure.predictor.trees import Array, Trees

FOLDS = 4
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
        self._times: dict[Kernel, float] = {}
        self._strange: dict[Kernel, list[str]] = {}

    def predict_ms(self, networks: Sequence[Sequence[Kernel]]) -> list[float]:
        """Milliseconds of each network; kernels that were met before cost nothing."""
        new = [kernel for own in networks for kernel in own if kernel not in self._times]
        if new:
            self._times.update(self.models.kernels_us(new))
        sums = np.array([sum(map(self._times.__getitem__, own)) for own in networks])
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
        groups, net = self.models.groups, self.models.net
        for name, group in groups.items():
            own = {"law": group.law, "lowest": group.lowest, "highest": group.highest}
            own |= {} if group.trees is None else group.trees.arrays()
            arrays |= {f"model.{name}.{key}": value for key, value in own.items()}
        arrays |= {f"net.{key}": value for key, value in (net.arrays() if net else {}).items()}
        notes: dict[str, Any] = {
            "correction": asdict(self.correction),
            "held_out": asdict(self.held_out),
            "groups": list(groups),
        }
        notes["of_net"] = list(net.groups) if net else None
        return arrays, {"model": notes, "known": sorted(self.known)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], notes: Mapping[str, Any], *, width: int) -> Fitted:
        """The model of `arrays()` for kernels of so many numbers; DamagedError where something is not as it must be."""
        model, groups, net = mapping(of(notes, "model"), "model"), {}, None
        for name in texts(model, "groups"):
            own = _beginning_with(f"model.{name}.", arrays)
            trees = Trees.from_arrays(own, width=width) if "roots" in own else None
            ends = [array(own, end, (len(LAW),)) for end in ("lowest", "highest")]
            groups[name] = GroupModel(array(own, "law", (1 + len(LAW),)), trees, *ends)
        if of(model, "of_net") is not None:
            net = Net.from_arrays(_beginning_with("net.", arrays), texts(model, "of_net"), width=width)
        correction = Correction(**_numbers(model, "correction", Correction))
        held_out = _numbers(model, "held_out", HeldOut)
        held_out["networks"] = int(held_out["networks"])
        return cls(Models(groups, net), correction, HeldOut(**held_out), set(texts(notes, "known")))


def _numbers(model: Mapping[str, Any], name: str, of_type: type) -> dict[str, Any]:
    """The numbers of a dataclass that has nothing else."""
    found = mapping(of(model, name), name)
    return {own.name: number(found, own.name) for own in fields(of_type)}


def _beginning_with(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def fit(table: Table) -> Fitted:
    """The model of all that a table holds; its error is that of networks left out, one fold at a time.

    Of a table from which a network is trained only the first fold is left out: training takes half a minute.

    Raises ValueError for a table with too few networks.
    """
    if len(table) < FEWEST_NETWORKS:
        raise ValueError(
            f"a predictor needs at least {FEWEST_NETWORKS} measured networks, got {len(table)}; measure on"
        )
    rows = rows_by_group(table.kernels, table.times_us)
    measured_us = 1e3 * np.array(table.latencies_ms)
    folds = np.array([_fold(own) for own in table.kernels])
    with_net = len(table) >= LEAST_NETWORKS
    left_out = folds == 0 if with_net else folds >= 0
    sums = np.zeros(len(table))
    for fold in np.unique(folds[left_out]):
        others = {name: own.of(folds != fold) for name, own in rows.items()}
        met = {name: own for name, own in others.items() if len(own)}
        models = fit_models(met, table.kernels, measured_us, with_net=with_net)
        places = np.flatnonzero(folds == fold)
        sums[places] = models.sums_us([table.kernels[place] for place in places])
    sums, measured = sums[left_out], measured_us[left_out]
    counts = np.array([float(len(own)) for own in table.kernels])[left_out]
    return Fitted(
        fit_models(rows, table.kernels, measured_us, with_net=with_net),
        fit_correction(sums, counts, measured),
        HeldOut.of(_corrected(sums, counts, measured), measured),
        {kernel.variant for own in table.kernels for kernel in own},
    )


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


def refit(fitted: Fitted, table: Table, groups: set[str], new: set[str]) -> Fitted:
    """The model with these classes fitted anew; the correction and the error stay.

    Of the `new` among them the network has not seen what was met: there the trees are alone.
    """
    rows = rows_by_group(table.kernels, table.times_us)
    known = {kernel.variant for own in table.kernels for kernel in own}
    net = fitted.models.net
    models = Models(
        {**fitted.models.groups, **{name: fit_group(rows[name]) for name in groups}}, net and net.without(new)
    )
    return Fitted(models, fitted.correction, fitted.held_out, known)
