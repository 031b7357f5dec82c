import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from manifests.errors import Damaged, OutOfSpace
from manifests.ledger import JobState, Ledger, StepCost
from manifests.store import Cost, Outcome, Store


def outcome(number: int, step: str = "paint", **more: object) -> Outcome:
    fields = {"key": hashlib.sha256(f"{step}{number}".encode()).hexdigest(), "step": step, "status": "ok", "answer": number, **more}
    return Outcome.model_validate(fields)


def job(number: int, **more: object) -> JobState:
    fields = {"job": hashlib.sha256(str(number).encode()).hexdigest(), "slice": "a", "task": "pose", "split": "train", "state": "accepted"}
    return JobState.model_validate({**fields, **more})


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    rejected = outcome(1, status="rejected", reason="blurred", message="naïve", cost=Cost(seconds=2.5, pool="gpu", attempts=3))
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(rejected)
        ledger.record(rejected)
        assert ledger.lookup("0" * 64) is None
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.lookup(rejected.key) == rejected
        assert ledger.counts() == {"paint": {"rejected": 1}}


def test_counts_and_costs(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        for i in range(4):
            ledger.record(outcome(i, cost=Cost(seconds=i, pool="gpu" if i % 2 else "cpu", attempts=1 + i)))
        ledger.record(outcome(9, "weave", status="rejected", reason="x"))
        assert ledger.counts() == {"paint": {"ok": 4}, "weave": {"rejected": 1}}
        assert ledger.costs() == (
            StepCost(step="paint", pool="cpu", calls=2, seconds=2, attempts=4),
            StepCost(step="paint", pool="gpu", calls=2, seconds=4, attempts=6),
            StepCost(step="weave", pool="", calls=1, seconds=0, attempts=1),
        )


def test_jobs_and_sources(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.set_job(*(job(i, state="undecided") for i in range(3)))
        ledger.set_job(job(1, state="quarantined", reason="crash", message="a line"))
        assert ledger.job_counts() == {"a": {"quarantined": 1, "undecided": 2}}
        assert ledger.jobs("quarantined") == (job(1, state="quarantined", reason="crash", message="a line"),)
        assert len(ledger.jobs()) == 3
        ledger.remember_source("a.mp4", 10, 5, "f" * 64)
        assert ledger.source_digest("a.mp4", 10, 5) == "f" * 64
        assert ledger.source_digest("a.mp4", 10, 6) is None
        assert ledger.source_digest("a.mp4", 11, 5) is None


def test_a_deleted_ledger_is_rebuilt_from_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = [store.put_outcome(outcome(i)) for i in range(5)]
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.set_job(job(1))
        ledger.record(outcome(77))
        assert ledger.rebuild(store) == 5
        assert ledger.lookup(outcome(77).key) is None
        assert [ledger.lookup(o.key) for o in kept] == kept
        assert len(ledger.jobs()) == 1


@pytest.mark.parametrize("harm", ["text", "middle", "short"])
def test_a_damaged_file_is_moved_aside_and_filled_again(tmp_path: Path, harm: str) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "l.db"
    kept = [store.put_outcome(outcome(i, message="m" * 500)) for i in range(60)]
    with Ledger(path) as ledger:
        assert ledger.rebuild(store) == 60
    data = path.read_bytes()
    damaged = {"text": b"no database" * 500, "middle": data[:4096] + os.urandom(len(data) - 4096), "short": data[: len(data) // 2]}
    path.write_bytes(damaged[harm])
    with Ledger(path, store) as ledger:
        assert [ledger.lookup(o.key) for o in kept] == kept
        assert ledger.counts() == {"paint": {"ok": 60}}
        assert ledger.moved_aside == tmp_path / "l.db.damaged-1"
    assert (tmp_path / "l.db.damaged-1").read_bytes() == damaged[harm]


def test_a_row_that_cannot_be_read_is_taken_from_the_store(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "l.db"
    kept = store.put_outcome(outcome(1))
    with Ledger(path, store) as ledger:
        ledger.record(kept)
        with sqlite3.connect(path) as db:
            db.execute("UPDATE bodies SET body = 'nonsense'")
        db.close()
        assert ledger.lookup(kept.key) == kept


def test_another_format_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Damaged, match="format 99"):
        Ledger(path)
    assert path.exists()


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutOfSpace, match="ledger"):
        Ledger(tmp_path / "file" / "l.db")


def test_what_was_recorded_survives_a_kill(tmp_path: Path) -> None:
    script = f"""
from manifests.ledger import Ledger
from manifests.store import Outcome
import hashlib
ledger = Ledger({str(tmp_path / "l.db")!r})
for i in range(10**9):
    ledger.record(Outcome(key=hashlib.sha256(str(i).encode()).hexdigest(), step="s", status="ok"))
    print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 200:
                break
        process.send_signal(signal.SIGKILL)
        last = int(line)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.moved_aside is None
        assert ledger.counts()["s"]["ok"] > last


def test_threads_and_a_second_process_share_it(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger, Ledger(tmp_path / "l.db") as other:

        def work(mine: Ledger, start: int) -> None:
            for i in range(start, start + 50):
                mine.record(outcome(i))
                mine.set_job(job(i))

        threads = [threading.Thread(target=work, args=(mine, 50 * i)) for i, mine in enumerate((ledger, ledger, other, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert other.counts() == {"paint": {"ok": 200}}
        assert len(ledger.jobs()) == 200
