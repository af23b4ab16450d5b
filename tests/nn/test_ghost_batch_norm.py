import pytest
import torch
from torch import nn

from convsmith.nn import BatchNorm, GhostBatchNorm


def maps(images, last=False):
    x = torch.randn(images, 4, 3, 5, dtype=torch.float64) * torch.arange(1, images + 1).view(-1, 1, 1, 1)
    return x.to(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()


def by_formula(norm, x, size):
    """Ghost batch by ghost batch: outputs, and the running statistics after them."""
    weight, bias = norm.weight.view(-1, 1, 1), norm.bias.view(-1, 1, 1)
    running_mean, running_var = norm.running_mean.clone(), norm.running_var.clone()
    outputs = []
    for start in range(0, len(x), size):
        ghost = x[start : start + size]
        mean = ghost.mean((0, 2, 3))
        squares = ((ghost - mean.view(-1, 1, 1)) ** 2).sum((0, 2, 3))
        count = ghost.numel() // ghost.shape[1]
        outputs.append((ghost - mean.view(-1, 1, 1)) / (squares / count + norm.eps).sqrt().view(-1, 1, 1))
        running_mean = (1 - norm.momentum) * running_mean + norm.momentum * mean
        running_var = (1 - norm.momentum) * running_var + norm.momentum * squares / (count - 1)
    return torch.cat(outputs) * weight + bias, running_mean.detach(), running_var.detach()


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("images", "size"), [(6, 3), (7, 3), (6, 1), (2, 3), (3, 3)])  # with a smaller rest, with one
def test_it_splits_the_batch(images, size, last):
    norm = GhostBatchNorm(4, ghost_batch_size=size, eps=1e-3, momentum=0.3).double()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    x = maps(images, last)
    expected, running_mean, running_var = by_formula(norm, x, size)
    found = norm(x)
    dy = torch.randn_like(x)
    inputs = (x, norm.weight, norm.bias)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, inputs, dy), torch.autograd.grad(expected, inputs, dy))
    torch.testing.assert_close((norm.running_mean, norm.running_var), (running_mean, running_var))
    assert found.is_contiguous(memory_format=torch.channels_last) == last
    with torch.no_grad():
        shape = (-1, 1, 1)
        scale = norm.weight / (norm.running_var + 1e-3).sqrt()
        shift = norm.bias - norm.running_mean * scale
        torch.testing.assert_close(norm.eval()(x), x * scale.view(shape) + shift.view(shape))


def test_one_ghost_batch_is_batch_norm():
    norm, peer, x = GhostBatchNorm(4).double(), BatchNorm(4).double(), maps(6)
    assert norm.ghost_batch_size == 32
    assert torch.equal(norm(x), peer(x))
    assert all(torch.equal(value, norm.state_dict()[name]) for name, value in peer.state_dict().items())


def test_a_ghost_batch_has_an_image():
    with pytest.raises(ValueError, match="at least one image, got ghost_batch_size=0; 32 is usual"):
        GhostBatchNorm(4, ghost_batch_size=0)
