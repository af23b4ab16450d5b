import pytest
import torch

import convsmith as cs
from convsmith.nn import LearnedGroupConv2d, condense_network
from convsmith.zoo.condensenet import condensenet, condensenet_cifar
from tests.zoo.peers import assert_equal_outputs, build_peer, images, randomise

IMAGENET = ((4, 6, 8, 10, 8), (8, 16, 32, 64, 128))


def counted_by_hand(depths, growth_rates, *, groups, size, classes, condensed):
    """Parameters and multiply-accumulates of the convolutions, norms and the classifier, layer by layer."""
    width = 2 * growth_rates[0]
    params = 27 * width
    macs = params * size**2
    for stage, (depth, k) in enumerate(zip(depths, growth_rates, strict=True)):
        size //= 2 if stage else 1
        for _ in range(depth):
            weights = width * 4 * k // (groups if condensed else 1) + 9 * 4 * k * k // groups
            params += weights + 2 * width + 2 * 4 * k
            macs += weights * size**2
            width += k
    features = width // 2 if condensed else width
    return params + 2 * width + features * classes + classes, macs + features * classes


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("condensenet_74_c4", (*IMAGENET, 4, 112, 1000)),
        ("condensenet_74_c8", (*IMAGENET, 8, 112, 1000)),
        ("condensenet_86_cifar", ((14, 14, 14), (8, 16, 32), 4, 32, 10)),
        ("condensenet_182_cifar", ((30, 30, 30), (12, 24, 48), 4, 32, 10)),
    ],
)
def test_figures_are_counted_by_hand(name, settings):
    depths, growth_rates, groups, size, classes = settings
    for form, condensed in ((name, True), (f"{name}_train", False)):
        variant = cs.zoo.variants()[form]
        assert (variant.params, variant.macs) == counted_by_hand(
            depths, growth_rates, groups=groups, size=size, classes=classes, condensed=condensed
        )


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("condensenet_74_c4", 4.8e6, 529e6),
        ("condensenet_74_c8", 2.9e6, 274e6),
        ("condensenet_86_cifar", 0.52e6, 65.8e6),
        ("condensenet_182_cifar", 4.2e6, 513e6),
    ],
)
def test_figures_are_those_of_the_paper(name, params, macs):
    variant = cs.zoo.variants()[name]
    digits = -4 if params < 1e6 else -5
    assert round(variant.params, digits) == params
    # The paper's multiply-accumulates hold more than convolutions: 2 to 6 %.
    assert 0.94 < variant.macs / macs < 0.98


def short(*, condensed):
    """Three dense blocks of two layers."""
    return condensenet_cifar(depth=2, growth_rate=8, condensed=condensed)


def condensed_copy(trained):
    """The network of two forms with random weights: masks chosen by them, then converted."""
    for module in trained.modules():
        if isinstance(module, LearnedGroupConv2d):
            module.condense(module.condensation - 1)
    return condense_network(trained)


def with_random_weights(architecture, x):
    network = cs.create_model(architecture).double()
    randomise(network, x)
    return network.eval()


@pytest.mark.parametrize(
    ("trainable", "converted"),
    [
        (short(condensed=False), short(condensed=True)),
        *(
            tuple(
                condensenet(depths=(2, 2), growth_rates=(8, 16), groups=groups, condensed=form)
                for form in (False, True)
            )
            for groups in (4, 8)
        ),
    ],
)
def test_the_trained_form_with_its_masks_is_the_converted_one(trainable, converted):
    x = images(32)
    trained = with_random_weights(trainable, x)
    before = trained(x)
    state = condensed_copy(trained).state_dict()
    built = cs.create_model(converted).double().eval()
    built.load_state_dict(state)
    assert any(name.endswith("index") for name in state)
    with torch.no_grad():
        assert_equal_outputs(built(x), trained(x), tolerance=1e-10)
        assert (before - trained(x)).abs().max() > 1e-2 * before.abs().max(), "the masks left nothing out"


@pytest.mark.parametrize("name", [name for name in cs.zoo.names("condensenet*") if not name.endswith("_train")])
def test_the_two_forms_of_a_variant_belong_together(name):
    with torch.device("meta"):
        trained, converted = (cs.create_model(form) for form in (f"{name}_train", name))
    assert {module.condensation for module in trained.stages.modules() if isinstance(module, LearnedGroupConv2d)} == {
        8 if name.endswith("c8") else 4
    }
    masks = {key.removesuffix("mask") for key in trained.state_dict() if key.endswith("mask")}
    indices = {key.removesuffix("index") for key in converted.state_dict() if key.endswith("index")}
    assert masks == indices
    assert "head.linear." in masks


@pytest.mark.slow
def test_a_whole_trained_network_gives_the_state_dict_of_its_converted_variant():
    x = images(32, batch=2)
    trained = with_random_weights("condensenet_86_cifar_train", x)
    state = condensed_copy(trained).state_dict()
    built = cs.create_model("condensenet_86_cifar").double().eval()
    built.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(built(x), trained(x), rtol=0, atol=1e-9)


def test_indices_of_pytorchcv_are_transplanted_and_go_back():
    peer = build_peer(cs.zoo.variants()["condensenet_86_cifar"])
    randomise(peer, images(32, batch=2))
    ours = cs.create_model("condensenet_86_cifar").double()
    cs.transplant(peer.state_dict(), ours)
    theirs, own = (
        [tensor for name, tensor in network.state_dict().items() if name.endswith("index")] for network in (peer, ours)
    )
    assert len(theirs) == len(own) == 43
    for a, b in zip(theirs, own, strict=True):
        assert torch.equal(a, b)
        assert b.dtype == torch.int64
        assert len(b.unique()) > 3


def test_dropout_is_in_the_largest_network_for_cifar_alone():
    rates = {
        name: {
            layer.get("drop_rate")
            for stage in cs.zoo.get(name).stages
            for layer in stage
            if layer.get("growth_rate", 0)
        }
        for name in cs.zoo.names("condensenet*_train")
    }
    assert rates.pop("condensenet_182_cifar_train") == {0.1}
    assert set(map(frozenset, rates.values())) == {frozenset({0.0})}


def test_small_images_are_taken():
    architecture = cs.zoo.for_small_inputs(cs.zoo.get("condensenet_74_c4", num_classes=10), 32)
    with torch.device("meta"):
        network = cs.create_model(architecture)
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)
        assert network.features(torch.empty(2, 3, 32, 32))[-1].shape == (2, 2064, 2, 2)


@pytest.mark.parametrize("condensed", [True, False])
def test_a_strict_export_gives_the_same_outputs(condensed):
    network, x = cs.create_model(short(condensed=condensed)).eval(), images(32, batch=2).float()
    program = torch.export.export(network, (x,), strict=True).module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), network(x))
