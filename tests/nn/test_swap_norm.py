from random import Random

import pytest
import torch

import convsmith as cs
from convsmith.nn import (
    BATCH_NORM,
    BatchNorm,
    BatchRenorm,
    Bottleneck,
    Classifier,
    ConvNormAct,
    GhostBatchNorm,
    GroupNorm,
    Identity,
    LayerNorm,
    MaxPool,
    Mixed,
    NormActConv,
    ReLU,
    SqueezeExcite,
    WeightNorm,
    swap_norm,
)
from convsmith.nn.swap_norm import NORMS

FAMILIES = [
    *("resnet18", "resnext50_32x4d", "mobilenet_v2", "shufflenet_v1_g3", "shufflenet_v2_x1_0", "densenet121"),
    *("googlenet", "googlenet_paper", "nasnet_a_cifar"),
]
RENORM = cs.spec(BatchRenorm, momentum=0.05)


def build(architecture):
    with torch.device("meta"):
        return cs.network.build(architecture)


def modules(network, kind):
    return [module for module in network.modules() if type(module) is kind]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("norm", [cs.spec(LayerNorm), RENORM], ids=str)
def test_the_families_build_with_another_norm(name, norm):
    original = cs.zoo.get(name, aux_heads=name.startswith("googlenet"))
    swapped = swap_norm(original, norm)
    before, after = build(original), build(swapped)
    kind = {"layer_norm": LayerNorm, "batch_renorm": BatchRenorm}[norm.block]
    assert len(modules(after, kind)) == len(modules(before, BatchNorm))
    assert (len(modules(before, BatchNorm)) > 0) == (name != "googlenet_paper")
    assert modules(after, BatchNorm) == []
    # Every norm here has two parameters per channel.
    params = [sum(p.numel() for p in network.parameters()) for network in (before, after)]
    assert params[0] == params[1]
    assert [p.shape for p in before.parameters()] == [p.shape for p in after.parameters()]


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back_is_the_original(name):
    original = cs.zoo.get(name)
    there = swap_norm(original, cs.spec(GroupNorm, groups=4))
    back = swap_norm(there, BATCH_NORM)
    assert (there == original) == (name == "googlenet_paper")
    assert (back == original) == (name != "googlenet")  # whose eps is an argument of its norms, and lost
    assert back.name == original.name


def test_a_special_eps_is_lost():
    swapped = swap_norm(cs.zoo.get("googlenet"), BATCH_NORM)
    assert {module.eps for module in modules(build(swapped), BatchNorm)} == {1e-5}
    kept = swap_norm(cs.zoo.get("googlenet"), cs.spec(LayerNorm, eps=1e-3))
    assert {module.eps for module in modules(build(kept), LayerNorm)} == {1e-3}


def test_weight_norm_has_the_lengths_in_place_of_gamma_and_the_biases_of_beta():
    original = cs.zoo.get("resnet18")
    before, after = build(original), build(swap_norm(original, cs.spec(WeightNorm)))
    assert len(modules(after, torch.nn.Conv2d)) == len(modules(after, BatchNorm)) == 0
    counts = [sum(p.numel() for p in network.parameters()) for network in (before, after)]
    assert counts[0] == counts[1]


def test_a_norm_of_weights_in_a_block_that_cannot_apply_it_is_an_error_that_names_the_place():
    with pytest.raises(ValueError, match=r"stages\.0\.0 \(dense_block\): this block normalises maps"):
        build(swap_norm(cs.zoo.get("densenet121"), cs.spec(WeightNorm)))


def test_groups_that_do_not_divide_name_the_place_and_the_remedy():
    swapped = swap_norm(cs.zoo.get("mobilenet_v2"), cs.spec(GroupNorm))
    with pytest.raises(
        ValueError, match=r"stages\.0\.0 \(inverted_residual\): .* got in_channels=16 and groups=32; take groups=8"
    ):
        build(swapped)


def test_what_has_no_norm_gets_none_and_what_is_fixed_stays():
    chain = [
        cs.spec(ConvNormAct, 8, norm=None),
        cs.spec(ConvNormAct, 8, norm=cs.spec(Identity)),
        cs.spec(SqueezeExcite),
        cs.spec(cs.nn.LocalResponseNorm),
        cs.spec(Identity),
    ]
    architecture = cs.Architecture(stages=[chain], head=cs.spec(Classifier, 3))
    assert swap_norm(architecture, cs.spec(LayerNorm)) == architecture


@cs.block("test_other_norm")
class OtherNorm(BatchNorm):
    """A user's own norm."""

    def __init__(self, in_channels: int):
        super().__init__(in_channels)


def test_a_users_own_norm_is_swapped_where_it_is_the_norm_of_a_block():
    architecture = cs.Architecture(stages=[[cs.spec(ConvNormAct, 8, norm=cs.spec(OtherNorm)), cs.spec(OtherNorm)]])
    first, second = swap_norm(architecture, BATCH_NORM).stages[0]
    assert first == cs.spec(ConvNormAct, 8)
    assert second == cs.spec(OtherNorm)  # as a block of its own, nothing says that it is a norm


def test_nested_specs_and_choices():
    bottleneck = cs.spec(Bottleneck, 16)
    space = cs.Architecture(
        stem=[cs.choice(cs.spec(ConvNormAct, 8), (cs.spec(ConvNormAct, 8), cs.spec(NormActConv, 8)), name="stem")],
        stages=[
            [
                cs.spec(Mixed, options=(cs.spec(ConvNormAct, 16), cs.spec(ConvNormAct, 16, act="tanh"))),
                cs.spec(Bottleneck, 16, kernel_size=cs.choice(3, 5), se_ratio=cs.choice(0.0, 1.0)),
                cs.spec(ConvNormAct, 16, norm=cs.choice(BATCH_NORM, None, cs.spec(OtherNorm))),
                cs.choice(bottleneck, bottleneck.replace(norm=cs.spec(LayerNorm)), cs.spec(ConvNormAct, 16)),
            ]
        ],
        neck=[BATCH_NORM],
        head=cs.spec(Classifier, 3),
    )
    norm = cs.spec(GhostBatchNorm, ghost_batch_size=4)
    swapped = swap_norm(space, norm)
    plain = cs.spec(ConvNormAct, 16, norm=norm)
    assert dict(swapped.choices()) == {
        "stem": (
            cs.spec(ConvNormAct, 8, norm=norm),
            (cs.spec(ConvNormAct, 8, norm=norm), cs.spec(NormActConv, 8, norm=norm)),
        ),
        "stages.0.1.kernel_size": (3, 5),
        "stages.0.1.se_ratio": (0.0, 1.0),
        "stages.0.2.norm": (norm, None),
        "stages.0.3": (bottleneck.replace(norm=norm), plain),
    }
    assert swapped.stages[0][0].get("options") == (plain, plain.replace(act="tanh"))
    assert swapped.neck == (norm,)
    assert swapped.size() == 32
    network = cs.network.build(swapped.sample(Random(0)))
    assert modules(network, BatchNorm) == []


def test_a_choice_of_norms_makes_a_space():
    norm = cs.choice(BATCH_NORM, cs.spec(LayerNorm), name="norm")
    space = swap_norm(cs.zoo.get("densenet121"), norm)
    assert space.size() == 2
    assert space.resolve({"norm": 0}) == cs.zoo.get("densenet121")


def test_weights_go_over_where_both_have_them():
    original = cs.zoo.get("resnet18", num_classes=3)
    source = cs.create_model(original)
    for norm in modules(source, BatchNorm):
        torch.nn.init.uniform_(norm.weight)
        norm.running_mean.normal_()
    other = cs.create_model(swap_norm(original, cs.spec(LayerNorm)))
    missing, unexpected = other.load_state_dict(source.state_dict(), strict=False)
    assert missing == []
    assert {name.rsplit(".", 1)[1] for name in unexpected} == {"running_mean", "running_var", "num_batches_tracked"}
    renormed = cs.create_model(swap_norm(original, RENORM))
    renormed.load_state_dict(source.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(renormed.eval()(x), source.eval()(x))


@pytest.mark.parametrize(
    "norm",
    [BatchNorm, "batch_norm", None, cs.spec(ConvNormAct, 8), cs.spec(MaxPool), cs.spec(ReLU), cs.spec(SqueezeExcite)],
)
def test_the_norm_must_be_recorded(norm):
    with pytest.raises(TypeError, match=r"must be a recorded norm, as spec\(GroupNorm\) is, got"):
        swap_norm(cs.zoo.get("resnet18"), norm)


def test_every_norm_of_the_folder_is_known():
    ours = {
        name
        for name in cs.arch.block_names()
        if cs.arch.registered(name).constructor.__module__.startswith("convsmith")
    }
    named = {name for name in ours if name.endswith(("_norm", "_renorm"))}
    assert named - {"local_response_norm", "act_conv_norm"} == NORMS
