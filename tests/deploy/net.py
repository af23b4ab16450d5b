"""Small networks written where they are tested."""

from torch import nn


class Net(nn.Module):
    """Layers by name, and a forward pass `formula(module, x)`."""

    def __init__(self, formula, **layers):
        super().__init__()
        self.formula = formula
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.formula(self, x)


def conv(inputs, outputs, kernel_size=3, padding=1, **options):
    return nn.Conv2d(inputs, outputs, kernel_size, padding=padding, **options)
