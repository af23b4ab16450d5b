import pytest
import torch
from torch import nn

from convsmith.nn import ConvAuxClassifier, EmbeddingClassifier
from tests.zoo.peers import randomise


def test_an_auxiliary_classifier_is_its_formula():
    block = ConvAuxClassifier(5, 3, channels=2, hidden_channels=6, norm=None).double()
    x, w = torch.randn(4, 5, 17, 20, dtype=torch.float64), block.state_dict()
    means = x.unfold(2, 5, 3).unfold(3, 5, 3).mean((4, 5))
    assert means.shape == (4, 5, 5, 6)
    maps = torch.einsum("oc,nchw->nohw", w["reduce.conv.weight"][:, :, 0, 0], means)
    maps = (maps + w["reduce.conv.bias"][:, None, None]).clamp(min=0)
    windows = maps.unfold(3, 5, 1)  # the whole height, five columns: (N, C, 5, 2, 5)
    maps = torch.einsum("ochw,nchpw->nop", w["conv.conv.weight"], windows)
    hidden = (maps + w["conv.conv.bias"][:, None]).clamp(min=0).mean(2)
    with torch.no_grad():
        torch.testing.assert_close(block(x), hidden @ w["linear.weight"].T + w["linear.bias"])


@pytest.mark.parametrize("size", [17, 20, 26])
def test_an_auxiliary_classifier_equals_torchvisions(size):
    from torchvision.models.inception import InceptionAux

    x = torch.randn(3, 8, size, size, dtype=torch.float64)
    theirs = InceptionAux(8, 4).double().eval()
    randomise(theirs, x)
    ours = ConvAuxClassifier(8, 4).double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [2, 5, 16])
def test_an_auxiliary_classifier_takes_maps_smaller_than_those_of_the_paper(size):
    block = ConvAuxClassifier(8, 4).eval()
    seen = []
    block.reduce.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 8, size, size)
    assert block(x).shape == (2, 4)
    windows = [slice(i * size // 5, -(-(i + 1) * size // 5)) for i in range(5)]
    means = torch.stack([torch.stack([x[:, :, i, j].mean((2, 3)) for j in windows], 2) for i in windows], 2)
    torch.testing.assert_close(seen[0], means)


def test_an_embedding_classifier_is_its_formula():
    block = EmbeddingClassifier(5, 3, channels=4, dropout=0.5).double().eval()
    x = torch.randn(6, 5, 3, 2, dtype=torch.float64)
    randomise(block, x)
    w = block.state_dict()
    embedding = x.mean((2, 3)) @ w["embedding.conv.weight"][:, :, 0, 0].T
    scale = w["embedding.norm.weight"] / (w["embedding.norm.running_var"] + 1e-5).sqrt()
    normed = (embedding - w["embedding.norm.running_mean"]) * scale + w["embedding.norm.bias"]
    with torch.no_grad():
        torch.testing.assert_close(block(x), normed @ w["linear.weight"].T + w["linear.bias"])


def test_dropout_stands_in_front_of_the_embedding():
    block = EmbeddingClassifier(4096, 3, channels=2, dropout=0.25).train()
    seen = []
    block.embedding.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    block(torch.ones(2, 4096, 2, 2))
    assert 0.22 < (seen[0] == 0).double().mean() < 0.28
    assert len(seen[0].unique()) == 2


@pytest.mark.parametrize("head", [ConvAuxClassifier, EmbeddingClassifier])
def test_no_classes_are_refused(head):
    with pytest.raises(ValueError, match="num_classes must be positive, got 0"):
        head(4, 0)
