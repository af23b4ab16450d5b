"""Which norm for which batch: the lecture's table, and whether the network follows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.measure.advice.case import Case, fits
from convsmith.measure.advice.finding import LECTURE, Finding, Task
from convsmith.measure.advice.joins import weighs_by_products
from convsmith.nn import (
    BatchNorm,
    BatchRenorm,
    CrossDeviceBatchNorm,
    GhostBatchNorm,
    GroupNorm,
    LayerNorm,
    MeanOnlyBatchNorm,
    WeightNorm,
    swap_norm,
)

# From here down the error of ResNet-50 with batch norm grows: 23.6 % at 32, 23.7 at 16, 24.8 at 8, 27.3 at 4, 34.7 at 2
# images a device; with group norm it stays at 24.1 (Wu & He 2018, arXiv:1803.08494, Table 2).
SMALLEST_LARGE_BATCH = 16
CLASSES: dict[str, tuple[type[nn.Module], ...]] = {
    "cross_device_batch_norm": (CrossDeviceBatchNorm, nn.SyncBatchNorm),
    "batch_renorm": (BatchRenorm,),
    "ghost_batch_norm": (GhostBatchNorm,),
    "mean_only_batch_norm": (MeanOnlyBatchNorm,),
    "batch_norm": (BatchNorm, nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm3d),
    "layer_norm": (LayerNorm, nn.LayerNorm),
    "group_norm": (GroupNorm, nn.GroupNorm),
    "instance_norm": (nn.InstanceNorm2d,),
}
SPECS: dict[str, BlockSpec] = {
    "batch_norm": spec(BatchNorm),
    "cross_device_batch_norm": spec(CrossDeviceBatchNorm),
    "group_norm": spec(GroupNorm),
    "batch_renorm": spec(BatchRenorm),
    "layer_norm": spec(LayerNorm),
    "weight_norm": spec(WeightNorm),
}


@dataclass(frozen=True)
class NormChoice:
    """Norms from the best to the worst, those of one tuple alike; and whether gradients should be normalised too."""

    order: tuple[tuple[str, ...], ...]
    normalise_gradients: bool
    reason: str

    @property
    def best(self) -> tuple[str, ...]:
        """The norms to take."""
        return self.order[0]


def choose_norm(*, task: Task, batch_per_device: int, devices: int) -> NormChoice:
    """The lecture's table. ValueError for numbers that are not positive.

    Large batch: BN. Small batch: multi-GPU BN > GN / BRN > BN / LN. Weight or meta network: LN / WN. GAN and
    multi-task: gradient normalisation, whatever the norm.
    """
    for name, number in (("batch_per_device", batch_per_device), ("devices", devices)):
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} must be a positive integer, got {number!r}")
    gradients = task in ("gan", "multi-task")
    if task == "weights":
        reason = f"a network that makes weights has no batch of images to take statistics of ({LECTURE}: LN / WN)"
        return NormChoice((("layer_norm", "weight_norm"),), gradients, reason)
    if batch_per_device >= SMALLEST_LARGE_BATCH:
        reason = f"{batch_per_device} images a device are a large batch, from {SMALLEST_LARGE_BATCH} on"
        return NormChoice((("batch_norm",),), gradients, f"{reason} ({LECTURE}: BN)")
    single = (("group_norm", "batch_renorm"), ("batch_norm", "layer_norm"))
    order = (("cross_device_batch_norm",), *single) if devices > 1 else single
    reason = (
        f"{batch_per_device} images a device are a small batch, below {SMALLEST_LARGE_BATCH}: statistics of so few "
        f"images are noise, and error grows (Wu & He 2018, arXiv:1803.08494)"
    )
    return NormChoice(order, gradients, f"{reason} ({LECTURE}: multi-GPU BN > GN / BRN > BN / LN)")


def norm(case: Case) -> Iterator[Finding]:
    """The norms that another one should replace, and gradient normalisation where it is called for."""
    choice = choose_norm(task=case.task, batch_per_device=case.batch_per_device, devices=case.devices)
    wrong = [
        path
        for path, kind in norms_of(case.network).items()
        if kind not in choice.best and not _is_over_tokens(case, path)
    ]
    if wrong:
        names = sorted({norms_of(case.network)[path] for path in wrong})
        edited = _swapped(case, choice.best)
        how = "nn.swap_norm" if case.architecture is not None else "in the place of each, in the module's own code"
        yield Finding(
            rule="norm",
            where=tuple(wrong),
            value=case.batch_per_device,
            unit="images on a device",
            reason=f"{', '.join(names)} here; {choice.reason}",
            edit=f"take {' or '.join(choice.best)} ({how})",
            architecture=edited,
        )
    if choice.normalise_gradients:
        yield Finding(
            rule="norm",
            where=(),
            value=None,
            unit="",
            reason=f"several losses pull at shared weights with gradients of unlike size ({LECTURE}: gradient "
            "normalisation; Chen et al. 2018, arXiv:1711.02257; Gulrajani et al. 2017, arXiv:1704.00028)",
            edit="balance the losses by nn.GradNorm, for a GAN's critic add nn.gradient_penalty",
        )


def norms_of(network: nn.Module) -> dict[str, str]:
    """The kind of norm at each path; of modules inside a norm none."""
    found: dict[str, str] = {}
    for path, module in network.named_modules():
        kind = next((kind for kind, classes in CLASSES.items() if isinstance(module, classes)), None)
        if kind is not None and not any(path.startswith(f"{outer}.") for outer in found):
            found[path] = kind
    return found


def _is_over_tokens(case: Case, path: str) -> bool:
    """Whether a layer norm is over vectors that are no map's (N, C, H, W): batch norm has no place there.

    Those of maps (N, H, W, C) are vectors too where attention reads them; a convolutional network's own are of maps.
    """
    layer = case.network.get_submodule(path)
    if not isinstance(layer, nn.LayerNorm) or path not in case.cost.by_module:
        return False
    shape = case.cost.by_module[path].output
    if not isinstance(shape, tuple) or len(shape) != 4:
        return shape is not None
    return shape[1] != layer.normalized_shape[0] and weighs_by_products(case.flow)


def _swapped(case: Case, names: tuple[str, ...]) -> Architecture | None:
    if case.architecture is None:
        return None
    candidates = [SPECS[name] for name in names]
    # Channels that 32 groups do not divide have a smaller common divisor.
    candidates += [spec(GroupNorm, groups=groups) for groups in (16, 8, 4, 2) if "group_norm" in names]
    for candidate in sorted(candidates, key=lambda c: names.index(c.block)):
        edited = swap_norm(case.architecture, candidate)
        if edited != case.architecture and fits(edited, case.input_shape):
            return edited
    return None
