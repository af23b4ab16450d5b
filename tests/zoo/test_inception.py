"""Inception v3, v4 and Inception-ResNet; PolyNet."""

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.zoo import polynet
from tests.zoo.peers import assert_equal_outputs, images, randomise

NAMES = ["inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2", "polynet"]


def last_maps(architecture, size):
    """The shapes (C, H, W) of the last map of each stage."""
    shapes = {path: maps[-1][1:] for path, _, maps in cs.network.output_shapes(architecture, (1, 3, size, size))}
    return [shapes[f"stages.{i}.{len(stage) - 1}"] for i, stage in enumerate(architecture.stages)]


@pytest.mark.parametrize(
    ("name", "size", "channels", "sides"),
    [
        ("inception_v3", 299, [192, 288, 768, 2048], [71, 35, 17, 8]),
        ("inception_v4", 299, [192, 384, 1024, 1536], [71, 35, 17, 8]),
        ("inception_resnet_v1", 299, [192, 256, 896, 1792], [71, 35, 17, 8]),
        ("inception_resnet_v2", 299, [192, 320, 1088, 2080], [71, 35, 17, 8]),
        ("polynet", 331, [192, 384, 1152, 2048], [79, 39, 19, 9]),
    ],
)
def test_the_maps_have_the_sizes_of_the_papers_figures(name, size, channels, sides):
    assert last_maps(cs.zoo.get(name), size) == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


def test_the_auxiliary_head_is_there_when_asked_for():
    with torch.device("meta"):
        network, alone = cs.create_model("inception_v3", aux_heads=True), cs.create_model("inception_v3")
        logits, aux = network.forward_aux(torch.empty(2, 3, 299, 299))
    assert sum(p.numel() for p in network.parameters()) == 27_161_264
    assert set(network.state_dict()) - set(alone.state_dict()) == {k for k in network.state_dict() if "aux" in k}
    assert [y.shape for y in (logits, *aux)] == [(2, 1000)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_both_outputs_of_training_equal_torchvisions(training):
    import torchvision

    peer = torchvision.models.inception_v3(aux_logits=True, init_weights=False, num_classes=20).double().eval()
    ours = cs.create_model("inception_v3", aux_heads=True, num_classes=20).double().eval()
    x = images(299, batch=2)
    randomise(peer, x)
    cs.transplant(peer.state_dict(), ours, order=cs.zoo.inception_v3.ORDERS["torchvision"])
    for network in (peer, ours):
        network.train(training)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    peer.training = True  # torchvision computes the auxiliary output only then
    with torch.no_grad():
        theirs = peer(x)
        logits, (aux,) = ours.forward_aux(x)
    assert_equal_outputs(logits, theirs.logits)
    assert_equal_outputs(aux, theirs.aux_logits)


def test_the_gradient_of_the_auxiliary_loss_reaches_only_what_it_reads():
    network = cs.create_model("inception_v3", aux_heads=True, num_classes=3)
    network.forward_aux(torch.randn(2, 3, 75, 75))[1][0].square().sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == {name for name, _ in network.named_parameters() if name.startswith(("stages.3.", "head."))}


@pytest.mark.parametrize("name", NAMES)
def test_small_images_lose_strides_and_nothing_else(name):
    architecture = cs.zoo.get(name)
    small = cs.zoo.for_small_inputs(architecture, 32)
    assert last_maps(small, 32)[-1][1:] == (2, 2)
    assert small.stages[1:] == architecture.stages[1:]


def test_the_auxiliary_head_reads_small_images_too():
    small = cs.zoo.for_small_inputs(cs.zoo.get("inception_v3", num_classes=10, aux_heads=True), 32)
    with torch.device("meta"):
        logits, aux = cs.create_model(small).forward_aux(torch.empty(2, 3, 32, 32))
    assert [y.shape for y in (logits, *aux)] == [(2, 10)] * 2


@pytest.mark.parametrize("name", NAMES)
def test_the_reductions_may_be_dilated(name):
    architecture, size = cs.zoo.get(name), cs.zoo.variants()[name].input_size
    plain, dilated = last_maps(architecture, size), last_maps(architecture.dilate(2), size)
    assert [channels for channels, *_ in dilated] == [channels for channels, *_ in plain]
    assert dilated[2][1] == plain[1][1] - 2  # the reduction keeps the size but for its missing padding
    assert dilated[3][1] == (dilated[2][1] - 1) // 2


def test_strides_and_dilated_weights():
    with torch.device("meta"):
        network = cs.create_model("inception_v4")
        dilated = cs.create_model(network.architecture.dilate(2))
    assert (network.feature_strides, dilated.feature_strides) == ([4, 8, 16, 32], [4, 8, 8, 16])
    assert [p.shape for p in network.parameters()] == [p.shape for p in dilated.parameters()]


@pytest.mark.slow
def test_export():
    network = cs.create_model("inception_resnet_v1").eval()
    x = torch.randn(1, 3, 96, 96)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))


def test_the_scales_of_polynet_are_the_released_ones_and_the_share_of_paths_that_is_kept():
    network = [spec for stage in cs.zoo.get("polynet").stages for spec in stage]
    modules = [spec for spec in network if spec.block in ("scaled_residual", "poly_residual")]
    scales = [spec.get("scale") for spec in modules]
    assert scales[:2] + scales[10:12] + scales[-3:] == [1.0, 0.992308, 0.923077, 0.915385, 0.715385, 0.707692, 0.7]
    rates = [spec.get("drop_path_rate") or spec.get("paths", ((0,),))[0][-1].get("rate") for spec in modules[1:]]
    assert rates == pytest.approx([1 - scale for scale in scales[1:]])
    kinds = [spec.block for spec in modules]
    assert kinds == ["scaled_residual"] * 10 + ["poly_residual", "scaled_residual"] * 15


def test_polynet_of_other_modules():
    # F, G and H have equal shapes, so the modules differ in what they share.
    f, closing = 1152 * 128 + 128 * 160 * 7 + 160 * 192 * 7 + 1152 * 192 + 2 * (128 + 160 + 192 + 192), 384 * 1152
    expected = {
        "1-way": f + closing + 2 * 1152,
        "2-way": 2 * (f + closing + 2 * 1152),
        "3-way": 3 * (f + closing + 2 * 1152),
        "mpoly-2": 2 * (f + closing + 2 * 1152),
        "mpoly-3": 3 * (f + closing + 2 * 1152),
        "poly-2": f + 2 * (128 + 160 + 192 + 192) + 2 * (closing + 2 * 1152),
    }
    for kind, params in expected.items():
        module = polynet.module(kind, *polynet.B, 0.5)
        with torch.device("meta"):
            assert sum(p.numel() for p in module.build(1152).parameters()) == params
    small = polynet.polynet(modules=(("1-way",), ("mpoly-2", "poly-2"), ("3-way",)))
    assert [spec.get("scale") for stage in small.stages[1:] for spec in stage[-1:]] == [1.0, 0.8, 0.7]


def test_mpoly_composes_different_functions():
    branches = (polynet.conv(4), (polynet.conv(2), polynet.conv(3, 3)))
    block = polynet.module("mpoly-3", branches, 5, 0.5).build(5).double().eval()
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    randomise(block, x)
    outer = block.paths[0]
    middle = outer[2].paths[0]
    inner = middle[3].paths[0]
    with torch.no_grad():
        f = outer[1](outer[0](x))
        g = middle[2](middle[1](f.relu()))
        h = inner[2](inner[1](g.relu()))
        torch.testing.assert_close(block(x), (x + 0.5 * (f + g + h)).relu())


def test_an_unknown_module_of_polynet_is_refused():
    for kind in ("poly", "0-way", "2-poly", "poly-2-way"):
        with pytest.raises(ValueError, match=f'named as "2-way", "poly-3" or "mpoly-2", got {kind!r}'):
            polynet.module(kind, *polynet.A, 1.0)
