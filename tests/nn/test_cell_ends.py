import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import CellAuxClassifier, CellStem, NasCell


def test_a_stem_hands_on_its_own_input_reduced_and_its_convolution():
    stem = CellStem(3, 6, hand_on=4).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        previous, current = stem(x)
        scale, y = (1 + 1e-5) ** -0.5, x.relu()
        halves = [F.conv2d(y, stem.reduce.straight.weight, stride=2)]
        halves.append(F.conv2d(y[..., 1:, 1:], stem.reduce.shifted.weight, stride=2))
        torch.testing.assert_close(previous, torch.cat(halves, 1) * scale)
        torch.testing.assert_close(current, F.conv2d(y, stem.conv.conv.weight, stride=2, padding=1) * scale)
    assert stem.out_channels == (4, 6)


def test_the_first_cell_reads_both_maps_of_the_stem():
    cell = cs.spec(NasCell, filters=4, operations=(("identity", 0, "none", 0), ("identity", 1, "none", 0)), norm=None)
    network = cs.create_model(
        cs.Architecture(stages=[[cs.spec(CellStem, 6, hand_on=4), cell]], neck=[cs.spec(cs.nn.Identity)])
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        previous, current = network.stages[0][0](x)
        first = network.stages[0][1]
        assert torch.equal(network(x)[:, :4], first.current(current))
        assert torch.equal(network(x)[:, 4:], previous)


def classifier(**arguments):
    return CellAuxClassifier(6, 10, **arguments).double().eval()


@pytest.mark.parametrize(("side", "grid", "stride"), [(14, 4, 3), (21, 6, 3), (19, 5, 3), (8, 2, 3), (7, 2, 2)])
def test_an_auxiliary_classifier_reads_windows_of_five(side, grid, stride):
    module = classifier(grid=grid, pool_stride=stride, channels=8, hidden_channels=12)
    x = torch.randn(2, 6, side, side, dtype=torch.float64)
    y = x.relu().unfold(2, 5, stride).unfold(3, 5, stride).mean((-1, -2))
    scale = (1 + 1e-5) ** -0.5
    y = (torch.einsum("oi,nihw->nohw", module.project.conv.weight[:, :, 0, 0], y) * scale).relu()
    y = (torch.einsum("oihw,nihw->no", module.hidden.conv.weight, y) * scale).relu()
    with torch.no_grad():
        torch.testing.assert_close(module(x), y @ module.linear.weight.T + module.linear.bias)


def test_other_maps_are_divided_into_as_many_windows():
    module = classifier(grid=4, channels=8, hidden_channels=12)
    x = torch.randn(2, 6, 16, 12, dtype=torch.float64)
    quarters = x.relu().view(2, 6, 4, 4, 4, 3).mean((3, 5))
    with torch.no_grad():
        expected = module.linear(module.hidden(module.project(quarters)).flatten(1))
        torch.testing.assert_close(module(x), expected)
        assert module(x[..., :2, :2]).shape == (2, 10)


def test_the_second_norm_may_be_left_out_and_nothing_stands_in_its_place():
    names = dict(classifier(grid=2, hidden_norm=False).named_parameters())
    assert [name for name in names if name.startswith("hidden.")] == ["hidden.conv.weight"]
    without = dict(classifier(grid=2, norm=None).named_parameters())
    assert [name for name in without if name.startswith("hidden.")] == ["hidden.conv.weight", "hidden.conv.bias"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CellStem(3, 8, hand_on=1), r"hands on at least 2 channels, got hand_on=1"),
        (lambda: CellAuxClassifier(8, 10, grid=0), r"positive num_classes, grid and pool_stride, got .*grid=0"),
        (lambda: CellAuxClassifier(8, 0, grid=1), r"got num_classes=0"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
