import sys

import pytest

import convsmith as cs
from convsmith.cli import main
from tests.cli.tiny import TINY


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Run a command line; its exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["convsmith", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def convsmith(run_command, monkeypatch, tmp_path):
    """Run a command in an empty folder; its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    TINY.replace(reference=cs.arch.Reference(438, 6992, 8)).save("tiny.json")
    return run_command
