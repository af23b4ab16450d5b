import copy
from functools import partial

import pytest
import torch
from torch import nn

from convsmith.nn import BatchRenorm, DropPath, FractalBlock, Shift
from tests.nn.operators import without_operators

# What builds a module, and how many buffers it has that no state dict holds.
MODULES = {
    "shift": (partial(Shift, 20, assignment="interleaved"), 1),
    "drop_path": (partial(DropPath, 8, rate=0.5), 1),
    "batch_renorm": (partial(BatchRenorm, 8), 2),
    "fractal_block": (partial(FractalBlock, 8, 8), 1),
}


def from_meta(build):
    """A network around the module, with what memory held before in its buffers."""
    with torch.device("meta"):
        network = nn.Sequential(build())

    def written_over(x):
        return torch.full_like(x, 7, device="cpu")

    return network._apply(written_over)


def unsaved(network):
    saved = network.state_dict()
    return {name: buffer for name, buffer in network.named_buffers() if name not in saved}


@pytest.mark.parametrize("name", MODULES)
def test_buffers_of_a_module_from_the_meta_device_start_as_others_do(name):
    build, count = MODULES[name]
    fresh, network = nn.Sequential(build()), from_meta(build)
    assert len(unsaved(fresh)) == count
    torch.testing.assert_close(unsaved(network), unsaved(fresh), rtol=0, atol=0)
    network.load_state_dict(fresh.state_dict())
    torch.testing.assert_close(unsaved(network), unsaved(fresh), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_was_not_there_keeps_the_values_of_its_buffers(name):
    build, _ = MODULES[name]
    network = nn.Sequential(build())
    for buffer in unsaved(network).values():
        buffer.fill_(3)
    for moved in (copy.deepcopy(network), network.double(), network.to("cpu")):
        assert all((buffer == 3).all() for buffer in unsaved(moved).values())


def test_memory_may_be_given_where_the_meta_device_is_the_default():
    with torch.device("meta"):
        shift = Shift(18).to_empty(device="cpu")
    assert torch.equal(shift.taps, Shift(18).taps)


def test_a_shift_from_the_meta_device_is_a_shift(monkeypatch):
    without_operators(monkeypatch)
    shift, fresh = from_meta(partial(Shift, 18))[0], Shift(18)
    x = torch.randn(1, 18, 5, 5).to(memory_format=torch.channels_last)
    assert torch.equal(shift(x), fresh(x))
    assert torch.equal(shift.as_convolution()(x), fresh(x))
