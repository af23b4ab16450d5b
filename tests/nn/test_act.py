import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import AuxClassifier, ConvNormAct, Swish


def trained(kind, channels=5):
    """Swish in float64 with betas from -1 to 3."""
    act = Swish(channels, beta=kind).double()
    with torch.no_grad():
        act.beta.copy_(torch.linspace(-1, 3, act.beta.numel()) if kind == "channel" else torch.tensor([0.7]))
    return act


def test_swish_is_silu_unless_told():
    x = 4 * torch.randn(2, 5, 3, 3, dtype=torch.float64)
    for act in (Swish(5), Swish(5, beta="channel").double(), Swish(5, beta="shared").double()):
        torch.testing.assert_close(act(x), x / (1 + (-x).exp()))
    assert not list(Swish(5).parameters())
    assert cs.spec(Swish).get("beta") == "fixed"


@pytest.mark.parametrize(("kind", "count"), [("channel", 5), ("shared", 1)])
def test_beta_scales_what_the_gate_reads(kind, count):
    act = trained(kind)
    assert [tuple(p.shape) for p in act.parameters()] == [(count,)]
    x = 4 * torch.randn(2, 5, 3, 4, dtype=torch.float64)
    y = act(x)
    for channel in range(5):
        beta = act.beta[channel % count]
        torch.testing.assert_close(y[:, channel], x[:, channel] / (1 + (-beta * x[:, channel]).exp()))


@pytest.mark.parametrize("kind", ["channel", "shared"])
def test_the_derivative_is_that_of_the_paper(kind):
    # Sec. 4: f' = beta f + sigmoid(beta x) (1 - beta f).
    act = trained(kind)
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    f = act(x)
    f.sum().backward()
    beta = act.beta.view(-1, 1, 1)
    torch.testing.assert_close(x.grad, beta * f + (beta * x).sigmoid() * (1 - beta * f))
    # By beta: x^2 s (1 - s), summed over all places of a channel.
    s = (beta * x).sigmoid()
    slope = (x**2 * s * (1 - s)).sum((0, 2, 3))
    torch.testing.assert_close(act.beta.grad, slope if kind == "channel" else slope.sum().view(1))


def test_the_limits_of_beta():
    x = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    act = Swish(1, beta="shared")
    act.beta.data.fill_(0)
    torch.testing.assert_close(act(x), x / 2)
    act.beta.data.fill_(1e4)
    torch.testing.assert_close(act(x), F.relu(x))


def test_the_lowest_value_with_beta_1():
    # Sec. 4: about -0.278 at about -1.278.
    x = torch.linspace(-3, 0, 30001, dtype=torch.float64)
    y = Swish(1)(x)
    assert abs(y.min() + 0.2785) < 1e-4
    assert abs(x[y.argmin()] + 1.2785) < 1e-3


def test_a_trained_beta_stands_beside_vectors_too():
    head = AuxClassifier(6, 10, dropout=0.0, hidden_channels=7, act=cs.spec(Swish, beta="channel"))
    head.act.beta.data.uniform_(-1, 2)
    y = torch.randn(3, 7)
    torch.testing.assert_close(head.act(y), y * (head.act.beta * y).sigmoid())
    assert head(torch.randn(3, 6, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trained_beta_keeps_layout_and_dtype(memory_format, dtype):
    x = torch.randn(2, 5, 4, 3, dtype=dtype).to(memory_format=memory_format)
    y = Swish(5, beta="channel")(x)
    assert y.dtype is dtype
    assert y.is_contiguous(memory_format=memory_format)


def test_a_trained_beta_is_an_option_of_a_search():
    space = cs.Architecture(stages=[[cs.spec(ConvNormAct, 8, act=cs.spec(Swish, beta=cs.choice("fixed", "channel")))]])
    (path,) = (path for path, _ in space.choices())
    networks = [cs.create_model(space.resolve({path: option})) for option in (0, 1)]
    assert [[tuple(p.shape) for p in network.stages[0][0].act.parameters()] for network in networks] == [[], [(8,)]]


def test_a_wrong_kind_of_beta_is_refused():
    with pytest.raises(TypeError, match=r"swish.beta must be .*'fixed', 'channel', 'shared'.*, got 'trained'"):
        cs.spec(Swish, beta="trained")


@pytest.mark.parametrize(("other", "own"), [("silu", "swish"), ("hswish", "hard_swish"), ("hardswish", "hard_swish")])
def test_what_others_call_an_activation_leads_to_its_name_here(other, own):
    with pytest.raises(ValueError, match=f"unknown activation '{other}'; its name here is '{own}'"):
        ConvNormAct(3, 8, act=other)
