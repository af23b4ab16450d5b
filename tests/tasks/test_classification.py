import math

import pytest
import torch

import convsmith as cs
from convsmith.tasks import Accuracy, Classification

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
LABELS = torch.tensor([2, 1])


def cross_entropy(logits, labels, smoothing=0.0):
    """Szegedy et al. 2016, Sec. 7, with the standard library alone."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        for k, x in enumerate(row):
            target = (1 - smoothing) * (k == label) + smoothing / len(row)
            total -= target * (x - log_sum)
    return total / len(labels)


def backbone(**changes):
    stem = [cs.spec(cs.nn.ConvNormAct, 8)]
    return cs.Architecture(stem=stem, stages=[[cs.spec(cs.nn.BasicBlock, 8)]], in_channels=1).replace(**changes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_cross_entropy_with_smoothed_targets(smoothing):
    loss = Classification(3, label_smoothing=smoothing).loss(LOGITS, LABELS)
    assert loss.item() == pytest.approx(cross_entropy(LOGITS, LABELS, smoothing), rel=1e-6)


@pytest.mark.parametrize(("options", "weight"), [({}, 0.3), ({"aux_weight": 0.75}, 0.75), ({"aux_weight": 0}, 0)])
def test_auxiliary_losses_are_weighted_and_added(options, weight):
    aux = (LOGITS.flip(1), LOGITS * 3)
    loss = Classification(3, label_smoothing=0.1, **options).loss((LOGITS, aux), LABELS)
    expected = cross_entropy(LOGITS, LABELS, 0.1) + weight * sum(cross_entropy(a, LABELS, 0.1) for a in aux)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_without_auxiliary_outputs_the_loss_is_the_main_one():
    task = Classification(3)
    assert torch.equal(task.loss((LOGITS, ()), LABELS), task.loss(LOGITS, LABELS))


@pytest.mark.parametrize("wrong", [3, -1, -100])
def test_a_label_outside_is_refused_with_its_value(wrong):
    # -100 is the label that torch's cross-entropy silently leaves out.
    task = Classification(3)
    for refused in (lambda t: task.loss(LOGITS, t), task.check):
        with pytest.raises(ValueError, match=rf"within \[0, 3\), got {wrong};"):
            refused(torch.tensor([1, wrong]))


@pytest.mark.parametrize("targets", [torch.eye(3)[:2], torch.tensor([0.0, 1.0]), torch.tensor([0, 1]).int()])
def test_targets_that_are_no_labels_are_refused(targets):
    with pytest.raises(ValueError, match=r"labels must be \(N,\) int64, got"):
        Classification(3).loss(LOGITS, targets)


@pytest.mark.parametrize("logits", [torch.zeros(2, 4), torch.zeros(2, 3, 1, 1)])
def test_logits_of_another_number_of_classes_are_refused(logits):
    with pytest.raises(ValueError, match=r"must be \(N, 3\), got \(2, .*num_classes=3"):
        Classification(3).loss(logits, LABELS)


def test_metrics_are_means_over_images_not_over_batches():
    task = Classification(3, label_smoothing=0.1)
    logits, labels = torch.randn(7, 3), torch.randint(3, (7,))
    metrics = task.metrics()
    for batch in (slice(0, 5), slice(5, 7)):
        for metric in metrics.values():
            metric.update(logits[batch], labels[batch])
    correct = sum(row.index(max(row)) == label for row, label in zip(logits.tolist(), labels.tolist(), strict=True))
    assert metrics.keys() == {"accuracy", "loss"}
    assert metrics["accuracy"].compute() == correct / 7
    assert metrics["loss"].compute() == pytest.approx(cross_entropy(logits, labels, 0.1), rel=1e-5)
    assert task.objective in metrics


def test_metrics_are_fresh_at_each_call():
    task = Classification(3)
    task.metrics()["accuracy"].update(LOGITS, LABELS)
    with pytest.raises(ValueError, match="at least one image"):
        task.metrics()["accuracy"].compute()


def test_accuracy_counts_beyond_what_a_float32_can():
    accuracy = Accuracy()
    accuracy._correct, accuracy._count = torch.tensor(2**24), 2**24
    accuracy.update(LOGITS, torch.tensor([0, 0]))
    assert accuracy.compute() == (2**24 + 1) / (2**24 + 2)


def test_a_headless_backbone_gets_a_classifier():
    network = Classification(5).network(backbone())
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 5)
    assert network.architecture.head == cs.spec(cs.nn.Classifier, 5)


def test_a_head_stays_as_it_is():
    architecture = backbone(head=cs.spec(cs.nn.Classifier, 5, dropout=0.3))
    assert Classification(5).network(architecture).architecture == architecture


def test_a_head_for_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"got 1000 logits of .* for 5 classes; .*num_classes=5"):
        Classification(5).network(backbone(head=cs.spec(cs.nn.Classifier, 1000)))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"num_classes": 1}, "at least 2, got 1"),
        ({"num_classes": 10.0}, "an int of at least 2, got 10.0"),
        ({"num_classes": True}, "got True"),
        ({"label_smoothing": 1.0}, "below 1, got 1.0"),
        ({"label_smoothing": float("nan")}, "got nan"),
        ({"aux_weight": -0.1}, "not negative, got -0.1"),
        ({"aux_weight": float("inf")}, "finite"),
    ],
)
def test_wrong_settings_are_refused(options, rule):
    with pytest.raises(ValueError, match=rule):
        Classification(**{"num_classes": 10} | options)
