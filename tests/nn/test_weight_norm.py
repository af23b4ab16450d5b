import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import convsmith as cs
from convsmith.nn import (
    Classifier,
    ConvNormAct,
    MeanOnlyBatchNorm,
    WeightNorm,
    WeightNormConv2d,
    initialise_weight_norm,
)

SHAPES = [
    {"kernel_size": 3},
    {"kernel_size": (1, 5), "stride": 2, "groups": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 1, "bias": False},
]


def randomised(conv):
    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    return conv


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_equals_torchs_parametrisation_in_value_and_gradient(shape):
    conv = randomised(WeightNormConv2d(4, 6, **shape).double())
    peer = nn.Conv2d(4, 6, **{"padding": conv.padding, **shape}).double()
    if conv.bias is not None:
        peer.bias.data.copy_(conv.bias.data)
    peer = parametrizations.weight_norm(peer)
    length, direction = peer.parametrizations.weight.original0, peer.parametrizations.weight.original1
    length.data.copy_(conv.g.data.view(-1, 1, 1, 1))
    direction.data.copy_(conv.v.data)
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64, requires_grad=True)
    found, expected = conv(x), peer(x)
    torch.testing.assert_close(found, expected)
    dy = torch.randn_like(found)
    dx, dg, dv = torch.autograd.grad(found, (x, conv.g, conv.v), dy)
    wanted = torch.autograd.grad(expected, (x, length, direction), dy)
    torch.testing.assert_close((dx, dg.view(-1, 1, 1, 1), dv), wanted)
    torch.testing.assert_close(conv.weight, peer.weight)


def test_the_length_of_a_filter_is_g_and_its_gradient_turns_v():
    conv = randomised(WeightNormConv2d(3, 5).double())
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for w, v, g in zip(conv.weight, conv.v, conv.g, strict=True):
        torch.testing.assert_close(w, g * v / (v**2).sum().sqrt())
    conv(x).square().sum().backward()
    # Eq. 3: the gradient of v is orthogonal to it.
    assert (conv.v.grad * conv.v).sum((1, 2, 3)).abs().max() < 1e-9 * conv.v.grad.abs().max()


def test_a_new_convolution_is_hes():
    conv = WeightNormConv2d(64, 128)
    torch.testing.assert_close(conv.weight, conv.v)
    torch.testing.assert_close(conv.v.std().item(), (2 / (128 * 9)) ** 0.5, rtol=0.02, atol=0)
    assert not conv.bias.any()


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_initialised_from_a_batch_its_outputs_have_mean_0_and_variance_1(shape):
    conv = randomised(WeightNormConv2d(4, 6, **shape).double())
    x = torch.randn(5, 4, 9, 8, dtype=torch.float64) * 3 + 1
    directions = conv.v / conv.v.pow(2).sum((1, 2, 3), keepdim=True).sqrt()
    outputs = F.conv2d(x, directions, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    mu, sigma = outputs.mean((0, 2, 3)), outputs.std((0, 2, 3), unbiased=False)
    conv.initialise_from(x)
    torch.testing.assert_close(conv.g, 1 / sigma)
    torch.testing.assert_close(conv.bias, -mu / sigma)
    y = conv(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(y.std((0, 2, 3), unbiased=False), torch.ones(6, dtype=torch.float64))


def test_a_constant_channel_keeps_its_scale():
    conv = WeightNormConv2d(2, 2, kernel_size=1, groups=2)
    x = torch.stack([torch.full((4, 5, 5), 0.1), torch.randn(4, 5, 5)], 1)
    conv.initialise_from(x)
    assert conv.g[0] == 1
    assert conv.g[1] != 1
    torch.testing.assert_close(conv(x)[:, 0], torch.zeros(4, 5, 5))


@pytest.mark.parametrize("images", [0, 1])
def test_a_batch_of_one_value_or_none_initialises_nothing(images):
    conv = WeightNormConv2d(4, 6)
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"more than one value per channel, got outputs of shape \({images}, 6, 1, 1\)"
    ):
        conv.initialise_from(torch.randn(images, 4, 1, 1))
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def network(norm, depth=4):
    torch.manual_seed(0)
    architecture = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 8, norm=norm)],
        stages=[[cs.spec(ConvNormAct, 8, norm=norm) for _ in range(depth)]],
        head=cs.spec(Classifier, 3),
        aux=[(0, 0, cs.spec(cs.nn.Sequence, blocks=(cs.spec(ConvNormAct, 8, norm=norm), cs.spec(Classifier, 3))))],
    )
    return cs.create_model(architecture).double()


def test_a_network_is_initialised_layer_by_layer_in_one_pass():
    net = network(cs.spec(WeightNorm)).train()
    net.head.eval()
    x = torch.randn(6, 3, 10, 10, dtype=torch.float64) + 2
    aux = net.aux[0].blocks[0].conv.g.clone()
    names = initialise_weight_norm(net, x)
    assert names == ["stem.0.conv", *(f"stages.0.{i}.conv" for i in range(4))]
    assert torch.equal(net.aux[0].blocks[0].conv.g, aux)
    seen = []
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda module, inputs, y: seen.append(y.clone()))
    net(x)
    for y in seen:
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(8, dtype=torch.float64))
        torch.testing.assert_close(y.var((0, 2, 3), unbiased=False), torch.ones(8, dtype=torch.float64))
    assert (net.training, net.head.training, net.stages[0][0].training) == (True, False, True)
    assert "aux.0.blocks.0.conv" in initialise_weight_norm(net, x, forward=net.forward_aux)
    assert not torch.equal(net.aux[0].blocks[0].conv.g, aux)


def test_an_error_in_the_pass_leaves_modes_and_hooks_as_they_were():
    net = network(cs.spec(WeightNorm)).train()
    with pytest.raises(RuntimeError, match="channels"):
        initialise_weight_norm(net, torch.randn(2, 5, 8, 8, dtype=torch.float64))
    assert all(module.training and not module._forward_pre_hooks for module in net.modules())


def test_a_network_without_weight_norm_is_refused():
    with pytest.raises(ValueError, match=r"met no WeightNormConv2d, .*; build with norm=spec\(WeightNorm\)"):
        initialise_weight_norm(cs.create_model("resnet18", num_classes=2), torch.randn(1, 3, 32, 32))


def test_the_norm_keeps_what_a_convolution_computes():
    conv = nn.Conv2d(4, 6, 3, stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2).double()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    applied = WeightNorm(6).apply_to(conv)
    assert type(applied) is WeightNormConv2d
    torch.testing.assert_close(applied(x), conv(x))
    plain = applied.plain()
    assert type(plain) is nn.Conv2d
    torch.testing.assert_close(plain(x), conv(x))
    bare = WeightNorm(6).apply_to(nn.Conv2d(4, 6, 3, bias=False))
    assert bare.bias is None
    assert bare.plain().bias is None


@pytest.mark.parametrize("initialised", [False, True])
@pytest.mark.parametrize("zeros", [slice(None), slice(2)])
def test_filters_of_zeros_stay_so_and_can_be_trained(zeros, initialised):
    conv, x = nn.Conv2d(4, 6, 3), torch.randn(2, 4, 9, 9)
    with torch.no_grad():
        conv.weight[zeros] = 0
    applied = WeightNorm(6).apply_to(conv)
    torch.testing.assert_close(applied(x), conv(x))
    torch.testing.assert_close(applied.plain()(x), conv(x))
    if initialised:
        initialise_weight_norm(applied, x)
        assert not applied.weight[zeros].any()
    optimizer = torch.optim.SGD(applied.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (applied(x) - 1).square().mean().backward()
        optimizer.step()
        assert applied.v.norm() < 1e3
    assert applied.weight.isfinite().all()
    assert (applied.weight.flatten(1).norm(dim=1) > 1e-4).all()


def test_mean_only_batch_norm_stands_in_place_of_the_bias():
    conv = nn.Conv2d(4, 6, 3).double()
    applied = WeightNorm(6, mean_only=True).apply_to(conv).train()
    assert [type(part) for part in applied] == [WeightNormConv2d, MeanOnlyBatchNorm]
    assert applied[0].bias is None
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    y = F.conv2d(x, conv.weight)
    torch.testing.assert_close(applied(x), y - y.mean((0, 2, 3), keepdim=True))


@pytest.mark.parametrize("arguments", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_padding_that_it_does_not_know(arguments):
    with pytest.raises(ValueError, match=r"pad with a number of zeros, got .*; pad in front of the convolution"):
        WeightNorm(6).apply_to(nn.Conv2d(4, 6, 3, **arguments))


def test_networks_with_weight_norm_start_as_hes_do():
    net = cs.create_model(cs.nn.swap_norm(cs.zoo.get("resnet18"), cs.spec(WeightNorm)))
    convolutions = {name: m for name, m in net.named_modules() if isinstance(m, WeightNormConv2d)}
    assert len(convolutions) == 20
    for conv in convolutions.values():
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        torch.testing.assert_close(conv.weight.std().item(), (2 / fan_out) ** 0.5, rtol=0.1, atol=0)
        assert not conv.bias.any()
