import math
from itertools import product
from random import Random

import pytest
import torch

import convsmith as cs
from convsmith.nn import BINARY, UNARY, ConvNormAct, ExpressionActivation
from convsmith.nn.expression_act import EPSILON, MAX_EXPONENT, parse

# Ramachandran et al. 2017, Sec. 2, one number at a time. The functions of beta take it as the last argument.
UNARY_FORMULAS = {
    "identity": lambda x: x,
    "negative": lambda x: -x,
    "abs": abs,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "sqrt": lambda x: math.sqrt(max(x, 1e-5)),
    "times_beta": lambda x, beta: beta * x,
    "plus_beta": lambda x, beta: x + beta,
    "log": lambda x: math.log(abs(x) + 1e-5),
    "exp": math.exp,
    "sin": math.sin,
    "cos": math.cos,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "asinh": math.asinh,
    "atan": math.atan,
    "sinc": lambda x: math.sin(x) / x if x else 1.0,
    "max0": lambda x: max(x, 0),
    "min0": lambda x: min(x, 0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "gaussian": lambda x: math.exp(-(x**2)),
    "erf": math.erf,
    "beta": lambda x, beta: beta,
}
BINARY_FORMULAS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b,
    "div": lambda a, b: a / (b + 1e-5),
    "max": max,
    "min": min,
    "gate": lambda a, b: b / (1 + math.exp(-a)),
    "rbf": lambda a, b, beta: math.exp(-beta * (a - b) ** 2),
    "laplace": lambda a, b, beta: math.exp(-beta * abs(a - b)),
    "mix": lambda a, b, beta: beta * a + (1 - beta) * b,
}
VALUES = (-3.5, -1.0, -0.3, 0.0, 0.2, 1.0, 2.5)
BETAS = (0.6, 1.3)


def build(expression, channels=2, dtype=torch.float64):
    return ExpressionActivation(channels, expression=expression).to(dtype)


def points(*values, channels=2, dtype=torch.float64):
    """The values as a map of one row, the same in each channel."""
    return torch.tensor(values, dtype=dtype).expand(1, channels, 1, -1).clone()


def one_by_one(formula, act, *arguments):
    """What the formula gives for each value of each channel, whose betas are the channel's."""
    betas = [[beta[channel].item() for beta in act.betas] for channel in range(2)]
    rows = [[formula(*point, *beta) for point in zip(*arguments, strict=True)] for beta in betas]
    return torch.tensor(rows, dtype=torch.float64).view(1, 2, 1, -1)


def with_betas(act):
    for beta in act.betas:
        beta.data = torch.tensor(BETAS, dtype=torch.float64)
    return act


def test_the_space_has_25_unary_and_10_binary_functions():
    assert list(UNARY) == list(UNARY_FORMULAS)
    assert list(BINARY) == list(BINARY_FORMULAS)
    units = {f"{b}({u}(x), {v}(x))" for b, u, v in product(BINARY, UNARY, UNARY)}
    assert len(units) == 6250
    assert cs.Architecture(stages=[[activated(cs.choice(*sorted(units)))]]).size() == 6250


def activated(expression):
    return cs.spec(ConvNormAct, 4, act=cs.spec(ExpressionActivation, expression=expression))


@pytest.mark.parametrize("name", UNARY_FORMULAS)
def test_unary_functions_are_their_formulas(name):
    act = with_betas(build(f"{name}(x)"))
    torch.testing.assert_close(act(points(*VALUES)), one_by_one(UNARY_FORMULAS[name], act, VALUES))


@pytest.mark.parametrize("name", BINARY_FORMULAS)
def test_binary_functions_are_their_formulas(name):
    act = with_betas(build(f"{name}(sin(x), square(x))"))
    arguments = [math.sin(x) for x in VALUES], [x**2 for x in VALUES]
    torch.testing.assert_close(act(points(*VALUES)), one_by_one(BINARY_FORMULAS[name], act, *arguments))


def test_functions_of_beta_have_one_for_each_channel_and_start_where_it_has_an_effect():
    with_beta = [name for name in (*UNARY, *BINARY) if {**UNARY, **BINARY}[name].beta is not None]
    assert with_beta == ["times_beta", "plus_beta", "beta", "rbf", "laplace", "mix"]
    act = build("mix(times_beta(x), rbf(beta(x), x))", channels=3)
    assert [name for name, _ in act.named_parameters()] == ["betas.0", "betas.1", "betas.2", "betas.3"]
    # In the order of the text: mix, times_beta, rbf, beta.
    assert [p.tolist() for p in act.parameters()] == [[0.5] * 3, [1.0] * 3, [1.0] * 3, [1.0] * 3]
    assert not list(build("mul(x, sigmoid(x))").parameters())


def test_each_beta_acts_where_it_stands():
    act = build("mix(times_beta(x), plus_beta(beta(x)))", channels=1)
    for parameter, value in zip(act.parameters(), (0.25, 2.0, 3.0, 5.0), strict=True):
        parameter.data.fill_(value)
    x = torch.tensor(7.0, dtype=torch.float64).view(1, 1, 1, 1)
    assert act(x).item() == 0.25 * (2 * 7) + 0.75 * (5 + 3)


# The functions that the paper found (Table 1), and ReLU; beta at its start.
FOUND = {
    "max0(x)": lambda x: max(x, 0),
    "mul(x, sigmoid(times_beta(x)))": lambda x: x / (1 + math.exp(-x)),
    "gate(times_beta(x), identity(x))": lambda x: x / (1 + math.exp(-x)),
    "max(x, sigmoid(x))": lambda x: max(x, 1 / (1 + math.exp(-x))),
    "sub(cos(x), identity(x))": lambda x: math.cos(x) - x,
    "min(x, sin(x))": lambda x: min(x, math.sin(x)),
    "sub(square(atan(x)), x)": lambda x: math.atan(x) ** 2 - x,
    "max(identity(x), tanh(x))": lambda x: max(x, math.tanh(x)),
    "add(sinc(x), x)": lambda x: (math.sin(x) / x if x else 1) + x,
    "mul(x, square(asinh(x)))": lambda x: x * math.asinh(x) ** 2,
    "x": lambda x: x,
}


@pytest.mark.parametrize("expression", FOUND)
def test_the_functions_that_the_paper_found(expression):
    act = build(expression)
    expected = points(*(FOUND[expression](x) for x in VALUES))
    torch.testing.assert_close(act(points(*VALUES)), expected)


def test_swish_as_an_expression_is_swish():
    act, swish = build("mul(x, sigmoid(times_beta(x)))", channels=4), cs.nn.Swish(4, beta="channel").double()
    act.betas[0].data.uniform_(-1, 2)
    swish.beta.data.copy_(act.betas[0].data)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(act(x), swish(x))
    features = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(act(features), swish(features))


@pytest.mark.parametrize("expression", [*(f"{u}(x)" for u in UNARY), *(f"{b}(sin(x), square(x))" for b in BINARY)])
def test_gradients(expression):
    act = with_betas(build(expression))
    # None of them at a corner: |x| at 0, max(sin(x), x^2) at 0, sqrt below epsilon.
    x = points(-2.3, -0.4, 0.7, 1.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *betas: act(x), (x, *act.parameters()))


EXTREMES = (0.0, EPSILON, -EPSILON, -2 * EPSILON, 0.5, -0.5, 3.0, -3.0, 25.0, -25.0, 100.0, -100.0, 1e4, -1e4)


def unguarded(units):
    """Those of which a value or a gradient is not finite somewhere."""
    found = []
    for binary, first, second in units:
        act = build(f"{binary}({first}(x), {second}(x))", channels=1, dtype=torch.float32)
        x = points(*EXTREMES, channels=1, dtype=torch.float32).requires_grad_()
        y = act(x)
        y.sum().backward()
        gradients = [leaf.grad for leaf in (x, *act.parameters()) if leaf.grad is not None]
        if not all(tensor.isfinite().all() for tensor in (y, *gradients)):
            found.append((binary, first, second))
    return found


WILD = ("identity", "cube", "sqrt", "log", "exp", "beta")


def test_wild_core_units_are_finite():
    assert unguarded(product(BINARY, WILD, WILD)) == []


@pytest.mark.slow
def test_every_core_unit_is_finite():
    assert unguarded(product(BINARY, UNARY, UNARY)) == []


def test_guards():
    limit = math.exp(MAX_EXPONENT)
    x = points(-1e3, 1e3, channels=1)
    assert build("exp(x)", 1)(x).flatten().tolist() == pytest.approx([0, limit])
    assert build("cosh(x)", 1)(x).flatten().tolist() == pytest.approx([limit / 2, limit / 2])
    assert build("sinh(x)", 1)(x).flatten().tolist() == pytest.approx([-limit / 2, limit / 2])
    act = build("laplace(x, sin(x))", 1)
    act.betas[0].data.fill_(-1)
    assert act(x).flatten().tolist() == pytest.approx([limit, limit])
    poles = points(-2 * EPSILON, -EPSILON, 0.0, channels=1)
    quotients = build("div(cos(x), x)", 1)(poles).flatten().tolist()
    assert quotients == pytest.approx([-1 / EPSILON, 1 / EPSILON, 1 / EPSILON])


def test_a_constant_has_the_shape_of_the_map():
    y = build("beta(x)")(torch.full((3, 2, 4, 5), math.inf, dtype=torch.float64))
    assert torch.equal(y, torch.ones(3, 2, 4, 5, dtype=torch.float64))
    assert y.is_contiguous()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("expression", ["div(times_beta(x), plus_beta(x))", "mix(beta(x), exp(x))"])
def test_layout_and_dtype_are_kept(memory_format, expression):
    x = torch.randn(2, 5, 4, 3, dtype=torch.bfloat16).to(memory_format=memory_format)
    y = build(expression, channels=5, dtype=torch.float32)(x)
    assert y.dtype is torch.bfloat16
    assert y.is_contiguous(memory_format=memory_format)


def all_functions():
    """One expression with every function in it."""
    expression = "x"
    for name in (*UNARY, *BINARY):
        expression = f"add({name}(x), {expression})" if name in UNARY else f"max({name}(sin(x), x), {expression})"
    return build(expression).eval()


def test_no_function_is_uncounted():
    cost = cs.measure.cost(all_functions(), (2, 2, 3, 3))
    assert (cost.macs, cost.uncounted) == (0, {})


@pytest.mark.slow
def test_every_function_is_exported():
    act, x = all_functions(), torch.randn(2, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.export.export(act, (x,), strict=True).module()(x), act(x))


def test_the_norm_in_front_still_folds_away():
    architecture = cs.Architecture(stages=[[activated("mul(x, sigmoid(times_beta(x)))")]])
    network = cs.create_model(architecture).eval()
    folded = cs.deploy.fold_norm(network)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(folded(x), network(x))


def test_expressions_are_options_of_a_search():
    options = ["max(identity(x), tanh(x))", "mul(x, sigmoid(times_beta(x)))"]
    block = cs.spec(ConvNormAct, 4, act=cs.spec(ExpressionActivation, expression=cs.choice(*options)))
    space = cs.Architecture.from_json(cs.Architecture(stages=[[block]]).to_json())
    found = {space.sample(Random(seed)).stages[0][0].get("act").get("expression") for seed in range(20)}
    assert found == set(options)
    network = cs.create_model(space.sample(Random(0)))
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 4, 8, 8)


def test_names_are_read_in_the_order_of_the_text():
    assert parse(" mul( x ,\nsigmoid(times_beta(x)))") == ("mul", "x", "sigmoid", "times_beta", "x")
    deep = "sin(" * 3000 + "x" + ")" * 3000
    assert len(parse(deep)) == 3001
    assert build(deep)(points(0.5)).shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("expression", "got", "wanted"),
    [
        ("", "the end", "expression"),
        ("x x", "x", "the end"),
        ("x)", r"\)", "the end"),
        ("add(x)", r"\)", ","),
        ("add(x, x, x)", ",", r"\)"),
        ("sin(x", "the end", r"\)"),
        ("sin", "the end", r"\("),
        ("sin()", r"\)", "expression"),
        ("sin((x))", r"\(", "expression"),
        ("2", "2", "expression"),
        ("add(x; x)", ";", ","),
        ("x.real", r"\.", "the end"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_sentence(expression, got, wanted):
    with pytest.raises(ValueError, match=rf"unary\(expression\) .*, got '{got}' where '{wanted}' must stand in "):
        ExpressionActivation(4, expression=expression)


@pytest.mark.parametrize("name", ["swish", "__import__", "expression", "the", "X"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=f"made of x and known functions, got '{name}'; known are identity, .*, mix"):
        ExpressionActivation(4, expression=f"{name}(x)")
