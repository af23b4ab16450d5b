import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.arch import block
from convsmith.nn import Classifier, ConvNormAct, InvertedResidual, MaxPool


def test_the_chain_threads_channels_and_gives_one_map_per_stage():
    network = cs.create_model("mobilenet_v2").eval()
    with torch.no_grad():
        maps = network.features(torch.randn(2, 3, 64, 96))
    assert [m.shape[1] for m in maps] == network.feature_channels == [16, 24, 32, 64, 96, 160, 320]
    assert network.feature_strides == [2, 4, 8, 16, 16, 32, 32]
    assert [(m.shape[2], m.shape[3]) for m in maps] == [(64 // s, 96 // s) for s in network.feature_strides]


def test_the_pyramid_holds_the_last_map_of_each_stride():
    network = cs.create_model("mobilenet_v2").eval()
    with torch.no_grad():
        pyramid, maps = network.pyramid(x := torch.randn(1, 3, 64, 64)), network.features(x)
    assert list(pyramid) == [2, 4, 8, 16, 32]
    assert torch.equal(pyramid[16], maps[4])
    assert torch.equal(pyramid[32], maps[6])


def test_the_forward_pass_is_stem_stages_neck_head():
    network = cs.create_model("mobilenet_v2", num_classes=7).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), network.head(network.neck[0](network.features(x)[-1])))


def test_a_network_without_head_gives_the_last_map():
    backbone = cs.zoo.get("resnet18").replace(head=None)
    network = cs.create_model(backbone).eval()
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 512, 2, 2)
    assert network.out_channels == 512


def test_auxiliary_heads_read_behind_their_block():
    architecture = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 8)],
        stages=[[cs.spec(ConvNormAct, 12, stride=2), cs.spec(ConvNormAct, 16)], [cs.spec(ConvNormAct, 20, stride=2)]],
        head=cs.spec(Classifier, 5),
        aux=[(1, 0, cs.spec(Classifier, 5)), (0, 0, cs.spec(Classifier, 5))],
    )
    network = cs.create_model(architecture).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        logits, (second, first) = network.forward_aux(x)
        assert torch.equal(logits, network(x))
        assert torch.equal(second, network.aux[0](network.features(x)[1]))
        assert torch.equal(first, network.aux[1](network.stages[0][0](network.stem[0](x))))
    assert all("aux" in name for name, p in network.named_parameters() if p is network.aux[0].linear.weight)


@block("test_two_maps", carries=2)
class TwoMaps(nn.Module):
    """Adds the previous map, brought to its width, to the current one."""

    def __init__(self, in_channels: tuple[int, int], *, width: int = 8):
        super().__init__()
        previous, current = in_channels
        self.previous, self.current = nn.Conv2d(previous, width, 1), nn.Conv2d(current, width, 1)
        self.out_channels = (current, width)

    def forward(self, maps):
        previous, current = maps
        return current, self.previous(previous) + self.current(current)


def test_a_block_that_carries_two_maps_takes_and_gives_tuples():
    architecture = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 4)],
        stages=[[cs.spec(TwoMaps, width=6), cs.spec(TwoMaps, width=8)], [cs.spec(TwoMaps, width=10), cs.spec(MaxPool)]],
        head=cs.spec(Classifier, 3),
    )
    network = cs.create_model(architecture).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        stem = network.stem[0](x)
        # The first cell has no previous map yet: the current one stands in for it.
        a = network.stages[0][0].previous(stem) + network.stages[0][0].current(stem)
        b = network.stages[0][1].previous(stem) + network.stages[0][1].current(a)
        c = network.stages[1][0].previous(a) + network.stages[1][0].current(b)  # across the stage's border
        features = network.features(x)
        assert torch.equal(features[0], b)
        assert torch.equal(features[1], network.stages[1][1](c))  # a plain block is handed the last map
        assert torch.equal(network(x), network.head(features[1]))
    assert network.feature_channels == [8, 10]


def test_errors_of_a_block_name_the_place():
    architecture = cs.Architecture(stages=[[cs.spec(ConvNormAct, 16)], [cs.spec(ConvNormAct, 16, groups=3)]])
    with pytest.raises(
        ValueError, match=r"stages.1.0 \(conv_norm_act\): in_channels must be divisible by groups, got .*16"
    ):
        cs.create_model(architecture)


def test_an_input_that_does_not_fit_names_the_block():
    unpadded = cs.spec(ConvNormAct, 16, kernel_size=5, padding=0)
    architecture = cs.Architecture(stages=[[unpadded], [unpadded]], head=cs.spec(Classifier, 3), name="valid")
    cs.network.output_shapes(architecture, (1, 3, 9, 9))
    with pytest.raises(
        ValueError, match=r"an input of 8x8 does not fit valid: stages.1.0 \(conv_norm_act\) got a map of 4x4"
    ):
        cs.network.output_shapes(architecture, (1, 3, 8, 8))
    with pytest.raises(ValueError, match="valid takes 3 channels, got an input of 1"):
        cs.network.output_shapes(architecture, (1, 1, 9, 9))


def test_the_network_exports_strictly_and_traces():
    network = cs.create_model("resnet18").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(network, (x,), strict=True).module()(x), network(x))
        torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), network(x))


@pytest.mark.parametrize("flags", [(False, False, True), (False, True, True)])
def test_dilation_takes_the_place_of_stride_as_in_torchvision(flags):
    import torchvision

    from tests.zoo.peers import assert_equal_outputs, randomise

    peer = torchvision.models.resnet50(replace_stride_with_dilation=flags).double().eval()
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    randomise(peer, x)
    architecture = cs.zoo.get("resnet50")
    for stage, dilated in enumerate(flags, start=1):
        architecture = architecture.dilate(stage) if dilated else architecture
    ours = cs.create_model(architecture).double().eval()
    cs.transplant(peer.state_dict(), ours)
    with torch.no_grad():
        assert_equal_outputs(ours(x), peer(x))
    assert ours.feature_strides[-1] == 32 // 2 ** sum(flags)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnext50_32x4d"])
@pytest.mark.parametrize("size", [8, 32])
def test_small_inputs_keep_the_weights_and_a_last_map_of_at_least_two(name, size):
    classic = cs.zoo.get(name, in_channels=1, num_classes=10)
    small = cs.zoo.for_small_inputs(classic, size)
    network = cs.create_model(small)
    assert [p.shape for p in network.parameters()] == [p.shape for p in cs.create_model(classic).parameters()]
    last = network.features(torch.randn(2, 1, size, size))[-1]
    assert last.shape[-1] in (2, 3)
    assert network(torch.randn(2, 1, size, size)).shape == (2, 10)


def test_large_inputs_are_left_alone():
    classic = cs.zoo.get("resnet18")
    assert cs.zoo.for_small_inputs(classic, 224) == classic


def test_initialisation_is_he_by_fan_out():
    torch.manual_seed(0)
    network = cs.create_model("resnet18")
    weight = network.stages[3][1].conv2.conv.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


def test_round_channels_keeps_90_percent():
    from convsmith.nn import round_channels

    assert [round_channels(c) for c in (1, 11, 12, 18.4, 33.6, 44.8)] == [8, 16, 16, 24, 32, 48]
    assert InvertedResidual(8, 8, hidden_channels=20).depthwise.conv.groups == 20
