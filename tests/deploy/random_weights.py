"""Networks in which a wrong fold or a wrong order of channels would show."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def randomised(module):
    """In float64 and eval mode, He-scaled, with norms and biases that do something."""
    for layer in module.double().modules():
        if isinstance(layer, _BatchNorm):
            if layer.running_mean is not None:
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
        elif isinstance(getattr(layer, "weight", None), nn.Parameter) and layer.weight.dim() > 1:
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.3)
    return module.eval()


def outputs(module, x):
    with torch.no_grad():
        return module(x.clone())
