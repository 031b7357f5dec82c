"""A SQLite index over the store's outcomes and calls: look-up, states of jobs, costs. The store is the truth; this file may be deleted.

Write-ahead logging keeps every committed row through a SIGKILL. A file that SQLite can't read is moved aside and, where the store is
at hand, filled again from it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from manifests.calls import CallRecord, RoleSpend
from manifests.errors import Damaged, OutOfSpace
from manifests.records import Digest, Frozen, Split, Task, canonical_json
from manifests.store import Outcome, Store

State = Literal["accepted", "rejected", "review", "quarantined", "undecided"]
_VERSION = 1
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, step TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
       pool TEXT NOT NULL, seconds REAL NOT NULL, attempts INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS outcomes_by_step ON outcomes (step, status, pool, seconds, attempts)",
    """CREATE TABLE IF NOT EXISTS jobs (job TEXT PRIMARY KEY, slice TEXT NOT NULL, task TEXT NOT NULL, split TEXT NOT NULL,
       state TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS sources (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
       digest TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS calls (id TEXT PRIMARY KEY, key TEXT NOT NULL, role TEXT NOT NULL, model TEXT NOT NULL,
       attempt INTEGER NOT NULL, state TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
       money_nano INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS asking (key TEXT PRIMARY KEY) WITHOUT ROWID",
)
_INSERT = "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_CALL = """INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state,
    prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens, money_nano = excluded.money_nano
    WHERE calls.state = 'reserved'"""
"""A settled call stays as it is, in whichever order its records come."""
_SPEND = """SELECT role, model, count(*), sum(state <> 'confirmed'),
    sum(iif(state = 'confirmed', prompt_tokens, 0)), sum(iif(state = 'confirmed', completion_tokens, 0)),
    sum(iif(state = 'confirmed', money_nano, 0)), sum(iif(state = 'confirmed', 0, money_nano))
    FROM calls GROUP BY 1, 2 ORDER BY 1, 2"""
_UNREADABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}


class JobState(Frozen):
    """Where one job of the plan stands."""

    job: Digest
    slice: str
    task: Task
    split: Split
    state: State
    reason: str = ""
    message: str = ""


class StepCost(Frozen):
    """What the outcomes of one step took in one pool."""

    step: str
    pool: str
    calls: int
    seconds: float
    attempts: int


class Ledger:
    """Use as a context manager. One object may be shared by threads; several processes may open the same file.

    With `store`, a damaged file is filled again from it at once; without, it starts empty and `rebuild` fills it.
    """

    def __init__(self, path: str | Path, store: Store | None = None) -> None:
        self.path = Path(path)
        self.moved_aside: Path | None = None
        """where a file that could not be read went"""
        self._store = store
        self._lock = threading.RLock()
        self._db = self._open()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- outcomes

    def record(self, outcome: Outcome) -> None:
        """Index an outcome; again is harmless."""
        self._execute(_INSERT, _row(outcome))

    def lookup(self, key: str) -> Outcome | None:
        """The outcome of a key, or None."""
        rows = self._execute("SELECT body FROM outcomes WHERE key = ?", (key,))
        if not rows:
            return None
        try:
            return Outcome.model_validate_json(rows[0][0])
        except ValidationError:
            self._execute("DELETE FROM outcomes WHERE key = ?", (key,))
            return self._store.get_outcome(key) if self._store else None

    def rebuild(self, store: Store) -> int:
        """Make outcomes and calls those of the store, in one transaction; returns how many outcomes. Jobs and sources stay."""
        with self._transaction():
            for table in ("outcomes", "calls", "asking"):
                self._execute(f"DELETE FROM {table}")
            self._db.executemany(_INSERT, (_row(outcome) for outcome in store.outcomes()))
            self._db.executemany(_INSERT_CALL, (_call_row(record) for record in store.calls()))
            return int(self._execute("SELECT count(*) FROM outcomes")[0][0])

    def counts(self) -> dict[str, dict[str, int]]:
        """step → status → number of outcomes."""
        out: dict[str, dict[str, int]] = {}
        for step, status, count in self._execute("SELECT step, status, count(*) FROM outcomes GROUP BY 1, 2 ORDER BY 1, 2"):
            out.setdefault(step, {})[status] = count
        return out

    def costs(self) -> tuple[StepCost, ...]:
        """What was paid, by step and pool."""
        rows = self._execute("SELECT step, pool, count(*), sum(seconds), sum(attempts) FROM outcomes GROUP BY 1, 2 ORDER BY 1, 2")
        return tuple(StepCost(step=s, pool=p, calls=n, seconds=sec, attempts=a) for s, p, n, sec, a in rows)

    # --- calls to language models

    def asking(self, key: str) -> None:
        """Note that a step is about to send requests; should this process die, `catch_up` looks for them."""
        self._execute("INSERT OR IGNORE INTO asking VALUES (?)", (key,))

    def asked(self, key: str, calls: Iterable[CallRecord]) -> None:
        """Index what a step's requests cost, and that it sends no more for now; again is harmless."""
        with self._transaction():
            self._db.executemany(_INSERT_CALL, (_call_row(record) for record in calls))
            self._execute("DELETE FROM asking WHERE key = ?", (key,))

    def catch_up(self, store: Store) -> int:
        """Index the requests of steps that were asking when an earlier process died; returns of how many steps."""
        keys = [str(row[0]) for row in self._execute("SELECT key FROM asking ORDER BY key")]
        for key in keys:
            self.asked(key, store.calls(key))
        return len(keys)

    def look_at_open(self, store: Store) -> None:
        """Index what the steps that are asking just now have sent so far, at its upper bound until it is settled."""
        for (key,) in self._execute("SELECT key FROM asking ORDER BY key"):
            with self._transaction():
                self._db.executemany(_INSERT_CALL, (_call_row(record) for record in store.calls(key)))

    def spend(self) -> tuple[RoleSpend, ...]:
        """What was paid for language models, by role and model. A reserved call counts as unconfirmed."""
        return tuple(RoleSpend(**dict(zip(RoleSpend.model_fields, row, strict=True))) for row in self._execute(_SPEND))

    def money_nano(self) -> int:
        """Billionths of a unit of money, at most: confirmed and unconfirmed together."""
        return int(self._execute("SELECT coalesce(sum(money_nano), 0) FROM calls")[0][0])

    # --- jobs

    def set_job(self, *jobs: JobState) -> None:
        """Write where jobs stand; several in one transaction."""
        rows = [(j.job, j.slice, j.task, j.split, j.state, j.reason, j.message) for j in jobs]
        self._execute_many("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def jobs(self, state: State | None = None) -> tuple[JobState, ...]:
        """All jobs, or those in one state, by job id."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        rows = self._execute(f"SELECT job, slice, task, split, state, reason, message FROM jobs {where} ORDER BY job", values)
        return tuple(JobState(**dict(zip(JobState.model_fields, row, strict=True))) for row in rows)

    def job_counts(self) -> dict[str, dict[str, int]]:
        """slice → state → number of jobs."""
        out: dict[str, dict[str, int]] = {}
        for name, state, count in self._execute("SELECT slice, state, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"):
            out.setdefault(name, {})[state] = count
        return out

    # --- sources

    def source_digest(self, path: str, size: int, mtime_ns: int) -> str | None:
        """The digest of a file that has not changed since it was remembered, so that it need not be read again."""
        rows = self._execute("SELECT digest FROM sources WHERE path = ? AND size = ? AND mtime_ns = ?", (path, size, mtime_ns))
        return str(rows[0][0]) if rows else None

    def remember_source(self, path: str, size: int, mtime_ns: int, digest: str) -> None:
        self._execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)", (path, size, mtime_ns, digest))

    # --- the file

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._connect()
        except sqlite3.DatabaseError as error:
            if _kind(error) not in _UNREADABLE:
                raise _told(error, self.path) from error
        except OSError as error:
            raise OutOfSpace(f"can't write the ledger {self.path}: {error.strerror}. Fix its folder, then run again.") from error
        return self._replace()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise Damaged(f"the ledger {self.path} has format {version}, this version reads {_VERSION}. Delete it; it will be rebuilt.")
            for statement in _SCHEMA:
                db.execute(statement)
            if version != _VERSION:
                db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("SELECT key FROM outcomes LIMIT 1").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _replace(self) -> sqlite3.Connection:
        """Move an unreadable file out of the way and start again."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        for tail in ("-wal", "-shm"):
            Path(f"{self.path}{tail}").unlink(missing_ok=True)
        self.moved_aside = aside
        self._db = self._connect()
        if self._store is not None:
            self.rebuild(self._store)
        return self._db

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                if _kind(error) not in _UNREADABLE or self._db.in_transaction:
                    raise _told(error, self.path) from error
                self._db.close()
                self._replace()
                return self._db.execute(statement, values).fetchall()

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._transaction():
            for row in rows:
                self._execute(statement, row)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else's statements between."""
        with self._lock:
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _row(outcome: Outcome) -> tuple[Any, ...]:
    cost = outcome.cost
    body = canonical_json(outcome)
    return outcome.key, outcome.step, outcome.status, outcome.reason, cost.pool, cost.seconds, cost.attempts, body


def _call_row(record: CallRecord) -> tuple[Any, ...]:
    return (
        record.id, record.key, record.role, record.model, record.attempt, record.state, record.prompt_tokens, record.completion_tokens,
        record.money_nano,
    )  # fmt: skip


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
