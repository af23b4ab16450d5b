import pytest
import torch
from torch.nn import functional as F

from convsmith.nn import AlignedXceptionBlock, XceptionBlock
from tests.zoo.peers import randomise


def maps(channels, size=9, batch=3):
    return torch.randn(batch, channels, size, size, dtype=torch.float64)


def random_block(block, x):
    block = block.double().eval()
    randomise(block, x)
    return block


def normed(x, weights, prefix):
    mean, var, gamma, beta = (
        weights[f"{prefix}.norm.{name}"].view(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


def depthwise(x, weights, prefix, stride=1, dilation=1):
    weight = weights[f"{prefix}.depthwise.conv.weight"]
    return F.conv2d(x, weight, None, stride, dilation, dilation, groups=len(weight))


def pointwise(x, weights, prefix):
    return normed(F.conv2d(x, weights[f"{prefix}.pointwise.conv.weight"]), weights, f"{prefix}.pointwise")


def projected(x, weights, stride):
    return normed(F.conv2d(x, weights["shortcut.conv.weight"], stride=stride), weights, "shortcut")


@pytest.mark.parametrize("first_act", [True, False])
def test_a_strided_block_pools_its_body_and_projects_its_shortcut(first_act):
    x = maps(4)
    block = random_block(XceptionBlock(4, 6, hidden_channels=(5,), stride=2, first_act=first_act), x)
    w, first = block.state_dict(), 1 if first_act else 0
    y = pointwise(depthwise(x.clamp(min=0) if first_act else x, w, f"body.{first}"), w, f"body.{first}")
    y = pointwise(depthwise(y.clamp(min=0), w, f"body.{first + 2}"), w, f"body.{first + 2}")
    padded = F.pad(y, (1, 1, 1, 1), value=-torch.inf)
    windows = [padded[..., i : i + 9 : 2, j : j + 9 : 2] for i in range(3) for j in range(3)]
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.stack(windows).amax(0) + projected(x, w, 2))


def test_a_block_of_the_middle_flow_adds_its_input_as_it_is():
    x = maps(4)
    block = random_block(XceptionBlock(4, 4, hidden_channels=(5, 3), dilation=2), x)
    w, y = block.state_dict(), x
    for i in (1, 3, 5):
        y = pointwise(depthwise(y.clamp(min=0), w, f"body.{i}", dilation=2), w, f"body.{i}")
    assert x.min() < -0.5  # an activation in place would change what is added
    with torch.no_grad():
        torch.testing.assert_close(block(x), y + x)


@pytest.mark.parametrize(("stride", "project"), [(1, False), (1, True), (2, False)])
def test_the_aligned_block_has_norms_behind_depthwise_convolutions_and_strides_last(stride, project):
    x = maps(4)
    block = random_block(AlignedXceptionBlock(4, 4, hidden_channels=(5, 6), stride=stride, project=project), x)
    w, y = block.state_dict(), x
    for i, step in ((1, 1), (3, 1), (5, stride)):
        y = normed(depthwise(y.clamp(min=0), w, f"body.{i}", step), w, f"body.{i}.depthwise")
        y = pointwise(y, w, f"body.{i}")
    shortcut = projected(x, w, stride) if stride > 1 or project else x
    with torch.no_grad():
        torch.testing.assert_close(block(x), y + shortcut)


def test_the_peers_order_of_weights():
    for block in (XceptionBlock(4, 6, stride=2), AlignedXceptionBlock(4, 6, stride=2)):
        assert next(iter(block.state_dict())).startswith("shortcut.")
