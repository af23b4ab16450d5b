import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from convsmith.deploy.passes.gates import fuse_gates
from convsmith.nn import SqueezeExcite, Swish
from tests.deploy.net import Net, conv
from tests.deploy.random_weights import outputs, randomised

IMAGES = torch.randn(3, 4, 9, 9, dtype=torch.float64)


def check(network, *, calls):
    """Fuse, compare with the network in two batch sizes, and see which layers and functions are still called."""
    network = randomised(network)
    twin = fuse_gates(network, IMAGES)
    for x in (IMAGES, IMAGES[:1]):
        expected, actual = outputs(copy.deepcopy(network), x), outputs(twin, x)
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (expected[0] - outputs(twin, IMAGES[1:])[0]).abs().max() > 1e-3 * expected.abs().max()
    assert isinstance(twin, fx.GraphModule) == (calls is not None)
    if calls is not None:
        layers = dict(twin.named_modules())
        found = [
            type(layers[n.target]).__name__ if n.op == "call_module" else getattr(n.target, "__name__", n.target)
            for n in twin.graph.nodes
            if n.op.startswith("call")
        ]
        assert [name.strip("_") for name in found if name not in ("size", "getitem", "getattr")] == calls.split()


A = {"a": conv(4, 4)}
EXCITE = nn.Sequential(nn.Linear(4, 2), nn.ReLU(inplace=True), nn.Linear(2, 4, bias=False), nn.Sigmoid())


def excite_by_view(m, x):
    n, c = x.shape[:2]
    return x * m.fc(F.adaptive_avg_pool2d(x, 1).view(n, c)).view(n, c, 1, 1)


def excite_by_index(m, x):
    return x * m.fc(x.mean((2, 3)))[:, :, None, None]


def excite_by_unsqueeze(m, x):
    gate = m.fc(m.pool(x).flatten(1)).unsqueeze(-1).unsqueeze(-1)
    return x * gate.expand_as(x)


VALID = {
    "silu": (lambda m, x: (y := m.a(x)) * torch.sigmoid(y), A, "Conv2d silu"),
    "silu by a layer, the other way round": (
        lambda m, x: m.s(y := m.a(x)) * y,
        {**A, "s": nn.Sigmoid()},
        "Conv2d silu",
    ),
    "hard swish": (lambda m, x: (y := m.a(x)) * F.hardsigmoid(y), A, "Conv2d hardswish"),
    "hard swish by its formula": (lambda m, x: (y := m.a(x)) * (F.relu6(y + 3) / 6), A, "Conv2d hardswish"),
    "hard sigmoid by a layer": (
        lambda m, x: m.s(3 + m.a(x)) * (1 / 6),
        {**A, "s": nn.ReLU6(True)},
        "Conv2d hardsigmoid",
    ),
    "a mean": (lambda m, x: m.a(x).mean((2, 3), keepdim=True), A, "Conv2d adaptive_avg_pool2d"),
    "a mean without its dimensions": (
        lambda m, x: torch.mean(m.a(x), (-1, -2)),
        A,
        "Conv2d adaptive_avg_pool2d flatten",
    ),
    "excitation by views": (excite_by_view, {"fc": EXCITE}, "adaptive_avg_pool2d Conv2d ReLU Conv2d Sigmoid mul"),
    "excitation by an index": (excite_by_index, {"fc": EXCITE}, "adaptive_avg_pool2d Conv2d ReLU Conv2d Sigmoid mul"),
    "excitation by unsqueezing": (
        excite_by_unsqueeze,
        {"fc": EXCITE, "pool": nn.AdaptiveAvgPool2d(1)},
        "AdaptiveAvgPool2d Conv2d ReLU Conv2d Sigmoid expand_as mul",
    ),
}


@pytest.mark.parametrize(("formula", "layers", "calls"), VALID.values(), ids=VALID)
def test_forms_that_become_one(formula, layers, calls):
    check(Net(formula, **layers), calls=calls)


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


def shared(m, x):
    gate = m.fc(x.mean((2, 3), keepdim=True).flatten(1)) + m.fc(x.sum((2, 3)))
    return x * gate[..., None, None]


INVALID = {
    "a sigmoid of something else": (lambda m, x: m.a(x) * torch.sigmoid(x), A),
    "a sigmoid with a hook": (lambda m, x: (y := m.a(x)) * m.s(y), {**A, "s": hooked(nn.Sigmoid())}),
    "another factor than a sixth": (lambda m, x: F.relu6(m.a(x) + 3) / 5, A),
    "another number than three": (lambda m, x: F.relu6(m.a(x) + 2) / 6, A),
    "six by the map": (lambda m, x: 6 / (1 + F.relu6(m.a(x) + 3)), A),
    "a mean over channels": (lambda m, x: m.a(x).mean((1, 2)), A),
    "a mean over one dimension": (lambda m, x: m.a(x).mean((3,)), A),
    "a vector that is read elsewhere": (
        lambda m, x: x * (y := m.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)))[..., None, None] + y.sum(),
        {"fc": nn.Linear(4, 4)},
    ),
    "a linear layer over several pixels": (lambda m, x: x * m.fc(x[..., 0])[..., :1, None], {"fc": nn.Linear(9, 9)}),
    "a linear layer with a hook": (
        lambda m, x: x * m.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))[..., None, None],
        {"fc": hooked(nn.Linear(4, 4))},
    ),
    "a change in place of what is multiplied": (lambda m, x: (y := m.a(x)) * torch.sigmoid_(y), A),
    "our own, which has these forms": (lambda m, x: m.se(m.act(x)), {"se": SqueezeExcite(4), "act": Swish(4)}),
    "Swish with its own slopes": (lambda m, x: m.act(x), {"act": Swish(4, beta="channel")}),
}


@pytest.mark.parametrize(("formula", "layers"), INVALID.values(), ids=INVALID)
def test_what_must_stay(formula, layers):
    check(Net(formula, **layers), calls=None)


def test_linear_layers_that_are_called_twice_stay():
    check(Net(shared, fc=nn.Linear(4, 4)), calls="adaptive_avg_pool2d flatten Linear sum Linear add mul")
