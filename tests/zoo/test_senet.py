import pytest
import torch
from torch import nn

import convsmith as cs
from tests.zoo.peers import assert_equal_outputs, images, randomise

OF_PYTORCHCV = {
    "se_resnet50": "seresnet50",
    "se_resnext50_32x4d": "seresnext50_32x4d",
    "senet154": "senet154",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("se_resnet50", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.peers) for name in ("se_resnext50_32x4d", "senet154")),
    ],
)
def test_pytorchcv_differs_in_the_padding_of_the_pooling_alone(name):
    from pytorchcv.model_provider import get_model

    peer = get_model(OF_PYTORCHCV[name], pretrained=False).double().eval()
    peer.features.final_pool = nn.AdaptiveAvgPool2d(1)
    x = images(64)
    randomise(peer, x)
    ours = cs.create_model(name).double().eval()
    cs.transplant(peer.state_dict(), ours)
    with torch.no_grad():
        padded = peer(x)
        assert (ours(x) - padded).abs().max() > 1e-3 * padded.abs().max()
        peer.features.init_block.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        assert_equal_outputs(ours(x), peer(x))


def test_only_senet154_drops_out():
    for name in cs.zoo.names("se*"):
        rate = cs.zoo.get(name).head.get("dropout")
        assert rate == (0.2 if name == "senet154" else 0.0), name


def test_small_images_keep_the_parameters():
    large = cs.zoo.get("senet154", num_classes=10)
    small = cs.zoo.for_small_inputs(large, 32)
    with torch.device("meta"):
        network, original = cs.create_model(small), cs.create_model(large)
        assert network.features(torch.empty(1, 3, 32, 32))[-1].shape[-2:] == (2, 2)
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in original.state_dict().items()
    }


@pytest.mark.parametrize("name", ["se_resnet50", "senet154"])
def test_the_last_stage_can_be_dilated(name):
    dense = cs.zoo.get(name).dilate(3)
    with torch.device("meta"):
        strides = [cs.create_model(a).feature_strides for a in (cs.zoo.get(name), dense)]
    assert strides == [[4, 8, 16, 32], [4, 8, 16, 16]]


def test_a_shallow_senet_exports():
    full = cs.zoo.get("senet154", num_classes=10)
    network = cs.create_model(full.replace(stages=[stage[:2] for stage in full.stages[:2]])).eval()
    x = torch.randn(2, 3, 32, 32)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
