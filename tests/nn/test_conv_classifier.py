import pytest
import torch

from convsmith.nn import Classifier, ConvClassifier, Dropout


def test_the_logits_are_the_means_of_activated_maps():
    head = ConvClassifier(6, 4, act="relu").double()
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    weight, bias = head.conv.conv.weight[:, :, 0, 0], head.conv.conv.bias
    pixels = [(weight @ x[:, :, h, w].T).T + bias for h in range(5) for w in range(3)]
    torch.testing.assert_close(head(x), torch.stack(pixels).clamp(min=0).mean(0))


def test_without_activation_it_is_a_classifier():
    head, classifier = ConvClassifier(6, 4).double(), Classifier(6, 4).double()
    weights = zip(head.state_dict(), classifier.state_dict().values(), strict=True)
    head.load_state_dict({name: weight.reshape(head.state_dict()[name].shape) for name, weight in weights})
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(head(x), classifier(x))


def test_dropout_keeps_the_mean_in_training_and_the_map_in_evaluation():
    torch.manual_seed(0)
    layer = Dropout(8, rate=0.75)
    x = torch.ones(4, 8, 32, 32)
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, 4.0}
    assert abs(y.mean() - 1) < 0.05
    assert layer.eval()(x) is x


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_classes must be positive, got 0"):
        ConvClassifier(8, 0)
    with pytest.raises(ValueError, match=r"at least 0 and below 1, got rate=1\.0"):
        Dropout(8, rate=1.0)
