"""Networks that the tests of single back ends share."""

import torch
from torch import nn

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def small_network():
    """Every kind of layer that a light network has, with norms that are not the identity; the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        network[1].running_mean.normal_()
        network[1].running_var.uniform_(0.5, 2)
    return network.eval()


class Branching(nn.Module):
    """A branch on values inside a submodule."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), _Branch())

    def forward(self, x):
        return self.inner(x)


class _Branch(nn.Module):
    def forward(self, x):
        return 2 * x if x.sum() > 0 else x
