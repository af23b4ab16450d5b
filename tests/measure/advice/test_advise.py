"""Each rule on an architecture that breaks it alone, and on the mended one."""

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.measure import Gain, advise
from convsmith.measure.advice import case
from convsmith.measure.advice.fragments import fragments
from convsmith.measure.advise import RULES
from convsmith.measure.predictor import About
from convsmith.nn import (
    BasicBlock,
    Bottleneck,
    Classifier,
    ConvNormAct,
    DepthwiseSeparable,
    InvertedResidual,
    NasCell,
    ShuffleUnitV2,
    WeightNorm,
)
from tests.measure.untouched import state

SHAPE = (1, 3, 32, 32)


def network(*stages, width=16):
    """Gated residual blocks of one width; a stage given takes the place of the middle one."""
    good = [cs.spec(BasicBlock, width, se_ratio=0.25, kernel_size=7)] * 3
    middle = list(stages) or good
    return cs.Architecture(
        stem=[cs.spec(ConvNormAct, width)],
        stages=[good, middle, good],
        head=cs.spec(Classifier, 10),
        name="example",
    )


def findings(architecture, **options):
    found = advise(architecture, input_shape=SHAPE, timed=False, **options)
    return {finding.rule: finding for finding in found}


def test_nothing_to_say_about_a_good_network():
    assert findings(network()) == {}


# fmt: off
BREAKING = {  # rule: (the stage that breaks it, the only places, the stage that is mended)
    "G1": (
        [cs.spec(Bottleneck, 16, hidden_channels=4, se_ratio=0.25)],
        ("stages.1.0.conv1.conv", "stages.1.0.conv3.conv"),
        [cs.spec(Bottleneck, 16, hidden_channels=16, se_ratio=0.25)],
    ),
    "G2": (
        [cs.spec(Bottleneck, 16, hidden_channels=16, groups=4, se_ratio=0.25)],
        ("stages.1.0.conv2.conv",),
        [cs.spec(Bottleneck, 16, hidden_channels=16, groups=1, se_ratio=0.25)],
    ),
    "G4": (
        [cs.spec(DepthwiseSeparable, 16)],
        ("stages.1.0.depthwise.act",),
        [cs.spec(DepthwiseSeparable, 16, mid_act=False)],
    ),
}
# fmt: on


@pytest.mark.parametrize("rule", BREAKING)
def test_a_finding_exactly_where_the_rule_is_broken(rule):
    bad, where, good = BREAKING[rule]
    found = findings(network(*bad))
    assert list(found) == [rule]
    assert found[rule].where == where
    assert found[rule].value > 0
    assert "arXiv:1807.11164" in found[rule].reason
    assert findings(network(*good)) == {}


@pytest.mark.parametrize("rule", BREAKING)
def test_the_edit_mends_it_at_no_more_macs(rule):
    found = findings(network(*BREAKING[rule][0]))[rule]
    assert rule not in findings(found.architecture)
    gain, before = found.gain, cs.measure.cost(network(*BREAKING[rule][0]), SHAPE)
    after = cs.measure.cost(found.architecture, SHAPE)
    assert gain.macs_ratio == after.macs / before.macs <= 1
    assert gain.memory_ratio == after.memory_bytes / before.memory_bytes
    assert (gain.latency_ratio, gain.how, found.time_share) == (None, "counted", None)


def test_the_figure_of_g1_by_hand():
    bad = [cs.spec(Bottleneck, 16, hidden_channels=4, se_ratio=0.25)]
    hw, macs = 32 * 32, 32 * 32 * 64
    moved, least = hw * 20 + 64, 2 * (hw * macs) ** 0.5 + macs / hw
    assert findings(network(*bad))["G1"].value == pytest.approx(moved / least)


def test_fragments():
    class Side(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(number))

        def forward(self, x):
            return torch.cat([conv(x) for conv in self.convs], 1)

    assert [fragments(Side(number)) for number in (1, 2, 4)] == [0, 1, 3]
    assert fragments(nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(5)))) == 0
    assert fragments(ShuffleUnitV2(8, 16, stride=2)) == 2

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    assert fragments(nn.Sequential(Branching())) == 0
    assert fragments(Branching()) is None


def inceptions():
    return [spec for _, spec in cs.zoo.get("googlenet").blocks() if spec.block == "inception"]


def test_g3():
    found = findings(network(inceptions()[0]))["G3"]
    assert (found.where, found.value) == (("stages.1.0",), 5)  # of seven convolutions and poolings two are a chain
    assert found.architecture.stages[1][0].block == "basic_block"
    assert found.gain.macs_ratio <= 1
    assert "G3" not in findings(found.architecture)


@pytest.mark.slow
def test_g3_inception_blocks_and_no_others():
    found = findings(cs.zoo.get("googlenet"))["G3"]
    assert list(found.where) == [path for path, spec in cs.zoo.get("googlenet").blocks() if spec.block == "inception"]
    assert found.gain.macs_ratio <= 1
    assert "G3" not in findings(cs.zoo.get("resnet18"))


def test_shortcuts():
    plain = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 16)],
        stages=[[cs.spec(DepthwiseSeparable, 16, mid_act=False)] * 6],
        head=cs.spec(Classifier, 10),
        name="plain",
    )
    found = findings(plain)["shortcuts"]
    assert (found.value, found.where) == (13, tuple(f"stages.0.{i}" for i in range(6)))
    assert {spec.block for spec in found.architecture.stages[0]} == {"inverted_residual"}
    assert found.architecture.stages[0][0].get("act") == "relu"
    assert "shortcuts" not in findings(found.architecture)
    assert found.gain.macs_ratio == 1
    assert "shortcuts" not in findings(plain.replace(stages=[plain.stages[0][:4]]))  # nine convolutions


@pytest.mark.parametrize("block", [BasicBlock, DepthwiseSeparable])
def test_attention_is_recommended_where_nothing_gates(block):
    blocks = [cs.spec(block, 16)] * 2
    plain = cs.Architecture(stem=[], stages=[blocks], head=cs.spec(Classifier, 10), name="plain")
    found = findings(plain)["attention"]
    assert found.gain.macs_ratio > 1
    assert "Hu et al. 2018" in found.reason
    assert "attention" not in findings(found.architecture)


def test_groups_that_never_meet():
    blocks = [cs.spec(ConvNormAct, 16, kernel_size=3, groups=4)] * 2
    found = findings(network(*blocks))["channel receptive field"]
    assert (found.where, found.value) == (("stages.1",), 4)
    assert [spec.block for spec in found.architecture.stages[1]] == [
        "conv_norm_act",
        "channel_shuffle",
        "conv_norm_act",
    ]
    assert "channel receptive field" not in findings(found.architecture)
    assert "channel receptive field" not in findings(network(*BREAKING["G2"][0]))


def test_groups_under_weight_norm_that_never_meet():
    blocks = [cs.spec(ConvNormAct, 16, groups=4, norm=cs.spec(WeightNorm))] * 2
    found = findings(network(*blocks))["channel receptive field"]
    assert (found.where, found.value) == (("stages.1",), 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_units_that_split_their_input_are_decided(stride):
    stage = [cs.spec(ShuffleUnitV2, 24, stride=stride), cs.spec(ShuffleUnitV2, 24)]
    architecture = network(*stage, width=24)
    module = nn.Sequential(nn.Conv2d(3, 24, 3), nn.Sequential(*(spec.build(24) for spec in stage)))
    for subject, where in ((architecture, "stages.1"), (module, "1")):
        found = findings(subject).get("channel receptive field")
        if stride > 1:  # both branches of the first unit read all channels
            assert found is None
        else:  # the first channel passes by all convolutions
            assert (found.where, found.value) == ((where,), 12)


def test_stages_of_cells_are_decided():
    operations = (("sep_3x3", 0, "identity", 1), ("sep_5x5", 1, "none", 0))
    cell = cs.spec(NasCell, filters=8, operations=operations)
    strided = cs.spec(NasCell, filters=8, operations=operations, stride=2)
    stages = [[cell, cell], [cs.spec(ConvNormAct, 16), cell], [strided, cell]]
    architecture = cs.Architecture(stem=[cs.spec(ConvNormAct, 16)], stages=stages, head=cs.spec(Classifier, 10))
    assert "channel receptive field" not in findings(architecture)


def test_channels_that_cannot_be_followed_are_told():
    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, groups=2)

        def forward(self, x):
            return torch.fft.rfft2(self.conv(x)).real

    found = findings(nn.Sequential(nn.Conv2d(3, 4, 3), Fourier()))["channel receptive field"]
    assert (found.where, found.value, found.gain, found.architecture) == (("1",), None, None, None)
    assert "could not be decided" in found.reason


def test_the_field_against_the_input_and_the_task():
    narrow = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 16)],
        stages=[[cs.spec(BasicBlock, 16, se_ratio=0.25)], [cs.spec(BasicBlock, 16, se_ratio=0.25)]],
        head=cs.spec(Classifier, 10),
        name="narrow",
    )
    found = findings(narrow)["receptive field"]
    assert (found.value, found.where) == (11, ("stages.1.0",))
    assert "field of 32 x 32" in found.reason
    wider = cs.measure.receptive_field(found.architecture, SHAPE)
    assert wider.size == (19, 19)  # two wider in all: the best that this edit does
    wide = network()  # 18 convolutions of 7 x 7
    assert cs.measure.receptive_field(wide, SHAPE).size == (111, 111)
    assert findings(wide) == findings(wide, task="segmentation") == {}
    assert "receptive field" in {
        f.rule for f in advise(wide, task="detection", input_shape=(1, 3, 64, 64), timed=False)
    }
    assert "receptive field" not in {f.rule for f in advise(wide, input_shape=(1, 3, 64, 64), timed=False)}


@pytest.mark.slow
def test_shufflenet_v2_gets_the_units_of_its_star():
    found = {
        finding.rule: finding
        for finding in advise(
            cs.zoo.get("shufflenet_v2_x0_5"), task="segmentation", input_shape=(1, 3, 512, 512), timed=False
        )
    }["receptive field"]
    assert found.value == 527
    assert {spec.block for spec in found.architecture.stages[-1]} == {"shuffle_unit_v2_star"}


def test_another_librarys_module_is_advised_in_words_and_left_as_it_was():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 8, 1)
            self.two = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(self.two(self.one(x)))

    module = Foreign().train()
    before = state(module)
    found = findings(module, batch_per_device=2)
    assert state(module) == before
    assert (found["G1"].where, found["G2"].where, found["norm"].where) == (("one",), ("two",), ("norm",))
    assert all(finding.architecture is None and finding.gain is None for finding in found.values())
    assert all(finding.edit for finding in found.values())


@pytest.mark.slow
def test_timed_findings_have_shares_and_ratios():
    found = {f.rule: f for f in advise(network(*BREAKING["G1"][0]), input_shape=SHAPE)}["G1"]
    assert 0 < found.time_share < 1
    gain = found.gain
    assert gain.how == "measured"
    assert 0 < gain.latency_low <= gain.latency_ratio <= gain.latency_high


class Told:
    """A predictor with a law of its own: what it says of an architecture, and what it never saw."""

    def __init__(self, ms, strange=(), device="cpu"):
        self.ms, self.strange = ms, strange
        self.about = About(device, "a processor", "onnxruntime", "1", 1, 16, "2026-11-26", 1.0)

    def predict_ms(self, architecture, shape):
        assert shape == SHAPE
        return self.ms(architecture)

    def unknown(self, architecture, shape):
        return list(self.strange)


def predicted(ms, strange=()):
    """The finding of G1 on a network that breaks it."""
    found = advise(network(*BREAKING["G1"][0]), input_shape=SHAPE, timed=False, predictor=Told(ms, strange))
    return {f.rule: f for f in found}["G1"]


def test_a_calibration_predicts_gains_without_measuring():
    now = network(*BREAKING["G1"][0])
    finding = predicted(lambda architecture: 8.0 if architecture == now else 6.0)
    assert (finding.gain.how, finding.gain.latency_ratio, finding.gain.latency_low) == ("predicted", 0.75, None)
    assert finding.architecture is not None


def test_kernels_that_the_calibration_never_saw_are_not_predicted():
    finding = predicted(lambda architecture: 1.0, strange=["a kernel"])
    assert (finding.gain.how, finding.gain.latency_ratio) == ("counted", None)


def test_what_is_not_predicted_is_measured_with_the_back_end_of_the_calibration(monkeypatch):
    asked = []

    def latencies(networks, shape, **options):
        asked.append((options["backend"], options["threads"]))
        return measured(networks, shape, **options, rounds=3)

    measured = case.latencies
    monkeypatch.setattr(case, "latencies", latencies)
    told = Told(lambda architecture: 1.0, ["a kernel"])
    finding = advise(network(*BREAKING["G1"][0]), input_shape=SHAPE, predictor=told)[0]
    assert (finding.rule, finding.gain.how) == ("G1", "measured")
    assert set(asked) == {("onnxruntime", 1)}


def test_a_calibration_of_another_device_is_refused():
    told = Told(lambda architecture: 1.0, device="cuda")
    with pytest.raises(ValueError, match="the calibration must be of the device cpu, and it is of cuda"):
        advise(network(), input_shape=SHAPE, predictor=told)


def test_an_edit_for_speed_that_gains_none_is_not_made():
    now = network(*BREAKING["G1"][0])
    finding = predicted(lambda architecture: 8.0 if architecture == now else 9.0)
    assert finding.edit.startswith("no gain here: ")
    assert finding.architecture is None
    assert finding.gain.latency_ratio == 9 / 8


def test_an_edit_for_accuracy_may_cost_time():
    now = network()
    told = Told(lambda architecture: 8.0 if architecture == now else 9.0)
    found = advise(now, batch_per_device=2, input_shape=SHAPE, timed=False, predictor=told)
    finding = next(f for f in found if f.rule == "norm")
    assert (finding.gain.latency_ratio, finding.architecture is None) == (9 / 8, False)


@pytest.mark.parametrize(
    ("gain", "none"),
    [
        (Gain(1.0, 0.9, 1.0), False),
        (Gain(1.0, 1.0, 1.0), True),
        (Gain(0.5, 0.5, 0.5, 1.02, 0.99, 1.05, "measured"), False),
        (Gain(0.5, 0.5, 0.5, 1.04, 1.01, 1.05, "measured"), True),
    ],
)
def test_no_gain_is_told_where_it_is_sure(gain, none):
    assert gain.is_none == none


def test_wrong_use():
    with pytest.raises(ValueError, match=r"task must be one of classification, .*, got 'sorting'"):
        advise(network(), task="sorting", timed=False)
    with pytest.raises(ValueError, match="batch_per_device must be a positive integer, got 0"):
        advise(network(), batch_per_device=0, timed=False)
    with pytest.raises(ValueError, match="devices must be a positive integer, got -1"):
        advise(network(), devices=-1, timed=False)
    with pytest.raises(ValueError, match="unknown device 'toaster'"):
        advise(network(), device="toaster", timed=False)
    with pytest.raises(ValueError, match="example takes 3 channels, got an input of 1"):
        advise(network(), input_shape=(1, 1, 32, 32), timed=False)
    with torch.device("meta"), pytest.raises(ValueError, match="on the meta device has no weights to be timed with"):
        advise(nn.Conv2d(3, 4, 3), input_shape=(1, 3, 8, 8))


def test_every_rule_is_tested_here():
    tested = {*BREAKING, "G3", "norm", "receptive field", "channel receptive field", "shortcuts", "attention"}
    assert set(RULES) == tested
    assert InvertedResidual.block_name == "inverted_residual"
