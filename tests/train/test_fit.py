import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.train import Recipe, evaluate, fit
from tests.train.tiny import RECIPE, TASK, equal, noisy_network, tiny_architecture, tiny_data, tiny_network, weights

DATA = tiny_data()


def test_it_learns_32_images_by_heart_in_50_steps():
    data = tiny_data(train=32)
    task = cs.tasks.Classification(4)
    data.train.labels.copy_(torch.randint(4, (32,)))  # nothing to generalise from
    network = tiny_network(head=cs.spec(cs.nn.Classifier, 4))
    before = evaluate(network, task, data.train)
    result = fit(network, task, data, Recipe(epochs=50, batch_size=32, lr=0.2, augment=False))
    assert before["accuracy"] < 0.6
    assert evaluate(network, task, data.train)["accuracy"] == 1.0
    assert len(result.history) == 50
    assert result.history[-1]["train_loss"] < 0.1 < result.history[0]["train_loss"]


def test_the_result_says_what_happened():
    result = fit(tiny_network(), TASK, DATA, RECIPE)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert list(result.history[0]) == ["epoch", "lr", "train_loss", "seconds", "accuracy", "loss"]
    assert result.metrics == {name: result.history[-1][name] for name in ("accuracy", "loss")}
    assert result.metrics == evaluate(result.network, TASK, DATA.validation, RECIPE.batch_size)
    assert result.run_dir is None
    assert not any(module.training for module in result.network.modules())
    # Three steps an epoch, one epoch of warm-up: the last step of it, and that of the training.
    assert result.history[0]["lr"] == pytest.approx(0.05 * 2.5 / 3)
    assert result.history[-1]["lr"] == pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi * 8.5 / 9)))


def test_the_train_loss_is_the_mean_over_the_batches():
    seen = []

    class Watched(cs.tasks.Classification):
        def loss(self, outputs, targets):
            loss = super().loss(outputs, targets)
            if loss.requires_grad:
                seen.append(loss.item())
            return loss

    result = fit(tiny_network(), Watched(4), DATA, replace(RECIPE, epochs=2))
    assert len(seen) == 6
    assert [row["train_loss"] for row in result.history] == pytest.approx([sum(seen[:3]) / 3, sum(seen[3:]) / 3])


def condensing_network():
    stages = [[cs.spec(cs.nn.CondenseLayer, growth_rate=8, groups=2, condensation=2)]]
    return tiny_network(stages=stages, head=cs.spec(cs.nn.CondenseClassifier, 4))


def test_the_group_lasso_is_a_term_of_the_loss():
    recipe = replace(RECIPE, epochs=1, batch_size=48, warmup_epochs=0, nesterov=False, momentum=0.0, weight_decay=0.0)
    plain, with_lasso, by_hand = condensing_network(), condensing_network(), condensing_network()
    penalty = cs.nn.group_lasso(by_hand)
    penalty.backward()
    without, result = fit(plain, TASK, DATA, recipe), fit(with_lasso, TASK, DATA, replace(recipe, group_lasso=0.1))
    difference = result.history[0]["train_loss"] - without.history[0]["train_loss"]
    assert difference == pytest.approx(0.1 * penalty.item(), rel=1e-4)
    # One step: the weights differ by the rate in the middle of the schedule times the penalty's gradient.
    theirs, ours = dict(plain.named_parameters()), dict(with_lasso.named_parameters())
    moved = 0
    for name, parameter in by_hand.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        expected = theirs[name] - result.history[0]["lr"] * 0.1 * gradient
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-6)
        moved += bool(gradient.abs().max() > 1e-3)
    assert moved == 2  # the learned 1 x 1 convolution and the classifier


def test_the_group_lasso_of_a_network_without_learned_groups_is_nothing():
    results = [fit(tiny_network(), TASK, DATA, replace(RECIPE, epochs=2, group_lasso=x)) for x in (0.0, 1.0)]
    assert equal(*(weights(result.network) for result in results))


@pytest.mark.parametrize("make", [tiny_network, noisy_network])
def test_the_same_seed_gives_the_same_weights_whatever_the_caller_drew_before(make):
    trained = []
    for state in (1, 2):
        torch.manual_seed(state)
        trained.append(weights(fit(make(), TASK, DATA, RECIPE).network))
    assert equal(*trained)


def test_a_network_handed_over_in_eval_mode_is_trained_in_train_mode():
    trained = [weights(fit(network, TASK, DATA, RECIPE).network) for network in (tiny_network(), tiny_network().eval())]
    assert equal(*trained)


def test_another_seed_gives_other_weights():
    trained = [weights(fit(tiny_network(), TASK, DATA, replace(RECIPE, seed=seed)).network) for seed in (0, 1)]
    assert not equal(*trained)


def test_the_generators_of_the_caller_are_left_as_they_were():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    fit(tiny_network(), TASK, DATA, RECIPE)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


class Recorded:
    """A split that notes how it was asked for batches."""

    def __init__(self, split):
        self.split, self.calls = split, []

    def __len__(self):
        return len(self.split)

    def num_batches(self, batch_size, drop_last=False):
        return self.split.num_batches(batch_size, drop_last)

    def batches(self, batch_size, **options):
        self.calls.append(options)
        return self.split.batches(batch_size, **options)


@pytest.mark.parametrize(("size", "steps", "drop_last"), [(40, 2, True), (48, 3, True), (10, 1, False)])
def test_each_epoch_has_its_own_order_and_only_full_batches_where_there_is_one(size, steps, drop_last):
    data = tiny_data(train=size)
    train = Recorded(data.train)
    network = noisy_network()
    fit(network, TASK, replace(data, train=train), replace(RECIPE, augment=False))
    assert len({call["shuffle_seed"] for call in train.calls}) == RECIPE.epochs == len(train.calls)
    assert all(call["drop_last"] is drop_last and call["augment"] is False for call in train.calls)
    assert network[2].steps == [(step, 4 * steps) for step in range(4 * steps)]


def test_order_and_dropout_do_not_share_a_stream():
    # The data make a generator of the seed that they get; the network must not draw the same numbers.
    train = Recorded(DATA.train)
    drawn = []

    class Drawing(nn.Linear):
        def forward(self, x):
            if self.training:
                drawn.append(torch.random.initial_seed())
            return super().forward(x.flatten(1))

    fit(Drawing(64, 4), TASK, replace(DATA, train=train), replace(RECIPE, epochs=1, warmup_epochs=0))
    assert train.calls[0]["shuffle_seed"] not in drawn
    assert len(drawn) == 3


@pytest.mark.parametrize("make", [tiny_network, noisy_network])
def test_a_training_that_diverges_is_stopped_with_step_and_rate(make, tmp_path):
    recipe = replace(RECIPE, lr=1e30, warmup_epochs=0)
    with pytest.raises(FloatingPointError, match=r"diverged at step \d+ \(lr 9\.\d+e\+29\): the loss is (nan|inf)"):
        fit(make(), TASK, DATA, recipe, run_dir=tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_first_step_that_diverged_is_named():
    losses = []

    class Diverging(cs.tasks.Classification):
        def loss(self, outputs, targets):
            losses.append(super().loss(outputs, targets))
            return losses[-1] * (math.inf if len(losses) == 6 else 1)  # the first is the trial of one image

    with pytest.raises(FloatingPointError, match=r"diverged at step 4 \(lr 0.0499\): the loss is inf"):
        fit(tiny_network(), Diverging(4), tiny_data(train=96), replace(RECIPE, epochs=8, warmup_epochs=0.5))


def test_a_metric_that_is_not_finite_is_a_divergence():
    class Broken(nn.Linear):
        def forward(self, x):
            logits = super().forward(x.flatten(1))
            return logits if self.training else logits * math.nan

    with pytest.raises(FloatingPointError, match=r"in epoch 1 .*: loss on the validation split is nan"):
        fit(Broken(64, 4), TASK, DATA, RECIPE)


def test_auxiliary_heads_are_trained_and_not_evaluated():
    network = tiny_network(aux=[(0, 0, cs.spec(cs.nn.Classifier, 4))])
    before = weights(network.aux)
    trained = fit(network, TASK, DATA, RECIPE).network
    assert not equal(weights(network.aux), before)
    without = fit(tiny_network(aux=[(0, 0, cs.spec(cs.nn.Classifier, 4))]), replace_aux_weight(0.0), DATA, RECIPE)
    assert not torch.equal(trained.stem[0].conv.weight, without.network.stem[0].conv.weight)


def replace_aux_weight(weight):
    return replace(TASK, aux_weight=weight)


def test_channels_last_trains_to_nearly_the_same_loss():
    results = [fit(tiny_network(), TASK, DATA, replace(RECIPE, channels_last=last)) for last in (False, True)]
    losses = [[row["train_loss"] for row in result.history] for result in results]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    weight = results[1].network.stages[0][0].state_dict()["conv1.conv.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_weight_decay_shrinks_matrices_alone():
    # The rate is the same, so without gradients (a loss of zero) decay is all that moves the weights.
    class Zero(cs.tasks.Classification):
        def loss(self, outputs, targets):
            return super().loss(outputs, targets) * 0

    network, start = noisy_network(), weights(noisy_network())
    fit(network, Zero(4), DATA, replace(RECIPE, weight_decay=0.1))
    end = weights(network)
    for name in ("0.weight", "6.weight"):
        ratio = end[name] / start[name]
        assert ratio.max() < 0.99
        torch.testing.assert_close(ratio, torch.full_like(ratio, ratio.flatten()[0].item()))
    for name in ("1.weight", "1.bias", "6.bias"):
        assert torch.equal(end[name], start[name])


def test_on_epoch_gets_every_row():
    seen = []
    result = fit(tiny_network(), TASK, DATA, RECIPE, on_epoch=lambda epoch, row: seen.append((epoch, row)))
    assert seen == [(row["epoch"], row) for row in result.history]


def test_evaluate_leaves_every_mode_as_it_was():
    network = tiny_network().train()
    network.stages[0].eval()  # as a frozen part is
    modes = [module.training for module in network.modules()]
    figures = evaluate(network, TASK, DATA.test, 7)
    assert [module.training for module in network.modules()] == modes
    assert figures == pytest.approx(evaluate(network.eval(), TASK, DATA.test, 20))


def test_evaluate_equals_one_pass_by_hand():
    network = tiny_network().eval()
    images, labels = next(DATA.test.batches(20))
    with torch.no_grad():
        logits = network(images)
    assert evaluate(network, TASK, DATA.test, 8) == pytest.approx(
        {"accuracy": (logits.argmax(1) == labels).float().mean().item(), "loss": TASK.loss(logits, labels).item()}
    )


@pytest.mark.parametrize(
    ("make", "task", "rule"),
    [
        (
            lambda: tiny_network(in_channels=3),
            TASK,
            r"cannot take the images of tiny, .* = \(1, 8, 8\) .*in_channels=1",
        ),
        (lambda: tiny_network(head=cs.spec(cs.nn.Classifier, 9)), TASK, r"must be \(N, 4\), got \(1, 9\)"),
        (lambda: nn.Linear(9, 4), TASK, "cannot take the images"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(make, task, rule, tmp_path):
    with pytest.raises(ValueError, match=rule):
        fit(make(), task, DATA, RECIPE, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_label_is_named():
    data = tiny_data()
    data.train.labels[17] = 4
    with pytest.raises(ValueError, match=r"within \[0, 4\), got 4"):
        fit(tiny_network(), TASK, data, RECIPE)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="empty split"):
        fit(tiny_network(), TASK, replace(DATA, validation=tiny_data(train=0).train), RECIPE)


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="got 'gpu'"):
        fit(tiny_network(), TASK, DATA, RECIPE, device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_refused():
    with pytest.raises(ValueError, match="no CUDA device here, got device='cuda'; use 'cpu'"):
        fit(tiny_network(), TASK, DATA, RECIPE, device="cuda")


@pytest.mark.gpu
def test_a_gpu_learns_as_the_cpu_does():
    task, recipe = replace(TASK, label_smoothing=0.0), replace(RECIPE, epochs=6, warmup_epochs=0)
    state = torch.cuda.get_rng_state()
    losses = {}
    for device in ("cpu", "cuda"):
        network = tiny_network(head=cs.spec(cs.nn.Classifier, 4))
        with torch.backends.cudnn.flags(allow_tf32=False):
            result = fit(network, task, DATA, recipe, device=device)
        assert next(network.parameters()).device.type == device
        losses[device] = [row["train_loss"] for row in result.history]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)
    assert losses["cuda"][-1] < 0.95 * losses["cuda"][0]
    assert torch.equal(torch.cuda.get_rng_state(), state)
    with pytest.raises(FloatingPointError, match="diverged at step"):
        fit(network, task, DATA, replace(RECIPE, lr=1e30, warmup_epochs=0), device="cuda")


def test_digits_are_learnt():
    data = cs.data.load("digits")
    task = cs.tasks.Classification(10)
    stages = [[cs.spec(cs.nn.BasicBlock, 16, stride=2)], [cs.spec(cs.nn.BasicBlock, 32, stride=2)]]
    network = task.network(tiny_architecture(head=None, stages=stages))
    result = fit(network, task, data, Recipe(epochs=3, lr=0.2, batch_size=32, augment=False))
    assert result.metrics["accuracy"] > 0.9
    assert evaluate(network, task, data.test)["accuracy"] > 0.9
