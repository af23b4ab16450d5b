"""Where a search keeps its trials: in memory, and in the folder of a run if there is one."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from convsmith.arch import Architecture, write_whole
from convsmith.search.history import History, Trial
from convsmith.search.store import FILE, Store
from convsmith.search.strategies import StatefulStrategy, Strategy, describe
from convsmith.train.run_folder import FORMAT, command, describe_device, versions


class Run:
    """The history of one search, whose every change is written to `history.sqlite` before it is seen.

    Beside it the folder holds `run.json`, what the run is, and `best.json`, the architecture of the best trial.
    Without a folder everything is in memory. Errors are those of `Store`, and ValueError for a folder of another kind.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        space: Architecture,
        strategy: Strategy,
        facts: Mapping[str, Any],
        settings: Mapping[str, Any],
    ):
        self.space, self.strategy = space, strategy
        self._found_by = f"{describe(strategy)['name']} seed {facts['seed']}"
        self._folder, self._store = folder, None
        self.history = History(facts["objective"], facts=facts)
        if folder is None:
            return
        document = _read_document(folder / "run.json")
        self._store = Store(folder / FILE, facts)
        try:
            for row in self._store.rows():
                self.history.record(Trial(**row))
            state = self._store.strategy_state()
            if state is not None and isinstance(strategy, StatefulStrategy):
                strategy.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
            self._document = {
                **document,
                "format": FORMAT,
                "kind": "search",
                "settings": {**document.get("settings", {}), **settings},
                "seed": facts["seed"],
                **command(),
                "versions": versions(),
                "device": describe_device(torch.device("cpu")),
                "started": document.get("started", _now()),
            }
            self._document.pop("finished", None)
            self._write_document()
            self._write_best()
        except BaseException:
            self.close()
            raise

    def start(self, trial: Trial) -> None:
        """Record a trial that is about to be evaluated, together with the strategy's state behind its proposal."""
        if self._store is not None:
            self._store.write(_row(trial), position=None, strategy_state=_state(self.strategy))
        self.history.record(trial)

    def finish(self, trial: Trial) -> None:
        """Record a trial that has finished; it is on the disk when this returns."""
        if self._store is not None:
            self._store.write(_row(trial), position=len(self.history))
        self.history.record(trial)
        if self.history.best is trial:
            self._write_best()

    def done(self) -> None:
        """Note in `run.json` that the search came to its end."""
        if self._folder is not None:
            self._document["finished"] = _now()
            self._write_document()

    def close(self) -> None:
        """Close the history's file; the history in memory stays."""
        if self._store is not None:
            self._store.close()

    def _write_best(self) -> None:
        best = self.history.best
        if self._folder is not None and best is not None:
            found_by = f"{self._found_by}, trial {best.number}"
            self.space.resolve(best.decisions).replace(found_by=found_by).save(self._folder / "best.json")

    def _write_document(self) -> None:
        assert self._folder is not None
        write_whole(self._folder / "run.json", json.dumps(self._document, indent=1) + "\n")


def _row(trial: Trial) -> dict[str, Any]:
    return {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}


def _state(strategy: Strategy) -> bytes | None:
    if not isinstance(strategy, StatefulStrategy):
        return None
    buffer = io.BytesIO()
    torch.save(strategy.state_dict(), buffer)
    return buffer.getvalue()


def _read_document(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); name another run_dir") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("kind") != "search":
        kind = document.get("kind") if isinstance(document, dict) else None
        raise ValueError(f"{path.parent} must hold a search in the format {FORMAT}, got a {kind}; name another run_dir")
    return document


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
