"""The history's file: SQLite, one writer, one row per trial. A finished trial is on the disk when `write` returns."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convsmith.arch.differences import differences, shown

FILE = "history.sqlite"
VERSION = 1  # PRAGMA user_version of the file
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE strategy (id INTEGER PRIMARY KEY CHECK (id = 0), state BLOB NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    position INTEGER,  -- in the order of finishing; NULL while running
    decisions TEXT NOT NULL,
    metrics TEXT NOT NULL,
    reports TEXT NOT NULL,
    seed INTEGER NOT NULL,
    started REAL NOT NULL,
    finished REAL,
    error TEXT,
    architecture TEXT NOT NULL,
    same_as INTEGER
);
"""
COLUMNS = (
    "number", "state", "decisions", "metrics", "reports", "seed", "started", "finished", "error", "architecture",
    "same_as",
)  # fmt: skip
JSON_COLUMNS = ("decisions", "metrics", "reports")


class Store:
    """A history's file, open for writing by this process alone.

    Raises BlockingIOError where another process writes it, ValueError where it holds another search: the message
    names the first fact that differs, and both values.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            try:
                with _readable(path):
                    # Readers and the writer do not wait for each other.
                    self._connection.execute("PRAGMA journal_mode = WAL")
                    if _is_new(self._connection, path):
                        self._create(facts)
                    else:
                        _check_facts(_facts(self._connection), facts, path)
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    def rows(self) -> list[dict[str, Any]]:
        """The trials: the finished ones in the order of finishing, then the running ones by number."""
        return _rows(self._connection)

    def strategy_state(self) -> bytes | None:
        """What the strategy had learned when the latest trial started."""
        row = self._connection.execute("SELECT state FROM strategy").fetchone()
        return None if row is None else bytes(row[0])

    def write(self, trial: Mapping[str, Any], *, position: int | None, strategy_state: bytes | None = None) -> None:
        """Write one trial in one transaction; `position` is its place among the finished ones, None while it runs.

        A start does not wait for the disk, since nothing is lost with it: the process may die without harm, and after
        a power cut the same trial is asked again. A finished trial does wait, and takes the start before it along.
        """
        self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if position is None else 'FULL'}")
        values = [_dump(trial[name]) if name in JSON_COLUMNS else trial[name] for name in COLUMNS]
        marks = ", ".join("?" for _ in range(len(COLUMNS) + 1))
        with self._transaction():
            self._connection.execute(
                f"INSERT OR REPLACE INTO trials ({', '.join(COLUMNS)}, position) VALUES ({marks})", [*values, position]
            )
            if strategy_state is not None:
                self._connection.execute("INSERT OR REPLACE INTO strategy VALUES (0, ?)", [strategy_state])

    def close(self) -> None:
        """Close the file and let another process write it."""
        self._connection.close()
        self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _create(self, facts: Mapping[str, Any]) -> None:
        with self._transaction():
            for statement in TABLES.split(";\n"):
                if statement.strip():
                    self._connection.execute(statement)
            rows = [(name, json.dumps(value)) for name, value in facts.items()]
            self._connection.executemany("INSERT INTO facts VALUES (?, ?)", rows)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Facts and trials as they are now, also while another process writes them."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no history {path}; name the folder of a search (`convsmith report` reads a training's too)"
        )
    # SQLite readers keep files of their own beside a WAL database, and tidy up only with write access.
    mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
    alone = mode == "ro" and not path.with_name(path.name + "-wal").exists()
    with _readable(path):
        uri = f"{path.resolve().as_uri()}?mode={mode}{'&immutable=1' if alone else ''}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            connection.execute("BEGIN")  # facts and trials of one moment
            if _is_new(connection, path):
                raise ValueError(f"{path} holds no search yet; start it again, or name another folder")
            return _facts(connection), _rows(connection)
        finally:
            connection.close()


def _lock(path: Path) -> sqlite3.Connection:
    # A lock of the operating system, held by an open transaction on an empty database beside the history. It ends
    # with the process, however that ends, and neither children nor other connections of the process share it.
    try:
        lock = sqlite3.connect(path.with_name(path.name + ".lock"), timeout=0, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise OSError(f"{path.parent} cannot be written ({error}); name another run_dir") from None
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        raise BlockingIOError(
            f"another search is writing {path}; wait until it ends, or name another run_dir"
        ) from None
    return lock


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        raise ValueError(f"{path} is no history of a search ({error}); name another run_dir") from None


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version > VERSION or (version < VERSION and tables):
        raise ValueError(
            f"{path} must have the format {VERSION} of histories, got {version}; "
            f"{'a newer convsmith reads it' if version > VERSION else 'name another run_dir'}"
        )
    return not tables


def _facts(connection: sqlite3.Connection) -> dict[str, Any]:
    rows = connection.execute("SELECT name, value FROM facts ORDER BY rowid")
    return {name: json.loads(value) for name, value in rows}


def _check_facts(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    new = json.loads(json.dumps(dict(new)))  # as the file has them: tuples are lists
    difference = next(differences(dict(old), new), None)
    if difference is not None:
        where, there, here = difference
        raise ValueError(
            f"{path.parent} holds a search with the {where} {shown(there)}, this one has {shown(here)}; "
            f"name another run_dir, or go on with the same {where}"
        )


def _rows(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM trials ORDER BY position IS NULL, position, number")
    return [_load(dict(zip(COLUMNS, row, strict=True))) for row in rows]


def _load(row: dict[str, Any]) -> dict[str, Any]:
    row |= {name: json.loads(row[name]) for name in JSON_COLUMNS}
    row["reports"] = tuple((step, math.nan if value is None else value) for step, value in row["reports"])
    return row


def _dump(value: Any) -> str:
    if isinstance(value, tuple):  # reports: a diverging loss is recorded too, and JSON has no NaN
        value = [[step, number if math.isfinite(number) else None] for step, number in value]
    return json.dumps(value, allow_nan=False)
