"""Xception, its aligned form, and the two interpretations of small networks like it."""

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.nn import Classifier, ConvNormAct, MaxPool, SeparableBottleneck
from convsmith.zoo.aligned_xception import aligned_xception
from convsmith.zoo.xception_145m import xception_145m
from tests.zoo.peers import assert_equal_outputs, images, randomise

NAMES = ["xception", "xception41", "xception71", "xception_145m", "waterfall_xception"]


def last_maps(architecture, size):
    """The shapes (C, H, W) of the last map of each stage."""
    shapes = {path: maps[-1][1:] for path, _, maps in cs.network.output_shapes(architecture, (1, 3, size, size))}
    return [shapes[f"stages.{i}.{len(stage) - 1}"] for i, stage in enumerate(architecture.stages)]


@pytest.mark.parametrize(
    ("name", "size", "channels", "sides"),
    [
        ("xception", 299, [128, 256, 728, 2048], [74, 37, 19, 10]),
        ("xception65", 299, [128, 256, 728, 2048], [75, 38, 19, 10]),
        ("xception71", 299, [256, 728, 728, 2048], [75, 38, 19, 10]),
        ("xception_145m", 224, [144, 288, 576], [28, 14, 7]),
        ("waterfall_xception", 224, [144, 288, 576], [28, 14, 7]),
    ],
)
def test_the_maps_have_the_sizes_of_the_papers_tables(name, size, channels, sides):
    assert last_maps(cs.zoo.get(name), size) == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


@pytest.mark.slow
def test_xception_is_pytorchcvs_too():
    from pytorchcv.model_provider import get_model

    peer = get_model("xception", pretrained=False).double().eval()
    peer.features.final_block.pool = nn.AdaptiveAvgPool2d(1)
    ours = cs.create_model("xception").double().eval()
    x = images(96)
    randomise(peer, x)
    cs.transplant(peer.state_dict(), ours)
    with torch.no_grad():
        assert_equal_outputs(ours(x), peer(x))


def test_dilation_for_a_stride_keeps_the_features_of_aligned_xception():
    network = cs.create_model(aligned_xception(middle=1)).double().eval()
    dilated = cs.create_model(network.architecture.dilate(3)).double().eval()
    x = images(64, batch=2)
    randomise(network, x)
    dilated.load_state_dict(network.state_dict())
    with torch.no_grad():
        *_, coarse = network.features(x)
        *_, fine = dilated.features(x)
    assert (fine.shape[-1], coarse.shape[-1]) == (4, 2)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_strided_block_keeps_its_projection_without_its_stride(stage):
    with torch.device("meta"):
        plain, dilated = (
            cs.create_model(a) for a in (cs.zoo.get("xception71"), cs.zoo.get("xception71").dilate(stage))
        )
    assert [p.shape for p in plain.parameters()] == [p.shape for p in dilated.parameters()]


def macs(architecture):
    return cs.measure.cost(architecture, (1, 3, 224, 224)).macs


def test_the_small_network_costs_what_light_head_says():
    assert macs(cs.zoo.get("xception_145m")) == pytest.approx(145e6, rel=0.005)
    assert macs(xception_145m(block="separable", widths=(128, 256, 512))) == pytest.approx(145e6, rel=0.005)
    assert macs(xception_145m(block="separable")) == 179_572_608


@pytest.mark.parametrize("name", ["xception_145m", "waterfall_xception"])
def test_the_widths_and_repeats_of_light_heads_table(name):
    architecture = cs.zoo.get(name)
    assert architecture.stem[0].get("out_channels") == 24
    assert [[unit.get("out_channels") for unit in stage] for stage in architecture.stages] == [
        [144] * 4,
        [288] * 8,
        [576] * 4,
    ]
    assert [[unit.get("stride") for unit in stage] for stage in architecture.stages] == [
        [2] + [1] * (repeats - 1) for repeats in (4, 8, 4)
    ]


def test_the_separable_block_gives_the_figures_of_xception39():
    architecture = xception_145m(block="separable", widths=(64, 128, 256)).replace(
        stem=[cs.spec(ConvNormAct, 8, stride=2), cs.spec(MaxPool)]
    )
    cost = cs.measure.cost(architecture, (1, 3, 224, 224))
    assert (cost.params, cost.macs) == (556_448, 39_731_968)
    assert {unit.block for stage in architecture.stages for unit in stage} == {SeparableBottleneck.block_name}
    assert architecture.head.block == Classifier.block_name


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match="block must be 'depthwise' or 'separable', got 'dense'"):
        xception_145m(block="dense")


@pytest.mark.parametrize("name", NAMES)
def test_small_images_lose_strides_and_nothing_else(name):
    architecture = cs.zoo.get(name)
    small = cs.zoo.for_small_inputs(architecture, 32)
    assert last_maps(small, 32)[-1][1:] == (2, 2)
    assert small.stages[1:] == architecture.stages[1:]


@pytest.mark.slow
def test_export():
    network = cs.create_model("xception").eval()
    x = torch.randn(1, 3, 71, 71)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
