import io
import sys

from convsmith.cli.calibration_progress import shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_a_minute_and_one_at_the_end(capsys):
    with shown(180.0) as tell:
        for networks, seconds in ((20, 30.0), (40, 61.0), (60, 90.0), (80, 122.0), (100, 179.0), (120, 181.0)):
            tell(networks, seconds)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" networks in ") for line in err.splitlines()] == [
        ["calibrate: 40", "1.0 of 3 minutes"],
        ["calibrate: 80", "2.0 of 3 minutes"],
        ["calibrate: 120", "3.0 of 3 minutes"],
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(180.0) as tell:
        tell(40, 61.0)
    assert "40 networks" in terminal.getvalue()
    assert "minutes" not in terminal.getvalue()
