import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import (
    CellStem,
    ChannelShuffle,
    CondensedConv2d,
    ContextEncoding,
    ConvNormAct,
    DeformableBottleneck,
    DeformableConv2d,
    ExpressionActivation,
    FactorizedReduction,
    GroupNorm,
    InterlacedGroupConv,
    InterleavedGroupConv,
    IrregularConv2d,
    NasCell,
    ShuffleUnitV1,
    ShuffleUnitV2,
    SqueezeExcite,
    WeightNormConv2d,
    channel_dependency_graph,
    has_full_channel_receptive_field,
)


def divisors(number):
    return [d for d in range(1, number + 1) if number % d == 0]


def by_walking(pairs, shuffled=True):
    """The graph by sets: of each output, the inputs that a way leads from."""
    reached = [{channel} for channel in range(pairs[0][0])]
    for i, (channels, groups) in enumerate(pairs):
        size = channels // groups
        joined = [set().union(*reached[g * size : (g + 1) * size]) for g in range(groups)]
        width = pairs[min(i + 1, len(pairs) - 1)][0] // groups
        written = [joined[o // width] for o in range(width * groups)]
        reached = written
        if shuffled and i + 1 < len(pairs):
            reached = [written[row * width + column] for column in range(width) for row in range(groups)]
    return [[i in inputs for i in range(pairs[0][0])] for inputs in reached]


def by_gradients(module, channels):
    """Of each output channel, the input channels with a gradient, in float64 and at a random image.

    A tuple of maps, taken or given, has the channels of all of them.
    """
    module = module.double().eval()
    for name, parameter in module.named_parameters():  # positive: no two ways cancel
        nn.init.uniform_(parameter, 0.5, 1.5)
        if {"offset", "linear", "offsets"} & set(name.split(".")):  # places on the map, and no saturated gates
            parameter.data.mul_(0.01)
    widths = channels if isinstance(channels, tuple) else (channels,)
    x = torch.rand(1, sum(widths), 6, 6, dtype=torch.float64)

    def sums(x):
        found = module(x.split(widths, 1) if isinstance(channels, tuple) else x)
        return torch.cat([y.flatten(2).sum((0, 2)) for y in (found if isinstance(found, tuple) else (found,))])

    return torch.autograd.functional.jacobian(sums, x).abs().sum((1, 3, 4)) > 0


@pytest.mark.parametrize("channels", [12, 16, 30])
def test_two_shuffled_convolutions_see_everything_exactly_if_the_product_of_their_groups_fits(channels):
    for first, second in itertools.product(divisors(channels), repeat=2):
        pairs = [(channels, first), (channels, second)]
        found = has_full_channel_receptive_field(pairs)
        assert found == all(map(all, by_walking(pairs))) == (first * second <= channels), pairs


@pytest.mark.parametrize(
    "pairs",
    [
        [(12, 3)],
        [(12, 2), (12, 3), (12, 2)],
        [(8, 4), (16, 8), (24, 2), (24, 6)],
        [(20, 10), (20, 20), (20, 4)],
        [(12, 12), (24, 24), (24, 1)],
    ],
)
@pytest.mark.parametrize("shuffled", [True, False])
def test_any_stack_has_the_graph_that_a_walk_finds(pairs, shuffled):
    graph = channel_dependency_graph(pairs, shuffled=shuffled)
    assert graph.tolist() == by_walking(pairs, shuffled)
    assert has_full_channel_receptive_field(pairs, shuffled=shuffled) == graph.all()


def test_without_a_shuffle_equal_groups_never_meet_and_unequal_ones_may():
    assert not has_full_channel_receptive_field([(16, 4), (16, 4)], shuffled=False)
    assert not has_full_channel_receptive_field([(12, 2), (12, 3)], shuffled=False)
    assert has_full_channel_receptive_field([(12, 2), (12, 3), (12, 2)], shuffled=False)


class Wired(nn.Module):
    """Routing and joining by functions, methods and operators, in place too."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1, groups=2)

    def forward(self, x):
        a, b, c = x.split((4, 4, 4), dim=1)
        y = self.a(a)
        y.add_(b)
        y += F.silu(self.b(c)) * 2
        z = torch.stack((y, c), 2).flatten(1, 2)
        n, channels, h, w = z.shape
        z = z.view(n, 2, channels // 2, h, w).transpose(1, 2).reshape(n, channels, h, w)
        means = F.pad(z, (1, 0, 0, 1))[:, 5:, 1:, 1:].mean((2, 3), keepdim=True)
        return torch.cat((z[:, 1:3], y[:, :3] * means, self.a(b)), 1)


class Cropped(nn.Module):
    """Reads the pixels apart that lie on even and on odd places."""

    def __init__(self):
        super().__init__()
        self.even, self.odd = nn.Conv2d(4, 4, 1, stride=2, groups=2), nn.Conv2d(4, 4, 1, stride=2, groups=4)

    def forward(self, x):
        return torch.cat((self.even(x), self.odd(x[..., 1:, 1:]), self.odd(x[:, :, :-1, 1:])[:, 1:3]), 1)


class DeformedByGroups(nn.Module):
    """Offsets of each of two groups of channels from this group alone."""

    def __init__(self):
        super().__init__()
        self.offsets = nn.Conv2d(12, 36, 3, padding=1, groups=2)
        self.deformed = DeformableConv2d(12, 8, groups=4, offset_groups=2)

    def forward(self, x):
        return self.deformed(x, self.offsets(x))


CELL = (
    ("sep_3x3", 0, "identity", 1),
    ("max_3x3", 1, "none", 0),
    ("identity", 2, "identity", 1),
    ("none", 0, "none", 1),
)

MODULES = {
    "deformable": (DeformableConv2d(8, 6, groups=2, offset_groups=4), 8),
    "deformed_by_groups": (DeformedByGroups(), 12),
    "deformable_bottleneck": (DeformableBottleneck(8, 16, stride=2, act="swish"), 8),
    "context_encoding": (nn.Sequential(nn.Conv2d(4, 4, 1, groups=4), ContextEncoding(4, num_codewords=3)), 4),
    "cell": (NasCell((8, 6), filters=8, operations=CELL, concat=(2, 3, 4, 5), project_previous=False), (8, 6)),
    "strided_cell": (NasCell((8, 6), filters=4, operations=CELL, stride=2, hand_on=("previous", 6)), (8, 6)),
    "stem_of_cells": (CellStem(3, 6, hand_on=4), 3),
    "norm_of_single_channels": (
        ConvNormAct(8, 12, groups=4, norm=cs.spec(GroupNorm, groups=12), act="swish"),
        8,
    ),
    "weight_norm": (nn.Sequential(WeightNormConv2d(8, 12, groups=4), nn.Conv2d(12, 6, 1, groups=3)), 8),
    "condensed": (CondensedConv2d(16, 16, groups=8, norm=None, act="swish"), 16),
    "local_response_norm": (nn.Sequential(nn.Conv2d(8, 8, 1, groups=8), nn.LocalResponseNorm(4)), 8),
    "expression": (
        nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), ExpressionActivation(4, expression="rbf(x, beta(x))")),
        4,
    ),
    "interleaved": (InterleavedGroupConv(12, primary_groups=3, act="swish"), 12),
    "interlaced": (InterlacedGroupConv(16, 24, primary_groups=4, stride=2, act="swish"), 16),
    "interlaced_too_thin": (InterlacedGroupConv(16, 16, primary_groups=16, act="swish"), 16),
    "unit_v1": (ShuffleUnitV1(24, 24, groups=3, act="swish"), 24),
    "unit_v1_strided": (ShuffleUnitV1(24, 48, groups=2, stride=2, act="swish"), 24),
    "unit_v2": (ShuffleUnitV2(12, 12, act="swish"), 12),
    "two_units_v2": (nn.Sequential(ShuffleUnitV2(12, 12, act="swish"), ShuffleUnitV2(12, 12, act="swish")), 12),
    "squeeze_excite": (nn.Sequential(nn.Conv2d(6, 6, 1, groups=6), SqueezeExcite(6)), 6),
    "shuffled_convolutions": (
        nn.Sequential(
            ConvNormAct(12, 24, groups=4, act="sigmoid"),
            ChannelShuffle(24, groups=4),
            nn.Conv2d(24, 24, 3, groups=24),
            nn.GroupNorm(8, 24),
            nn.AvgPool2d(2),
        ),
        12,
    ),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4), nn.Conv2d(12, 12, 1, groups=3)), 8),
    "sub_pixel": (nn.Sequential(nn.Conv2d(4, 16, 1, groups=4), nn.PixelShuffle(2), nn.Conv2d(4, 4, 2, groups=4)), 4),
    "wired": (Wired(), 12),
    "shifted_by_padding": (FactorizedReduction(6, 8), 6),
    "cropped": (Cropped(), 4),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_graph_of_a_module_is_where_its_jacobian_is_not_zero(name):
    module, channels = MODULES[name]
    graph = channel_dependency_graph(module, in_channels=channels)
    assert torch.equal(graph, by_gradients(module, channels))
    assert graph.any()
    assert has_full_channel_receptive_field(module, in_channels=channels) == graph.all()


def test_modules_and_pairs_tell_the_same():
    convolutions = [nn.Conv2d(24, 24, 3, groups=6), ChannelShuffle(24, groups=6), nn.Conv2d(24, 24, 1, groups=4)]
    graph = channel_dependency_graph([(24, 6), (24, 4)])
    assert torch.equal(channel_dependency_graph(convolutions), graph)
    assert torch.equal(channel_dependency_graph(nn.Sequential(*convolutions)), graph)
    assert torch.equal(channel_dependency_graph(nn.ModuleList(convolutions)), graph)
    with torch.device("meta"):
        block = InterlacedGroupConv(24, 24, primary_groups=6, secondary_groups=4)
    assert torch.equal(channel_dependency_graph(block), graph)


@pytest.mark.parametrize("name", ["norm_of_single_channels", "weight_norm", "condensed", "transposed"])
def test_the_first_convolution_tells_the_input_channels(name):
    module, channels = MODULES[name]
    assert torch.equal(channel_dependency_graph(module), channel_dependency_graph(module, in_channels=channels))


@pytest.mark.parametrize("share", ["layer", "filter", "channel"])
def test_positions_of_an_irregular_convolution_change_no_dependency(share):
    conv = IrregularConv2d(8, 6, groups=2, share=share)
    expected = channel_dependency_graph([(8, 2), (6, 6)], shuffled=False)
    for distance in (1, 50):  # as an ordinary kernel, and by samples
        conv.positions.data.mul_(distance)
        assert torch.equal(channel_dependency_graph(conv), expected)
    assert torch.equal(channel_dependency_graph(conv.to("meta")), expected)


def test_a_stage_of_shufflenet_v1_needs_its_shuffles(monkeypatch):
    units = nn.Sequential(*(ShuffleUnitV1(48, 48, groups=3) for _ in range(3)))
    assert has_full_channel_receptive_field(units)
    monkeypatch.setattr(ChannelShuffle, "forward", lambda self, x: x)
    assert not has_full_channel_receptive_field(units)


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(ConvNormAct(8, 8), nn.Dropout(), ConvNormAct(8, 8).eval())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    training = [layer.training for layer in module.modules()]
    channel_dependency_graph(module)
    assert [layer.training for layer in module.modules()] == training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class Indexed(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("index", torch.tensor([2, 0, 3]))
        self.conv = nn.Conv2d(3, 3, 1, groups=3)

    def forward(self, x):
        return self.conv(x.index_select(1, self.index))


def test_a_buffer_that_routes_channels_is_followed_where_it_has_values():
    graph = channel_dependency_graph(Indexed(), in_channels=4)
    assert graph.nonzero().tolist() == [[0, 2], [1, 0], [2, 3]]
    with pytest.raises(ValueError, match="index_select routes channels by a tensor without values"):
        channel_dependency_graph(Indexed().to("meta"), in_channels=4)


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([], "needs at least one convolution, got none"),
        ([(0, 1)], r"of at least one channel, got \(0, 1\) in it; give nn.Conv2d"),
        ([(12, 4), nn.ReLU()], r"modules alone, or alone pairs .*, got ReLU\(\) in it; give nn.Conv2d"),
        ([nn.ReLU(), (12, 4)], r"modules alone, or alone pairs .*, got ReLU\(\) in it; give nn.Conv2d"),
        ([12, 4], "modules alone, or alone pairs .*, got 12 in it"),
        ([(12, 4, 1)], r"alone pairs .*, got \(12, 4, 1\) in it"),
        ([(12, 5)], "channels must be divisible by groups, got channels=12 and groups=5"),
        ([(12, 4), (6, 2)], "out_channels must be divisible by groups, got out_channels=6 and groups=4"),
        (nn.ReLU(), "no convolution to tell its input channels; give in_channels"),
        (ShuffleUnitV2(12, 12), "a convolution of 6 channels got 3; give the in_channels of the whole module"),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Softmax(1)), "and softmax is none that is known"),
        (
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.Unflatten(2, (3, 2))),
            "maps of one pixel and 4 channels, which it cannot",
        ),
    ],
)
def test_what_has_no_graph_is_refused(stack, message):
    with pytest.raises(ValueError, match=message):
        channel_dependency_graph(stack)
