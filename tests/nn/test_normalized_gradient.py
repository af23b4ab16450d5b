import copy
import pickle

import pytest
import torch
from torch import nn

from convsmith.nn import BlockNormalizedGradient

T = torch.float64


def network_and_gradients(scale=1.0):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    (scale * network(torch.randn(5, 4, dtype=T)).square().sum()).backward()
    return network


def length(*tensors):
    return sum((tensor**2).sum() for tensor in tensors).sqrt()


@pytest.mark.parametrize("scale_by_weight", [False, True])
@pytest.mark.parametrize("layers", [False, True])
def test_each_block_steps_by_the_learning_rate(layers, scale_by_weight):
    network = network_and_gradients()
    blocks = [[module.weight, module.bias] for module in (network[0], network[2])]
    if not layers:
        blocks = [[tensor] for block in blocks for tensor in block]
    expected = []
    for block in blocks:
        ratio = length(*block) if scale_by_weight else 1
        expected += [tensor - 0.1 * ratio * tensor.grad / length(*(t.grad for t in block)) for tensor in block]
    optimizer = BlockNormalizedGradient(
        torch.optim.SGD(network.parameters(), lr=0.1),
        blocks=[module.parameters(recurse=False) for module in network.modules()] if layers else None,
        scale_by_weight=scale_by_weight,
    )
    optimizer.step()
    torch.testing.assert_close(list(network.parameters()), expected)


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.1, centered=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_steps_as_with_gradients_of_length_one(name):
    wrapped, plain = network_and_gradients(), network_and_gradients()
    optimizer, reference = (
        BlockNormalizedGradient(OPTIMIZERS[name](wrapped.parameters())),
        OPTIMIZERS[name](plain.parameters()),
    )
    x = torch.randn(5, 4, dtype=T)

    def closure(network, optimizer, by_hand):
        def compute():
            optimizer.zero_grad()
            loss = network(x).square().sum()
            loss.backward()
            for parameter in network.parameters() if by_hand else ():
                parameter.grad = parameter.grad / length(parameter.grad)
            return loss

        return compute

    for _ in range(3):
        losses = [
            optimizer.step(closure(wrapped, optimizer, False)),
            reference.step(closure(plain, reference, True)),
        ]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(list(wrapped.parameters()), list(plain.parameters()))


def test_the_scale_of_the_loss_does_not_matter():
    ends = []
    for scale in (1, 1e6):
        network = network_and_gradients(scale)
        BlockNormalizedGradient(torch.optim.SGD(network.parameters(), lr=0.1)).step()
        ends.append(list(network.parameters()))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        *((torch.float16, size) for size in (5e-6, 6e4)),
        *((torch.bfloat16, size) for size in (1e-30, 1e30)),
        *((torch.float32, size) for size in (1e-42, 1e-24, 1e20, 1e38)),
        *((torch.float64, size) for size in (1e-200, 1e200)),
    ],
)
@pytest.mark.parametrize("scale_by_weight", [False, True])
def test_gradients_of_any_size_are_divided_by_their_norm(dtype, size, scale_by_weight):
    parameters = [nn.Parameter(torch.tensor([value], dtype=dtype)) for value in (5.0, 12.0)]
    for parameter, share in zip(parameters, (0.6, -0.8), strict=True):
        parameter.grad = torch.tensor([share * size], dtype=torch.float64).to(dtype)
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    BlockNormalizedGradient(optimizer, blocks=[parameters], scale_by_weight=scale_by_weight).normalise()
    length = 13 if scale_by_weight else 1
    expected = length * torch.tensor([0.6, -0.8], dtype=torch.float64)
    torch.testing.assert_close(torch.cat([p.grad for p in parameters]).double(), expected, rtol=0.02, atol=0)


def test_what_has_no_gradient_or_a_zero_one_or_no_block_is_left():
    absent, zero, outside, normal = (nn.Parameter(torch.ones(2)) for _ in range(4))
    zero.grad, outside.grad, normal.grad = torch.zeros(2), torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])
    parameters = [absent, zero, outside, normal]
    optimizer = BlockNormalizedGradient(torch.optim.SGD(parameters, lr=1), blocks=[[absent], [zero], [normal]])
    optimizer.step()
    assert [parameter.tolist() for parameter in parameters[:3]] == [[1, 1], [1, 1], [-2, -3]]
    torch.testing.assert_close(normal.data, torch.tensor([0.4, 0.2]))


@pytest.mark.parametrize("together", [False, True])
def test_a_block_of_zeros_is_not_frozen_by_its_own_length(together):
    zeros, ones = [nn.Parameter(torch.zeros(2)) for _ in range(2)], nn.Parameter(torch.ones(4))
    for parameter in (*zeros, ones):
        parameter.grad = torch.ones_like(parameter)
    blocks = [[*zeros], [ones]] if together else None
    optimizer = BlockNormalizedGradient(torch.optim.SGD([*zeros, ones], lr=1), blocks=blocks, scale_by_weight=True)
    optimizer.step()
    for parameter in zeros:
        torch.testing.assert_close(parameter.data, torch.full((2,), -0.5 if together else -(0.5**0.5)))
    torch.testing.assert_close(ones.data, torch.zeros(4))


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(10, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"must be dense .*, got one of layout torch.sparse_coo; build .* sparse=False"
    ):
        BlockNormalizedGradient(optimizer).step()
    BlockNormalizedGradient(optimizer, blocks=[]).step()


def test_the_state_is_that_of_the_wrapped_optimizer():
    network = network_and_gradients()
    plain = torch.optim.Adam(network.parameters(), lr=0.1)
    optimizer = BlockNormalizedGradient(plain)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    assert str(state) == str(plain.state_dict())
    assert len(state["state"]) == 4
    state["param_groups"][0]["lr"] = 0.25
    optimizer.load_state_dict(state)
    assert optimizer.param_groups is plain.param_groups
    assert optimizer.state is plain.state
    assert plain.param_groups[0]["lr"] == 0.25
    fresh = torch.optim.Adam(network.parameters())
    fresh.load_state_dict(optimizer.state_dict())
    torch.testing.assert_close(fresh.state[network[0].weight]["exp_avg"], plain.state[network[0].weight]["exp_avg"])


def test_schedulers_new_groups_and_zero_grad_reach_the_wrapped_optimizer():
    network = network_and_gradients()
    plain = torch.optim.SGD(network[0].parameters(), lr=0.1)
    optimizer = BlockNormalizedGradient(plain)
    optimizer.add_param_group({"params": network[2].parameters(), "lr": 0.3})
    before = [parameter.clone() for parameter in network[2].parameters()]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in plain.param_groups] == [0.05, 0.15]
    moved = [length(parameter - old) for parameter, old in zip(network[2].parameters(), before, strict=True)]
    torch.testing.assert_close(torch.stack(moved), torch.full((2,), 0.3, dtype=T))
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


def pickled(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_copy_steps_as_the_original_does(name, layers, copied):
    network = network_and_gradients()
    optimizer = BlockNormalizedGradient(
        OPTIMIZERS[name](network.parameters()),
        blocks=[module.parameters(recurse=False) for module in network.modules()] if layers else None,
        scale_by_weight=True,
    )
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # it replaces `step`
    optimizer.step()
    twin, other = copied((network, optimizer))
    assert other.param_groups is other.optimizer.param_groups
    assert other.state is other.optimizer.state
    assert all(a is b for a, b in zip(other.param_groups[0]["params"], twin.parameters(), strict=True))
    kept = [parameter.detach().clone() for parameter in network.parameters()]
    for own, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        own.grad = torch.randn_like(own)
        theirs.grad = own.grad.clone()
    other.step()
    assert all(map(torch.equal, network.parameters(), kept))
    optimizer.step()
    torch.testing.assert_close(list(twin.parameters()), list(network.parameters()), rtol=0, atol=0)
    assert not any(map(torch.equal, network.parameters(), kept))


def test_schedulers_reach_the_wrapped_optimizer_after_it_has_loaded_a_state():
    network = network_and_gradients()
    plain = torch.optim.Adam(network.parameters(), lr=0.1)
    optimizer = BlockNormalizedGradient(plain)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    plain.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert optimizer.param_groups is plain.param_groups
    assert optimizer.state is plain.state
    scheduler.step()
    assert plain.param_groups[0]["lr"] == 0.05


def test_wrapping_leaves_the_optimizer_as_it_is():
    network = network_and_gradients()
    plain = torch.optim.Adam(network.parameters(), lr=0.1)
    plain.step()
    groups, state = plain.param_groups, plain.state
    contents = str(plain.state_dict())
    BlockNormalizedGradient(plain)
    assert plain.param_groups is groups
    assert plain.state is state
    assert str(plain.state_dict()) == contents


def test_a_gradient_scaler_takes_it():
    ends = []
    for scale in (1.0, 2.0**12):
        network = network_and_gradients()
        optimizer = BlockNormalizedGradient(torch.optim.SGD(network.parameters(), lr=0.1))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        optimizer.zero_grad()
        scaler.scale(network(torch.ones(5, 4, dtype=T)).square().sum()).backward()
        scaler.step(optimizer)
        ends.append(list(network.parameters()))
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0][0], network_and_gradients()[0].weight)
