"""The rules against what torch's CPU operators really return, for arguments drawn at random, wrong ones among them."""

import itertools
import random

import pytest
import torch

from convsmith.measure.forms import RULES, result_form

LAYOUTS = ("contiguous", "contiguous", "channels last", "sliced", "transposed", "expanded", "double")


def tensor(rng, *shape):
    """A tensor of one of several memory layouts, now and then of another size or type than was asked for."""
    shape = [rng.choice((size, size + 1)) if rng.random() < 0.03 else size for size in shape]
    layout = rng.choice(LAYOUTS)
    if layout == "channels last" and len(shape) == 4:
        return torch.randn(shape).to(memory_format=torch.channels_last)
    if layout == "sliced" and len(shape) > 1:
        return torch.randn(shape[0], 2 * shape[1], *shape[2:])[:, : shape[1]]
    if layout == "transposed" and len(shape) > 1:
        return torch.randn(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)
    if layout == "expanded" and len(shape) > 1:
        return torch.randn(shape[0], 1, *shape[2:]).expand(shape)
    return torch.randn(shape, dtype=torch.float64 if layout == "double" and rng.random() < 0.2 else torch.float32)


def some(rng, *values):
    return [rng.choice(values) for _ in range(rng.choice((1, 2)))]


def convolution(rng):
    groups, width = rng.choice((1, 1, 2, 3)), rng.choice((1, 2, 6))
    x = tensor(rng, rng.choice((1, 2)), groups * width, rng.choice((1, 5, 8)), rng.choice((4, 7)))
    weight = tensor(rng, groups * rng.choice((1, 2)), width, rng.choice((1, 2, 3)), rng.choice((1, 3)))
    bias = rng.choice((None, tensor(rng, weight.shape[0])))
    return x, weight, bias, some(rng, 1, 2, 3), some(rng, 0, 1, 2), some(rng, 1, 1, 2), groups


def image(rng):
    return tensor(rng, rng.choice((1, 2)), rng.choice((1, 3, 4)), rng.choice((1, 4, 7)), rng.choice((1, 5, 8)))


def elementwise(rng):
    return (image(rng),)


def pair(rng):
    x = image(rng)
    other = [rng.choice((size, size, 1)) for size in x.shape][rng.choice((0, 0, 0, 1, 3, 4)) :]
    return x, rng.choice((tensor(rng, *other), 2, 0.5, 1j))


def batch_norm(rng):
    x = image(rng)
    statistics = [tensor(rng, x.shape[1]) for _ in range(4)]
    training = x.numel() > 2 * x.shape[1]
    return x, *statistics, training, 0.1, 1e-5, False


def cat(rng):
    x = image(rng)
    axis = rng.randrange(-5, 5)
    sizes = [[2 if i == axis % 4 else size for i, size in enumerate(x.shape)] for _ in range(rng.randrange(3))]
    return [x, *(tensor(rng, *size) for size in sizes)], axis


def linear(rng):
    x = rng.choice((image(rng), tensor(rng, 3, 5), tensor(rng, 5)))
    return x, tensor(rng, 4, x.shape[-1]), rng.choice((None, tensor(rng, 4)))


def pool(*more):
    return lambda rng: (
        image(rng),
        some(rng, 1, 2, 3),
        rng.choice(([], some(rng, 1, 2, 3))),
        some(rng, 0, 0, 1),
        *(draw(rng) for draw in more),
    )


DRAWS = {
    "conv2d": convolution,
    "prelu_kernel": lambda rng: (x := image(rng), torch.rand(1, x.shape[1], 1, 1)),
    "add": pair,
    "sub": pair,
    "mul": pair,
    "div": pair,
    "batch_norm": batch_norm,
    "cat": cat,
    "linear": linear,
    "max_pool2d": pool(lambda rng: some(rng, 1, 1, 2), lambda rng: rng.random() < 0.5),
    "avg_pool2d": pool(lambda rng: rng.random() < 0.5),
    "adaptive_avg_pool2d": lambda rng: (image(rng), rng.choices((1, 2, 5), k=2)),
    "mean": lambda rng: (image(rng), rng.choice(([2, 3], [-1], [0, 0], [4], [], [1, -2, 3])), rng.random() < 0.5),
}


@pytest.mark.parametrize("name", RULES)
def test_rule_against_the_operator(name):
    rng = random.Random(name)
    operator = getattr(torch.ops.aten, "_prelu_kernel" if name == "prelu_kernel" else name)
    answered = refused = 0
    for _ in range(300):
        args = DRAWS.get(name, elementwise)(rng)
        form = result_form(name, args)
        with torch.inference_mode():
            try:
                real = operator(*args)
            except (RuntimeError, IndexError):
                assert form is None, args
                refused += 1
                continue
        if form is None:
            continue
        answered += 1
        made = torch.empty(form.shape, dtype=torch.float32, memory_format=form.memory_format)
        assert made.shape == real.shape, [getattr(arg, "shape", arg) for arg in args]
        large = [axis for axis in range(made.dim()) if made.shape[axis] > 1]
        assert [made.stride(axis) for axis in large] == [real.stride(axis) for axis in large], [
            (arg.shape, arg.stride()) if isinstance(arg, torch.Tensor) else arg for arg in args
        ]
        assert all(x.dtype == real.dtype for x in args if isinstance(x, torch.Tensor))
    assert answered > 60


def test_a_rule_leaves_integers_and_unknown_operators_to_torch():
    x = torch.ones(2, 3, dtype=torch.int64)
    for name, args in itertools.product(("relu", "add", "sort"), [(x, x)]):
        assert result_form(name, args) is None
