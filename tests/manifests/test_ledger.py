import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny import pair, parts

from manifests.calls import CallRecord
from manifests.errors import Damaged, OutOfSpace
from manifests.ledger import (
    JobState,
    Ledger,
    QuarantinedStep,
    StepCost,
    pack_pair,
    sketch_of,
    sketch_pair,
    unpack_pair,
)
from manifests.records import PicturePrint, Prints, VideoPrint
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


def test_a_decision_is_found_again_by_what_was_asked(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        body = b'{"caption": "na\xc3\xafve"}' * 50
        accepted = job(1, asked="this", pair=body, sketch=b"{}")
        ledger.set_job(accepted, job(2, state="rejected", reason="blurred", asked="this"), job(3, state="undecided", asked="this"), job(4))
        rejected = job(2).job, "this", "rejected", "blurred"
        assert list(ledger.finished()) == sorted(((accepted.job, "this", "accepted", ""), rejected))
        assert ledger.pair_of(accepted.job) == body
        assert ledger.pair_of(job(2).job) is None
        assert ledger.jobs("accepted") == tuple(sorted((job(1, asked="this"), job(4)), key=lambda j: j.job))
        ledger.set_job(job(1, state="rejected", asked="that"))
        ledger.set_job(job(1, asked="that"))
        assert ledger.sketches([accepted.job]) == {}, "an accepted job without its pair has to be made anew"


def test_a_pair_comes_back_whole_and_so_does_its_sketch(tmp_path: Path) -> None:
    files = parts(Store(tmp_path / "store"), tmp_path)
    painted = (PicturePrint(shape="3" * 16, colours="4" * 384),)
    for prints in (None, Prints(target=VideoPrint(scene="0" * 16, looks="1" * 32, moves="2" * 32), painted=painted)):
        one = pair(1, files, prints=prints)
        assert unpack_pair(pack_pair(one)) == one
        with Ledger(tmp_path / "l.db") as ledger:
            ledger.set_job(job(1, pair=pack_pair(one), sketch=sketch_pair(one)), job(2, pair=b"{}"))
            assert ledger.sketches([job(n).job for n in (1, 2, 3)]) == {job(1).job: sketch_of(one)}
        assert sketch_of(one).shown.hex() == ("0" * 16 + "1" * 32 + "2" * 32 if prints else "")


def test_jobs_whose_artifact_is_damaged_are_made_anew(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.set_job(*(job(i, asked="a", pair=b'{"driving": "%064d"}' % (i % 2), sketch=b"{}") for i in range(4)))
        assert ledger.doubt(f"{1:064d}") == 2
        assert [found[0] for found in ledger.finished()] == sorted(job(i).job for i in (0, 2))


def test_what_is_in_quarantine_is_read_back_and_set_free_together(tmp_path: Path) -> None:
    keys = [outcome(i).key for i in range(3)]
    with Ledger(tmp_path / "l.db") as ledger:
        for key in keys:
            ledger.quarantine(key, "paint", {"seed": 1, "words": "naïve"}, ("died", "died again"), "Traceback\nlast line")
        strikes = ("died", "died again")
        wanted = QuarantinedStep(
            key=keys[0], step="paint", request={"seed": 1, "words": "naïve"}, strikes=strikes, details="Traceback\nlast line"
        )
        assert ledger.quarantined(keys[0]) == (wanted,)
        assert ledger.quarantined("0" * 64) == ()
        ledger.set_job(*(job(i, state="quarantined", blamed=keys[i // 2], asked="a") for i in range(4)), job(4, state="undecided"), job(5))
        assert ledger.retry([job(0).job]) == tuple(sorted([job(0).job, job(1).job]))
        assert sorted(q.key for q in ledger.quarantined()) == sorted(keys[1:])
        assert [found[0] for found in ledger.finished()] == sorted(job(i).job for i in (2, 3))
        assert ledger.retry([job(5).job]) == ()
        assert len(ledger.retry()) == 3
        assert ledger.quarantined() == ()
        assert ledger.jobs() == (job(5),)


def test_sums_follow_every_change(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger:
        cost = Cost(seconds=0.1, pool="gpu", gpu_seconds=0.05, accelerator="H100", bytes_in=7, bytes_out=9, slice="a")
        for i in range(10):
            ledger.record(outcome(i, cost=cost))
        ledger.record(outcome(0, cost=cost.model_copy(update={"seconds": 0.3, "attempts": 2, "accelerator": "L40S"})))
        ledger.lose(outcome(77).key, "paint", cost)
        about = {"step": "paint", "pool": "gpu"}
        assert ledger.costs() == (
            StepCost(**about, calls=9, seconds=1.0, attempts=10, accelerator="H100", gpu_seconds=0.5, bytes_in=70, bytes_out=90, lost=1),
            StepCost(**about, calls=1, seconds=0.3, attempts=2, accelerator="L40S", gpu_seconds=0.05, bytes_in=7, bytes_out=9),
        )
        assert ledger.gpu_seconds() == 0.55
        assert ledger.counts() == {"paint": {"ok": 10}}
        assert ledger.rebuild(Store(tmp_path / "empty")) == 0
        assert [(c.calls, c.lost, c.seconds) for c in ledger.costs()] == [(0, 1, 0.1)]


def test_a_settled_call_is_counted_once(tmp_path: Path) -> None:
    def call(state: str, nano: int) -> CallRecord:
        return CallRecord(
            id="1" * 32, key=outcome(1).key, role="r", model="m", attempt=1, state=state, prompt_tokens=1, completion_tokens=1,
            money_nano=nano,
        )  # fmt: skip

    with Ledger(tmp_path / "l.db") as ledger:
        for state, nano in (("reserved", 100), ("reserved", 100), ("confirmed", 30), ("reserved", 100)):
            ledger.asked(outcome(1).key, [call(state, nano)])
        assert ledger.money_nano() == 30
        assert [(s.requests, s.unconfirmed_requests, s.money_nano, s.unconfirmed_nano) for s in ledger.spend()] == [(1, 0, 30, 0)]


def test_a_rebuild_that_is_cut_short_is_known_not_to_be_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put_outcome(outcome(1))
    script = f"""
import os
from manifests.ledger import Ledger
from manifests.store import Store
class Cut(Store):
    def outcomes(self, damaged=None):
        yield from super().outcomes(damaged)
        os._exit(0)
with Ledger({str(tmp_path / "l.db")!r}) as ledger:
    ledger.rebuild(Cut({store.url!r}))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    with Ledger(tmp_path / "l.db") as ledger:
        assert not ledger.filled
        assert ledger.rebuild(store) == 1
        assert ledger.filled


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


def test_decisions_in_a_damaged_file_are_forgotten_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.set_job(*(job(i, asked="a", pair=b"{}", sketch=os.urandom(3000)) for i in range(200)))
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(os.urandom(path.stat().st_size // 4))
        assert len(list(ledger.finished())) < 200
        assert ledger.moved_aside is not None
        assert not list(ledger.finished())


def test_a_file_that_is_damaged_while_it_is_in_use_loses_nothing(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "l.db"
    kept = [store.put_outcome(outcome(i, message="m" * 500)) for i in range(60)]
    with Ledger(path) as ledger:
        ledger.rebuild(store)
    with Ledger(path, store) as ledger:
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(path.stat().st_size - 8192))
        late = [store.put_outcome(outcome(i)) for i in range(60, 90)]
        for one in late:
            ledger.record(one)
        assert ledger.moved_aside == tmp_path / "l.db.damaged-1"
        assert [ledger.lookup(o.key) for o in kept + late] == kept + late
        assert ledger.counts() == {"paint": {"ok": 90}}


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


def test_an_earlier_format_is_moved_aside_and_filled_from_the_store(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "l.db"
    kept = store.put_outcome(outcome(1))
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE outcomes (key TEXT PRIMARY KEY, body BLOB)")
        db.execute("PRAGMA user_version = 1")
    db.close()
    with Ledger(path, store) as ledger:
        assert ledger.lookup(kept.key) == kept
        assert ledger.filled
        assert ledger.moved_aside == tmp_path / "l.db.format-1-1"
        assert ledger.moved_aside.exists()


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
