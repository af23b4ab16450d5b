import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.nn import has_full_channel_receptive_field
from convsmith.zoo.igcnet import igcnet_cifar


def convolutions(name):
    with torch.device("meta"):
        network = cs.create_model(name)
    return network, [m for m in network.modules() if isinstance(m, nn.Conv2d)]


def shape(conv):
    return conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.groups


def without_affine(name, *, classifier):
    network, _ = convolutions(name)
    affine = sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    head = 0 if classifier else sum(p.numel() for p in network.head.parameters())
    return sum(p.numel() for p in network.parameters()) - affine - head


def test_the_figures_of_the_docstring():
    assert [round(without_affine(n, classifier=False) / 1e6, 3) for n in ("igc_l4m32", "igc_l16m16")] == [
        11.207,
        11.441,
    ]
    assert round(without_affine("igc_l100m2", classifier=True) / 1e6, 3) == 8.608  # the paper's 8.61 M
    macs = [round(cs.zoo.get(n).reference.macs / 1e9, 1) for n in ("igc_l4m32", "igc_l100m2")]
    assert macs == [1.9, 1.3]  # the paper's


def test_l100m2_is_the_trained_network_of_the_authors():
    # Output channels, kernel, stride and groups, from the graph of their model file; a stage opens with its projection.
    _, found = convolutions("igc_l100m2")
    expected = [(100, 7, 2, 1)]
    for width, groups, stride in ((200, 100, 1), (400, 200, 2), (800, 400, 2), (1600, 800, 2)):
        inner = [(width, 1, 1, 2), (width, 3, 1, groups), (width, 1, 1, 2)]
        expected += [(width, 3, stride, groups), *inner, (width, 1, stride, groups), (width, 3, 1, groups), *inner]
    assert [shape(conv) for conv in found] == expected


@pytest.mark.parametrize(("name", "groups", "inside"), [("igc_l4m32", 4, 32), ("igc_l16m16", 16, 16)])
def test_the_other_networks_keep_their_primary_groups(name, groups, inside):
    _, (stem, *found) = convolutions(name)
    assert shape(stem) == (groups * inside, 7, 2, 1)
    assert {conv.groups for conv in found if conv.kernel_size == (3, 3)} == {groups}
    secondary = {(c.out_channels, c.groups) for c in found if c.kernel_size == (1, 1) and c.groups != groups}
    # In one stage of L16M16 the secondary groups are as many as the primary ones.
    doubled = {(groups * inside * 2**i, inside * 2**i) for i in range(4)}
    assert secondary == {(width, m) for width, m in doubled if m != groups}


@pytest.mark.parametrize("depth", [8, 20, 38])
def test_the_network_for_cifar_has_as_many_layers_as_its_depth_says(depth):
    architecture = igcnet_cifar(primary_groups=24, group_channels=2, depth=depth)
    blocks = [unit for stage in architecture.stages for unit in stage]
    assert len(blocks) + 2 == depth
    n, params = (depth - 2) // 3, 3 * 48 * 9 + 2 * 48 + 192 * 10 + 10
    previous = 48
    for m in (2, 4, 8):  # K L M^2 + M L^2 weights per block, fewer in front of a stage (Sec. 3)
        for _ in range(n):
            params += 9 * 24 * m * (previous // 24) + m * 24**2 + 2 * 24 * m
            previous = 24 * m
    assert cs.measure.cost(architecture, (1, 3, 32, 32)).params == params


def test_another_depth_is_refused():
    with pytest.raises(ValueError, match=r"must be 3n \+ 2, got 21"):
        igcnet_cifar(primary_groups=24, group_channels=2, depth=21)


def test_every_output_of_a_block_depends_on_every_input():
    with torch.device("cpu"):
        network = cs.create_model("igc_l24m2_cifar")
    assert all(has_full_channel_receptive_field(block) for stage in network.stages for block in stage)


def test_it_exports():
    network = cs.create_model("igc_l24m2_cifar").eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.export.export(network, (x,), strict=True).module()(x), network(x))
