import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from convsmith.deploy.passes.lean import lean
from convsmith.deploy.passes.tidy import tidy
from convsmith.deploy.passes.trace import NotTraceableError
from tests.deploy.net import Net, conv
from tests.deploy.random_weights import outputs, randomised

IMAGES = torch.randn(3, 4, 9, 9, dtype=torch.float64)


def check(forward, layers, *, calls):
    """Tidy, compare with the network in two batch sizes, and see which layers and functions are still called."""
    network = randomised(Net(forward, **layers))
    twin = tidy(network, IMAGES)
    for x in (IMAGES, IMAGES[:1]):
        expected, actual = outputs(copy.deepcopy(network), x), outputs(twin, x)
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert isinstance(twin, fx.GraphModule) == (calls is not None)
    if calls is not None:
        names = [getattr(n.target, "__name__", n.target) for n in twin.graph.nodes if n.op.startswith("call")]
        assert [str(name).partition("_padded")[0] for name in names] == calls.split()


A = {"a": conv(4, 4)}
VALID = {
    "dropout": (lambda m, x: m.a(m.drop(x)), {**A, "drop": nn.Dropout2d()}, "a"),
    "dropout as a function": (lambda m, x: m.a(F.dropout(x, 0.3, m.training)), A, "a"),
    "identity": (lambda m, x: m.same(m.a(x)), {**A, "same": nn.Identity()}, "a"),
    "zero added": (lambda m, x: 0 + m.a(x) - 0.0, A, "a"),
    "one multiplied": (lambda m, x: 1.0 * m.a(x) / 1, A, "a"),
    "one map concatenated": (lambda m, x: torch.cat([m.a(x)], 1), A, "a"),
    "what nobody reads": (lambda m, x: (m.a(x), m.b(x))[0], {**A, "b": conv(4, 2)}, "a"),
    "a branch times zero": (lambda m, x: m.a(x) + m.b(x) * 0.0, {**A, "b": conv(4, 4)}, "a"),
    "zeros of a shape": (lambda m, x: torch.zeros_like(x) + m.a(x), A, "a"),
    "pooling to the size that is there": (lambda m, x: m.pool(m.a(x)), {**A, "pool": nn.AdaptiveAvgPool2d(9)}, "a"),
    "pooling of one pixel": (lambda m, x: m.pool(m.a(x)), {**A, "pool": nn.MaxPool2d(1)}, "a"),
    "a pad of nothing": (lambda m, x: m.a(F.pad(x, (0, 0, 0, 0))), A, "a"),
    "a pad and convolutions": (
        lambda m, x: m.a(y := F.pad(x, (2, 2, 1, 1))).sum(1) + m.b(y).sum(1),
        {"a": conv(4, 3), "b": conv(4, 5, 3, 1)},
        "a sum b sum add",
    ),
    "a pad by a layer": (lambda m, x: m.b(m.pad(m.a(x))), {**A, "pad": nn.ZeroPad2d(1), "b": conv(4, 3, 3, 0)}, "a b"),
    "a pad and an average": (
        lambda m, x: m.pool(F.pad(m.a(x), (1, 1, 1, 1))),
        {**A, "pool": nn.AvgPool2d(3, 2, count_include_pad=False)},
        "a pool",
    ),
    "a pad and the maximum of what is not negative": (
        lambda m, x: m.pool(F.pad(F.relu(m.a(x)), (1, 1, 1, 1))),
        {**A, "pool": nn.MaxPool2d(3, 2)},
        "a relu pool",
    ),
}


@pytest.mark.parametrize(("forward", "layers", "calls"), VALID.values(), ids=VALID)
def test_what_is_taken_out(forward, layers, calls):
    check(forward, layers, calls=calls)


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


INVALID = {
    "an identity with a hook": (lambda m, x: m.same(m.a(x)), {**A, "same": hooked(nn.Identity())}),
    "a pad with a hook": (lambda m, x: m.a(m.pad(x)), {**A, "pad": hooked(nn.ZeroPad2d(1))}),
    "a convolution with a hook": (lambda m, x: m.a(F.pad(x, (1, 1, 1, 1))), {"a": hooked(conv(4, 4))}),
    "a shared convolution": (lambda m, x: m.a(F.pad(x, (1, 1, 1, 1))).sum() + m.a(x), A),
    "a number that counts": (lambda m, x: (m.a(x) + 1) * 0.5, A),
    "a sum with zeros of a larger map": (lambda m, x: m.a(x).mean((2, 3), True) + x * 0.0, A),
    "dropout that is always on at rate 0": (lambda m, x: m.a(F.dropout(x, 0.0, True)), A),
    "a pad on one side": (lambda m, x: m.a(F.pad(x, (0, 1, 0, 1))), A),
    "a pad of ones": (lambda m, x: m.a(F.pad(x, (1, 1, 1, 1), value=1.0)), A),
    "a reflecting pad": (lambda m, x: m.a(F.pad(x, (1, 1, 1, 1), mode="reflect")), A),
    "a cropping pad": (lambda m, x: m.a(F.pad(x, (-1, -1, -1, -1))), A),
    "a reflecting convolution": (
        lambda m, x: m.a(F.pad(x, (1, 1, 1, 1))),
        {"a": conv(4, 4, 3, 1, padding_mode="reflect")},
    ),
    "a pad that is read elsewhere": (lambda m, x: m.a(y := F.pad(x, (1, 1, 1, 1))) + y.mean(), A),
    "a pad and an average that leaves out its own": (
        lambda m, x: m.pool(F.pad(m.a(x), (1, 1, 1, 1))),
        {**A, "pool": nn.AvgPool2d(3, 2, 1, count_include_pad=False)},
    ),
    "a pad and the maximum of what may be negative": (
        lambda m, x: m.pool(F.pad(m.a(x), (1, 1, 1, 1))),
        {**A, "pool": nn.MaxPool2d(3, 2)},
    ),
    "a pad of a whole window": (
        lambda m, x: m.pool(F.pad(F.relu(m.a(x)), (2, 2, 2, 2))),
        {**A, "pool": nn.MaxPool2d(2, 2)},
    ),
    "a pad along one dimension": (lambda m, x: m.a(F.pad(x, (1, 1))), A),
    "parts that are read as a whole": (lambda m, x: torch.cat((m.a(x) * 1).chunk(2, 1), 1), A),
    "a product with one that is written into": (lambda m, x: m.a(x) + torch.add(y := m.a(x) * 1, 1, out=y), A),
    "a branch that trains from zero": (lambda m, x: x + m.zero(m.a(x)), {**A, "zero": nn.BatchNorm2d(4)}),
}


@pytest.mark.parametrize(("forward", "layers"), INVALID.values(), ids=INVALID)
def test_what_must_stay(forward, layers):
    if "zero" in layers:
        nn.init.zeros_(layers["zero"].weight)
    check(forward, layers, calls=None)


def test_a_pooling_layer_pads_only_where_a_pad_stood():
    def forward(m, x):
        y = F.relu(m.a(x))
        return m.pool(F.pad(y, (1, 1, 1, 1)))[..., :4, :4] + m.pool(y)

    check(forward, {**A, "pool": nn.MaxPool2d(3, 2)}, calls="a relu pool getitem pool add")


def test_a_buffer_that_forward_changes_is_changed_first():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = conv(4, 4)
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            y = self.a(x) + 0
            self.mean.copy_(y.mean((0, 2, 3)))
            return y - self.mean.view(-1, 1, 1)

    module, (example, x) = Centred().eval(), torch.randn(2, 2, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(tidy(module, example)(x), module(x))


def test_a_network_with_hooks_of_its_own_is_refused():
    network = hooked(nn.Sequential(conv(4, 4), nn.Identity()))
    with pytest.raises(NotTraceableError, match="Sequential has hooks"):
        tidy(network, IMAGES)
    example = torch.randn(2, 4, 5, 5)
    assert torch.equal(lean(network, example)(example), network.eval()(example))


def test_the_module_itself_is_left_untouched():
    network = randomised(Net(lambda m, x: m.a(F.pad(m.drop(x), (1, 1, 1, 1))), **A, drop=nn.Dropout())).train()
    tidy(network, IMAGES)
    assert network.training
    assert network.a.padding == (1, 1)
