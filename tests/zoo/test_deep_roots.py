"""The figures of the authors' data files, in the authors' way of counting, to the unit."""

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.network import output_shapes
from convsmith.zoo.deep_roots import googlenet_root, nin_root, resnet50_root
from tests.zoo.peers import assert_equal_outputs, build_peer, images, randomise

BIASES_OF_NIN = 192 + 160 + 96 + 3 * 192 + 2 * 192 + 10


def on_meta(architecture):
    with torch.device("meta"):
        return cs.create_model(architecture)


def layers(architecture):
    return [m for m in on_meta(architecture).modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def weights(architecture):
    return sum(layer.weight.numel() for layer in layers(architecture))


def macs(architecture, size):
    return cs.measure.cost(architecture, (1, 3, size, size)).macs


# fmt: off
NIN = [(1, 222_487_946, 966_986), (2, 163_505_546, 736_586), (4, 123_397_514, 455_498), (8, 103_343_498, 314_954),
       (16, 93_316_490, 244_682)]
RESNET50 = [(1, 3_857_974_312, 25_503_976), (2, 3_684_566_056, 25_448_680), (4, 3_366_650_920, 25_126_120),
            (8, 2_860_876_840, 23_195_368), (16, 2_434_581_544, 18_691_048), (32, 2_221_433_896, 16_438_888),
            (64, 2_114_860_072, 15_312_808)]
RESNET200 = {1: 62_451_880, 2: 62_396_584, 4: 60_599_464, 8: 49_084_072, 16: 39_787_432, 32: 35_139_112, 64: 32_814_952}
GOOGLENET = [(1, 1_716_324_392, 18_809_576), (2, 1_542_916_136, 18_754_280), (4, 1_291_032_616, 18_515_944),
             (8, 964_383_656, 17_504_744), (16, 756_887_912, 16_308_968)]
# fmt: on


@pytest.mark.parametrize(("groups", "their_macs", "params"), NIN)
def test_nin(groups, their_macs, params):
    architecture = nin_root(groups=groups)
    assert sum(p.numel() for p in on_meta(architecture).parameters()) == params
    assert macs(architecture, 32) + BIASES_OF_NIN == their_macs


@pytest.mark.parametrize(
    ("schedule", "params"),
    [("tree", (487_754, 331_082, 252_746, 213_578)), ("column", (570_698, 372_554, 273_482, 223_946))],
)
def test_trees_and_columns_of_nin(schedule, params):
    counted = [weights(nin_root(groups=groups, schedule=schedule)) + BIASES_OF_NIN for groups in (2, 4, 8, 16)]
    assert tuple(counted) == params


@pytest.mark.parametrize(("groups", "their_macs", "params"), RESNET50)
def test_resnet50(groups, their_macs, params):
    architecture = resnet50_root(groups=groups)
    biases = 64 + 1000  # of the first convolution and the classifier
    assert weights(architecture) + biases == params
    assert macs(architecture, 224) + biases == their_macs


def test_what_groups_save_in_resnet200():
    counted = {groups: weights(resnet50_root(groups=groups, depths=(3, 24, 36, 3))) for groups in RESNET200}
    assert {g: counted[1] - n for g, n in counted.items()} == {g: RESNET200[1] - n for g, n in RESNET200.items()}


@pytest.mark.parametrize(("groups", "their_macs", "params"), GOOGLENET)
def test_googlenet(groups, their_macs, params):
    with_aux = googlenet_root(groups=groups, aux_heads=True)
    biases = sum(layer.weight.shape[0] for layer in layers(with_aux))
    last_layer = (2 * 2 - 1) * 1024 * 1000  # it reads 2 x 2 means, not one
    assert weights(with_aux) + biases + last_layer == params
    aux = (512 + 528) * 128 * 5 * 5 + 2 * (128 * 5 * 5 * 1024 + 1024 * 1000)
    assert macs(googlenet_root(groups=groups), 224) + aux + biases + last_layer == their_macs


def test_the_maps_of_googlenet_are_those_that_the_figures_tell():
    # Each stage but the first opens with its pooling; those in front of 4a and 5a are padded.
    shapes = {path: shape[-1][-1] for path, _, shape in output_shapes(cs.zoo.get("googlenet_root4"), (1, 3, 224, 224))}
    assert [shapes[f"stages.{i}.1"] for i in range(4)] == [56, 28, 15, 8]
    network = cs.create_model("googlenet_root16", aux_heads=True, num_classes=7)
    logits, aux = network.eval().forward_aux(images(64).float())
    assert [y.shape for y in (logits, *aux)] == [(4, 7)] * 3


@pytest.mark.parametrize("build", [nin_root, resnet50_root, googlenet_root])
def test_only_spatial_convolutions_are_in_groups_and_never_the_first(build):
    first, *others = layers(build(groups=8))
    assert first.groups == 1
    assert {layer.groups for layer in others if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)} == {1}
    assert {8, 4} <= {layer.groups for layer in others if isinstance(layer, nn.Conv2d)}
    if build is not nin_root:
        assert 2 in {layer.groups for layer in others if isinstance(layer, nn.Conv2d)}


def block_diagonal(weight, in_channels):
    """A grouped convolution's weight as that of a dense one."""
    groups = in_channels // weight.shape[1]
    dense = weight.new_zeros(weight.shape[0], in_channels, *weight.shape[2:])
    for g in range(groups):
        rows = slice(g * weight.shape[0] // groups, (g + 1) * weight.shape[0] // groups)
        dense[rows, g * weight.shape[1] : (g + 1) * weight.shape[1]] = weight[rows]
    return dense


def grouped_googlenet():
    """torchvision's network with the windows of the authors'."""
    import torchvision

    peer = torchvision.models.googlenet(aux_logits=False, init_weights=False, transform_input=False)
    peer.maxpool3 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    peer.maxpool4 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    for module in peer.modules():
        if type(module).__name__ == "Inception":
            old = module.branch3[1].conv
            module.branch3[1].conv = nn.Conv2d(old.in_channels, old.out_channels, 5, padding=2, bias=False)
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    return peer.double().eval()


@pytest.mark.parametrize(
    ("name", "dense"), [("nin_root8", "nin_cifar"), ("resnet50_root16", "resnet50_v1"), ("googlenet_root16", None)]
)
def test_it_is_the_dense_network_of_a_peer_with_zeros_between_the_groups(name, dense):
    size = 32 if dense == "nin_cifar" else 64
    ours, x = cs.create_model(name).double(), images(size)
    peer = build_peer(cs.zoo.variants()[dense]) if dense else grouped_googlenet()
    randomise(ours, x)
    state = peer.state_dict()
    pairs = list(zip(state, ours.state_dict().values(), strict=True))
    peer.load_state_dict({k: block_diagonal(v, state[k].shape[1]) if v.ndim == 4 else v for k, v in pairs})
    with torch.no_grad():
        assert_equal_outputs(ours.eval()(x), peer(x))


def test_it_exports():
    network = cs.create_model("nin_root4").eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.export.export(network, (x,), strict=True).module()(x), network(x))


def test_a_root_takes_powers_of_two():
    with pytest.raises(ValueError, match="power of two, got groups=6"):
        resnet50_root(groups=6)
