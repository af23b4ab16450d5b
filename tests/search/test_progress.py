"""The progress bar: there on a terminal, silent elsewhere."""

import io
import re
import sys

from convsmith.search import search
from convsmith.search.strategies import Random
from tests.search.toy import evaluate, toy_space


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_trials_the_best_score_and_the_remaining_time(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "stderr", terminal)
    history = search(toy_space(), Random(), evaluate, trials=5, objective="score")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "5/5" in shown
    assert f"best score {history.best.metrics['score']:.4g}" in shown
    assert "left 0:00:00" in shown


def test_a_minimised_objective_is_shown_as_it_is(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    search(toy_space(), Random(), lambda a, **_: {"loss": -2.5}, trials=1, objective="-loss")
    assert "best loss -2.5" in terminal.getvalue()


def test_a_file_gets_nothing(capfd):
    search(toy_space(), Random(), evaluate, trials=3, objective="score")
    assert capfd.readouterr() == ("", "")
