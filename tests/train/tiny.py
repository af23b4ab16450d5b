"""What the tests of training train: a few grey images of four classes, and small networks with all that must resume."""

import torch
from torch import nn

import convsmith as cs
from convsmith.data import DataSet
from convsmith.data.array_split import array_splits

TASK = cs.tasks.Classification(4, label_smoothing=0.1)
RECIPE = cs.train.Recipe(epochs=4, batch_size=16, lr=0.05, warmup_epochs=1, seed=3)


def tiny_data(train=48, fingerprint="f" * 16):
    """Noisy copies of one random pattern per class, 1x8x8; 20 images each to validate and to test."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randint(0, 200, (4, 1, 8, 8), generator=generator)
    parts = []
    for count in (train, 20, 20):
        labels = torch.arange(count) % 4
        noise = torch.randint(0, 56, (count, 1, 8, 8), generator=generator)
        parts.append(((patterns[labels] + noise).to(torch.uint8), labels, [(f"{i}",) for i in range(count)]))
    splits = dict(zip(("train", "validation", "test"), array_splits(parts, flip=True), strict=True))
    return DataSet(name="tiny", input_shape=(1, 8, 8), class_names=tuple("abcd"), fingerprint=fingerprint, **splits)


def tiny_architecture(**changes):
    """A residual block and an inverted one, dropout before the classifier."""
    return cs.Architecture(
        stem=[cs.spec(cs.nn.ConvNormAct, 8)],
        stages=[[cs.spec(cs.nn.BasicBlock, 8, stride=2)], [cs.spec(cs.nn.InvertedResidual, 8, expansion=2.0)]],
        head=cs.spec(cs.nn.Classifier, 4, dropout=0.2),
        in_channels=1,
        name="tiny",
    ).replace(**changes)


def tiny_network(seed=0, **changes):
    """Its weights are a function of the seed, so that another process makes the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return cs.network.build(tiny_architecture(**changes))


class Noise(nn.Module):
    """Random like drop-path, and stronger from step to step: a buffer that the loop advances."""

    def __init__(self):
        super().__init__()
        self.register_buffer("strength", torch.zeros(()))
        self.steps = []

    def on_step(self, step, total_steps):
        self.steps.append((step, total_steps))
        self.strength.fill_(step / total_steps)

    def forward(self, x):
        keep = torch.rand(len(x), 1, 1, 1) >= 0.2 * self.strength
        return x * keep if self.training else x


def noisy_network(seed=0):
    """A module that is no architecture, with a block that changes in the course of the training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            Noise(),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(512, 4),
        )


def weights(network):
    """A copy of the state dict."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(a, b):
    """Whether two state dicts agree bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
