"""A clock that is set by hand: time passes where a test says so, and nowhere else."""

from types import SimpleNamespace

from convsmith.deploy import rounds


class HandClock:
    """Takes the place of the clock that `deploy.rounds` reads."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(rounds, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def takes(self, *seconds):
        """A function that takes so many seconds, one after the other, and those again when all were taken."""
        calls = 0

        def call(x=None):
            nonlocal calls
            self.now += seconds[calls % len(seconds)]
            calls += 1
            return x

        return call
