import io
import re
import sys

import pytest

from convsmith.train import fit
from tests.train.tiny import RECIPE, TASK, tiny_data, tiny_network


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [
        (None, Terminal, True),
        (None, io.StringIO, False),
        (True, io.StringIO, True),
        (False, Terminal, False),
    ],
)
@pytest.mark.parametrize("seconds", [0.0, 1e9])  # drawn at every batch, or at the end alone
def test_the_bar_is_shown_on_a_terminal_or_on_request(progress, stream, shown, seconds, monkeypatch, capsys):
    monkeypatch.setattr("convsmith.train.progress.SECONDS_BETWEEN_DRAWINGS", seconds)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", stream())
    result = fit(tiny_network(), TASK, tiny_data(), RECIPE, progress=progress)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stderr.getvalue())
    assert capsys.readouterr().out == ""
    if not shown:
        assert text == ""
        return
    last = text.splitlines()[-1]
    assert ("epoch 1/4" in text) == (seconds == 0 and stream is Terminal)
    assert f"epoch 4/4  loss {result.history[-1]['train_loss']:.4f}" in last
    assert f"accuracy {result.metrics['accuracy']:.4f}" in last
    assert re.search(r"left\s+0:00:00", last)
