"""G4 of ShuffleNet v2 (Ma et al. 2018, arXiv:1807.11164, Sec. 2): elementwise operators are not free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from convsmith.arch import Architecture, BlockSpec
from convsmith.measure.advice.case import Case
from convsmith.measure.advice.edits import changed
from convsmith.measure.advice.finding import GUIDELINES, Finding
from convsmith.measure.advice.flow import Operation
from convsmith.measure.advice.joins import JOINING, gates_in
from convsmith.measure.advice.norms import CLASSES

_ACTIVATIONS = (
    "relu relu6 hardtanh clamp clamp_min threshold leaky_relu prelu prelu_kernel rrelu elu celu selu silu mish gelu "
    "hardswish softplus softsign sigmoid hardsigmoid logsigmoid tanh"
)
_NORMS = (
    "batch_norm native_batch_norm native_batch_norm_legit_no_training cudnn_batch_norm batch_norm_with_update "
    "batch_norm_impl_index layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm "
    "fused_rms_norm"
)
_KEEPING = (  # what scales by constants, moves or copies
    "add sub mul div clone to_copy copy dropout feature_dropout native_dropout pad constant_pad_nd roll flip "
    "channel_shuffle native_channel_shuffle convsmith::channel_shuffle"
)
ACTIVATIONS, NORMS, KEEPING = (frozenset(names.split()) for names in (_ACTIVATIONS, _NORMS, _KEEPING))
NORM_MODULES = (*(kind for kinds in CLASSES.values() for kind in kinds), nn.LocalResponseNorm)


def few_elementwise(case: Case) -> Iterator[Finding]:
    """G4: elementwise operators cost time without MACs; the activation behind a depthwise convolution can go.

    `where` names modules of activations; of a function, the module in whose `forward` it is called. The memory traffic
    is that of the calls behind a depthwise convolution; the time is that of all activations of the modules in `where`.
    """
    after = _behind_depthwise(case)
    if not after:
        return
    traffic = sum(operation.memory_bytes for operation in after) / case.cost.memory_bytes
    where = tuple(dict.fromkeys(operation.module for operation in after))
    shares = [f"{traffic:.0%} of the memory traffic, none of the MACs"]
    share = None
    if case.profile is not None:
        steps, total = case.profile.steps, case.profile.total_ms
        spent = sum(step.ms for step in steps if step.category == "elementwise")
        shares.append(f"all elementwise operators together take {spent / total:.0%} of the time")
        share = sum(s.ms for s in steps if s.module in where and s.operator.strip("_") in ACTIVATIONS) / total
    yield Finding(
        rule="G4",
        where=where,
        value=traffic,
        unit="of the memory traffic",
        reason=f"activations between a depthwise and a pointwise convolution: {'; '.join(shares)} ({GUIDELINES}, G4; "
        "Chollet 2017, arXiv:1610.02357, Sec. 4.7: an activation there hurts)",
        edit="leave out the activation behind depthwise convolutions; fold norms before shipping (deploy.fold_norm)",
        architecture=_without_mid_act(case),
        time_share=share,
    )


def _behind_depthwise(case: Case) -> list[Operation]:
    """The operators of activations that read a depthwise convolution, or norms, copies, constant scales of it.

    A sum or concatenation is behind one if all that it joins is. A sigmoid that makes a gate is no activation here,
    while x * sigmoid(x) is one of two operators.
    """
    norms = {path for path, module in case.network.named_modules() if isinstance(module, NORM_MODULES)}
    gates = set(gates_in(case.flow).values())
    behind: list[bool] = []
    found: dict[int, Operation] = {}
    for i, operation in enumerate(case.flow):
        reads = [behind[read] for read in operation.reads]
        activates = operation.name in ACTIVATIONS and i not in gates and any(reads)
        if activates or _is_rest(case.flow, operation, found):
            found[i] = operation
        behind.append(i not in found and _is_behind(operation, reads, normalises=operation.module in norms))
    return list(found.values())


def _is_behind(operation: Operation, reads: Sequence[bool], *, normalises: bool) -> bool:
    if operation.is_convolution:
        return operation.is_depthwise
    if operation.name in ACTIVATIONS or not reads:
        return False
    if normalises or operation.name in NORMS:
        return any(reads)
    return all(reads) and (operation.is_view or operation.name in KEEPING | JOINING)


def _is_rest(flow: Sequence[Operation], operation: Operation, found: dict[int, Operation]) -> bool:
    """Whether it multiplies a map by what was activated of the same map, as x * sigmoid(x) does."""
    if operation.name != "mul" or len(operation.reads) != 2:
        return False
    for own, other in (operation.reads, operation.reads[::-1]):
        activated = next((i for i in _sources(flow, own) if i in found), None)
        if activated is not None and other in _sources(flow, found[activated].reads[0]):
            return True
    return False


def _sources(flow: Sequence[Operation], position: int) -> Iterator[int]:
    """The operation, and those before it that it is a scaled or moved copy of."""
    yield position
    while flow[position].name in KEEPING and len(flow[position].reads) == 1:
        position = flow[position].reads[0]
        yield position


def _without_mid_act(case: Case) -> Architecture | None:
    if case.architecture is None:
        return None

    def change(path: str, spec: BlockSpec) -> BlockSpec:
        return spec.replace(mid_act=False) if spec.get("mid_act") else spec

    edited = changed(case.architecture, change)
    return edited if edited != case.architecture else None
