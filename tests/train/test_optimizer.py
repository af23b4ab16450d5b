import numpy as np
import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.train import Recipe, make_optimizer, parameter_groups


def small():
    return cs.network.build(
        cs.Architecture(
            stem=[cs.spec(cs.nn.ConvNormAct, 4, norm=None)],
            stages=[[cs.spec(cs.nn.BasicBlock, 8, stride=2)]],
            head=cs.spec(cs.nn.Classifier, 3),
            in_channels=1,
        )
    )


def names_of(network, parameters):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(parameter)] for parameter in parameters}


def test_norms_and_biases_do_not_decay():
    network = small()
    decayed, rest = parameter_groups(network, weight_decay=0.1)
    matrices = {
        f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert names_of(network, decayed["params"]) == matrices
    assert names_of(network, rest["params"]) == {name for name, _ in network.named_parameters()} - matrices
    assert len(rest["params"]) == 8  # two of each of three norms, the biases of the stem and of the head
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_everything_decays_on_request():
    network = small()
    (group,) = parameter_groups(network, weight_decay=0.1, decay_norm_and_bias=True)
    assert names_of(network, group["params"]) == {name for name, _ in network.named_parameters()}
    assert group["weight_decay"] == 0.1


class Placed(nn.Module):
    """Matrices of which one, and one of a child, shall not decay."""

    def __init__(self):
        super().__init__()
        self.places, self.weight = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
        self.child = nn.Linear(2, 2)

    def no_weight_decay(self):
        return {"places", "child.weight", "of_another_form"}


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_what_a_module_names_does_not_decay(decay_norm_and_bias):
    network = nn.Sequential(Placed(), nn.Linear(2, 2))
    decayed, rest = parameter_groups(network, weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias)
    biases = {"0.child.bias", "1.bias"}
    assert names_of(network, rest["params"]) == {"0.places", "0.child.weight"} | (
        set() if decay_norm_and_bias else biases
    )
    assert names_of(network, decayed["params"]) == {"0.weight", "1.weight"} | (biases if decay_norm_and_bias else set())


@pytest.mark.parametrize("share", ["layer", "filter", "channel"])
def test_positions_of_an_irregular_convolution_stay_where_no_gradient_moves_them(share):
    layer = cs.nn.IrregularConv2d(2, 4, share=share)
    before = layer.positions.detach().clone()
    optimizer = make_optimizer(layer, Recipe(lr=0.1, weight_decay=0.5, nesterov=False))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = layer.weight.detach().clone()
    optimizer.step()
    assert torch.equal(layer.positions, before)
    torch.testing.assert_close(layer.weight, 0.95 * weight)


def test_frozen_parameters_are_left_out():
    network = small()
    network.stem.requires_grad_(False)
    groups = parameter_groups(network, weight_decay=0.1)
    assert not any(name.startswith("stem") for group in groups for name in names_of(network, group["params"]))


def test_a_network_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="Sequential has none"):
        make_optimizer(nn.Sequential(nn.ReLU()), Recipe())


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_equal_the_formula(nesterov):
    # v <- m v + g + d w;  w <- w - lr (g + d w + m v) with Nesterov (Sutskever et al. 2013), else w <- w - lr v
    layer = nn.Linear(3, 2).double()
    recipe = Recipe(lr=0.1, momentum=0.8, weight_decay=0.05, nesterov=nesterov)
    optimizer = make_optimizer(layer, recipe)
    expected = {name: parameter.detach().numpy().copy() for name, parameter in layer.named_parameters()}
    velocity = {name: np.zeros_like(value) for name, value in expected.items()}
    for _ in range(4):
        for name, parameter in layer.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            g = parameter.grad.numpy() + (0.05 if name == "weight" else 0) * expected[name]
            velocity[name] = 0.8 * velocity[name] + g
            expected[name] = expected[name] - 0.1 * (g + 0.8 * velocity[name] if nesterov else velocity[name])
        optimizer.step()
    for name, parameter in layer.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-12)


def test_the_fused_kernel_is_taken_where_there_is_one():
    assert make_optimizer(nn.Linear(2, 2), Recipe()).defaults["fused"] is True
    complex_layer = nn.Linear(2, 2, dtype=torch.complex64)
    optimizer = make_optimizer(complex_layer, Recipe())
    complex_layer(torch.ones(2, dtype=torch.complex64)).abs().sum().backward()
    optimizer.step()  # torch refuses a fused step of complex numbers
    assert not optimizer.defaults["fused"]
