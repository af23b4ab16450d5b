from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.measure.profile import CATEGORIES, profile
from convsmith.measure.profile.graph import Weight
from convsmith.measure.profile.openvino import OpenVino, _mean_behind
from convsmith.measure.profile.origins import macs
from convsmith.measure.roofs import Roofs

ROOFS = Roofs(gmacs_per_s=100.0, source="made up", copies=((2**20, 100.0),))
SHAPE = (2, 3, 32, 32)


class Net(nn.Module):
    """Convolutions in blocks of channels and not, a shuffle, a concatenation, a sum and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = cs.nn.ConvNormAct(3, 32)
        self.grouped = nn.Sequential(nn.Conv2d(32, 12, 1, groups=4), nn.ReLU())
        self.shuffle = cs.nn.ChannelShuffle(12, groups=4)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.pool = cs.nn.MaxPool(44)
        self.head = cs.nn.Classifier(44, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(self.shuffle(self.grouped(x)))
        return self.head(self.pool(torch.cat((x, y * torch.tanh(y)), 1)))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "executorch"])
def test_another_type_than_float32_is_refused(backend):
    skip_without(backend)
    with pytest.raises(ValueError, match=f"{backend} is profiled in float32, and the network is of bfloat16"):
        profile(Net().bfloat16(), SHAPE, backend=backend, roofs=ROOFS)


def skip_without(backend):
    if backend not in cs.deploy.backends.installed():
        pytest.skip(f"needs {backend}")


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def found(request):
    skip_without(request.param)
    return profile(Net(), SHAPE, backend=request.param, passes=3, roofs=ROOFS)


def test_macs_are_those_of_the_network_however_channels_are_padded(found):
    assert sum(step.macs for step in found.steps) == cs.measure.cost(Net(), SHAPE).macs


def test_nodes_are_mapped_back_to_modules(found):
    convolutions = [(step.module, step.operator) for step in found.steps if step.category == "convolution"]
    assert [module for module, _ in convolutions] == ["stem.conv", "grouped.0", "depthwise", "head.linear"]
    (pool,) = [step.module for step in found.steps if step.operator == "MaxPool"]
    assert pool == "pool"  # a module that is traced through, so that no call of it is left
    by_module = {path: share.macs for path, share in found.by_module.items()}
    cost = cs.measure.cost(Net(), SHAPE).by_module
    assert all(by_module[path] == cost[path].macs for path in ("stem", "grouped", "depthwise", "head"))


EXPECTED = {
    "onnxruntime": {"shuffle": {"Transpose", "Reshape"}, "elementwise": {"Tanh", "Mul"}, "data": {"Concat"}},
    "openvino": {"shuffle": {"ShuffleChannels"}, "elementwise": {"Subgraph"}, "data": {"Concat"}},
}


def test_categories(found):
    operators = {category: set() for category in CATEGORIES}
    for step in found.steps:
        operators[step.category].add(step.operator)
    for category, expected in EXPECTED[found.backend].items():
        assert expected <= operators[category]
    assert operators["shuffle"] == EXPECTED[found.backend]["shuffle"]
    assert "MaxPool" in operators["other"]
    assert found.unknown == ()


def test_what_a_runtime_computes_with_a_convolution_is_told(found):
    kernels = {step.module: step.kernel for step in found.steps if step.category == "convolution"}
    assert kernels["stem.conv"].endswith("+ Relu")
    assert "+" not in kernels["depthwise"]
    assert found.steps[0].memory_bytes > 4 * 2 * 3 * 32 * 32


def test_the_parts_add_up(found):
    assert sum(share.share for share in found.by_category.values()) == pytest.approx(1)
    assert found.by_module[""].ms == pytest.approx(found.attributed_ms)
    assert found.slowdowns == ()
    assert found.passes == 3


def test_a_norm_that_runs_as_a_convolution_is_elementwise():
    skip_without("onnxruntime")
    network = nn.Sequential(
        *(cs.nn.ConvNormAct(3, 32), cs.nn.MaxPool(32), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3)),
        nn.Flatten(),
    )
    nn.init.normal_(network[2].weight)
    found = profile(network, SHAPE, backend="onnxruntime", passes=3, roofs=ROOFS)
    norms = [step for step in found.steps if step.module == "2"]
    assert [(step.operator, step.category) for step in norms] == [("Conv", "elementwise")]
    assert sum(step.macs for step in found.steps) == cs.measure.cost(network, SHAPE).macs


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_network_that_branches_on_values_is_refused(backend):
    skip_without(backend)

    class Branching(nn.Module):
        def forward(self, x):
            return x.relu() if x.mean() > 0 else x

    with pytest.raises(ValueError, match="must not branch on values"):
        profile(Branching(), SHAPE, backend=backend, roofs=ROOFS)


@pytest.mark.parametrize(
    ("operator", "weights", "inputs", "outputs", "expected"),
    [
        ("Conv", [(60, 20, 3, 3), (60,)], [(2, 64, 8, 8)], [(2, 64, 4, 4)], 2 * 16 * 60 * 20 * 9),
        ("FusedConv", [(60, 20, 1, 1)], [(2, 60, 8, 8)], [(2, 60, 8, 8)], 2 * 64 * 60 * 20),
        ("ConvTranspose", [(6, 4, 2, 2)], [(2, 6, 5, 5)], [(2, 4, 10, 10)], 2 * 25 * 6 * 4 * 4),
        ("Gemm", [(10, 32), (10,)], [(3, 32)], [(3, 10)], 3 * 320),
        ("MatMul", [(32, 10)], [(3, 4, 32)], [(3, 4, 10)], 12 * 320),
        ("MatMul", [], [(3, 4, 32), (3, 32, 10)], [(3, 4, 10)], 12 * 320),
        ("Einsum", [], [(3, 4)], [(3,)], 0),
    ],
)
def test_macs_of_a_node(operator, weights, inputs, outputs, expected):
    assert macs(operator, [Weight(shape, 0) for shape in weights], inputs, outputs) == expected


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_operators_that_the_runtime_expands_are_profiled(backend):
    skip_without(backend)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 4, 1), nn.Hardswish())
    found = profile(network, SHAPE, backend=backend, roofs=ROOFS, passes=3)
    assert sum(step.macs for step in found.steps) == cs.measure.cost(network, SHAPE).macs
    assert {step.module for step in found.steps} <= {"", "0", "1", "2", "3"}


def test_a_node_quicker_than_the_clock_has_run():
    skip_without("openvino")
    run = OpenVino(Net().eval(), torch.randn(SHAPE), threads=1)
    for _ in range(3):
        run.timed()
    before, _ = run.result()
    name = next(name for name, node in run._passes[0].items() if node.node_type == "Convolution")
    missed = SimpleNamespace(status=SimpleNamespace(name="NOT_RUN"), real_time=timedelta(), node_type="Convolution")
    run._passes[1][name] = missed
    steps, samples = run.result()
    assert [step.kernel for step in steps] == [step.kernel for step in before]
    assert [len(sample) for sample in samples] == [len(steps)] * 3
    assert min(samples[1]) >= 0


@pytest.mark.slow  # lowering takes seconds
def test_executorch_is_profiled_with_the_modules_and_sizes_of_its_convolutions():
    skip_without("executorch")
    found = profile(Net(), SHAPE, backend="executorch", passes=3, roofs=ROOFS)
    assert sum(step.macs for step in found.steps) == cs.measure.cost(Net(), SHAPE).macs
    convolutions = [(step.module, step.shape) for step in found.steps if step.category == "convolution"]
    maps = {"stem.conv": (2, 32, 32, 32), "grouped.0": (2, 12, 32, 32), "depthwise": (2, 12, 32, 32)}
    assert dict(convolutions) == {**maps, "head.linear": (2, 10)}
    stem = next(step for step in found.steps if step.module == "stem.conv")
    assert stem.memory_bytes == 4 * (2 * (3 + 32) * 32 * 32 + 32 * 3 * 9)
    assert found.unknown == ()
    assert {step.operator for step in found.steps} >= {"Transpose", "TanH", "Max Pooling", "Mean"}
    assert found.attributed_ms > 0
    with pytest.raises(ValueError, match="with up to 15 images, got 16; give fewer"):
        profile(Net(), (16, *SHAPE[1:]), backend="executorch", roofs=ROOFS)


def test_openvino_s_means_over_all_passes_are_taken_apart():
    # Passes of 900, 20, 10, 10 and 10 microseconds, of which each tells the mean so far.
    means = [900, 460, 310, 235, 190]
    executed = SimpleNamespace(name="EXECUTED")
    passes = [{"node": SimpleNamespace(status=executed, real_time=timedelta(microseconds=m))} for m in means]
    assert _mean_behind(passes, "node", 2) == pytest.approx(0.010)
    assert _mean_behind(passes, "node", 0) == pytest.approx(0.190)
