import pytest
import torch

import convsmith as cs
from convsmith.nn import Bottleneck, DeformableBottleneck
from tests.zoo.peers import assert_equal_outputs, images, randomise

OFFSETS = [f"stages.3.{i}.conv2.offset.{part}" for i in range(3) for part in ("weight", "bias")]


def renamed(key):
    """The name in the deformable network of a plain one's weight."""
    return key.replace("conv2.conv.weight", "conv2.weight") if key.startswith("stages.3.") else key


def of_the_plain_one(name, x):
    """ResNet with random weights, and the deformable network with the same ones and its own offsets."""
    plain = cs.create_model(name).double().eval()
    randomise(plain, x)
    deformable = cs.create_model(f"{name}_deformable").double().eval()
    state = {renamed(key): tensor for key, tensor in plain.state_dict().items()}
    missing, unexpected = deformable.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (OFFSETS, [])
    return plain, deformable


@pytest.mark.parametrize("name", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_with_zero_offsets_it_is_the_plain_network(name):
    x = images(64)
    plain, deformable = of_the_plain_one(name, x)
    with torch.no_grad():
        assert_equal_outputs(deformable(x), plain(x))


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_offsets_of_one_pixel_read_the_shifted_map(stride_in):
    plain = Bottleneck(8, 8, stride=2, stride_in=stride_in, hidden_channels=8).double().eval()
    deformable = DeformableBottleneck(8, 8, stride=2, stride_in=stride_in, hidden_channels=8, offset_groups=4)
    deformable.double().eval().load_state_dict(
        {key.replace("conv2.conv.weight", "conv2.weight"): tensor for key, tensor in plain.state_dict().items()},
        strict=False,
    )
    deformable.conv2.offset.bias.data[1::2] = 1.0  # the columns' offsets
    y = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    shifted = torch.cat((y[..., 1:], torch.zeros_like(y[..., :1])), 3)
    with torch.no_grad():
        expected, actual = plain.conv2(shifted), deformable.conv2(y)
    # At the left edge the plain convolution pads where the deformable one reads the first column.
    torch.testing.assert_close(actual[..., 1:], expected[..., 1:])


def test_the_last_stage_alone_is_deformable_in_four_groups_and_can_be_dilated():
    architecture = cs.zoo.get("resnet50_deformable")
    assert [unit.block for stage in architecture.stages for unit in stage] == ["bottleneck"] * 13 + [
        "deformable_bottleneck"
    ] * 3
    assert {unit.get("offset_groups") for unit in architecture.stages[3]} == {4}
    dilated = architecture.dilate(3)
    assert [unit.get("dilation") for unit in dilated.stages[3]] == [1, 2, 2]
    with torch.device("meta"):
        assert cs.create_model(dilated).feature_strides == [4, 8, 16, 16]


@pytest.mark.parametrize("depth", [50, 101])
def test_what_it_costs_more_are_the_convolutions_of_the_offsets(depth):
    plain, deformable = (cs.zoo.variants()[name] for name in (f"resnet{depth}", f"resnet{depth}_deformable"))
    weights = 512 * 9 * 2 * 9 * 4
    assert deformable.params - plain.params == 3 * (weights + 2 * 9 * 4)
    assert deformable.macs - plain.macs == 3 * weights * 7 * 7


def test_offsets_start_at_zero_and_learn():
    network = cs.create_model(cs.zoo.for_small_inputs(cs.zoo.get("resnet50_deformable", num_classes=10), 32))
    offsets = {name: p for name, p in network.named_parameters() if ".offset." in name}
    assert list(offsets) == OFFSETS
    assert not any(p.any() for p in offsets.values())
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad.any() for p in offsets.values())


def test_its_last_stage_exports():
    architecture = cs.zoo.get("resnet50_deformable", num_classes=10)
    small = architecture.replace(stages=[architecture.stages[0][:1], architecture.stages[3][:1]])
    network = cs.create_model(small).eval()
    x = torch.randn(2, 3, 32, 32)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
