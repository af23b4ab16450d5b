import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import convsmith as cs
from convsmith.nn import ContextEncoding, Encoding


def by_formula(x, codewords, scale):
    """e_k = sum_i a_ik (x_i - c_k), a_i = softmax over k of s_k ||x_i - c_k||^2, one feature after the other."""
    x, codewords, scale = (tensor.detach().double().numpy() for tensor in (x, codewords, scale))
    encoded = np.zeros((len(x), *codewords.shape))
    for image, features in zip(encoded, x.reshape(*x.shape[:2], -1), strict=True):
        for feature in features.T:
            residuals = feature - codewords
            logits = scale * np.array([residual @ residual for residual in residuals])
            weights = np.exp(logits - logits.max())
            image += (weights / weights.sum())[:, None] * residuals
    return torch.from_numpy(encoded)


def naive(x, codewords, scale):
    """The same with all residuals (N, L, K, D) at once, for gradients."""
    residuals = x.flatten(2).transpose(1, 2)[:, :, None] - codewords
    assignment = (scale * residuals.square().sum(-1)).softmax(-1)
    return (assignment[..., None] * residuals).sum(1)


def encoding(channels, codewords, dtype=torch.float64):
    torch.manual_seed(0)
    return Encoding(channels, num_codewords=codewords).to(dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_encoding_is_its_formula(memory_format):
    layer, x = encoding(5, 3), torch.randn(2, 5, 4, 3, dtype=torch.float64)
    expected = by_formula(x, layer.codewords, layer.scale)
    torch.testing.assert_close(layer(x.to(memory_format=memory_format)), expected)
    torch.testing.assert_close(layer(x.flatten(2)), expected)
    assert layer.codewords.shape == (3, 5)
    assert layer.scale.shape == (3,)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_its_gradients_are_those_of_the_formula(memory_format):
    # Center and largest scale are taken out without a gradient; that this changes none is what is tested.
    layer = encoding(4, 3)
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    tensors = (x, layer.codewords, layer.scale)

    def encode(x, codewords, scale):
        return torch.func.functional_call(layer, {"codewords": codewords, "scale": scale}, (x,))

    weights = torch.randn(2, 3, 4, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((f(*tensors) * weights).sum(), tensors) for f in (encode, naive))
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(encode, tensors)
    assert torch.autograd.gradgradcheck(encode, tensors)


def test_the_released_code_s_initialisation():
    layer = encoding(64, 32)
    bound = 1 / math.sqrt(64 * 32)
    for tensor, low, high in ((layer.codewords, -bound, bound), (layer.scale, -1, 0)):
        assert low <= tensor.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < tensor.max() <= high


CASES = {
    "plain": (1, 0, 1, 1),
    "large features": (100, 0, 1, 1e-3),
    "large features, sharp assignment": (100, 0, 0.02, 1),
    "large features and codewords": (100, 0, 500, 1e-4),
    "a common offset": (1, 100, 1, 0.05),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("equal_scales", [False, True])
def test_float32_keeps_its_digits(case, equal_scales):
    spread, offset, codeword_spread, scale = CASES[case]
    layer = encoding(32, 8, torch.float32)
    layer.codewords.data = torch.randn(8, 32) * codeword_spread + offset
    layer.scale.data = (torch.full((8,), -0.5) + 1e-4 * torch.randn(8) if equal_scales else -torch.rand(8)) * scale
    x = (torch.randn(2, 32, 6, 6) * spread + offset).requires_grad_()
    doubles = [tensor.detach().double().requires_grad_() for tensor in (x, layer.codewords, layer.scale)]
    expected, found = naive(*doubles), layer(x)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    weights = torch.randn(2, 8, 32)
    grads = torch.autograd.grad((found * weights).sum(), (x, layer.codewords))
    wanted = torch.autograd.grad((expected * weights).sum(), doubles[:2])
    for ours, theirs, tolerance in zip(grads, wanted, (1e-4, 1e-3), strict=True):
        assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


def test_half_precision_maps_do_not_overflow():
    layer, x = encoding(64, 8, torch.float32), torch.randn(1, 64, 5, 5) * 100  # ||x||^2 is ten times float16's largest
    expected = layer(x.half().float())
    found = layer.half()(x.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_under_autocast_it_is_computed_as_without(dtype, memory_format):
    layer = encoding(64, 8, torch.float32)
    x = (torch.randn(2, 64, 5, 5) * 100).to(dtype).contiguous(memory_format=memory_format)
    with torch.no_grad():
        layer.codewords.copy_(100 * torch.randn(8, 64))
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(layer(x), expected)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operator returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_no_tensor_holds_the_residuals():
    layer, x = encoding(16, 8), torch.randn(2, 16, 10, 10, dtype=torch.float64, requires_grad=True)
    for encode, largest in (
        (layer, x.numel()),
        (lambda x: naive(x, layer.codewords, layer.scale), 8 * x.numel()),
    ):
        with Largest() as mode:
            encode(x).square().sum().backward()
        assert mode.numel == largest


def test_its_cost_is_that_of_its_two_products():
    cost = cs.measure.cost(Encoding(16, num_codewords=8), (2, 16, 10, 10))
    assert cost.macs == 2 * (2 * 8 * 16 * 100)
    assert cost.uncounted == {}
    cost = cs.measure.cost(ContextEncoding(16, num_codewords=8), (2, 16, 10, 10))
    assert cost.macs == 2 * (16 * 16 * 100 + 2 * 8 * 16 * 100 + 16 * 16)
    assert cost.uncounted == {}


def jittered(module):
    for norm in module.double().modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def normalised(norm, x):
    """Batch normalisation by running statistics along dimension 1, then ReLU."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    return (y * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)


@pytest.mark.parametrize("residual", [True, False])
def test_context_encoding_weighs_channels_by_the_encoded_map(residual):
    torch.manual_seed(0)
    block = jittered(ContextEncoding(6, num_codewords=4, residual=residual))
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    features = normalised(block.conv.norm, torch.einsum("oc,nchw->nohw", block.conv.conv.weight[:, :, 0, 0], x))
    encoded = by_formula(features, block.encoding.codewords, block.encoding.scale)
    descriptor = normalised(block.norm, encoded).mean(1)
    logits = descriptor @ block.linear.weight.T + block.linear.bias
    gated = x / (1 + (-logits).exp())[:, :, None, None]
    torch.testing.assert_close(block.encode(x), descriptor)
    torch.testing.assert_close(block(x), (x + gated).clamp(min=0) if residual else gated)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("act", ["swish", "tanh"])
def test_context_encoding_has_the_gradients_of_central_differences(act, memory_format):
    # In training: torch's batch norm errs where a map lies in memory neither in rows nor channels last.
    torch.manual_seed(0)
    block = ContextEncoding(4, num_codewords=3, act=act).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradcheck(block, x)


def test_a_head_encodes_once_for_the_map_and_for_the_classes():
    block, x = jittered(ContextEncoding(6, num_codewords=4)), torch.randn(2, 6, 5, 5, dtype=torch.float64)
    calls = []
    block.encoding.register_forward_hook(lambda *_: calls.append(1))
    descriptor = block.encode(x)
    y = block.apply_gate(x, descriptor)
    assert len(calls) == 1
    assert descriptor.shape == (2, 6)
    torch.testing.assert_close(block(x), y)


def test_the_state_dict_is_in_the_released_order():
    shapes = [
        tuple(t.shape) for name, t in ContextEncoding(6, num_codewords=4).state_dict().items() if "num_b" not in name
    ]
    assert shapes == [(6, 6, 1, 1), *[(6,)] * 4, (4, 6), (4,), *[(4,)] * 4, (6, 6), (6,)]


def test_it_learns_which_of_two_textures_a_map_has():
    # Equal means, different distributions: average pooling could not tell them apart.
    torch.manual_seed(0)
    signs = torch.randn(64, 4, 8, 8).sign()
    labels = torch.arange(64) % 2
    x = torch.where(labels.view(-1, 1, 1, 1) == 0, signs, signs * signs[:, :1])
    layer, head = Encoding(4, num_codewords=4), torch.nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.05)
    for _ in range(60):
        loss = F.cross_entropy(head(layer(x).flatten(1) / 64), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def with_codewords(number):
    encoding = Encoding(8, num_codewords=4)
    encoding.codewords = torch.nn.Parameter(torch.zeros(number, 8))
    return encoding


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Encoding(8, num_codewords=0), "positive in_channels and num_codewords, got .* num_codewords=0"),
        (lambda: Encoding(0, num_codewords=4), "got in_channels=0"),
        (lambda: ContextEncoding(8, num_codewords=-1), "num_codewords=-1"),
        (
            lambda: Encoding(8, num_codewords=4)(torch.ones(1, 9, 2, 2)),
            r"of 8 channels needs maps .* got \(1, 9, 2, 2\)",
        ),
        (lambda: Encoding(8, num_codewords=4)(torch.ones(1, 8)), r"got \(1, 8\); give it the in_channels"),
        (
            lambda: Encoding(8, num_codewords=4).load_state_dict(Encoding(8, num_codewords=5).state_dict()),
            r"codewords must be \(4, 8\), got \(5, 8\); build the encoding with",
        ),
        (
            lambda: ContextEncoding(8, num_codewords=4).encoding.load_state_dict(
                {"codewords": torch.ones(4, 8), "scale": torch.ones(8)}
            ),
            r"scale must be \(4,\), got \(8,\)",
        ),
        (lambda: with_codewords(5)(torch.ones(1, 8, 2, 2)), r"got 5 codewords and scale of shape \(4,\)"),
    ],
)
def test_wrong_sizes_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_can_be_traced_exported_and_folded():
    architecture = cs.Architecture(
        stages=[[cs.spec(cs.nn.ConvNormAct, 8), cs.spec(ContextEncoding, num_codewords=4)]],
        head=cs.spec(cs.nn.Classifier, 3),
    )
    network, x = jittered(cs.create_model(architecture)), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), expected)
        folded = cs.deploy.fold_norm(network)
        torch.testing.assert_close(folded(x), expected)
        assert folded.folded_norms == ("stages.0.0.norm", "stages.0.1.conv.norm")
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        for strict in (True, False):  # of which one follows the code and the other the values
            program = torch.export.export(network, (x,), dynamic_shapes=(batch,), strict=strict).module()
            torch.testing.assert_close(program(x[:1]), expected[:1])
