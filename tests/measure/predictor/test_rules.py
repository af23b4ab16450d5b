"""The rules against ONNX Runtime's own optimised graph, and against the kernels that it profiles."""

from collections import Counter
from random import Random

import pytest

from convsmith.measure.predictor import soup
from convsmith.measure.predictor.graph import Graph, Op, read
from convsmith.measure.predictor.onnx_model import model_of
from convsmith.measure.predictor.onnxruntime.executed import RESTATED, executed
from convsmith.measure.predictor.onnxruntime.profile import KernelTime, times_of
from convsmith.measure.predictor.onnxruntime.session import Session
from convsmith.measure.predictor.runtime import runtime_of
from convsmith.measure.predictor.writer import Writer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def block():
    if not onnxruntime.__version__.startswith(RESTATED):
        pytest.skip(f"the rules are those of ONNX Runtime {RESTATED}")
    return runtime_of("cpu", "onnxruntime", 1).block


def optimised(model, tmp_path):
    """What the runtime made of a model, as a multiset of operators with what tells their kernels apart."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = []
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        blocked = node.domain == "com.microsoft.nchwc" and not node.op_type.startswith("Reorder")
        kind = f"nchwc.{node.op_type}" if blocked else node.op_type
        activation = attributes.get("activation", b"")
        taps = weights[node.input[1]][2:] if kind.endswith("Conv") else ()
        found.append(described(kind, attributes, activation.decode(), taps, list(node.input)))
    return Counter(found)


def told(graph, block):
    ran = executed(graph, block=block)
    found = []
    for op in ran.ops:
        taps = ran.shapes[op.inputs[1]][2:] if op.kind.endswith("Conv") else ()
        activation = op.attributes.get("activation", "")
        found.append(described(op.kind, op.attributes, activation, taps, op.inputs))
    return Counter(found)


def described(kind, attributes, activation, taps, inputs):
    if not kind.endswith("Conv"):
        return kind, activation
    strides, groups = tuple(attributes.get("strides", (1, 1))), attributes.get("group", 1)
    bias, adds = (bool(name) for name in (*inputs[2:4], "", "")[:2])
    return kind, activation, tuple(taps), strides, groups, bias, adds


@pytest.mark.parametrize("number", range(40))
def test_random_networks_run_the_kernels_that_the_rules_say(number, block, tmp_path):
    graph = soup.draw(Random(number)).graph
    assert told(graph, block) == optimised(model_of(graph), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1400, 100))
def test_many_random_networks(start, block, tmp_path):
    for number in range(start, start + 100):
        graph = soup.draw(Random(number)).graph
        assert told(graph, block) == optimised(model_of(graph), tmp_path), number


def test_the_profile_has_a_time_for_each_kernel_and_its_shapes(block):
    for number in range(6):
        graph = soup.draw(Random(number)).graph
        session = Session(model_of(graph), graph.shapes["input"], 1)
        ms = [session.profile_ms() for _ in range(3)]
        measured = session.kernels([0, 2])
        times = times_of(executed(graph, block=block), measured)
        assert sorted(times) == sorted(kernel.time_us for kernel in measured)
        assert len(times) == len(measured)
        assert 0 < sum(times) < 1e4 * max(ms)  # of one unit
        assert session.burst_ms() > 0


def case(build):
    writer = Writer((1, 3, 16, 16))
    return writer.graph(build(writer, writer.conv("input", 32, (3, 3))))


def first_of_two(writer, x, swapped):
    wide = writer.conv(x, 42, (3, 3))
    a, b = writer.conv(wide, 42), writer.conv(wide, 42, (3, 3))
    return writer.act(writer.add(b, a) if swapped else writer.add(a, b), "relu")


CASES = {
    "ceil_mode keeps an average plain": lambda w, x: w.pool(x, "AveragePool", 3, 2, ceil=True),
    "but not one without its padding": lambda w, x: w.pool(x, "AveragePool", 3, 2, ceil=True, padded=False),
    "padding before an average": lambda w, x: w.response_norm(x, 5),
    "the first of two plain convolutions takes a sum": lambda w, x: first_of_two(w, x, False),
    "and not the one that could run first": lambda w, x: w.act(
        w.add(w.conv(w.shuffle(w.conv(x, 32), 4), 42, groups=2), w.conv("input", 42, groups=3)), "relu"
    ),
    "whichever is named first": lambda w, x: first_of_two(w, x, True),
    "cropped": lambda w, x: w.conv(w.crop(x), 16, stride=2),
    "a depthwise convolution of 42": lambda w, x: w.conv(w.conv(x, 42), 42, (3, 3), groups=42),
    "a depthwise convolution of 44": lambda w, x: w.conv(w.conv(x, 44), 44, (3, 3), groups=44),
    "silu": lambda w, x: w.act(x, "silu"),
    "an unfused hard_swish": lambda w, x: w.act(w.add(x, w.act(x, "relu")), "hard_swish"),
    "relu6 behind a sum": lambda w, x: w.act(w.add(w.conv(x, 32), w.act(x, "relu")), "relu6"),
    "two readers": lambda w, x: w.concat([w.act(x, "relu"), w.act(x, "relu6")]),
    "equal operators": lambda w, x: w.concat([w.act(w.add(x, x), "relu"), w.act(w.add(x, x), "relu")]),
    "a norm behind a sum": lambda w, x: w.conv(w.act(w.norm(w.add(x, w.act(x, "relu"))), "relu"), 16),
    "a gate": lambda w, x: w.mul(x, w.act(w.conv(w.global_pool(x), 32), "sigmoid")),
    "a shuffle": lambda w, x: w.shuffle(x, 4),
    "an activation behind a shuffle": lambda w, x: w.conv(w.act(w.shuffle(x, 4), "silu"), 8),
    "a choice of channels": lambda w, x: w.conv(w.choose(x, range(0, 32, 2)), 8),
    "without bias": lambda w, x: w.act(w.conv(w.conv(x, 32, bias=False), 32, groups=4, bias=False), "relu"),
    "a norm behind what has no bias": lambda w, x: w.act(w.norm(w.conv(x, 42, (3, 3), groups=2, bias=False)), "relu"),
    "a sum without bias": lambda w, x: w.act(w.add(w.conv(x, 32, groups=4, bias=False), w.act(x, "relu")), "relu"),
    "rows and columns moved by one": lambda w, x: w.conv(w.crop(w.pad(x)), 8, stride=2),
}


@pytest.mark.parametrize("name", CASES)
def test_single_rules(name, block, tmp_path):
    graph = case(CASES[name])
    assert told(graph, block) == optimised(model_of(graph), tmp_path)


def test_exported_models_are_read_as_they_are(block, tmp_path):
    # What is exported has constants as operators, identities, a batch size without a number, and scalar products.
    helper = onnx.helper
    weight = helper.make_tensor("w", 1, (8, 3, 1, 1), [0.1] * 24)
    half = helper.make_tensor("h", 1, (), [0.5])
    nodes = [
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Conv", ["input", "v"], ["a"]),
        helper.make_node("Constant", [], ["half"], value=half),
        helper.make_node("Mul", ["a", "half"], ["b"]),
        helper.make_node("Relu", ["b"], ["output"]),
    ]
    shape = ("batch", 3, 4, 4)
    ends = [helper.make_tensor_value_info("input", 1, shape)], [helper.make_tensor_value_info("output", 1, None)]
    proto = helper.make_graph(nodes, "g", *ends, [weight])
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    graph = read(model, [(2, 3, 4, 4)])
    assert graph.shapes["output"] == (2, 8, 4, 4)
    assert [op.kind for op in graph.ops] == ["Conv", "Mul", "Relu"]
    assert told(graph, block) == optimised(model.SerializeToString(), tmp_path)


def test_a_kernel_that_the_rules_do_not_foresee_is_told():
    shapes = {"input": (1, 8, 4, 4), "output": (1, 8, 4, 4)}
    graph = Graph([Op("Relu", ["input"], ["output"])], ["input"], ["output"], shapes, {})
    right = KernelTime("Relu", ((1, 8, 4, 4),), ((1, 8, 4, 4),), 3.0)
    assert times_of(graph, [right]) == [3.0]
    with pytest.raises(ValueError, match=r"the runtime ran no \('Relu'"):
        times_of(graph, [])
    with pytest.raises(ValueError, match=r"the runtime ran \('Tanh'.* and the rules say none"):
        times_of(graph, [right, KernelTime("Tanh", ((1, 8, 4, 4),), ((1, 8, 4, 4),), 1.0)])
