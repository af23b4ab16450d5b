import copy

import pytest
import torch
from torch import nn

from convsmith.deploy.passes.merge import merge_convolutions
from tests.deploy.net import Net, conv
from tests.deploy.random_weights import outputs, randomised

IMAGES = torch.randn(3, 8, 9, 9, dtype=torch.float64)


def check(network, *, convolutions):
    """Merge, compare with the network, and count the convolutions that are called."""
    network = randomised(network)
    twin = merge_convolutions(network)
    expected, actual = outputs(copy.deepcopy(network), IMAGES), outputs(twin, IMAGES)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    if convolutions is None:
        assert type(twin) is type(network)
    else:
        called = [twin.get_submodule(node.target) for node in twin.graph.find_nodes(op="call_module")]
        assert sum(isinstance(layer, nn.Conv2d) for layer in called) == convolutions


VALID = {
    "1 x 1 behind 3 x 3": (conv(8, 8, 3, 1), conv(8, 4, 1, 0)),
    "1 x 1 with a stride": (conv(8, 8, 3, 1, bias=False), conv(8, 16, 1, 0, stride=2)),
    "both with a stride": (conv(8, 8, 3, 1, stride=2), conv(8, 4, 1, 0, stride=2, bias=False)),
    "padding that reflects": (conv(8, 8, 3, 1, padding_mode="reflect"), conv(8, 4, 1, 0)),
    "3 x 3 behind 1 x 1 without a bias": (conv(8, 16, 1, 0, bias=False), conv(16, 6, 3, 1)),
    "3 x 3 that does not pad": (conv(8, 16, 1, 0), conv(16, 6, 3, 0, dilation=2)),
    "3 x 3 that pads with what it has": (conv(8, 16, 1, 0), conv(16, 6, 3, 1, padding_mode="circular")),
    "three in a row": (conv(8, 16, 1, 0), conv(16, 16, 1, 0), conv(16, 8, 1, 0, bias=False)),
}


@pytest.mark.parametrize("layers", VALID.values(), ids=VALID)
def test_one_convolution_for_several(layers):
    check(nn.Sequential(*layers, nn.ReLU()), convolutions=1)


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


INVALID = {
    "more to compute": (conv(8, 2, 1, 0, bias=False), conv(2, 16, 3, 1)),
    "more to compute with a wide end": (conv(8, 8, 3, 1), conv(8, 64, 1, 0)),
    "a bias that is not in the padding": (conv(8, 16, 1, 0), conv(16, 6, 3, 1)),
    "a bias that is not in the padding named same": (conv(8, 16, 1, 0), conv(16, 6, 3, "same")),
    "zeros beside the 1 x 1": (conv(8, 8, 3, 1), conv(8, 4, 1, 1)),
    "zeros in front of a 3 x 3": (conv(8, 16, 1, 1, bias=False), conv(16, 6, 3, 1)),
    "a stride in front of a 3 x 3": (conv(8, 16, 1, 0, bias=False, stride=2), conv(16, 6, 3, 1)),
    "two 3 x 3": (conv(8, 8), conv(8, 8)),
    "padding named same in front of a stride": (conv(8, 8, 3, "same"), conv(8, 4, 1, 0, stride=2)),
    "groups": (conv(8, 8, 3, 1, groups=8), conv(8, 4, 1, 0)),
    "a hook": (hooked(conv(8, 8, 3, 1)), conv(8, 4, 1, 0)),
    "something between": (conv(8, 8, 3, 1), nn.ReLU(), conv(8, 4, 1, 0)),
}


@pytest.mark.parametrize("layers", INVALID.values(), ids=INVALID)
def test_what_must_stay_two(layers):
    check(nn.Sequential(*layers, nn.ReLU()), convolutions=None)


def test_a_map_that_is_read_twice_and_a_convolution_that_is_called_twice_stay():
    layers = {"a": conv(8, 8), "b": conv(8, 4, 1, 0), "c": conv(8, 8, 1, 0)}
    check(Net(lambda m, x: m.b(y := m.a(x)) + y.mean(1, True), **layers), convolutions=None)
    check(Net(lambda m, x: m.c(m.a(x)) + m.c(x), **layers), convolutions=None)
