import itertools

import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import ConvNormAct, MaxPool, PolyResidual
from tests.zoo.peers import randomise


def conv(channels, kernel_size=1, **arguments):
    return cs.spec(ConvNormAct, channels, kernel_size=kernel_size, **arguments)


BRANCHES = ((conv(3), conv(4, (1, 3))), conv(2))


def normed(x, weights, prefix):
    mean, var, gamma, beta = (
        weights[f"{prefix}.{name}"].view(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


def power_of_f(x, weights, power):
    """F by its convolutions, which all powers share, and by the norms and the closing convolution of this power."""

    def unit(x, prefix, padding=0):
        y = F.conv2d(x, weights[f"{prefix}.conv.weight"], padding=padding)
        return normed(y, weights, f"{prefix}.norms.{power}").clamp(min=0)

    first = unit(unit(x, "branches.0.0"), "branches.0.1", (0, 1))
    joined = torch.cat([first, unit(x, "branches.1.0")], 1)
    closed = F.conv2d(joined, weights[f"closings.{power}.conv.weight"])
    return normed(closed, weights, f"closings.{power}.norm")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_sums_the_powers_of_f(order):
    block = PolyResidual(5, branches=BRANCHES, order=order, scale=0.7).double().eval()
    x = torch.randn(3, 5, 6, 6, dtype=torch.float64)
    randomise(block, x)
    w, powers = block.state_dict(), [power_of_f(x, block.state_dict(), 0)]
    for power in range(1, order):
        powers.append(power_of_f(powers[-1].clamp(min=0), w, power))
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(block(x), (x + 0.7 * sum(powers)).clamp(min=0))
    assert torch.equal(x, before)


def test_powers_share_the_convolutions_of_the_branches_alone():
    def params(order):
        return sum(p.numel() for p in PolyResidual(5, branches=BRANCHES, order=order).parameters())

    # Scale and shift of the norms behind 3 + 4 + 2 channels, the closing convolution from 6 to 5 channels and its norm.
    assert params(3) - params(2) == params(2) - params(1) == 2 * 9 + 6 * 5 + 2 * 5
    network = cs.Architecture(stages=[[cs.spec(PolyResidual, branches=BRANCHES)]], in_channels=5)
    assert cs.measure.cost(network, (1, 5, 6, 6)).macs == 3 * 36 * (5 * 3 + 3 * 3 * 4 + 5 * 2 + 6 * 5)


def test_gradients():
    branches = ((conv(3, norm=None), conv(4, (1, 3), norm=None)), conv(2, norm=None))
    block = PolyResidual(2, branches=branches, scale=0.5, norm=None).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


def test_each_summand_is_dropped_alone_while_training():
    branches = (conv(3, 3, norm=None),)
    block = PolyResidual(2, branches=branches, order=2, scale=0.5, drop_path_rate=0.5, norm=None, act="identity")
    block = block.double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        block.drop_path.rate = 0.0
        f = block.closings[0](block._concatenated(x, 0))
        g = block.closings[1](block._concatenated(f, 1))
        torch.testing.assert_close(block(x), x + 0.5 * (f + g))
        block.drop_path.rate = 0.5
        torch.testing.assert_close(block.eval()(x), x + 0.5 * (f + g))
        outputs = block.train()(x.expand(64, -1, -1, -1))
    # Kept with probability 0.5 and divided by it, then scaled by 0.5.
    possible = torch.stack([x[0] + a * f[0] + b * g[0] for a, b in itertools.product((0, 1), repeat=2)])
    distances = (outputs[:, None] - possible).abs().amax((2, 3, 4))
    nearest = distances.min(1)
    assert nearest.values.max() < 1e-12
    assert set(nearest.indices.tolist()) == {0, 1, 2, 3}


def test_norms_of_shared_convolutions_are_not_folded_into_them():
    block = PolyResidual(5, branches=BRANCHES).double().eval()
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    randomise(block, x)
    folded = cs.deploy.fold_norm(block)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), block(x))
    assert set(folded.folded_norms) == {f"closings.{i}.norm" for i in range(3)}


def test_wrong_arguments_are_told_in_one_sentence():
    with pytest.raises(ValueError, match="order and branches of at least 1, got order=0"):
        PolyResidual(4, branches=(conv(4),), order=0)
    with pytest.raises(ValueError, match="order and branches of at least 1"):
        PolyResidual(4, branches=())
    with pytest.raises(ValueError, match=r"only the convolutions of conv_norm_act blocks .* got max_pool"):
        PolyResidual(4, branches=((conv(4), cs.spec(MaxPool, stride=1)),))
    with pytest.raises(ValueError, match="must have stride 1, got conv_norm_act with stride=2"):
        PolyResidual(4, branches=(conv(4, stride=2),))
