import numpy as np
import pytest
import torch
from torch import nn

from convsmith.nn import BatchNorm, BatchRenorm


def maps(*shape):
    return torch.randn(*shape, dtype=torch.float64) * 2 + 0.7


def started(r_max=1.0, d_max=0.0, **arguments):
    """With these bounds, and running statistics and an affine part that do something."""
    norm = BatchRenorm(4, **arguments).double()
    norm.r_max.fill_(r_max)
    norm.d_max.fill_(d_max)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


class ByAlgorithm:
    """Algorithm 1 channel by channel, in numpy; mu and sigma are its state."""

    def __init__(self, norm):
        self.norm = norm
        self.mu = norm.running_mean.numpy().copy()
        self.sigma = np.sqrt(norm.running_var.numpy() + norm.eps)

    def train(self, x):
        norm, y = self.norm, np.empty_like(x)
        for c in range(x.shape[1]):
            values = x[:, c]
            mu_batch = values.sum() / values.size
            sigma_batch = np.sqrt(norm.eps + ((values - mu_batch) ** 2).sum() / values.size)
            r_max, d_max = float(norm.r_max), float(norm.d_max)
            r = min(max(sigma_batch / self.sigma[c], 1 / r_max), r_max)
            d = min(max((mu_batch - self.mu[c]) / self.sigma[c], -d_max), d_max)
            normalised = (values - mu_batch) / sigma_batch * r + d
            y[:, c] = norm.weight[c].item() * normalised + norm.bias[c].item()
            self.mu[c] += norm.momentum * (mu_batch - self.mu[c])
            self.sigma[c] += norm.momentum * (sigma_batch - self.sigma[c])
        return y

    def evaluate(self, x):
        shape = (1, -1, 1, 1)
        normalised = (x - self.mu.reshape(shape)) / self.sigma.reshape(shape)
        weight, bias = (p.detach().numpy().reshape(shape) for p in (self.norm.weight, self.norm.bias))
        return weight * normalised + bias


@pytest.mark.parametrize(("r_max", "d_max"), [(1.0, 0.0), (1.1, 0.05), (3.0, 5.0), (1e9, 1e9)])
def test_it_equals_the_algorithm_over_several_batches(r_max, d_max):
    norm = started(r_max, d_max, momentum=0.2, eps=1e-3)
    reference = ByAlgorithm(norm)
    for scale in (1.0, 0.2, 5.0):
        x = scale * maps(3, 4, 5, 6)
        torch.testing.assert_close(norm(x), torch.from_numpy(reference.train(x.numpy())))
    torch.testing.assert_close(norm.running_mean, torch.from_numpy(reference.mu))
    torch.testing.assert_close((norm.running_var + norm.eps).sqrt(), torch.from_numpy(reference.sigma))
    x = maps(1, 4, 2, 2)
    torch.testing.assert_close(norm.eval()(x), torch.from_numpy(reference.evaluate(x.numpy())))


def test_at_the_start_it_is_batch_norm_in_value_and_gradient():
    norm, peer = started(), BatchNorm(4).double()
    fresh = BatchRenorm(4)
    assert (fresh.r_max.item(), fresh.d_max.item()) == (1, 0)
    peer.load_state_dict(norm.state_dict())
    x = maps(3, 4, 5, 6).requires_grad_()
    dy = torch.randn_like(x)
    found, expected = norm(x), peer(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, norm.weight, norm.bias), dy),
        torch.autograd.grad(expected, (x, peer.weight, peer.bias), dy),
    )


def test_without_bounds_training_normalises_by_the_running_statistics():
    norm = started(1e9, 1e9)
    x = maps(3, 4, 5, 6)
    expected = started(1e9, 1e9)
    expected.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), expected.eval()(x))


def test_no_gradient_passes_through_r_and_d():
    norm, x = started(2.0, 0.5), maps(3, 4, 5, 6).requires_grad_()
    shape = (1, -1, 1, 1)
    with torch.no_grad():
        sigma_batch = (x.var((0, 2, 3), unbiased=False) + norm.eps).sqrt()
        sigma = (norm.running_var + norm.eps).sqrt()
        r = (sigma_batch / sigma).clamp(0.5, 2.0).view(shape)
        d = ((x.mean((0, 2, 3)) - norm.running_mean) / sigma).clamp(-0.5, 0.5).view(shape)
    assert r.min() < r.max()
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    weight, bias = norm.weight.view(shape), norm.bias.view(shape)
    expected = ((x - mean) / (variance + norm.eps).sqrt() * r + d) * weight + bias
    dy = torch.randn_like(x)
    inputs = (x, norm.weight, norm.bias)
    torch.testing.assert_close(torch.autograd.grad(norm(x), inputs, dy), torch.autograd.grad(expected, inputs, dy))


def bounds_at(norm, step, total_steps):
    norm.on_step(step, total_steps)
    return norm.r_max.item(), norm.d_max.item()


def test_the_schedule_of_the_paper_in_steps():
    norm = BatchRenorm(4).double()
    found = [bounds_at(norm, step, 200_000) for step in (0, 5_000, 15_000, 22_500, 25_000, 40_000, 199_999)]
    assert found == [(1, 0), (1, 0), (1 + 2 * 10 / 35, 2.5), (2, 4.375), (1 + 2 * 20 / 35, 5), (3, 5), (3, 5)]


def test_a_schedule_in_shares_of_the_training():
    norm = BatchRenorm(4, warmup=0.1, r_ramp=0.5, d_ramp=1.0, r_max=2.0, d_max=9.0).double()
    assert [bounds_at(norm, step, 100) for step in (0, 10, 30, 55)] == [(1, 0), (1, 0), (1.5, 2), (2, 4.5)]
    assert bounds_at(norm, 300, 1000) == (1.5, 2)


def test_a_ramp_without_length_jumps_behind_the_warmup():
    norm = BatchRenorm(4, warmup=10, r_ramp=10, d_ramp=5)
    assert [bounds_at(norm, step, 100) for step in (4, 5, 9, 10)] == [(1, 0), (1, 0), (1, 0), (3, 5)]


def test_its_state_is_that_of_batch_norm():
    assert BatchRenorm(4).state_dict().keys() == BatchNorm(4).state_dict().keys()


def test_a_cumulative_average_as_torchs_update_of_swa_asks_for():
    norm, batches = BatchRenorm(4, eps=1e-3).double(), [maps(3, 4, 5, 6) for _ in range(3)]
    norm.momentum = None
    for x in batches:
        norm(x)
    sigmas = torch.stack([(x.var((0, 2, 3), unbiased=False) + 1e-3).sqrt() for x in batches])
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close((norm.running_var + 1e-3).sqrt(), sigmas.mean(0))


@pytest.mark.parametrize("arguments", [{"r_max": 0.5}, {"d_max": -1.0}, {"warmup": -1}])
def test_bounds_that_cannot_be(arguments):
    with pytest.raises(ValueError, match=r"r_max of at least 1, .*; r_max=1 and d_max=0 give batch norm"):
        BatchRenorm(4, **arguments)
