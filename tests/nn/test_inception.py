import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import AuxClassifier, Inception, LocalResponseNorm


def conv_norm_relu(x, weights, prefix):
    """Convolution, batch norm by running statistics, ReLU, from a state dict."""
    kernel = weights[f"{prefix}.conv.weight"]
    mean, var = weights[f"{prefix}.norm.running_mean"], weights[f"{prefix}.norm.running_var"]
    gamma, beta = weights[f"{prefix}.norm.weight"], weights[f"{prefix}.norm.bias"]
    y = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    scale = gamma / (var + 1e-5).sqrt()
    return (y * scale[:, None, None] + (beta - mean * scale)[:, None, None]).clamp(min=0)


def with_random_statistics(block):
    block = block.double().eval()
    for name, tensor in block.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return block


@pytest.mark.parametrize("kernel_sizes", [(3, 5), (3, 3)])
def test_an_inception_module_concatenates_its_four_branches_in_the_order_of_the_table(kernel_sizes):
    block = with_random_statistics(
        Inception(6, conv1x1=2, conv3x3=(3, 4), conv5x5=(5, 7), pool_proj=8, kernel_sizes=kernel_sizes)
    )
    x, weights = torch.randn(2, 6, 9, 7, dtype=torch.float64), block.state_dict()
    expected = [
        conv_norm_relu(x, weights, "branch1x1"),
        conv_norm_relu(conv_norm_relu(x, weights, "branch3x3.0"), weights, "branch3x3.1"),
        conv_norm_relu(conv_norm_relu(x, weights, "branch5x5.0"), weights, "branch5x5.1"),
        conv_norm_relu(F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 1), weights, "branch_pool.1"),
    ]
    assert [branch.shape[1] for branch in expected] == [2, 4, 7, 8]
    assert (weights["branch3x3.1.conv.weight"].shape[-1], weights["branch5x5.1.conv.weight"].shape[-1]) == kernel_sizes
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.cat(expected, 1))


def test_an_auxiliary_classifier_is_its_formula():
    block = AuxClassifier(5, 3, channels=2, hidden_channels=6, grid=2, dropout=0.0, norm=None).double()
    x, w = torch.randn(4, 5, 6, 8, dtype=torch.float64), block.state_dict()
    means = x.view(4, 5, 2, 3, 2, 4).mean((3, 5))
    maps = torch.einsum("oc,nchw->nohw", w["conv.conv.weight"][:, :, 0, 0], means)
    maps = (maps + w["conv.conv.bias"][:, None, None]).clamp(min=0)
    hidden = (maps.reshape(4, 8) @ w["hidden.weight"].T + w["hidden.bias"]).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(block(x), hidden @ w["linear.weight"].T + w["linear.bias"])


def test_equal_windows_are_5x5_with_stride_3_at_the_size_of_the_paper():
    block = AuxClassifier(2, 3, windows="equal")
    x = torch.randn(1, 2, 14, 14)
    torch.testing.assert_close(block.pool(x), F.avg_pool2d(x, 5, 3))
    assert not torch.allclose(block.pool(x), F.adaptive_avg_pool2d(x, 4))
    torch.testing.assert_close(block.pool(x[..., :7, :4]), F.avg_pool2d(x[..., :7, :4], (4, 1), 1))


def test_dropout_of_an_auxiliary_classifier_stands_between_its_two_layers():
    block = AuxClassifier(2, 3, dropout=0.5, hidden_channels=4096).train()
    seen = []
    block.linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.nn.init.ones_(block.hidden.bias)
    torch.nn.init.zeros_(block.hidden.weight)
    block(torch.randn(2, 2, 4, 4))
    assert 0.45 < (seen[0] == 0).double().mean() < 0.55
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}


def test_local_response_norm_divides_by_the_neighbouring_channels():
    block = LocalResponseNorm(6, size=3, alpha=0.3, beta=0.5, k=2.0)
    x = torch.randn(2, 6, 4, 4)
    squares = F.pad(x**2, (0, 0, 0, 0, 1, 1))
    neighbours = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    torch.testing.assert_close(block(x), x / (2 + 0.3 / 3 * neighbours) ** 0.5)


def test_wrong_arguments_are_told_in_one_sentence():
    with pytest.raises(ValueError, match="num_classes must be positive, got 0"):
        AuxClassifier(4, 0)
    with pytest.raises(TypeError, match="conv3x3 must be tuple"):
        cs.spec(Inception, conv1x1=4, conv3x3=8, conv5x5=(2, 4), pool_proj=4)
