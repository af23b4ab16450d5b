import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import convsmith as cs
from convsmith.deploy import fold_norm
from convsmith.deploy.passes.affine import fold_affine
from tests.deploy.net import Net, conv
from tests.deploy.random_weights import outputs, randomised


def check(module, x, *, left):
    """Fold, compare with the module, and count the norms, products and sums with numbers that are left."""
    module = randomised(module)
    twin = fold_affine(module)
    expected, actual = outputs(copy.deepcopy(module), x.double()), outputs(twin, x.double())
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (expected[0] - expected[-1]).abs().max() > 1e-3 * expected.abs().max()
    assert isinstance(twin, fx.GraphModule) == (left is not None)
    if left is None:
        return twin
    norms = [n for n in twin.graph.find_nodes(op="call_module") if isinstance(twin.get_submodule(n.target), _BatchNorm)]
    numbers = [
        n
        for n in twin.graph.nodes
        if n.op != "output" and any(isinstance(arg, float) for arg in (*n.args, *n.kwargs.values()))
    ]
    assert len(norms) + len(numbers) == left
    return twin


IMAGES = torch.randn(3, 4, 9, 9)


def pair(**layers):
    return {"a": conv(4, 6), "b": conv(4, 6, bias=False), "norm": nn.BatchNorm2d(12), **layers}


VALID = {
    "behind a concatenation": (lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu(), pair()),
    "behind a shuffle": (lambda m, x: m.norm(F.channel_shuffle(torch.cat((m.a(x), m.b(x)), 1), 3)).relu(), pair()),
    "behind pooling": (
        lambda m, x: m.norm(torch.cat((m.pool(m.a(x)), F.avg_pool2d(m.b(x), 2)), 1)).relu(),
        pair(pool=nn.MaxPool2d(2)),
    ),
    "in front of a convolution that does not pad": (
        lambda m, x: m.a(m.norm(x.relu())),
        {"norm": nn.BatchNorm2d(4), "a": conv(4, 6, padding=0, groups=2)},
    ),
    "in front of one that pads what was shifted": (
        lambda m, x: m.b(m.norm(m.a(x).relu())),
        {"a": conv(4, 4), "norm": nn.BatchNorm2d(4), "b": conv(4, 6, padding_mode="reflect")},
    ),
    "in front of two convolutions": (
        lambda m, x: m.b(y := m.norm(m.a(x).relu())) + m.c(F.channel_shuffle(y, 2)),
        {"a": conv(4, 4), "norm": nn.BatchNorm2d(4), "b": conv(4, 6, 1, 0, bias=False), "c": conv(4, 6, 1, 0)},
    ),
    "in front of pooling and a linear layer": (
        lambda m, x: m.b(m.pool(m.norm(m.a(x).relu())).flatten(1)),
        {"a": conv(4, 4), "norm": nn.BatchNorm2d(4), "pool": nn.AdaptiveAvgPool2d(1), "b": nn.Linear(4, 5)},
    ),
    "two norms in a row": (
        lambda m, x: m.norm(m.first(torch.cat((m.a(x), m.b(x)), 1))).relu(),
        pair(first=nn.BatchNorm2d(12)),
    ),
    "a factor and a summand": (lambda m, x: x[:, :1] + (0.3 - m.a(x) * 0.5), {"a": conv(4, 6)}),
    "a scaled sum": (lambda m, x: torch.add(m.a(x), m.b(x), alpha=0.2).relu(), {"a": conv(4, 6), "b": conv(4, 6)}),
    "a changed map behind the norm": (lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu_(), pair()),
}


@pytest.mark.parametrize(("forward", "layers"), VALID.values(), ids=VALID)
def test_what_can_be_folded(forward, layers):
    check(Net(forward, **layers), IMAGES, left=0)


def test_half_of_a_map_is_folded_into_the_rows_that_write_it():
    def forward(m, x):
        a, b = m.a(x).chunk(2, 1)
        return torch.cat((a.sigmoid(), m.norm(b).relu()), 1)

    twin = check(Net(forward, a=conv(4, 6), norm=nn.BatchNorm2d(3)), IMAGES, left=0)
    assert twin.folded_norms == ("norm",)


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


def shared(m, x):
    return m.norm(torch.cat((m.a(x), m.a(x + 1)), 1)).relu()


INVALID = {
    "a map that is read elsewhere too": (
        lambda m, x: m.norm(torch.cat((y := m.a(x), m.b(x)), 1)).relu().sum(1) + y.sum(1),
        pair(),
    ),
    "one that stands twice": (lambda m, x: m.norm(torch.cat((y := m.a(x), y), 1)).relu(), pair()),
    "a shared convolution": (shared, pair()),
    "a shared norm": (
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu() + m.norm(torch.cat((m.b(x), m.a(x)), 1)),
        pair(),
    ),
    "a hook of the convolution": (
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu(),
        pair(a=hooked(conv(4, 6))),
    ),
    "a hook of the norm": (
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu(),
        pair(norm=hooked(nn.BatchNorm2d(12))),
    ),
    "zeros that were not shifted": (
        lambda m, x: m.b(m.norm(m.a(x).relu())),
        {"a": conv(4, 4), "norm": nn.BatchNorm2d(4), "b": conv(4, 6)},
    ),
    "averages that count padding": (
        lambda m, x: m.norm(F.avg_pool2d(m.a(x), 3, 1, 1)).relu(),
        {"a": conv(4, 6), "norm": nn.BatchNorm2d(6)},
    ),
    "a maximum and a negative factor": (
        lambda m, x: F.max_pool2d(m.a(x), 2) * -0.5 + x[:, :1, ::2, ::2][:, :, :4, :4],
        {"a": conv(4, 6)},
    ),
    "an activation between": (
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1).relu()).relu(),
        pair(),
    ),
    "a weight that forward reads": (
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu() + m.a.weight.sum(),
        pair(),
    ),
    "a change in place of what is read elsewhere": (
        lambda m, x: (y := m.a(x)).relu_().sum(1) + m.norm(torch.cat((y, m.b(x)), 1)).sum(1),
        pair(),
    ),
    "a norm that normalises by the batch": (
        lambda m, x: m.norm(torch.cat((m.a(x), m.b(x)), 1)).relu(),
        pair(norm=nn.BatchNorm2d(12, track_running_stats=False)),
    ),
    "a tensor as the factor": (lambda m, x: m.a(x) * x.mean(), {"a": conv(4, 6)}),
    "a sum of one map with its multiple": (lambda m, x: torch.add(y := m.a(x), y, alpha=0.2).relu(), {"a": conv(4, 6)}),
}


@pytest.mark.parametrize(("forward", "layers"), INVALID.values(), ids=INVALID)
def test_what_must_stay(forward, layers):
    check(Net(forward, **layers), IMAGES, left=None)


def test_a_factorized_reduction_of_a_cell_loses_its_norm():
    reduction = cs.nn.FactorizedReduction(4, 6)
    assert not fold_norm(reduction).folded_norms
    twin = check(nn.Sequential(conv(4, 4), reduction, nn.Sigmoid()), IMAGES, left=0)
    assert len(twin.folded_norms) == 1
