"""The lecture's lines on norms: large batch BN; small batch multi-GPU BN > GN / BRN > BN / LN; weights LN / WN."""

import pytest
from torch import nn

import convsmith as cs
from convsmith.measure import advise, choose_norm
from convsmith.nn import BasicBlock, Classifier, ConvNormAct, GroupNorm

BN, MULTI, GN_BRN = ("batch_norm",), ("cross_device_batch_norm",), ("group_norm", "batch_renorm")
BN_LN = ("batch_norm", "layer_norm")
LN_WN = ("layer_norm", "weight_norm")
SHAPE = (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("task", "batch", "devices", "order", "gradients"),
    [
        ("classification", 32, 1, (BN,), False),
        ("classification", 256, 8, (BN,), False),
        ("classification", 16, 1, (BN,), False),
        ("classification", 15, 1, (GN_BRN, BN_LN), False),
        ("detection", 2, 8, (MULTI, GN_BRN, BN_LN), False),
        ("segmentation", 4, 2, (MULTI, GN_BRN, BN_LN), False),
        ("detection", 1, 1, (GN_BRN, BN_LN), False),
        ("weights", 64, 1, (LN_WN,), False),
        ("weights", 1, 8, (LN_WN,), False),
        ("gan", 64, 1, (BN,), True),
        ("multi-task", 2, 4, (MULTI, GN_BRN, BN_LN), True),
    ],
)
def test_the_table(task, batch, devices, order, gradients):
    choice = choose_norm(task=task, batch_per_device=batch, devices=devices)
    assert (choice.order, choice.normalise_gradients) == (order, gradients)
    assert "lecture" in choice.reason


def example(norm="batch_norm"):
    plain = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 24)],
        stages=[[cs.spec(BasicBlock, 24)]],
        head=cs.spec(Classifier, 10),
        name="example",
    )
    return plain if norm == "batch_norm" else cs.nn.swap_norm(plain, cs.spec(GroupNorm, groups=8))


def norms(network, **options):
    return [f for f in advise(network, input_shape=SHAPE, timed=False, **options) if f.rule == "norm"]


def test_batch_norm_is_right_for_a_large_batch_and_group_norm_for_a_small_one():
    assert norms(example(), batch_per_device=32) == []
    assert norms(example("group_norm"), batch_per_device=2) == []
    (wrong,) = norms(example("group_norm"), batch_per_device=64)
    assert (wrong.architecture, wrong.value) == (example().replace(reference=None), 64)
    (small,) = norms(example(), batch_per_device=2)
    assert small.where == ("stem.0.norm", "stages.0.0.conv1.norm", "stages.0.0.conv2.norm")
    assert small.architecture.stem[0].get("norm") == cs.spec(GroupNorm, groups=8)  # 32 and 16 do not divide 24
    assert norms(small.architecture, batch_per_device=2) == []
    assert small.gain.macs_ratio == small.gain.params_ratio == 1
    assert small.edit == "take group_norm or batch_renorm (nn.swap_norm)"


def test_several_devices_share_their_statistics():
    (found,) = norms(example(), batch_per_device=2, devices=4, task="detection")
    assert found.architecture.stem[0].get("norm").block == "cross_device_batch_norm"
    assert norms(found.architecture, batch_per_device=2, devices=4) == []


def test_gan_and_multi_task_get_gradient_normalisation_whatever_the_norm():
    for task in ("gan", "multi-task"):
        (found,) = norms(example(), batch_per_device=32, task=task)
        assert "GradNorm" in found.edit
        assert found.where == ()


def test_norms_of_torch_are_known_too():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.SyncBatchNorm(4))
    assert norms(module, batch_per_device=2, devices=8)[0].where == ("1",)
    (found,) = norms(module, batch_per_device=2, devices=1)
    assert found.where == ("1", "3")
    assert found.edit == "take group_norm or batch_renorm (in the place of each, in the module's own code)"
