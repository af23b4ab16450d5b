import json

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.measure import count
from convsmith.nn import Classifier, ConvNormAct

TINY = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 8)],
    stages=[[cs.spec(ConvNormAct, 16, stride=2)]],
    head=cs.spec(Classifier, 10),
    name="tiny",
)


def advised(module, shape):
    return cs.measure.advise(module, input_shape=shape, timed=False)


def test_the_figures_of_an_architecture_by_hand():
    cost = cs.measure.cost(TINY, (2, 3, 8, 8))
    assert cost.params == 3 * 8 * 9 + 2 * 8 + 8 * 16 * 9 + 2 * 16 + 16 * 10 + 10
    assert cost.macs == 2 * (64 * 27 * 8 + 16 * 72 * 16 + 16 * 10)
    assert cost.activations == 2 * (64 * 8 + 16 * 16)
    assert not cost.uncounted


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_adding_up_blocks_gives_what_one_pass_of_the_network_gives(name):
    architecture = cs.zoo.get(name)
    added = cs.measure.cost(architecture, (2, 3, 64, 64))
    watched = cs.measure.cost(cs.create_model(architecture).eval(), (2, 3, 64, 64))
    for key in ("params", "macs", "activations", "memory_bytes"):
        assert getattr(added, key) == getattr(watched, key)
    assert added.by_operator == watched.by_operator
    both = added.by_module.keys() & watched.by_module.keys()
    assert "stages.1.0" in both
    assert all(added.by_module[path] == watched.by_module[path] for path in both)


def test_by_stage():
    two = TINY.replace(stages=[TINY.stages[0], [cs.spec(ConvNormAct, 16), cs.spec(ConvNormAct, 24, stride=2)]])
    cost = cs.measure.cost(two.replace(aux=[(0, 0, cs.spec(Classifier, 10))]), (2, 3, 8, 8))
    stages = cost.by_stage
    assert list(stages) == ["stem", "stages.0", "stages.1", "head", "aux"]
    assert [stage.output for stage in stages.values()] == [(2, 8, 8, 8), (2, 16, 4, 4), (2, 24, 2, 2), (2, 10), None]
    assert stages["stages.1"].params == 16 * 16 * 9 + 2 * 16 + 16 * 24 * 9 + 2 * 24
    assert stages["stages.1"].macs == 2 * (16 * 16 * 16 * 9 + 4 * 16 * 24 * 9)
    assert stages["stages.1"].activations == 2 * (16 * 16 + 4 * 24)
    for number in ("params", "macs", "activations", "memory_bytes"):
        assert sum(getattr(stage, number) for stage in stages.values()) == getattr(cost, number)
    assert cost.macs_per_byte == cost.macs / cost.memory_bytes
    assert cs.measure.cost(nn.Conv2d(3, 4, 1), (1, 3, 4, 4)).by_stage == {}


def test_the_memory_traffic_of_a_pointwise_convolution_is_least_for_equal_widths():
    """G1 of Ma et al. 2018: MAC >= 2 sqrt(hw B) + B / hw with B = hw c1 c2, equality exactly for c1 = c2."""
    hw = 56 * 56
    for c1, c2 in ((128, 128), (64, 256), (32, 512), (256, 64)):
        conv = nn.Conv2d(c1, c2, 1, bias=False, device="meta")
        elements = cs.measure.cost(conv, (1, c1, 56, 56)).memory_bytes / 4
        macs = hw * c1 * c2
        bound = 2 * (hw * macs) ** 0.5 + macs / hw
        assert elements == hw * (c1 + c2) + c1 * c2
        assert elements == bound if c1 == c2 else elements > 1.1 * bound


def test_auxiliary_heads_count_as_params_only():
    with_aux = TINY.replace(aux=[(0, 0, cs.spec(Classifier, 10))])
    plain, more = cs.measure.cost(TINY, (1, 3, 8, 8)), cs.measure.cost(with_aux, (1, 3, 8, 8))
    assert more.params - plain.params == 170
    assert more.macs == plain.macs
    assert more.params == sum(p.numel() for p in cs.create_model(with_aux).parameters())


def test_an_input_that_does_not_fit_is_told():
    with pytest.raises(ValueError, match="tiny takes 3 channels, got an input of 1"):
        cs.measure.cost(TINY, (1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"an input shape is \(N, C, H, W\) in positive integers, got \(1, 3, 8\)"):
        cs.measure.cost(TINY, (1, 3, 8))
    with pytest.raises(ValueError, match=r"positive integers, got 224; give one such as \(1, 3, 224, 224\)"):
        cs.measure.cost(TINY, 224)


class Deeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3))

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("measured", [cs.measure.cost, cs.measure.summary, cs.measure.receptive_field, advised])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 0, 8), r"positive integers, got \(1, 3, 0, 8\); give one such as \(1, 3, 224, 224\)"),
        ((), r"positive integers, got \(\); give one such as"),
        (224, r"positive integers, got 224; give one such as"),
        (None, r"positive integers, got None; give one such as"),
        ((1, 3.0, 8, 8), r"positive integers, got \(1, 3.0, 8, 8\); give one such as"),
        (
            (1, 4, 8, 8),
            r"of 3 channels got 4; give|\(1, 4, 8, 8\), and fails in inner\.1 Conv2d\(3, 4, .*; give input_shape",
        ),
        (
            (1, 3, 2, 8),
            r"Deeper must take an input of shape \(1, 3, 2, 8\), and fails in inner\.1 Conv2d\(3, .*; give input",
        ),
    ],
)
def test_another_modules_input_that_does_not_fit_is_told(measured, shape, message):
    with pytest.raises(ValueError, match=message):
        measured(Deeper(), shape)


def test_a_module_that_holds_others_is_named_by_its_class():
    class Indexing(Deeper):
        def forward(self, x):
            return self.inner(x)[0, 0, 0, 0, 0]

    with pytest.raises(ValueError, match=r"and fails in Indexing \(.*; give input_shape, batch included"):
        cs.measure.cost(Indexing(), (1, 3, 8, 8))


class Two(Deeper):
    def forward(self, a, b, scale=1):
        return self.inner(a) + self.inner(b) * scale


@pytest.mark.parametrize("measured", [cs.measure.cost, cs.measure.summary, cs.measure.receptive_field, advised])
def test_a_module_of_several_inputs_is_sent_to_count(measured):
    with pytest.raises(ValueError, match=r"takes one input, and Two takes a, b; give all .* to cs\.measure\.count: c"):
        measured(Two(), (1, 3, 8, 8))
    assert count(Two(), (1, 3, 8, 8), (1, 3, 8, 8)).macs == 2 * 36 * 27 * 4


@pytest.mark.parametrize(
    "measured", [cs.measure.cost, cs.measure.summary, cs.measure.receptive_field, advised, cs.measure.count]
)
def test_a_name_is_no_module(measured):
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module, got 'resnet18'; build it by cs\.create_model"):
        measured("resnet18", (1, 3, 8, 8))


@pytest.mark.parametrize("measured", [cs.measure.cost, cs.measure.summary, advised])
def test_what_a_layer_of_torch_checks_itself_is_told_too(measured):
    message = (
        r"must take an input of shape \(1, 3\), and fails in 1 BatchNorm2d\(3, .*\(expected 4D input .*; give input"
    )
    with pytest.raises(ValueError, match=message):
        measured(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), (1, 3))


def test_a_value_error_of_a_forward_passes():
    class Particular(nn.Module):
        def forward(self, x):
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        cs.measure.cost(Particular(), (1, 3, 8, 8))


def test_what_a_forward_raises_by_itself_passes():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        cs.measure.cost(Broken(), (1, 3, 8, 8))


def test_a_file_with_wrong_figures_is_refused(tmp_path):
    TINY.replace(reference=cs.arch.Reference(params=1586, macs=32_416, input_size=8)).save(tmp_path / "right.json")
    cs.create_model(tmp_path / "right.json")
    document = json.loads((tmp_path / "right.json").read_text())
    document["reference"]["macs"] += 1
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    with pytest.raises(
        ValueError, match=r"wrong.json states 1,586 params and 32,417 MACs at 8x8, a recount gives .* 32,416"
    ):
        cs.create_model(tmp_path / "wrong.json")


def test_a_space_has_no_cost_yet():
    space = TINY.replace(stem=[cs.spec(ConvNormAct, cs.choice(8, 16))])
    with pytest.raises(ValueError, match="tiny is a search space"):
        cs.measure.cost(space, (1, 3, 8, 8))


def test_the_cost_of_any_module_is_its_count():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    module(torch.zeros(1, 3, 5, 5))
    cost = cs.measure.cost(module, (1, 3, 5, 5))
    assert cost.macs == count(module, (1, 3, 5, 5)).macs == 9 * 27 * 4 + 36 * 2


def test_a_module_in_training_mode_costs_what_it_costs_in_use():
    # In training mode a norm of one value per channel refuses its input.
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    network[3].eval()
    assert cs.measure.cost(network, (1, 3, 8, 8)).macs == 12
    assert [part.training for part in network.modules()] == [True, True, True, True, False]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_module_is_counted_as_it_was_written(in_place):
    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    module, graphs = Deeper(), []
    if in_place:
        module.compile(backend=backend)
        compiled, before = module, module._compiled_call_impl
    else:
        compiled = torch.compile(module, backend=backend)
    assert cs.measure.cost(compiled, (1, 3, 8, 8)).by_module == cs.measure.cost(Deeper(), (1, 3, 8, 8)).by_module
    assert count(compiled, (1, 3, 8, 8)).macs == 36 * 27 * 4
    layers = cs.measure.summary(compiled, (1, 3, 8, 8)).layers
    assert [layer.path for layer in layers] == ["inner", "inner.0", "inner.1"]
    assert cs.measure.receptive_field(compiled, (1, 3, 8, 8)).size == (3, 3)
    assert advised(compiled, (1, 3, 8, 8)) == advised(Deeper(), (1, 3, 8, 8))
    assert graphs == []
    if in_place:
        assert module._compiled_call_impl is before
