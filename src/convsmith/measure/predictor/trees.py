"""Randomised and boosted trees as plain arrays: fitted with scikit-learn, stored without it, the same after loading.

Of extremely randomised trees (Geurts, Ernst & Wehenkel 2006, doi:10.1007/s10994-006-6226-1) the thresholds are drawn,
which leaves the mean of many smooth between the sizes that were measured, and blurs what sets one size apart from those
around it, as channels do that fill their vectors. Boosted trees (Friedman 2001, doi:10.1214/aos/1013203451) seek the
thresholds and find such sizes. The two are wrong in different places: their mean is better than either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convsmith.measure.predictor.checked import array, check, of

Array: TypeAlias = "np.ndarray[Any, Any]"

TREES, DEPTH, LEAST_ROWS, NUMBERS_SHARE = 50, 22, 2, 0.6
BOOSTED, BOOSTED_DEPTH, BOOSTED_LEAST_ROWS, BOOSTED_NUMBERS_SHARE = 150, 6, 4, 0.3
RATE, ROWS_SHARE = 0.1, 0.6  # of what boosted trees leave over, each takes so much of, and looks at so many rows
AT_ONCE = 256  # rows, so that what a step touches stays in the cache


@dataclass(frozen=True)
class Trees:
    """The sum of trees.

    A node sends rows whose feature exceeds its threshold to the node behind `left`, the others to `left`. A leaf sends
    all to itself.
    """

    depth: int
    roots: Array
    feature: Array
    threshold: Array
    left: Array
    value: Array

    def predict(self, numbers: Array) -> Array:
        """One value a row of `numbers` (rows, features)."""
        numbers = np.ascontiguousarray(numbers, dtype=np.float32)
        parts = [self._predict(numbers[start : start + AT_ONCE]) for start in range(0, len(numbers), AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _predict(self, numbers: Array) -> Array:
        flat = numbers.ravel()
        rows = np.arange(len(numbers), dtype=np.int32)[:, None] * np.int32(numbers.shape[1])
        nodes = np.repeat(self.roots[None, :], len(numbers), axis=0)
        for _ in range(self.depth):
            above = flat.take(rows + self.feature.take(nodes)) > self.threshold.take(nodes)
            nodes = self.left.take(nodes) + above
        total: Array = self.value.take(nodes).sum(axis=1, dtype=np.float64)
        return total

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays, for a file."""
        return {"depth": np.array([self.depth], dtype=np.int32), **{name: getattr(self, name) for name in NODES}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], *, width: int) -> Trees:
        """The trees of `arrays()` for so many features; DamagedError where a node would lead nowhere."""
        nodes = len(of(arrays, "left"))
        trees = cls(
            depth=int(array(arrays, "depth", (1,), "i", lowest=0, highest=nodes)[0]),
            roots=array(arrays, "roots", (None,), "i", lowest=0, highest=nodes - 1),
            feature=array(arrays, "feature", (nodes,), "i", lowest=0, highest=width - 1),
            threshold=of(arrays, "threshold"),  # infinite at leaves
            left=array(arrays, "left", (nodes,), "i", lowest=0, highest=nodes - 1),
            value=array(arrays, "value", (nodes,)),
        )
        fits = trees.threshold.shape == (nodes,) and trees.threshold.dtype.kind == "f"
        check(fits, "threshold must be a number for each node", trees.threshold.shape)
        inner = trees.threshold < np.inf
        check(bool((trees.left[inner] < nodes - 1).all()), "left must have a node behind it", nodes)
        return trees


NODES = {"roots": np.int32, "feature": np.int32, "threshold": np.float32, "left": np.int32, "value": np.float32}


def fit_trees(numbers: Array, targets: Array, *, seed: int = 0) -> tuple[Trees, Trees]:
    """Trees whose sum says the targets (rows,) given the numbers (rows, features): randomised and boosted ones."""
    from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

    numbers = np.ascontiguousarray(numbers, dtype=np.float32)
    drawn = ExtraTreesRegressor(
        TREES, min_samples_leaf=LEAST_ROWS, max_depth=DEPTH, max_features=NUMBERS_SHARE, n_jobs=1, random_state=seed
    ).fit(numbers, targets)
    boosted = GradientBoostingRegressor(
        n_estimators=BOOSTED,
        learning_rate=RATE,
        subsample=ROWS_SHARE,
        init="zero",
        min_samples_leaf=BOOSTED_LEAST_ROWS,
        max_depth=BOOSTED_DEPTH,
        max_features=BOOSTED_NUMBERS_SHARE,
        random_state=seed,
    ).fit(numbers, targets)
    return (
        _packed([estimator.tree_ for estimator in drawn.estimators_], 1 / (2 * TREES)),
        _packed([estimator.tree_ for estimator in boosted.estimators_[:, 0]], RATE / 2),
    )


def _packed(grown: list[Any], share: float) -> Trees:
    parts: dict[str, list[Array]] = {name: [] for name in NODES}
    offset = 0
    for tree in grown:
        leaf = tree.children_left < 0
        order = _siblings_together(tree)
        place = np.empty(tree.node_count, dtype=np.int64)
        place[order] = np.arange(tree.node_count)
        parts["roots"].append(np.array([offset]))
        parts["feature"].append(np.where(leaf, 0, tree.feature)[order])
        parts["threshold"].append(np.where(leaf, np.inf, tree.threshold)[order])
        parts["left"].append(np.where(leaf, place, place[tree.children_left])[order] + offset)
        parts["value"].append(np.where(leaf, share * tree.value[:, 0, 0], 0.0)[order])
        offset += tree.node_count
    arrays = {name: np.concatenate(own).astype(NODES[name]) for name, own in parts.items()}
    return Trees(depth=max(tree.max_depth for tree in grown), **arrays)


def _siblings_together(tree: Any) -> Array:
    """The nodes, level by level, so that a right child stands behind its left sibling."""
    level = np.array([0])
    levels = []
    while len(level):
        levels.append(level)
        inner = level[tree.children_left[level] >= 0]
        level = np.stack([tree.children_left[inner], tree.children_right[inner]], axis=1).ravel()
    return np.concatenate(levels)
