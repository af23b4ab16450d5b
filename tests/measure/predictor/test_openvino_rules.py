"""The rules against what OpenVINO says that it runs: its own executed graph, and the kernels that it times."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch

import convsmith as cs
from convsmith.deploy.backends.openvino import compile_model, onnx_bytes, read_model, settings
from convsmith.measure.predictor.describe import describe
from convsmith.measure.predictor.jobs import random_graph
from convsmith.measure.predictor.onnx_model import model_of
from convsmith.measure.predictor.openvino.engine import OPENVINO
from convsmith.measure.predictor.openvino.executed import RESTATED, executed
from convsmith.measure.predictor.openvino.profile import nodes, times_of
from convsmith.measure.predictor.openvino.session import Session
from convsmith.measure.predictor.writer import Writer
from convsmith.search import spaces
from tests.measure.predictor.test_describe import NETWORKS

pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def block():
    found = OPENVINO.block()
    if not openvino.__version__.startswith(RESTATED) or found != 16:
        pytest.skip(f"the rules are those of OpenVINO {RESTATED} on a processor with AVX-512")
    return found


def ran(model, shape):
    """What OpenVINO made of a model: its kernels."""
    core = openvino.Core()
    read = read_model(core, model)
    read.reshape(list(shape))
    return list(nodes(compile_model(core, read, settings(1, "float32"), "float32")).values())


def counted(found):
    """Kernels and the shapes that they read and write, without weights."""
    return Counter((node.kind, node.kernel, tuple(sorted(node.inputs)), tuple(sorted(node.outputs))) for node in found)


def told(graph, block):
    graph = executed(graph, block)

    def shapes(names):
        return tuple(sorted(graph.shapes[n] for n in names if n and n not in graph.constants))

    return Counter((op.kind, op.attributes["kernel"], shapes(op.inputs), shapes(op.outputs)) for op in graph.ops)


def check(graph, model, block):
    found = ran(model, graph.shapes[graph.inputs[0]])
    assert told(graph, block) == counted(found)
    times = times_of(executed(graph, block), [replace(node, time_us=float(n)) for n, node in enumerate(found)])
    assert sorted(times) == list(range(len(found)))


@pytest.mark.parametrize("number", range(30))
def test_random_networks_run_the_kernels_that_the_rules_say(number, block):
    graph = random_graph(number)
    check(graph, model_of(graph), block)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1400, 100))
def test_many_random_networks(start, block):
    missed = []
    for number in range(start, start + 100):
        graph = random_graph(number)
        if told(graph, block) != counted(ran(model_of(graph), graph.shapes["input"])):
            missed.append(number)
    assert not missed


@pytest.mark.parametrize("name", [n if n != "cells" else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_an_architecture_runs_the_kernels_that_are_told_from_it(name, block):
    check_architecture(NETWORKS[name], (2, 3, 16, 16), block)


@pytest.mark.slow
@pytest.mark.parametrize("space", spaces.names())
def test_members_of_the_spaces_run_the_kernels_that_are_told_from_them(space, block):
    tree = spaces.get(space, num_classes=10, in_channels=3, input_size=64)
    for seed in range(12):
        check_architecture(tree.sample(Random(seed)), (1, 3, 64, 64), block)


def check_architecture(architecture, shape, block):
    network = cs.network.build(architecture).eval()
    found = ran(onnx_bytes(network, torch.randn(shape)), shape)
    assert told(describe(architecture, shape, OPENVINO.filled), block) == counted(found)


def case(build):
    writer = Writer((1, 3, 16, 16))
    return writer.graph(build(writer, writer.conv("input", 32, (3, 3))))


def products(writer, x, width):
    y = writer.flatten(writer.global_pool(x))
    return writer.linear(writer.act(writer.linear(y, width), "relu"), 10)


def strided_with_two_readers(w, x):
    y = w.act(w.conv(x, 32, (3, 3)), "relu")
    return w.concat([w.conv(y, 16, stride=2), w.conv(w.act(y, "sigmoid"), 16, stride=2)])


def first(w, x):
    """A map whose channels come first."""
    return w.act(x, "hard_sigmoid")


def gated(w, x, gate):
    return w.mul(x, w.act(w.conv(w.global_pool(gate), 32), "sigmoid"))


def in_part(w, x, act):
    kept, y = w.split(x, 16)
    return w.concat([kept, w.act(y, act)])


def dense(w, x):
    return w.concat([x, w.conv(x, 8, (3, 3))])


def joined_twice(w, x):
    parts = [w.concat([x, w.pool(x, "MaxPool", 3, 1)]), w.concat([x, w.act(x, "relu")])]
    return w.add(*(w.pool(part, "MaxPool", 3, 1) for part in parts))


def with_zeros(w, x):
    y = w.conv(x, 32, (3, 3), groups=2)
    w._constants[w.ops[-1].inputs[2]] = (0.0,) * 32
    return w.conv(w.act(y, "relu"), 8, stride=2)


def still(w, x):
    """A shuffle that moves nothing, as of groups of one channel."""
    return w.shuffle(x, w.shapes[x][0])


def viewed(w, x, act):
    """An activation between a view as groups and a view back."""
    y = w.op("Reshape", [x, w._sizes(1, 4, 8, 16, 16)], (4, 8, 16, 16))
    return w.op("Reshape", [w.act(y, act), w._sizes(1, 32, 16, 16)], (32, 16, 16))


def with_axis(w, x):
    """An activation between an axis that is put in and its removal."""
    y = w.op("Unsqueeze", [x, w._sizes(2)], (32, 1, 16, 16))
    return w.op("Squeeze", [w.act(y, "relu"), w._sizes(2)], (32, 16, 16))


def transposed(w, x):
    """Two transpositions of one pixel, with a silu between."""
    y = w.op("Transpose", [x], (1, 1, 32), perm=(0, 2, 3, 1))
    return w.op("Transpose", [w.act(y, "silu")], (32, 1, 1), perm=(0, 3, 1, 2))


CASES = {
    "a stride behind groups with zeros as biases": with_zeros,
    "a dilated depthwise convolution": lambda w, x: w.conv(x, 32, (3, 3), groups=32, dilation=2),
    "groups of a vector": lambda w, x: w.conv(x, 32, (3, 3), groups=2),
    "groups of more than a vector": lambda w, x: w.conv(w.conv(x, 40), 40, (3, 3), groups=2),
    "a sum": lambda w, x: w.act(w.add(w.conv(x, 32, (3, 3)), w.act(x, "relu")), "silu"),
    "a sum of two convolutions": lambda w, x: w.add(w.conv(x, 32), w.conv(w.act(x, "relu"), 32)),
    "a sum with what the convolution reads": lambda w, x: w.act(w.add(w.conv(x, 32), x), "relu"),
    "a sum that is read before": lambda w, x: w.concat([w.add(w.conv(w.conv(x, 8), 32), x), w.act(x, "relu")]),
    "a stride behind an activation": lambda w, x: w.conv(w.act(w.conv(x, 16, (3, 3)), "relu6"), 8, stride=2),
    "a stride behind a sum": lambda w, x: w.conv(w.act(w.add(w.conv(x, 32), w.act(x, "relu")), "relu"), 8, stride=2),
    "a stride behind a pooling": lambda w, x: w.conv(w.pool(x, "MaxPool", 3, 1), 8, stride=2),
    "a stride behind groups": lambda w, x: w.conv(w.act(w.conv(x, 32, (3, 3), groups=32), "relu"), 8, stride=2),
    "strides behind two readers": strided_with_two_readers,
    "an activation behind a maximum": lambda w, x: w.act(w.pool(x, "MaxPool", 3, 2), "relu"),
    "an activation behind a mean": lambda w, x: w.act(w.pool(x, "AveragePool", 3, 2), "relu"),
    "an activation behind a mean of what is left": lambda w, x: w.act(
        w.pool(x, "AveragePool", 3, 2, ceil=True), "relu"
    ),
    "a mean of a map with its channels first": lambda w, x: w.global_pool(w.act(x, "hard_sigmoid")),
    "a maximum of a map with its channels first": lambda w, x: w.conv(
        w.pool(w.act(x, "hard_sigmoid"), "MaxPool", 3, 2), 8
    ),
    "a norm behind a concatenation": lambda w, x: w.conv(w.act(w.norm(w.concat([x, w.act(x, "relu")])), "relu"), 8),
    "a gate": lambda w, x: w.mul(x, w.act(w.conv(w.global_pool(x), 32), "sigmoid")),
    "a gate without a kernel": lambda w, x: w.mul(x, w.act(w.conv(w.global_pool(x), 32), "hard_sigmoid")),
    "a gated sum": lambda w, x: w.act(w.add(w.mul(x, w.act(w.conv(w.global_pool(x), 32), "sigmoid")), x), "relu"),
    "an activation without a kernel": lambda w, x: w.conv(w.act(x, "hard_sigmoid"), 8),
    "a shuffle": lambda w, x: w.shuffle(w.act(x, "relu"), 4),
    "an activation behind a shuffle": lambda w, x: w.act(w.shuffle(x, 4), "relu"),
    "a silu behind a shuffle": lambda w, x: w.conv(w.act(w.shuffle(x, 4), "silu"), 8),
    "a leaky activation behind a shuffle": lambda w, x: w.conv(w.act(w.shuffle(x, 4), "leaky_relu"), 8),
    "a choice of channels": lambda w, x: w.conv(w.choose(x, range(0, 32, 2)), 8),
    "a choice of all channels in their order": lambda w, x: w.conv(w.choose(x, range(32)), 8),
    "without bias": lambda w, x: w.act(w.conv(w.conv(x, 32, bias=False), 32, groups=4, bias=False), "relu"),
    "rows and columns moved by one": lambda w, x: w.conv(w.crop(w.pad(x)), 8, stride=2),
    "a shuffle that moves nothing": lambda w, x: w.conv(w.shuffle(w.act(x, "relu"), 32), 8),
    "a stride behind a shuffle that moves nothing": lambda w, x: w.conv(still(w, w.act(x, "relu")), 8, stride=2),
    "a stride behind a shuffle of one group": lambda w, x: w.conv(w.shuffle(x, 1), 8, stride=2),
    "a stride behind groups of one channel that are shuffled": lambda w, x: w.conv(
        still(w, w.conv(x, 32, (3, 3), groups=32)), 8, stride=2
    ),
    "a stride behind a sum of what is shuffled in its place": lambda w, x: w.conv(
        w.act(w.add(still(w, w.conv(x, 32)), w.act(x, "relu")), "relu"), 8, stride=2
    ),
    "a shuffle that moves nothing in front of a product": lambda w, x: w.linear(w.flatten(still(w, w.conv(x, 8))), 10),
    "a shuffle that moves nothing, twice": lambda w, x: w.conv(still(w, still(w, x)), 8),
    "a shuffle behind one that moves nothing": lambda w, x: w.conv(w.shuffle(still(w, x), 4), 8),
    "a shuffle in front of one that moves nothing": lambda w, x: w.conv(still(w, w.shuffle(x, 4)), 8),
    "two shuffles": lambda w, x: w.conv(w.shuffle(w.shuffle(x, 4), 2), 8),
    "three shuffles": lambda w, x: w.conv(w.shuffle(w.shuffle(w.shuffle(x, 4), 4), 4), 8),
    "a shuffle there and back": lambda w, x: w.conv(w.shuffle(w.shuffle(x, 4), 8), 8, stride=2),
    "an activation between two shuffles": lambda w, x: w.conv(w.shuffle(w.act(w.shuffle(x, 4), "relu"), 2), 8),
    "a silu between two shuffles": lambda w, x: w.conv(w.shuffle(w.act(w.shuffle(x, 4), "silu"), 2), 8),
    "an activation between two views": lambda w, x: w.conv(viewed(w, x, "relu"), 8, stride=2),
    "a silu between two views": lambda w, x: w.conv(viewed(w, x, "silu"), 8, stride=2),
    "an axis put in and taken out": lambda w, x: w.conv(with_axis(w, x), 8, stride=2),
    "two transpositions of one pixel": lambda w, x: w.conv(transposed(w, w.global_pool(x)), 8),
    "a shuffle in front of a product": lambda w, x: w.linear(w.flatten(w.shuffle(w.conv(x, 8), 2)), 10),
    "parts that are joined again": lambda w, x: w.conv(w.concat(w.split(x, 8)), 8),
    "parts in another order": lambda w, x: w.conv(w.concat(w.split(x, 8)[::-1]), 8),
    "a stride between an activation and a shuffle": lambda w, x: w.conv(w.act(w.shuffle(x, 4), "relu"), 8, stride=2),
    "a gated map with its channels first": lambda w, x: gated(w, first(w, x), first(w, x)),
    "a gate for a map with its channels first": lambda w, x: gated(w, first(w, x), x),
    "a sum of maps in both layouts": lambda w, x: w.act(w.add(first(w, x), w.act(x, "relu")), "relu"),
    "both layouts side by side": lambda w, x: w.concat([x, first(w, x)]),
    "more maps with their channels first": lambda w, x: w.concat([x, *(first(w, y) for y in (x, w.act(x, "relu")))]),
    "a part with its channels first": lambda w, x: in_part(w, x, "hard_sigmoid"),
    "a part of a map with its channels first": lambda w, x: in_part(w, first(w, x), "relu"),
    "parts of maps with their channels first": lambda w, x: in_part(w, first(w, x), "hard_sigmoid"),
    "parts of what is joined": lambda w, x: in_part(w, w.concat([first(w, x), first(w, w.act(x, "relu"))]), "relu"),
    "a map that is joined twice": lambda w, x: joined_twice(w, first(w, x)),
    "a map beside itself": lambda w, x: w.concat([first(w, x)] * 2),
    "cropped with its channels first": lambda w, x: w.conv(w.crop(first(w, x)), 8),
    "an activation of a map with its channels first": lambda w, x: w.conv(w.act(first(w, x), "relu"), 8),
    "a maximum of the input": lambda w, x: w.conv(w.pool("input", "MaxPool", 3, 2), 8),
    "a mean of two channels that come first": lambda w, x: w.conv(
        w.pool(first(w, w.conv(x, 2)), "AveragePool", 2, 2), 8
    ),
    "joined and joined again": lambda w, x: w.concat([w.conv(x, 8), w.concat([w.conv(x, 4), w.concat([x, x])])]),
    "joined, read and joined again": lambda w, x: dense(w, dense(w, x)),
    "small products": lambda w, x: products(w, x, 256),
    "products": lambda w, x: products(w, x, 257),
    "one pixel": lambda w, x: w.flatten(w.conv(w.global_pool(x), 10)),
}


@pytest.mark.parametrize("name", CASES)
def test_single_rules(name, block):
    graph = case(CASES[name])
    check(graph, model_of(graph), block)


def test_the_merged_operators_are_those_that_openvino_names(block):
    for number in (0, 3, 6):
        graph = random_graph(number)
        names = {name for node in ran(model_of(graph), graph.shapes["input"]) for name in node.covers}
        merged = [op.attributes["covers"] for op in executed(graph, block).ops if op.kind == "Convolution"]
        assert all(covers for covers in merged)
        assert {name for covers in merged for name in covers} <= names


def test_an_activation_behind_a_shuffle_that_moves_nothing_goes_by_its_own_name(block):
    graph = case(lambda w, x: w.conv(w.act(still(w, w.conv(x, 32)), "relu"), 8))
    name = next(op.outputs[0] for op in graph.ops if op.kind == "Relu")
    assert [node.kernel for node in ran(model_of(graph), (1, 3, 16, 16)) if name in node.covers] == ["brgconv_1x1"]
    assert [op.attributes["kernel"] for op in executed(graph, block).ops if name in op.attributes["covers"]] == [
        "brgconv_1x1"
    ]


def test_each_kernel_has_a_time_and_they_are_the_network_s(block):
    graph = random_graph(1)
    session = Session(model_of(graph), graph.shapes["input"], 1)
    ms = [session.profile_ms() for _ in range(3)]
    assert len(session.kernels([1])) == len(executed(graph, block).ops)
    times = session.times_us(executed(graph, block), [0, 2])
    assert min(times) > 0
    assert sum(times) < 1e4 * max(ms)  # of one unit
    assert session.burst_ms() > 0


def test_a_kernel_that_the_rules_do_not_foresee_is_told(block):
    graph = case(lambda w, x: w.act(w.pool(x, "AveragePool", 3, 1), "relu"))
    found, rules = ran(model_of(graph), (1, 3, 16, 16)), executed(graph, block)
    assert len(times_of(rules, found)) == len(found)
    with pytest.raises(ValueError, match=r"the runtime ran no .'Eltwise'"):
        times_of(rules, [node for node in found if node.kind != "Eltwise"])
    with pytest.raises(ValueError, match=r"the runtime ran .'Pooling'.* and the rules say none"):
        times_of(rules, [*found, next(node for node in found if node.kind == "Pooling")])


def test_the_graph_that_is_told_from_stays(block):
    graph = random_graph(0)
    before = [(op.kind, tuple(op.inputs), tuple(op.outputs), dict(op.attributes)) for op in graph.ops]
    shapes = dict(graph.shapes)
    executed(graph, block)
    assert [(op.kind, tuple(op.inputs), tuple(op.outputs), op.attributes) for op in graph.ops] == before
    assert graph.shapes == shapes
