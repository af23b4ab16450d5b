import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import AvgPool, Branches, ConvNormAct, Identity, MaxPool, ScaledResidual, Swish


def conv(channels, kernel_size=1, **arguments):
    return cs.spec(ConvNormAct, channels, kernel_size=kernel_size, norm=None, **arguments)


def images(channels=5, size=9):
    return torch.randn(2, channels, size, size, dtype=torch.float64)


def relu_conv(x, weights, prefix, **arguments):
    return F.conv2d(x, weights[f"{prefix}.conv.weight"], weights[f"{prefix}.conv.bias"], **arguments).clamp(min=0)


def test_branches_are_concatenated_in_their_order_and_may_split_again():
    split = cs.spec(Branches, branches=(conv(2, (1, 3)), conv(3, (3, 1))))
    block = Branches(5, branches=(conv(4), (conv(6), split), (cs.spec(AvgPool, stride=1), conv(7)), ())).double()
    x, w = images(), block.state_dict()
    inner = relu_conv(x, w, "branches.1.0")
    expected = [
        relu_conv(x, w, "branches.0"),
        relu_conv(inner, w, "branches.1.1.branches.0", padding=(0, 1)),
        relu_conv(inner, w, "branches.1.1.branches.1", padding=(1, 0)),
        relu_conv(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), w, "branches.2.1"),
        x,
    ]
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.cat(expected, 1))
    assert block.out_channels == 4 + 2 + 3 + 7 + 5


def test_the_last_block_of_each_branch_takes_the_stride():
    split = cs.spec(Branches, branches=(conv(2, 3, padding=0), cs.spec(MaxPool, stride=1, padding=0)))
    call = cs.spec(Branches, branches=((conv(4, 3), conv(6, 3, padding=0)), (conv(3), split)), stride=2)
    block, x = call.build(5).double(), images()
    w = block.state_dict()
    inner = relu_conv(x, w, "branches.1.0")
    expected = [
        relu_conv(relu_conv(x, w, "branches.0.0", padding=1), w, "branches.0.1", stride=2),
        relu_conv(inner, w, "branches.1.1.branches.0", stride=2),
        F.max_pool2d(inner, 3, 2),
    ]
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.cat(expected, 1))
        assert call.replace(stride=1).build(5).double()(x).shape == (2, 11, 7, 7)


def test_dilation_widens_all_windows_and_keeps_the_size_of_the_map():
    branches = ((conv(4, 3), conv(6, (1, 5), dilation=2, padding=(1, 0))), cs.spec(MaxPool, stride=1, padding=0))
    block = Branches(5, branches=((conv(4, 3), conv(6, 3, padding=0)), branches[1]), dilation=3).double()
    x, w = images(), block.state_dict()
    first = relu_conv(x, w, "branches.0.0", padding=3, dilation=3)
    expected = [relu_conv(first, w, "branches.0.1", padding=2, dilation=3), F.max_pool2d(x, 3, 1)]
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.cat(expected, 1))
        plain, wide = (Branches(5, branches=branches[:1], dilation=d).double() for d in (1, 3))
        wide.load_state_dict(plain.state_dict())
        assert plain(x).shape == wide(x).shape
    assert (wide.branches[0][1].conv.dilation, wide.branches[0][1].conv.padding) == ((6, 6), (1, 8))


@pytest.mark.parametrize("act", ["relu", "identity", cs.spec(Swish)])
def test_a_scaled_residual_adds_the_scaled_sum_of_its_paths(act):
    linear = conv(5, 3, act="identity")
    block = ScaledResidual(5, paths=((conv(3), linear), linear, cs.spec(Identity)), scale=0.3, act=act).double()
    x, w = images(), block.state_dict()
    f = F.conv2d(relu_conv(x, w, "paths.0.0"), w["paths.0.1.conv.weight"], w["paths.0.1.conv.bias"], padding=1)
    g = F.conv2d(x, w["paths.1.conv.weight"], w["paths.1.conv.bias"], padding=1)
    y = x + 0.3 * (f + g + x)
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(
            block(x), y.clamp(min=0) if act == "relu" else y if act == "identity" else y * y.sigmoid()
        )
    assert torch.equal(x, before)


def test_gradients_of_a_scaled_residual():
    block = ScaledResidual(2, paths=(conv(2, 3), (conv(3), conv(2, act="identity"))), scale=0.5).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


def test_a_branch_may_be_searched():
    space = cs.Architecture(
        name="space",
        stages=[[cs.spec(Branches, branches=(cs.choice(conv(4), conv(6, 3)), (conv(3), conv(cs.choice(2, 8), 3))))]],
    )
    assert space.size() == 4
    found = space.resolve({path: 1 for path, _ in space.choices()})
    assert cs.create_model(found).out_channels == 6 + 8


def test_wrong_branches_are_told_in_one_sentence():
    with pytest.raises(ValueError, match="at least one branch, got none"):
        Branches(4, branches=())
    with pytest.raises(ValueError, match="at least one path, got none"):
        ScaledResidual(4, paths=())
    with pytest.raises(ValueError, match="must have stride 1, got max_pool with stride=2; give it to `branches`"):
        Branches(4, branches=(conv(4), cs.spec(MaxPool)), stride=2)
    with pytest.raises(ValueError, match=r"with a stride of 2 .* got relu"):
        Branches(4, branches=((conv(4), cs.spec(cs.nn.ReLU)),), stride=2)
    with pytest.raises(ValueError, match=r"with a stride of 2 .* got an empty branch"):
        Branches(4, branches=(conv(4), ()), stride=2)
    with pytest.raises(ValueError, match="got 3 behind 4; close it with a 1 x 1 convolution to 4"):
        ScaledResidual(4, paths=(conv(3),))
    with pytest.raises(ValueError, match="must have stride 1, got conv_norm_act with stride=2"):
        ScaledResidual(4, paths=(conv(4, stride=2),))
    with pytest.raises(TypeError, match=r"branches.branches\[0\] must be"):
        cs.spec(Branches, branches=(4,))


def test_a_branch_of_one_block_is_that_block():
    block = Branches(4, branches=(conv(4), (conv(3),), (conv(2), conv(2))))
    assert [type(branch) for branch in block.branches] == [ConvNormAct, ConvNormAct, nn.Sequential]
