"""The network in question, with all that rules ask of it: counted once, measured once, and only if they ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from convsmith.arch import Architecture
from convsmith.deploy.timed import Ratio
from convsmith.measure.advice.finding import SPEED, Finding, Gain, Task
from convsmith.measure.advice.flow import Operation, follow
from convsmith.measure.cost import Cost, cost
from convsmith.measure.count import ModuleCounts
from convsmith.measure.latency import latencies
from convsmith.measure.predictor import LatencyPredictor
from convsmith.measure.profile import Profile, profile
from convsmith.network import build
from convsmith.network.shapes import Shape

SECONDS = 2.0  # for each network that is timed


@dataclass(frozen=True)
class Convolution:
    """One convolution layer: its path, itself, and what its calls cost."""

    path: str
    layer: nn.Conv2d
    counts: ModuleCounts

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is convolved alone."""
        return 1 < self.layer.groups == self.layer.in_channels

    @property
    def is_pointwise(self) -> bool:
        """Whether it mixes channels only."""
        return self.layer.kernel_size == (1, 1)


@dataclass(frozen=True)
class Case:
    """A network, what it is for, and where it is to run.

    `timed` says whether time may be measured; where a `predictor` knows all kernels, it tells gains instead.
    """

    network: nn.Module
    architecture: Architecture | None
    input_shape: Shape
    task: Task
    batch_per_device: int
    devices: int
    device: str
    timed: bool
    predictor: LatencyPredictor | None = None

    @cached_property
    def cost(self) -> Cost:
        """Of the module, so that every layer has a path."""
        return cost(self.network, self.input_shape)

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Every convolution layer of torch.nn that is called, in order."""
        counts = self.cost.by_module
        return tuple(
            Convolution(path, layer, counts[path])
            for path, layer in self.network.named_modules()
            if isinstance(layer, nn.Conv2d) and path in counts and counts[path].calls
        )

    @cached_property
    def flow(self) -> tuple[Operation, ...]:
        """The operators of a pass, in the order of execution."""
        return follow(self.network, self.input_shape)

    @cached_property
    def profile(self) -> Profile | None:
        """Where the time goes on the device, None where it may not be measured."""
        if not self.timed:
            return None
        return profile(self.network, self.input_shape, device=self.device)

    def time_share(self, paths: Sequence[str]) -> float | None:
        """The share of the measured time that is spent in the modules at these paths, "" being the whole."""
        if self.profile is None:
            return None
        inside = tuple(f"{path}." if path else "" for path in paths)
        own = frozenset(paths)
        spent = sum(step.ms for step in self.profile.steps if step.module in own or step.module.startswith(inside))
        return spent / self.profile.total_ms if self.profile.total_ms else None

    def gain(self, edited: Architecture) -> Gain:
        """The edited architecture over this one, predicted where that is possible, else timed in turns if it may be."""
        assert self.architecture is not None
        before, after = cost(self.architecture, self.input_shape), cost(edited, self.input_shape)
        counted = Gain(
            macs_ratio=after.macs / max(1, before.macs),
            memory_ratio=after.memory_bytes / max(1, before.memory_bytes),
            params_ratio=after.params / max(1, before.params),
        )
        predicted = self._predicted_ratio(edited)
        if predicted is not None:
            return replace(counted, latency_ratio=predicted, how="predicted")
        if not self.timed:
            return counted
        ratio = self._measured_ratio(edited)
        if ratio is None:
            return counted
        bounds = {"latency_low": ratio.low, "latency_high": ratio.high}
        return replace(counted, latency_ratio=ratio.median, **bounds, how="measured")

    def finished(self, finding: Finding) -> Finding:
        """The finding with the time at its places, and the gain of its edit."""
        share = finding.time_share
        if share is None and finding.where:
            share = self.time_share(finding.where)
        gain = None if finding.architecture is None else self.gain(finding.architecture)
        finding = replace(finding, time_share=share, gain=gain)
        if gain is None or finding.rule not in SPEED or not gain.is_none:
            return finding
        return replace(finding, edit=f"no gain here: {finding.edit}", architecture=None)

    def _measured_ratio(self, edited: Architecture) -> Ratio | None:
        """In eager, or in the predictor's back end; None where that cannot run one of the networks."""
        networks = {"now": self.network, "edited": build(edited).eval()}
        about = None if self.predictor is None else self.predictor.about
        backend, threads = ("eager", 1) if about is None else (about.backend, about.threads)
        try:
            found = latencies(
                networks, self.input_shape, backend=backend, device=self.device, threads=threads, budget_seconds=SECONDS
            )
        except ValueError:
            if about is None:
                raise
            return None
        return found["edited"].ratio

    def _predicted_ratio(self, edited: Architecture) -> float | None:
        """What the predictor says; None without one, and of networks with kernels that it never saw."""
        both = self.architecture, edited
        if self.predictor is None or self.architecture is None:
            return None
        try:
            if any(self.predictor.unknown(one, self.input_shape) for one in both if one is not None):
                return None
            now, then = (self.predictor.predict_ms(one, self.input_shape) for one in both if one is not None)
        except ValueError:  # a network that the runtime would not take
            return None
        return then / now

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """Blocks by path: those of an architecture, or else the modules that hold layers of their own or several."""
        if self.architecture is not None:
            for path, _ in self.architecture.blocks():
                yield path, self.network.get_submodule(path)
            return
        plain = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        for path, module in self.network.named_modules():
            if path and not isinstance(module, plain) and any(True for _ in module.children()):
                yield path, module


def fits(architecture: Architecture, input_shape: Shape) -> bool:
    """Whether an edited architecture can be built, and takes the input."""
    try:
        cost(architecture, input_shape)
    except (ValueError, TypeError):
        return False
    return True


def is_meta(network: nn.Module) -> bool:
    """Whether its weights have no values."""
    return any(tensor.device == torch.device("meta") for tensor in network.parameters())
