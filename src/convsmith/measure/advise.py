"""What to change about a network, and what it would gain: the lecture on CNN model design as findings with figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from convsmith.arch import Architecture
from convsmith.deploy import clock
from convsmith.deploy.snapshot import module_of
from convsmith.measure.advice.case import Case, is_meta
from convsmith.measure.advice.elementwise import few_elementwise
from convsmith.measure.advice.field import field_size
from convsmith.measure.advice.finding import TASKS, Finding, Task
from convsmith.measure.advice.fragments import fragmentation
from convsmith.measure.advice.guidelines import equal_widths, few_groups
from convsmith.measure.advice.norms import choose_norm, norm
from convsmith.measure.advice.structure import attention, channel_reach, shortcuts
from convsmith.measure.cost import cost
from convsmith.measure.predictor import LatencyPredictor
from convsmith.network import build
from convsmith.network.shapes import Shape

Rule = Callable[[Case], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "G1": equal_widths,
    "G2": few_groups,
    "G3": fragmentation,
    "G4": few_elementwise,
    "norm": norm,
    "receptive field": field_size,
    "channel receptive field": channel_reach,
    "shortcuts": shortcuts,
    "attention": attention,
}


def advise(
    network: nn.Module | Architecture,
    *,
    task: Task = "classification",
    batch_per_device: int = 32,
    devices: int = 1,
    device: str = "cpu",
    input_shape: Shape = (1, 3, 224, 224),
    timed: bool = True,
    predictor: LatencyPredictor | None = None,
) -> list[Finding]:
    """The findings of all rules on a network, in the order of `RULES`; none where it breaks none.

    Of an architecture, an edited one stands beside most findings, with its MACs, memory traffic and latency over the
    original's. An edit for speed (G1 to G4) that gains none here is not made, and its finding says so. Of another
    module the edit is in words. The module stays as it is.

    Args:
        network: An architecture, or any module from images to anything.
        task: What the network is for, one of `TASKS`; "weights" is one that makes the weights of another.
        batch_per_device: Images on each device in one training step.
        devices: How many devices train together.
        device: Where the time is measured.
        input_shape: The input (N, C, H, W) of inference.
        timed: Whether to measure time, which takes seconds for each finding; else gains are counted, or predicted.
        predictor: A calibration of the device. Gains are its predictions then; those of networks with kernels that it
            never saw are measured with its back end. Each gain says how it was found. Shares of the time are eager's.

    Raises ValueError for an unknown task or device, numbers that are not positive, an input that does not fit, a
    calibration of another device, and a module on the meta device that is to be timed.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    choose_norm(task=task, batch_per_device=batch_per_device, devices=devices)
    place = clock.check_device(device)
    if predictor is not None and predictor.about.device != place.type:
        raise ValueError(
            f"the calibration must be of the device {place.type}, and it is of {predictor.about.device}; leave it out"
        )
    architecture = network if isinstance(network, Architecture) else None
    cost(network, input_shape)
    module = build(network).eval() if isinstance(network, Architecture) else module_of(network)
    if timed and is_meta(module):
        raise ValueError("a module on the meta device has no weights to be timed with; build it on the CPU")
    case = Case(module, architecture, input_shape, task, batch_per_device, devices, device, timed, predictor)
    return [case.finished(finding) for rule in RULES.values() for finding in rule(case)]
