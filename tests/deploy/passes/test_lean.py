import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import convsmith as cs
from convsmith.deploy.passes import lean as lean_module
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.passes.wiring import TangledError
from convsmith.deploy.snapshot import snapshot
from tests.deploy.net import Net, conv
from tests.deploy.random_weights import outputs, randomised


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("shufflenet_v2_x0_5", 0),
        ("mobilenet_v2_x0_35", 0),
        ("shiftresnet20_e1", 0),
        pytest.param("densenet121", 62, marks=pytest.mark.slow),
        pytest.param("nasnet_a_mobile", 0, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", 0, marks=pytest.mark.slow),
    ],
)
def test_lean_networks_compute_the_same_with_fewer_norms(name, norms):
    network = randomised(cs.create_model(name))
    x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    twin = lean(network, x)
    expected = outputs(network, x)
    assert (outputs(twin, x) - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()
    called = [twin.get_submodule(node.target) for node in twin.graph.find_nodes(op="call_module")]
    assert sum(isinstance(layer, _BatchNorm) for layer in called) == norms
    assert not any(isinstance(layer, nn.Identity | nn.Dropout) for layer in called)


def test_each_step_leaves_room_for_the_next():
    def formula(m, x):
        y = torch.cat((m.a(x), m.drop(m.b(x))), 1)
        y = m.norm(F.channel_shuffle(y, 2))
        return m.d(m.c(F.pad(y * torch.sigmoid(y), (1, 1, 1, 1))))

    layers = {"a": conv(4, 4), "b": conv(4, 4), "c": conv(8, 8, 3, 0), "d": conv(8, 6, 1, 0)}
    network = randomised(Net(formula, **layers, norm=nn.BatchNorm2d(8), drop=nn.Dropout()))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    twin = lean(network, x)
    names = [getattr(n.target, "__name__", n.target) for n in twin.graph.nodes if n.op.startswith("call")]
    assert names == ["a", "b", "cat", "silu", "c"]
    assert twin.folded_norms == ("norm",)
    assert (outputs(twin, x) - outputs(network, x)).abs().max() <= 1e-12


def test_for_a_layout_in_blocks_odd_widths_are_filled_up():
    network = randomised(cs.create_model("shufflenet_v2_x1_0"))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    twin = lean(network, x, block=16)
    widths = [twin.get_submodule(node.target) for node in twin.graph.find_nodes(op="call_module")]
    assert all(layer.out_channels % 16 == 0 for layer in widths if isinstance(layer, nn.Conv2d))
    expected = outputs(network, x)
    assert (outputs(twin, x) - expected).abs().max() <= 1e-9 * expected.abs().max()


class Turns(nn.Module):
    """torch.fx takes the other branch: for it `x` is no tensor."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = conv(4, 4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.a(x))
        return y * torch.sigmoid(y) if isinstance(x, torch.Tensor) else y


def test_a_wrong_turn_costs_the_steps_that_take_it():
    network = randomised(Turns())
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    twin = lean(network, x)
    assert not isinstance(twin, fx.GraphModule)
    assert (outputs(twin, x) - outputs(network, x)).abs().max() <= 1e-12
    assert twin.folded_norms == ("norm",)  # what keeps the class of the module is still true


def test_a_step_that_is_wrong_is_left_out(monkeypatch):
    def wrong(draft):
        draft.network.a.bias = nn.Parameter(draft.network.a.bias + 1)
        draft.commit()

    network = randomised(Net(lambda m, x: m.drop(m.a(x)), a=conv(4, 4), drop=nn.Dropout()))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    monkeypatch.setattr(lean_module, "CHANGES", (wrong, *lean_module.CHANGES))
    twin = lean(network, x)
    assert (outputs(twin, x) - outputs(network, x)).abs().max() <= 1e-12
    assert [node.target for node in twin.graph.find_nodes(op="call_module")] == ["a"]


def test_what_torch_fx_cannot_follow_stays_as_it_is():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    twin = lean(Branches(), torch.randn(2, 4))
    assert type(twin) is Branches
    assert torch.equal(twin(-torch.ones(2)), torch.ones(2))


@pytest.mark.parametrize("constant", [False, True])
def test_what_eager_gives_for_an_image_is_what_the_result_is_compared_with(constant):
    """But not for an image of one colour, which tells little."""
    network = randomised(Net(lambda m, x: m.norm(m.a(x)), a=conv(4, 4), norm=nn.BatchNorm2d(4)))
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    x = torch.ones_like(x) if constant else x
    right = outputs(network, x)
    called = lean(network, x, output=right).folded_norms
    assert called == ("norm",)
    assert (lean(network, x, output=right + 1) is network) != constant


def test_a_draft_that_fails_halfway_leaves_the_folded_network(monkeypatch):
    def fail(draft):
        draft.network.set_submodule("b", nn.Identity())
        raise TangledError("halfway")

    monkeypatch.setattr(lean_module, "CHANGES", (fail, *lean_module.CHANGES[1:]))
    layers = {"a": conv(4, 4), "norm": nn.BatchNorm2d(4), "b": conv(4, 5)}
    network = randomised(Net(lambda m, x: m.b(F.relu(m.norm(m.a(x)))), **layers))
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    twin = lean(network, x)
    assert twin.folded_norms == ("norm",)
    assert (outputs(twin, x) - outputs(network, x)).abs().max() <= 1e-12


def test_what_is_shared_with_the_network_is_left_as_it_is():
    network = randomised(cs.create_model("shufflenet_v1_g3"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    twin = lean(network, torch.randn(1, 3, 32, 32, dtype=torch.float64), compared=False)
    shared = {id(parameter) for parameter in network.parameters()}
    assert any(id(parameter) in shared for parameter in twin.parameters())
    assert not all(id(parameter) in shared for parameter in twin.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_maps_keep_their_shapes_through_what_only_takes_out():
    """Pads and identities are gone before a rule asks for the shape of what follows."""
    layers = {"a": conv(4, 4, 3, 0), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4), "drop": nn.Dropout()}

    def formula(m, x):
        y = m.a(F.pad(m.drop(x), (1, 1, 1, 1)))
        return y * torch.sigmoid(m.c(F.relu(m.b(y.mean((2, 3)))))).view(-1, 4, 1, 1)

    network = randomised(Net(formula, **layers))
    x = torch.randn(2, 4, 8, 6, dtype=torch.float64)
    twin = lean(network, x)
    names = [getattr(n.target, "__name__", n.target) for n in twin.graph.nodes if n.op.startswith("call")]
    assert names == ["a", "adaptive_avg_pool2d", "b", "relu", "c", "sigmoid", "mul"]
    assert (outputs(twin, x) - outputs(network, x)).abs().max() <= 1e-12


def test_a_copy_that_shares_has_its_own_buffers():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    copied, shared = snapshot(network), snapshot(network, sharing=True)
    assert copied[0].weight is not network[0].weight
    assert shared[0].weight is network[0].weight
    assert shared[1].running_mean is not network[1].running_mean
    assert shared[0]._forward_hooks is not network[0]._forward_hooks
    assert shared[0]._non_persistent_buffers_set is not shared[1]._non_persistent_buffers_set
    assert not shared.training
    assert network.training
