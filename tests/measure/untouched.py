"""What a measurement must leave as it was."""

import gc
import random
from collections import deque

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode


def state(module):
    """All that a measurement might have changed in a module or in torch, comparable by `==`."""
    hooks = [
        name
        for name in vars(torch.nn.modules.module)
        if name.startswith("_global_") and isinstance(vars(torch.nn.modules.module)[name], dict)
    ]
    return {
        "tensors": {name: tensor.clone().numpy().tobytes() for name, tensor in module.state_dict().items()},
        "identities": [id(tensor) for tensor in (*module.parameters(), *module.buffers())],
        "grads": [parameter.grad for parameter in module.parameters()],
        "attributes": [{name: id(value) for name, value in vars(part).items()} for part in module.modules()],
        "contents": [
            {name: repr(value) for name, value in vars(part).items() if isinstance(value, (dict, list, deque, int))}
            for part in module.modules()
        ],
        "training": [part.training for part in module.modules()],
        "global hooks": {name: list(vars(torch.nn.modules.module)[name]) for name in hooks},
        "generators": (
            torch.get_rng_state().tolist(),
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
        ),
        "functions": [id(function) for function in (*vars(F).values(), *vars(torch).values())],
        "modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            _get_current_dispatch_mode(),
            torch.get_default_dtype(),
            torch.backends.mha.get_fastpath_enabled(),
            gc.isenabled(),
        ),
    }
