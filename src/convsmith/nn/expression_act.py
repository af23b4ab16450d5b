"""Activations written as expressions: the search space of Searching for Activation Functions.

Ramachandran et al. 2017, arXiv:1710.05941, Sec. 2: unary functions feed binary ones, and core units
binary(unary(a), unary(b)) are nested, `a` and `b` being x or other units. One unit is one of 25 * 25 * 10 = 6,250.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.arch import block
from convsmith.nn.act import per_channel

fx.wrap("per_channel")  # in this module too

EPSILON = 1e-5  # the paper gives its epsilon no value
MAX_EXPONENT = 20.0  # exp(20) is 5e8


class Function(NamedTuple):
    """One function of the space: `apply` takes its arguments and behind them, where `beta` is a number, the parameter.

    `beta` is the value at which that parameter starts.
    """

    formula: str
    apply: Callable[..., Tensor]
    beta: float | None = None


def _exp(x: Tensor) -> Tensor:
    return x.clamp(max=MAX_EXPONENT).exp()


def _divide(a: Tensor, b: Tensor) -> Tensor:
    b = b + EPSILON
    return a / torch.where(b < 0, b.clamp(max=-EPSILON), b.clamp(min=EPSILON))


# fmt: off
UNARY: dict[str, Function] = {
    "identity":   Function("x",                lambda x: x),
    "negative":   Function("-x",               lambda x: -x),
    "abs":        Function("|x|",              torch.abs),
    "square":     Function("x^2",              lambda x: x * x),
    "cube":       Function("x^3",              lambda x: x * x * x),
    "sqrt":       Function("sqrt(x)",          lambda x: x.clamp(min=EPSILON).sqrt()),
    "times_beta": Function("beta x",           lambda x, beta: beta * x, 1.0),
    "plus_beta":  Function("x + beta",         lambda x, beta: x + beta, 1.0),
    "log":        Function("log(|x| + eps)",   lambda x: (x.abs() + EPSILON).log()),
    "exp":        Function("exp(x)",           _exp),
    "sin":        Function("sin(x)",           torch.sin),
    "cos":        Function("cos(x)",           torch.cos),
    "sinh":       Function("sinh(x)",          lambda x: x.clamp(-MAX_EXPONENT, MAX_EXPONENT).sinh()),
    "cosh":       Function("cosh(x)",          lambda x: x.clamp(-MAX_EXPONENT, MAX_EXPONENT).cosh()),
    "tanh":       Function("tanh(x)",          torch.tanh),
    "asinh":      Function("asinh(x)",         torch.asinh),
    "atan":       Function("atan(x)",          torch.atan),
    "sinc":       Function("sin(x) / x",       lambda x: torch.sinc(x / math.pi)),
    "max0":       Function("max(x, 0)",        F.relu),
    "min0":       Function("min(x, 0)",        lambda x: x.clamp(max=0)),
    "sigmoid":    Function("sigmoid(x)",       torch.sigmoid),
    "softplus":   Function("log(1 + exp(x))",  F.softplus),
    "gaussian":   Function("exp(-x^2)",        lambda x: (-x * x).exp()),
    "erf":        Function("erf(x)",           torch.erf),
    "beta":       Function("beta",             lambda x, beta: torch.zeros_like(x) + beta, 1.0),
}
"""Name -> unary function, in the paper's order."""

BINARY: dict[str, Function] = {
    "add":        Function("a + b",                    torch.add),
    "mul":        Function("a b",                      torch.mul),
    "sub":        Function("a - b",                    torch.sub),
    "div":        Function("a / (b + eps)",            _divide),
    "max":        Function("max(a, b)",                torch.maximum),
    "min":        Function("min(a, b)",                torch.minimum),
    "gate":       Function("sigmoid(a) b",             lambda a, b: a.sigmoid() * b),
    "rbf":        Function("exp(-beta (a - b)^2)",     lambda a, b, beta: _exp(-beta * (a - b) ** 2), 1.0),
    "laplace":    Function("exp(-beta |a - b|)",       lambda a, b, beta: _exp(-beta * (a - b).abs()), 1.0),
    "mix":        Function("beta a + (1 - beta) b",    lambda a, b, beta: beta * a + (1 - beta) * b, 0.5),
}
"""Name -> binary function, in the paper's order."""
# fmt: on

FUNCTIONS = {**UNARY, **BINARY}


@block("expression_activation")
class ExpressionActivation(nn.Module):
    """An activation given as an expression, such as `mul(x, sigmoid(times_beta(x)))`, which is Swish.

    An expression is `x`, a name of `UNARY` around one expression, or a name of `BINARY` around two; a core unit is
    `max(identity(x), tanh(x))`. Each function with a beta has one of its own for every channel: `betas`, in the order
    of the text. Where the paper is silent: a beta starts at 1, but in `mix` at 0.5, so that both arguments count; sinc
    is sin(x) / x; epsilon is 1e-5.

    Guards, so that one core unit has finite values and gradients in float32 for |x| up to 1e4: the square root is
    constant below epsilon, exponents end at 20 (in sinh and cosh at -20 too), and a denominator is at least epsilon
    away from 0. An expression may still diverge in training, as many do in the paper.
    """

    def __init__(self, in_channels: int, *, expression: str):
        super().__init__()
        self.names = parse(expression)
        starts = [FUNCTIONS[name].beta for name in self.names if name != "x"]
        self.betas = nn.ParameterList(torch.full((in_channels,), start) for start in starts if start is not None)
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        values: list[Tensor] = []
        betas = list(self.betas)
        for name in reversed(self.names):  # arguments before the function that takes them
            if name == "x":
                values.append(x)
                continue
            function = FUNCTIONS[name]
            arguments = [values.pop() for _ in range(1 if name in UNARY else 2)]
            beta = [] if function.beta is None else [per_channel(betas.pop(), x)]
            values.append(function.apply(*arguments, *beta))
        return values.pop()


def parse(expression: str) -> tuple[str, ...]:
    """The names of an expression in the order of its text: `x`, and functions in front of their arguments.

    Raises ValueError for an unknown name and for what is not written as `name(expression)` or `name(expression,
    expression)`.
    """
    names: list[str] = []
    expected = ["expression"]
    for token in [*re.findall(r"\w+|\S", expression), "the end"]:
        wanted = expected.pop() if expected else "the end"
        if wanted == "expression" and (token == "x" or token in FUNCTIONS):
            names.append(token)
            form = "" if token == "x" else "(e)" if token in UNARY else "(e,e)"
            expected += ["expression" if part == "e" else part for part in reversed(form)]
        elif wanted == "expression" and token.isidentifier():
            known = ", ".join(FUNCTIONS)
            raise ValueError(f"an expression is made of x and known functions, got {token!r}; known are {known}")
        elif token != wanted:
            raise ValueError(
                "an expression is x, unary(expression) or binary(expression, expression), "
                f"got {token!r} where {wanted!r} must stand in {expression!r}"
            )
    return tuple(names)
