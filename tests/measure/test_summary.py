import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import Classifier, ConvNormAct

TINY = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 8)],
    stages=[[cs.spec(ConvNormAct, 16, stride=2)]],
    head=cs.spec(Classifier, 10),
    name="tiny",
)


class Shared(nn.Module):
    """One convolution under two names, called twice; a head that borrows its weight; one layer that is not called."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.ReLU())
        self.again = self.body[0]
        self.tied = nn.Conv2d(4, 4, 1, bias=False)
        self.tied.weight = self.again.weight
        self.idle = nn.Linear(3, 5)

    def forward(self, x):
        return {"map": self.tied(self.again(self.body(x))), "more": [F.conv2d(x, self.tied.weight)]}


def rows(table):
    return {layer.path: layer for layer in table.layers}


def test_rows_and_notes_by_hand():
    table = cs.measure.summary(Shared(), (2, 4, 3, 5))
    found = rows(table)
    macs = 2 * 15 * 16
    assert list(found) == ["body", "body.0", "body.1", "again", "tied", "idle"]
    assert (found["body.0"].macs, found["body.0"].calls, found["body.0"].note) == (2 * macs, 2, "called 2 times")
    assert (found["again"].params, found["again"].macs, found["again"].note) == (0, 0, "is body.0")
    assert (found["tied"].params, found["tied"].macs, found["tied"].note) == (16, macs, "weight is body.0.weight")
    assert (found["idle"].params, found["idle"].note) == (20, "not called")
    assert (found["body"].output, found["body"].kind) == ((2, 4, 3, 5), "Sequential")
    assert table.total.output == {"map": (2, 4, 3, 5), "more": [(2, 4, 3, 5)]}
    assert (table.total.params, table.total.macs) == (16 + 20, 4 * macs)


def test_the_text():
    text = str(cs.measure.summary(Shared(), (2, 4, 3, 5)))
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["layer", "output", "params", "MACs"]
    assert next(line for line in lines if line.startswith("  0 (Conv2d)")).endswith("called 2 times")
    assert lines[-1].startswith("total (Shared)")
    assert "map: 2 × 4 × 3 × 5, more: 2 × 4 × 3 × 5" in lines[-1]
    assert all(line == line.rstrip() for line in lines)


def test_depth_hides_rows_and_loses_nothing():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 5, 1))), nn.ReLU())
    full = rows(cs.measure.summary(network, (1, 3, 2, 2)))
    short = cs.measure.summary(network, (1, 3, 2, 2), depth=1)
    assert list(rows(short)) == ["0", "1"]
    assert rows(short)["0"] == full["0"]
    assert rows(short)["0"].macs == full["0.0"].macs + full["0.1.0"].macs == short.total.macs
    with pytest.raises(ValueError, match="depth counts levels of modules from 1, got 0"):
        cs.measure.summary(network, (1, 3, 2, 2), depth=0)


def test_what_has_no_formula_is_told_under_the_table():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.rfft2(x)

    table = cs.measure.summary(Fourier(), (1, 3, 8, 8))
    assert table.uncounted == {"fft_r2c": 1}
    assert str(table).splitlines()[-1] == "no formula for {'fft_r2c': 1}; its MACs are a lower bound"


def test_an_architecture_has_the_rows_of_its_network():
    table, cost = cs.measure.summary(TINY, (2, 3, 8, 8)), cs.measure.cost(TINY, (2, 3, 8, 8))
    assert rows(table)["stages.0.0"].macs == cost.by_module["stages.0.0"].macs
    assert (table.total.params, table.total.macs, table.total.output) == (cost.params, cost.macs, (2, 10))
    with pytest.raises(ValueError, match="tiny takes 3 channels"):
        cs.measure.summary(TINY, (1, 1, 8, 8))
