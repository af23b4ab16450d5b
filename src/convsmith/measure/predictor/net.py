"""Small networks that tell what kernels take, trained on kernels and on whole networks at once.

What a profile says of a network's kernels adds up to its latency but for some per cent, and what is missing is not the
same for all kernels. Trees learn one kernel at a time; these learn them from the latencies, too. The two are wrong in
different places: their mean is better than either. So is the mean of several networks that began with other weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.measure.predictor.checked import array, check
from convsmith.measure.predictor.rows import Rows
from convsmith.measure.predictor.trees import Array

LEAST_NETWORKS = 128
NETS, WIDTH = 3, 128  # side by side, and how wide their hidden layers are
EPOCHS, BATCH = 60, 32  # passes over all measured networks, and how many of them at a step
RATE, CORRECTION_RATE, WARM_UP, DECAY = 4e-3, 1e-3, 0.15, 1e-3
KERNEL_ERROR, NETWORK_ERROR = 0.2, 0.05  # logarithms, beyond which an error weighs as its size and not its square
SMALLEST_SCALE = 1e-3  # of an input that never varies
FARTHEST = 6.0  # deviations from the mean that inputs are kept within


@dataclass(frozen=True)
class Net:
    """Two hidden layers over a kernel's numbers and its law's logarithm, with biases for each class at the first.

    The arrays of `weights` hold those of all networks: each layer's (networks, wide, narrow) and, next to it, its
    biases (networks, classes, narrow) or (networks, 1, narrow).
    """

    groups: tuple[str, ...]
    mean: Array
    scale: Array
    weights: tuple[Array, ...]

    def predict(self, group: str, numbers: Array, law_us: Array) -> Array:
        """The logarithm of what each row (rows, numbers) takes, as a multiple of what the law says (rows,)."""
        first, biases, *deeper = self.weights
        place = self.groups.index(group)
        x = self._inputs(numbers, law_us) @ first + biases[:, place : place + 1]
        for weight, bias in zip(deeper[::2], deeper[1::2], strict=True):
            x = (x / (1 + np.exp(-x))) @ weight + bias
        found: Array = x[..., 0].mean(axis=0)
        return found

    def without(self, groups: set[str]) -> Net:
        """For all classes but these."""
        kept = [place for place, name in enumerate(self.groups) if name not in groups]
        first, biases, *deeper = self.weights
        left = tuple(self.groups[place] for place in kept)
        return replace(self, groups=left, weights=(first, biases[:, kept], *deeper))

    def arrays(self) -> dict[str, Array]:
        """Everything but the names as arrays, for a file."""
        return {"mean": self.mean, "scale": self.scale, **{f"weight{i}": own for i, own in enumerate(self.weights)}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], groups: Sequence[str], *, width: int) -> Net:
        """The network of `arrays()` for kernels of so many numbers; DamagedError where the layers do not fit."""
        wide, weights = width + 1, list[Array]()
        layers, beside = (len(arrays) - 2) // 2, None
        for layer in range(layers):
            weights.append(array(arrays, f"weight{2 * layer}", (beside, wide, 1 if layer == layers - 1 else None)))
            beside, _, wide = weights[-1].shape
            weights.append(array(arrays, f"weight{2 * layer + 1}", (beside, len(groups) if layer == 0 else 1, wide)))
        check(layers > 1 and bool(beside), "there must be networks of several layers", sorted(arrays))
        scale = array(arrays, "scale", (width + 1,), lowest=SMALLEST_SCALE)
        return cls(tuple(groups), array(arrays, "mean", (width + 1,)), scale, tuple(weights))

    def _inputs(self, numbers: Array, law_us: Array) -> Array:
        x = (np.concatenate([numbers, np.log(law_us)[:, None]], axis=1) - self.mean) / self.scale
        return x.clip(-FARTHEST, FARTHEST).astype(np.float32)


@dataclass(frozen=True)
class Examples:
    """Rows of all classes, sorted by network, with what the laws say of each, and each network's latency.

    `correction` holds three coefficients to begin with: of the sum of the kernels, of their number, and a constant.
    """

    rows: Mapping[str, Rows]
    law_us: Mapping[str, Array]
    latencies_us: Array
    correction: tuple[float, float, float]


def fit_net(examples: Examples, *, seed: int = 0) -> Net:
    """Train on the networks that have rows: AdamW with a rate that rises and falls in one cycle.

    On one thread: the steps are small, and several threads wait for one another where something else runs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            return _fit(examples, torch.Generator().manual_seed(seed))
    finally:
        torch.set_num_threads(threads)


def _fit(examples: Examples, generator: torch.Generator) -> Net:
    groups = tuple(sorted(examples.rows))
    parts = [examples.rows[name] for name in groups]
    network = np.concatenate([own.network for own in parts])
    order = np.argsort(network, kind="stable")
    networks, begins, sizes = np.unique(network[order], return_index=True, return_counts=True)
    numbers = np.concatenate([own.numbers for own in parts])[order]
    law_us = np.concatenate([examples.law_us[name] for name in groups])[order]
    raw = np.concatenate([numbers, np.log(law_us)[:, None]], axis=1)
    net = Net(
        groups, raw.mean(axis=0), raw.std(axis=0) + SMALLEST_SCALE, _initial(raw.shape[1], len(groups), generator)
    )

    inputs = _tensor(net._inputs(numbers, law_us))
    group = torch.from_numpy(np.repeat(np.arange(len(groups)), [len(own) for own in parts])[order])
    law = _tensor(np.log(law_us))
    times = _tensor(np.log(np.concatenate([own.time_us for own in parts])[order]))
    count = _tensor(np.concatenate([own.count for own in parts])[order])
    latency = _tensor(np.log(examples.latencies_us[networks]))
    kernels = _tensor(np.add.reduceat(count.numpy(), begins))
    places = [torch.arange(begin, begin + size) for begin, size in zip(begins, sizes, strict=True)]
    size = torch.from_numpy(sizes)

    weights: list[Tensor] = [nn.Parameter(torch.from_numpy(own)) for own in net.weights]
    correction = nn.Parameter(torch.tensor(examples.correction)[:, None, None].repeat(1, NETS, 1))
    trained: list[dict[str, Any]] = [{"params": weights}, {"params": [correction], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(trained, weight_decay=DECAY)
    steps = max(2, EPOCHS * len(networks) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, CORRECTION_RATE], total_steps=steps, pct_start=WARM_UP)
    waiting: list[int] = []
    for _ in range(steps):
        if len(waiting) < BATCH:
            waiting = torch.randperm(len(networks), generator=generator).tolist()
        chosen, waiting = waiting[:BATCH], waiting[BATCH:]
        rows = torch.cat([places[i] for i in chosen])
        logs = law[rows] + _forward(inputs[rows], group[rows], weights)
        of_kernels = _error(logs - times[rows], KERNEL_ERROR)
        owner = torch.repeat_interleave(torch.arange(len(chosen)), size[chosen])
        sums = logs.new_zeros(NETS, len(chosen)).index_add(1, owner, logs.exp() * count[rows])
        per_sum, per_kernel, constant = correction
        total = per_sum * sums + per_kernel * kernels[chosen] + constant
        of_networks = _error(torch.maximum(total, sums / 2).log() - latency[chosen], NETWORK_ERROR)
        optimizer.zero_grad()
        (of_kernels + of_networks).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
    return replace(net, weights=tuple(own.detach().numpy() for own in weights))


def _initial(inputs: int, groups: int, generator: torch.Generator) -> tuple[Array, ...]:
    """Weights and biases of each layer, uniform as `nn.Linear` draws them; the first layer's biases for each class."""
    found = []
    for place, (wide, narrow) in enumerate(((inputs, WIDTH), (WIDTH, WIDTH), (WIDTH, 1))):
        for shape in ((NETS, wide, narrow), (NETS, groups if place == 0 else 1, narrow)):
            drawn = torch.rand(shape, generator=generator, dtype=torch.float32)
            found.append(((2 * drawn - 1) / wide**0.5).numpy())
    return tuple(found)


def _forward(x: Tensor, group: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """What each network says of each row (networks, rows)."""
    first, biases, *deeper = weights
    y = x @ first + biases[:, group]
    for weight, bias in zip(deeper[::2], deeper[1::2], strict=True):
        y = torch.baddbmm(bias, nn.functional.silu(y), weight)
    return y[..., 0]


def _error(error: Tensor, bend: float) -> Tensor:
    """Huber's loss of each network, in units of the bend, summed over them."""
    return NETS * nn.functional.huber_loss(error, torch.zeros_like(error), delta=bend) / bend


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
