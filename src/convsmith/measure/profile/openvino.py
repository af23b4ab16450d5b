"""OpenVINO's own profile: what it made of the graph, node by node, mapped back to modules.

The network is the one that ONNX Runtime gets too. OpenVINO tells which nodes it fused and which kernel it chose; its
clock counts whole microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from convsmith.deploy.backends.openvino import compile_model, onnx_bytes, read_model, settings
from convsmith.deploy.telemetry import unreported
from convsmith.measure.profile.categories import category_of
from convsmith.measure.profile.graph import Graph, Node, Weight, onnx_graph
from convsmith.measure.profile.origins import Origins, macs
from convsmith.measure.profile.result import Step

FUSED_NAMES, LAYER_TYPE, KERNEL = "originalLayersNames", "layerType", "primitiveType"
EXECUTED = "EXECUTED"
SLOW_PASSES = 2  # the first prepares weights


class OpenVino:
    """The passes of a network in OpenVINO: `plain` in one compiled model, `timed` in one that counts."""

    def __init__(self, network: nn.Module, example: Tensor, threads: int):
        if example.device.type != "cpu":
            raise ValueError(f"OpenVINO is profiled on the CPU, and the device is {example.device}; give cpu")
        self._model = onnx_bytes(network, example)
        self._plain, _ = _request(self._model, example, threads, counts=False)
        self._watched, self._compiled = _request(self._model, example, threads, counts=True)
        self._passes: list[dict[str, Any]] = []
        self.unknown: tuple[str, ...] = ()

    def plain(self) -> None:
        """One pass."""
        self._plain.infer()

    def timed(self) -> None:
        """One pass whose nodes OpenVINO times."""
        self._watched.infer()
        self._passes.append({node.node_name: node for node in self._watched.profiling_info})

    def result(self) -> tuple[tuple[Step, ...], Sequence[Sequence[float]]]:
        """The nodes that ran, and the milliseconds of each in each watched pass.

        OpenVINO says "not run" of a node that took less than its clock's microsecond: it ran if any pass saw it run.
        What it tells is the mean over all passes up to then, the slow first ones too: they are taken out, and each pass
        is given the mean of those left.
        """
        names = [name for name in self._passes[0] if any(_executed_in(watched, name) for watched in self._passes)]
        slow = min(SLOW_PASSES, len(self._passes) - 1)
        means = [_mean_behind(self._passes, name, slow) for name in names]
        samples = [means for _ in self._passes]
        exported = onnx_graph(self._model)
        operators = self._compiled.get_runtime_model().get_ordered_ops()
        graph = _executed(operators, exported)
        origins = Origins(exported, graph)
        by_name = {own.friendly_name: own for own in operators}
        types = {name: node.node_type for name, node in self._passes[0].items()}
        steps = [_step(by_name[name], types[name], graph.by_name[name], origins) for name in names]
        self.unknown = tuple(
            sorted({step.operator for step in steps if category_of(step.operator, table="openvino") is None})
        )
        return tuple(steps), samples


def _mean_behind(passes: Sequence[Mapping[str, Any]], name: str, slow: int) -> float:
    """Milliseconds of a node in the passes behind the first slow ones, from means over all passes so far."""
    total, first = (
        number * _milliseconds(passes[number - 1], name) if number else 0.0 for number in (len(passes), slow)
    )
    return max(0.0, total - first) / (len(passes) - slow)


def _executed_in(watched: Mapping[str, Any], name: str) -> bool:
    return name in watched and bool(watched[name].status.name == EXECUTED)


def _milliseconds(watched: Mapping[str, Any], name: str) -> float:
    return 1e3 * watched[name].real_time.total_seconds() if _executed_in(watched, name) else 0.0


def _request(model: bytes, example: Tensor, threads: int, *, counts: bool) -> tuple[Any, Any]:
    """An inference request that holds the example, and the compiled model that it is of."""
    openvino = unreported("openvino")
    core = openvino.Core()
    read = read_model(core, model)
    read.reshape(list(example.shape))
    compiled = compile_model(core, read, {**settings(threads, "float32"), "PERF_COUNT": counts}, "float32")
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(example.detach().float().numpy()))
    return request, compiled


def _executed(operators: Iterable[Any], exported: Graph) -> Graph:
    """The graph that OpenVINO executes; a value has the name of the node that writes it."""
    nodes, weights = [], {}
    for own in operators:
        facts = {key: str(getattr(value, "value", value)) for key, value in own.get_rt_info().items()}
        named = (_named(name, exported) for name in facts[FUSED_NAMES].split(","))
        fused = list(dict.fromkeys(node for node in named if node is not None))
        main = next((node for node in fused if category_of(node.operator, table="onnx") == "convolution"), None)
        main = main or next(iter(fused), None)
        behind = [f"+ {node.operator}" for node in fused[fused.index(main) + 1 :]] if main else []
        if facts[LAYER_TYPE] == "Const":
            shape = tuple(own.get_output_shape(0))
            weights[own.friendly_name] = Weight(shape, math.prod(shape) * own.get_output_element_type(0).size)
        nodes.append(
            Node(
                name=own.friendly_name,
                operator=facts[LAYER_TYPE],
                inputs=tuple(source.get_source_output().get_node().friendly_name for source in own.inputs()),
                outputs=(own.friendly_name,),
                origin=main.name if main else "",
                kernel=" ".join([facts[KERNEL], *behind]),
            )
        )
    return Graph(nodes, weights)


def _named(name: str, exported: Graph) -> Node | None:
    """The exported node that OpenVINO means: it splits one and appends to its name, as in `Conv_0/WithoutBiases`.

    The last node has the name of the network's output.
    """
    while name and exported.find(name) is None:
        name = name.rpartition("/")[0]
    return exported.find(name)


def _step(own: Any, operator: str, node: Node, origins: Origins) -> Step:
    origin = origins.of(node)
    category = category_of(operator, table="openvino")
    values = [source.get_source_output() for source in own.inputs()]
    read = [value for value in values if value.get_node().friendly_name not in origins.optimised.weights]
    moved = sum(math.prod(value.get_shape()) * value.get_element_type().size for value in (*read, *own.outputs()))
    weights = origins.weights(node)
    shapes = [[tuple(value.get_shape()) for value in side] for side in (read, own.outputs())]
    return Step(
        module=origins.module(node),
        operator=operator,
        kernel=node.kernel,
        category=category or "other",
        shape=next(iter(shapes[1]), ()),
        macs=macs(origin.operator, weights, *shapes) if origin and category == "convolution" else 0,
        memory_bytes=moved + sum(weight.bytes for weight in weights),
    )
