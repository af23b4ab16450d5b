import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import ConvNormAct, DepthwiseSeparable, MaxPool, RootModule, group_schedule


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def test_each_group_has_filters_of_its_own_and_a_dense_convolution_mixes_them():
    block = jittered(RootModule(12, 7, kernel_size=5, stride=2, groups=3, dilation=2, hidden_channels=6))
    x = torch.randn(2, 12, 9, 9, dtype=torch.float64)
    weight = block.spatial.conv.weight
    parts = [F.conv2d(x[:, 4 * g : 4 * g + 4], weight[2 * g : 2 * g + 2], None, 2, 4, 2) for g in range(3)]
    y = block.spatial.norm(torch.cat(parts, 1)).clamp(min=0)
    y = torch.einsum("oi,nihw->nohw", block.mix.conv.weight[:, :, 0, 0], y)
    torch.testing.assert_close(block(x), block.mix.norm(y).clamp(min=0))
    assert block.out_channels == 7


def test_as_many_groups_as_channels_are_a_depthwise_separable_convolution():
    separable = jittered(DepthwiseSeparable(8, 12, stride=2))
    block = RootModule(8, 12, stride=2, groups=8, hidden_channels=8).double().eval()
    block.load_state_dict(dict(zip(block.state_dict(), separable.state_dict().values(), strict=True)))
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(block(x), separable(x))


# The author's tables of groups: ResNet-50 by stages; GoogLeNet by its second convolution and the modules 3, 4, 5.
@pytest.mark.parametrize(
    ("kind", "groups", "schedule"),
    [
        ("root", 2, (2, 1, 1, 1)),
        ("root", 4, (4, 2, 1, 1)),
        ("root", 8, (8, 4, 2, 1)),
        ("root", 16, (16, 8, 4, 2)),
        ("root", 32, (32, 16, 8, 4)),
        ("root", 64, (64, 32, 16, 8)),
        ("tree", 4, (4, 8)),
        ("column", 4, (4, 4)),
        ("column", 6, (6, 6, 6)),
        ("root", 1, (1, 1)),
        ("root", 8, ()),
    ],
)
def test_schedules_of_groups(kind, groups, schedule):
    assert group_schedule(kind, groups, len(schedule)) == schedule


def network_in_network(groups):
    """Network in Network for CIFAR-10, its second and third spatial convolution in groups; the first stays dense."""

    def conv(channels, kernel_size=1):
        return cs.spec(ConvNormAct, channels, kernel_size=kernel_size, norm=None)

    def root(channels, kernel_size, groups):
        return cs.spec(RootModule, channels, kernel_size=kernel_size, groups=groups, hidden_channels=192, norm=None)

    pool = cs.spec(MaxPool)
    return cs.Architecture(
        stages=[
            [conv(192, 5), conv(160), conv(96)],
            [pool, root(192, 5, groups[0]), conv(192)],
            [pool, root(192, 3, groups[1]), conv(10)],
        ]
    )


# fmt: off
# The author's figures, rootdata/nincifar*.csv of the thesis: his multiply-accumulates count 1,418 additions of biases.
PUBLISHED = [
    ("root",    1, 222_487_946, 966_986),
    ("root",    2, 163_505_546, 736_586),
    ("root",    4, 123_397_514, 455_498),
    ("root",    8, 103_343_498, 314_954),
    ("root",   16,  93_316_490, 244_682),
    ("tree",    2, 147_580_298, 487_754),
    ("tree",    4, 115_434_890, 331_082),
    ("tree",    8,  99_362_186, 252_746),
    ("tree",   16,  91_325_834, 213_578),
    ("column",  2, 152_888_714, 570_698),
    ("column",  4, 118_089_098, 372_554),
    ("column",  8, 100_689_290, 273_482),
    ("column", 16,  91_989_386, 223_946),
]
# fmt: on


@pytest.mark.parametrize(("kind", "groups", "published_macs", "params"), PUBLISHED)
def test_network_in_network_has_the_published_counts(kind, groups, published_macs, params):
    cost = cs.measure.cost(network_in_network(group_schedule(kind, groups, 2)), (1, 3, 32, 32))
    assert (cost.params, cost.macs) == (params, published_macs - 1418)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RootModule(10, 12, groups=4),
            "in_channels must be divisible by groups, got in_channels=10 and groups=4",
        ),
        (lambda: RootModule(8, 10, groups=4), "hidden_channels must be divisible by groups, got hidden_channels=10"),
        (lambda: RootModule(8, 8, groups=0), "in_channels must be divisible by groups, got in_channels=8 and groups=0"),
        (lambda: RootModule(8, 8, kernel_size=4), "kernel_size must be odd here, got kernel_size=4; take 5"),
        (lambda: group_schedule("bush", 4, 2), "must be one of root, tree, column, got 'bush'"),
        (lambda: group_schedule("root", 12, 3), "a power of two, got groups=12; take 8 or 16"),
        (lambda: group_schedule("tree", 0, 3), "groups must be at least 1 and depth at least 0, got groups=0"),
        (lambda: group_schedule("tree", 2, -1), "got groups=2 and depth=-1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
