"""What a run cost: nothing is counted twice, nothing is left out, and `status`, `retry` and the table say it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import call, motionpair

from factory.workplace import Workplace
from manifests.calls import CallRecord
from manifests.costs import by_job, by_slice, write_costs
from manifests.errors import BadRecipe, OutOfSpace
from manifests.ledger import JobState, Ledger
from manifests.store import Cost, Outcome


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def job(number: int, state: str, slice_: str, **more: object) -> JobState:
    return JobState.model_validate({"job": sha(number), "slice": slice_, "task": "pose", "split": "train", "state": state, **more})


SECONDS = [0.1, 0.2, 0.3, 1e-4, 33.3333, 7.7, 0.7]
"""numbers whose floats don't add up by themselves"""


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A folder in which 20 jobs of two slices, 200 steps, three lost tries and a question to a model were paid for."""
    made = Workplace(tmp_path / "out")
    with made.opened() as ledger:
        states = ["accepted", "rejected", "quarantined", "accepted", "undecided"]
        ledger.set_job(*(job(i, states[i % 5], "walk" if i % 2 else "swap", blamed=sha("step2") if i == 2 else "") for i in range(20)))
        for i in range(200):
            owner = i % 22
            about = {} if owner >= 20 else {"job": sha(owner), "slice": "walk" if owner % 2 else "swap"}
            seconds = SECONDS[i % 7]
            gpu = {"gpu_seconds": seconds / 2, "accelerator": ["H100", "L40S"][i % 2], "pool": "gpu"} if i % 3 else {"pool": "cpu"}
            cost = Cost(seconds=seconds, bytes_in=i, bytes_out=2 * i, attempts=1 + i % 2, **gpu, **about)
            ledger.record(made.store.put_outcome(Outcome(key=sha(f"step{i}"), step="paint", status="ok", cost=cost)))
        for i in range(3):
            ledger.lose(sha(f"step{i}"), "paint", Cost(seconds=5.05, pool="gpu", job=sha(1), slice="walk"))
        question = Outcome(key=sha("q"), step="ask", status="ok", cost=Cost(seconds=9.0, pool="brain", job=sha(1), slice="walk"))
        ledger.record(made.store.put_outcome(question))
        asked = CallRecord(
            id="1" * 32, key=sha("q"), role="checker", model="m", attempt=1, state="confirmed", prompt_tokens=11, completion_tokens=5,
            money_nano=2_000_000,
        )  # fmt: skip
        ledger.asked(sha("q"), [asked])
        details = "Traceback\n  File \x1b[31mx\nlast words"
        ledger.quarantine(sha("step2"), "paint", {"seed": 7}, ("its worker died: SIGSEGV", "its worker died: SIGSEGV"), details)
    return made


def micros(place: Workplace) -> int:
    """Of all outcomes, as the store holds them, and of the lost tries."""
    return sum(round(o.cost.seconds * 10**6) for o in place.store.outcomes() if o.cost.pool != "brain") + 3 * 5_050_000


def test_sums_are_those_of_the_recorded_outcomes_exactly(place: Workplace) -> None:
    outcomes = list(place.store.outcomes())
    with place.opened() as ledger:
        slices, jobs = by_slice(ledger), list(by_job(ledger))
        assert set(slices) == {"", "swap", "walk"}
        for sums in (list(slices.values()), [amounts for _, _, amounts in jobs]):
            assert sum(a.micros for a in sums) == micros(place)
            assert sum(a.asking_micros for a in sums) == 9_000_000
            for kind in ("H100", "L40S"):
                wanted = sum(round(o.cost.gpu_seconds * 10**6) for o in outcomes if o.cost.accelerator == kind)
                assert sum(a.gpu_micros.get(kind, 0) for a in sums) == wanted > 0
            assert sum(a.bytes_in for a in sums) == sum(o.cost.bytes_in for o in outcomes)
            assert sum(a.bytes_out for a in sums) == sum(o.cost.bytes_out for o in outcomes)
            assert [sum(getattr(a, n) for a in sums) for n in ("requests", "prompt_tokens", "money_nano")] == [1, 11, 2_000_000]
        assert [(name, len({j for j, n, _ in jobs if n == name})) for name in slices] == [("", 1), ("swap", 10), ("walk", 10)]


def test_the_table_has_every_second_once_and_full_costs_add_up(place: Workplace) -> None:
    path = place.out / "costs.parquet"
    with place.opened() as ledger:
        write_costs(ledger, path)
        first = path.read_bytes()
        write_costs(ledger, path)
    assert path.read_bytes() == first
    rows = pq.read_table(path).to_pylist()
    assert sum(round(row["worker_seconds"] * 10**6) for row in rows) == micros(place)
    assert sum(row["steps"] for row in rows) == 201
    assert [row["job"] for row in rows if row["slice"] is None] == [None]
    accepted = [row for row in rows if row["state"] == "accepted"]
    assert len(accepted) == 8
    assert sum(row["full_worker_seconds"] for row in accepted) == pytest.approx(micros(place) / 10**6)
    assert sum(row["full_money"] for row in accepted) == pytest.approx(0.002)
    assert all((row["full_worker_seconds"] is None) == (row["state"] != "accepted") for row in rows)
    assert all(row["full_gpu_seconds"] > row["gpu_seconds"] for row in accepted)
    assert {kind for row in rows for kind, _ in row["gpu_seconds_by_type"]} == {"H100", "L40S"}
    with Ledger(place.out / "ledger.sqlite") as ledger, pytest.raises(OutOfSpace, match="costs"):
        write_costs(ledger, place.out / "nowhere" / "costs.parquet")


def test_a_ledger_rebuilt_from_the_store_charges_the_same(place: Workplace) -> None:
    with place.opened() as ledger:
        before = {name: a.gpu_micros for name, a in by_slice(ledger).items()}
    (place.out / "ledger.sqlite").unlink()
    with place.opened() as ledger:
        assert {name: a.gpu_micros for name, a in by_slice(ledger).items()} == before


def test_status_tells_costs_and_what_is_in_quarantine(place: Workplace) -> None:
    printed = call("status", place.out)
    walk = next(line.split() for line in printed.splitlines() if line.startswith("walk") and "L40S" in line)
    with place.opened() as ledger:
        cost = by_slice(ledger)["walk"]
    assert f"{cost.seconds / 4:.3f}" in walk
    assert "(no job)" in printed
    assert "--quarantine" in printed
    shown = call("status", place.out, "--quarantine")
    for words in ("paint", '"seed": 7', "try 2: its worker died: SIGSEGV", "last words", f"swap {sha(2)[:12]}", "motionpair retry"):
        assert words in shown
    assert "\x1b" not in shown


def test_retry_sets_jobs_free(place: Workplace) -> None:
    assert "1 jobs" in call("retry", place.out, "--job", sha(2)[:12])
    with place.opened() as ledger:
        assert ledger.quarantined() == ()
        assert sha(2) not in {j.job for j in ledger.jobs()}
        assert len(ledger.jobs("quarantined")) == 3
    assert "is accepted; only" in call("retry", place.out, "--job", sha(0), code=2)
    assert "is no job" in call("retry", place.out, "--job", "xyz", code=2)
    assert "--all" in call("retry", place.out, code=2)
    assert "--all" in call("retry", place.out, "--all", "--job", sha(2), code=2)
    assert "7 jobs" in call("retry", place.out, "--all")
    assert "no job was" in call("retry", place.out, "--all")
    with place.opened():
        assert "another run is working" in call("retry", place.out, "--all", code=2)


def test_a_folder_remembers_its_store(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    first = Workplace(out, str(elsewhere))
    kept = first.store.put_outcome(Outcome(key=sha(1), step="s", status="ok"))
    with first.opened() as ledger:
        assert ledger.lookup(sha(1)) == kept
    assert Workplace(out).store.url == str(elsewhere)
    assert Workplace(out, str(elsewhere) + "/").store.url == str(elsewhere)
    with pytest.raises(BadRecipe, match="was begun with the store"):
        Workplace(out, str(tmp_path / "third"))
    (out / "place.json").write_text("{")
    with pytest.raises(BadRecipe, match=r"place\.json"):
        Workplace(out)
    begun = Workplace(tmp_path / "plain")
    with begun.opened():
        pass
    with pytest.raises(BadRecipe, match="--store"):
        Workplace(tmp_path / "plain", str(elsewhere))
    assert not (tmp_path / "plain" / "place.json").exists()


def test_a_wrong_store_is_told_in_one_line_and_not_remembered(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "manifests" / "recipes" / "quickstart.yaml"
    for store in ("s3://KEY:hidden-secret@bucket/x", "nowhere://x/y"):
        done = subprocess.run(
            motionpair("run", recipe, "--out", tmp_path / "o", "--store", store), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "hidden-secret" not in done.stdout + done.stderr
    assert not (tmp_path / "o" / "place.json").exists()
