"""The ledger's SQLite file: its tables, and what happens when it can't be read or written.

Sums are kept in `totals` and `spent` by triggers, so that a ledger of millions of rows tells what was paid without reading them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from manifests.errors import Damaged, OutOfSpace

VERSION = 2
_COST = """pool TEXT NOT NULL, accelerator TEXT NOT NULL, micros INTEGER NOT NULL, gpu_micros INTEGER NOT NULL, attempts INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, job TEXT NOT NULL, slice TEXT NOT NULL"""
_TABLES = (
    f"""CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, step TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
        {_COST}) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS bodies (key TEXT PRIMARY KEY, body BLOB NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS lost (id INTEGER PRIMARY KEY, key TEXT NOT NULL, step TEXT NOT NULL, status TEXT NOT NULL, {_COST})",
    """CREATE TABLE IF NOT EXISTS totals (step TEXT, status TEXT, pool TEXT, accelerator TEXT, slice TEXT, count INTEGER NOT NULL,
       micros INTEGER NOT NULL, gpu_micros INTEGER NOT NULL, attempts INTEGER NOT NULL, bytes_in INTEGER NOT NULL,
       bytes_out INTEGER NOT NULL, PRIMARY KEY (step, status, pool, accelerator, slice)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS jobs (job TEXT PRIMARY KEY, slice TEXT NOT NULL, task TEXT NOT NULL, split TEXT NOT NULL,
       state TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, asked TEXT NOT NULL, blamed TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS pairs (job TEXT PRIMARY KEY, sketch BLOB NOT NULL, body BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS quarantine (key TEXT PRIMARY KEY, step TEXT NOT NULL, request TEXT NOT NULL, strikes TEXT NOT NULL,
       details TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS sources (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
       digest TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS calls (id TEXT PRIMARY KEY, key TEXT NOT NULL, role TEXT NOT NULL, model TEXT NOT NULL,
       attempt INTEGER NOT NULL, state TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
       money_nano INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS spent (role TEXT, model TEXT, state TEXT, count INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
       completion_tokens INTEGER NOT NULL, money_nano INTEGER NOT NULL, PRIMARY KEY (role, model, state)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS asking (key TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS filled (yes INTEGER PRIMARY KEY)",
)
_UNREADABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}


def _triggers(table: str, sums: str, keys: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """Statements that keep `sums` the sums of a table's rows by its `keys`."""
    for when, row, sign in (("INSERT", "NEW", "+"), ("DELETE", "OLD", "-"), ("UPDATE", "OLD", "-"), ("UPDATE", "NEW", "+")):
        columns = ", ".join((*keys, "count", *values))
        new = ", ".join((*(f"{row}.{key}" for key in keys), f"{sign}1", *(f"{sign}{row}.{value}" for value in values)))
        add = ", ".join(f"{value} = {value} + excluded.{value}" for value in ("count", *values))
        name = f"{table}_{when}_{row}".lower()
        change = f"INSERT INTO {sums} ({columns}) VALUES ({new}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {add}"
        yield f"CREATE TRIGGER IF NOT EXISTS {name} AFTER {when} ON {table} BEGIN {change}; END"


_SUMMED = ("micros", "gpu_micros", "attempts", "bytes_in", "bytes_out")
SCHEMA = (
    *_TABLES,
    *_triggers("outcomes", "totals", ("step", "status", "pool", "accelerator", "slice"), _SUMMED),
    *_triggers("lost", "totals", ("step", "status", "pool", "accelerator", "slice"), _SUMMED),
    *_triggers("calls", "spent", ("role", "model", "state"), ("prompt_tokens", "completion_tokens", "money_nano")),
)


class LedgerFile:
    """A connection that threads may share; several processes may have one to the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moved_aside: Path | None = None
        """where a file that could not be read, or is of an earlier format, went"""
        self._lock = threading.RLock()
        self._db = self._open()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def refill(self) -> None:
        """Called when the file had to begin anew."""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                if _kind(error) not in _UNREADABLE or self._db.in_transaction:
                    raise _told(error, self.path) from error
                self.renew()
                return self._db.execute(statement, values).fetchall()

    def renew(self) -> None:
        """Begin anew beside a file that turned out to be damaged."""
        with self._lock:
            self._db.close()
            self._replace("damaged")
            self.refill()

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Inside a transaction, rows as they come."""
        with self._lock:
            try:
                self._db.executemany(statement, rows)
            except sqlite3.DatabaseError as error:
                raise _told(error, self.path) from error

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """One row after the other, for results that need not fit into memory. Nobody else waits meanwhile."""
        try:
            with contextlib.closing(self._connect()) as db:
                yield from db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise _told(error, self.path) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else's statements between."""
        with self._lock:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        why = "damaged"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = self._connect()
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == VERSION:
                return db
            db.close()
            why = f"format-{version}"
        except sqlite3.DatabaseError as error:
            if _kind(error) not in _UNREADABLE:
                raise _told(error, self.path) from error
        except OSError as error:
            raise OutOfSpace(f"can't write the ledger {self.path}: {error.strerror}. Fix its folder, then run again.") from error
        self._replace(why)
        self.refill()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA cache_size = -32768")  # KiB
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise Damaged(f"the ledger {self.path} has format {version}, this version reads {VERSION}. Delete it; it will be rebuilt.")
            if version in (0, VERSION):
                for statement in SCHEMA:
                    db.execute(statement)
                if version != VERSION:
                    db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("SELECT key FROM outcomes LIMIT 1").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _replace(self, why: str) -> None:
        """Move the file out of the way and start again."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{why}-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        for tail in ("-wal", "-shm"):
            Path(f"{self.path}{tail}").unlink(missing_ok=True)
        self.moved_aside = aside
        self._db = self._connect()


def _kind(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _told(error: sqlite3.Error, path: Path) -> Exception:
    """The error in this project's words; programming mistakes stay what they are."""
    if _kind(error) in _UNWRITABLE:
        return OutOfSpace(f"can't write the ledger {path}: {error}. Free some room or fix its permissions, then run again to resume.")
    if _kind(error) in _UNREADABLE:
        return Damaged(f"the ledger {path} is damaged: {error}. Delete it; it will be rebuilt from the store.")
    return error
