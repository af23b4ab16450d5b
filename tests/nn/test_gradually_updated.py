import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import AvgPool, Classifier, ConvNormAct, GraduallyUpdated, MaxPool
from tests.nn.peak_memory import peak_bytes
from tests.zoo.peers import images, randomise


def summing(channels, segments, **arguments):
    """A layer whose F_l is the sum of all channels that it reads, in each channel of segment l."""
    layer = GraduallyUpdated(
        channels, segments=segments, kernel_size=1, hidden_channels=1, norm=None, act="identity", **arguments
    )
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return layer


def test_segments_are_updated_in_order_from_what_is_updated_already():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(1, 6, 1, 1)
    # All six sum to 21: 1, 2 become 22, 23; then 22 + 23 + 3 + 4 + 5 + 6 = 63; then 22 + 23 + 66 + 67 + 5 + 6 = 189.
    assert summing(6, 3)(x).flatten().tolist() == [22, 23, 66, 67, 194, 195]
    assert summing(6, 1)(x).flatten().tolist() == [22, 23, 24, 25, 26, 27]
    # A shortcut adds the same sum once more: 1 + 42, 2 + 42; then 43 + 44 + 18 = 105, twice; then 43 + 44 + 427 + 11.
    assert summing(6, 3, shortcut=True)(x).flatten().tolist() == [43, 44, 213, 214, 1055, 1056]


def by_formula(layer, x, *, dilation):
    """In eval mode, in place on one map, as the paper writes the update."""

    def unit(module, x, *, act):
        conv, norm = module.conv, module.norm
        shape = (1, -1, 1, 1)
        padding = conv.weight.shape[-1] // 2 * dilation
        y = F.conv2d(x, conv.weight, padding=padding, dilation=dilation if padding else 1)
        y = (y - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
        return y.clamp(min=0) if act else y

    x = x.clone()
    width = x.shape[1] // len(layer.updates)
    for i, update in enumerate(layer.updates):
        y = unit(update.expand, unit(update.conv, unit(update.reduce, x, act=True), act=True), act=False)
        if update.shortcut is not None:
            y += unit(update.shortcut, x, act=False)
        x[:, i * width : (i + 1) * width] += y
    return x


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("dilation", [1, 2])
def test_an_update_is_three_convolutions_with_norms(shortcut, dilation):
    layer = GraduallyUpdated(12, segments=4, shortcut=shortcut, dilation=dilation, expansion=1.5).double()
    x = images(7, channels=12)
    randomise(layer, x)
    assert [p.shape[:2] for p in layer.updates[0].parameters() if p.dim() == 4][:3] == [(4, 12), (4, 4), (3, 4)]
    with torch.no_grad():
        y = layer.eval()(x)
        torch.testing.assert_close(y, by_formula(layer, x, dilation=dilation))
        assert torch.equal(torch.fx.symbolic_trace(layer)(x), y)
    assert (y < 0).any(), "no activation follows the sum"


@pytest.mark.parametrize("shortcut", [False, True])
def test_recomputing_changes_nothing(shortcut):
    torch.manual_seed(0)
    plain = GraduallyUpdated(8, segments=4, shortcut=shortcut).double().train()
    efficient = GraduallyUpdated(8, segments=4, shortcut=shortcut, memory_efficient=True).double().train()
    efficient.load_state_dict(plain.state_dict())
    x = torch.randn(3, 8, 5, 5, dtype=torch.float64)
    found = []
    for layer in (plain, efficient):
        z = x.clone().requires_grad_()
        y = layer(z)
        (y * y.detach().sin()).sum().backward()
        found.append([y.detach(), z.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
    for ours, expected in zip(*reversed(found), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def peak_of_a_step(layer, x):
    for parameter in layer.train().parameters():
        parameter.grad = torch.zeros_like(parameter)  # there before, as in all steps but the first
    return peak_bytes(lambda: layer(x).sum().backward())


def test_recomputing_keeps_no_copies_of_all_segments():
    layers = [GraduallyUpdated(240, segments=20, memory_efficient=efficient) for efficient in (False, True)]
    plain, efficient = (peak_of_a_step(layer, torch.randn(1, 240, 16, 16)) for layer in layers)
    copies = 19 * 240 * 16 * 16 * 4  # the first update reads the input itself
    assert plain - efficient > 0.9 * copies


def gunn15():
    """Of the authors' models/gunn-15.lua."""

    def stage(channels, segments, *blocks):
        layer = cs.spec(GraduallyUpdated, segments=segments, shortcut=True)
        return [cs.spec(ConvNormAct, channels, kernel_size=1), *blocks, layer]

    pool = cs.spec(AvgPool, kernel_size=2, padding=0)
    return cs.Architecture(
        stem=[cs.spec(ConvNormAct, 64)],
        stages=[stage(240, 20), stage(300, 25, pool), stage(360, 30, pool)],
        neck=[cs.spec(ConvNormAct, 360, kernel_size=1)],
        head=cs.spec(Classifier, 10),
    )


def gunn18():
    """Of the authors' models/gunn-18.lua."""

    def stage(channels, segments, *blocks):
        return [
            *blocks,
            cs.spec(ConvNormAct, channels, kernel_size=1),
            cs.spec(GraduallyUpdated, segments=segments),
        ]

    pool = cs.spec(AvgPool, kernel_size=2, padding=0)
    return cs.Architecture(
        stem=[cs.spec(ConvNormAct, 64, kernel_size=7, stride=2), cs.spec(MaxPool)],
        stages=[stage(400, 10), stage(800, 20, pool), stage(1600, 40, pool), stage(2000, 50, pool)],
        head=cs.spec(Classifier, 1000),
    )


def test_counts_of_the_published_networks():
    assert cs.measure.cost(gunn15(), (1, 3, 32, 32)).params == 1_585_746
    cost = cs.measure.cost(gunn18(), (1, 3, 224, 224))
    assert cost.params == 28_909_736
    assert round(cost.macs / 1e9, 3) == 7.747


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GraduallyUpdated(8, segments=4, kernel_size=2),
            "kernel_size must be odd here, got kernel_size=2; take",
        ),
        (lambda: GraduallyUpdated(10, segments=4), "in_channels must be divisible by segments, got in_channels=10"),
        (lambda: GraduallyUpdated(10, segments=0), "divisible by segments"),
        (
            lambda: GraduallyUpdated(8, segments=8, expansion=0.25),
            "at least one inner channel, got 0 for segments of 1",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
