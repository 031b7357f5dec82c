"""The store on a real S3 server."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import KEY, SECRET, S3Server, serving
from stored import DATA, kept_in_every_way, outcome

from manifests.calls import CallRecord
from manifests.errors import BadRecipe, Damaged, OutOfSpace, Transient
from manifests.ledger import Ledger
from manifests.records import Artifact
from manifests.store import Store, answer_probe


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as made:
        yield made


@pytest.fixture
def store(server: S3Server) -> Iterator[Store]:
    yield Store(f"{server.bucket()}/some/prefix", patience_s=20)
    server.trouble(count=0)


def test_bytes_files_and_outcomes_come_back(store: Store, tmp_path: Path) -> None:
    artifact = kept_in_every_way(store, tmp_path)
    assert store.local_path(artifact, tmp_path / "scratch").read_bytes() == DATA
    assert store.read(store.put(b"", ".bin")) == b""
    first = outcome(1, artifacts=(artifact,))
    assert store.get_outcome(first.key) is None
    assert list(store.outcomes()) == []
    assert store.put_outcome(first) == first
    assert store.put_outcome(outcome(1, answer="another")) == first
    assert store.put_outcome(outcome(2)) == outcome(2)
    assert list(store.outcomes()) == sorted([first, outcome(2)], key=lambda o: o.key)
    assert store.where(artifact) == f"{store.url}/objects/{artifact.digest[:2]}/{artifact.digest}.mp4"


def test_what_is_missing_is_said(store: Store, tmp_path: Path) -> None:
    ghost = Artifact(digest="0" * 64, size=3, suffix=".png")
    assert not store.has(ghost)
    assert store.find(ghost.digest) is None
    for ask in (lambda: store.read(ghost), lambda: store.get(ghost.digest), lambda: store.local_path(ghost, tmp_path)):
        with pytest.raises(Damaged) as error:
            ask()
        assert (error.value.code, error.value.digest) == ("missing", ghost.digest)


@pytest.mark.parametrize("harm", [b"", DATA[:-1], b"b" + DATA[1:], DATA + b"x"])
def test_a_damaged_object_is_seen_removed_and_healed(store: Store, server: S3Server, harm: bytes) -> None:
    artifact = store.put(DATA, ".bin")
    server.damage(store.where(artifact), harm)
    with pytest.raises(Damaged, match=artifact.digest):
        store.read(artifact)
    assert not store.has(artifact)
    store.put(DATA, ".bin")
    assert store.read(artifact) == DATA


def test_a_damaged_outcome_gives_way(store: Store, server: S3Server) -> None:
    store.put_outcome(outcome(1))
    store.put_outcome(outcome(2))
    server.damage(f"{store.url}/outcomes/{outcome(1).key[:2]}/{outcome(1).key}.json", b"{}")
    told: list[Damaged] = []
    assert list(store.outcomes(told.append)) == [outcome(2)]
    assert len(told) == 1
    assert store.put_outcome(outcome(1)) == outcome(1)
    assert store.get_outcome(outcome(1).key) == outcome(1)


def _write_many(url: str, times: int, answers: multiprocessing.Queue[tuple[int, object]]) -> None:
    store = Store(url)
    for i in range(times):
        store.put(DATA, ".bin")
        answers.put((i, store.put_outcome(outcome(i, answer=os.getpid())).answer))


def test_two_processes_write_the_same_and_believe_the_same(store: Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[int, object]] = spawn.Queue()
    writers = [spawn.Process(target=_write_many, args=(store.url, 30, answers)) for _ in range(2)]
    for writer in writers:
        writer.start()
    believed = [answers.get(timeout=60) for _ in range(60)]
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert store.get(hashlib.sha256(DATA).hexdigest()) == DATA
    assert sorted(set(believed)) == sorted((i, o.answer) for i in range(30) if (o := store.get_outcome(outcome(i).key)))


def test_a_server_that_ignores_conditions_keeps_the_first_answer(store: Store, server: S3Server) -> None:
    server.trouble(ignore=True)
    assert store.put_outcome(outcome(1)) == outcome(1)
    late = Store(store.url)
    for number in (1, 2):
        assert late.put_outcome(outcome(number, answer="late")).answer == ("late" if number == 2 else {"n": 1})
    assert store.put_outcome(outcome(2)).answer == "late"


@pytest.mark.parametrize("status", [503, 500])
def test_trouble_of_a_while_is_waited_out(store: Store, server: S3Server, status: int) -> None:
    calls: list[object] = []
    failed = server.failed()
    for work in (
        lambda: store.put(DATA, ".bin"),
        lambda: store.put_outcome(outcome(1)),
        lambda: store.get_outcome(outcome(1).key),
        lambda: list(store.outcomes()),
    ):
        server.trouble(status, count=3)
        calls.append(work())
    assert server.failed() == failed + 12
    assert calls[2:] == [outcome(1), [outcome(1)]]


def test_trouble_that_stays_is_transient_and_a_refusal_stops_the_run(store: Store, server: S3Server) -> None:
    hurried = Store(store.url, patience_s=0.3)
    server.trouble(403, count=10**6)
    with pytest.raises(BadRecipe, match="not now"):
        store.check()
    server.trouble(503, count=10**6)
    for ask in (lambda: hurried.put(DATA, ".bin"), lambda: hurried.get_outcome("0" * 64), lambda: list(hurried.outcomes())):
        with pytest.raises(Transient, match="did not answer"):
            ask()
    for status in (403, 507):
        server.trouble(status, count=10**6)
        with pytest.raises(OutOfSpace, match="run again to resume"):
            store.put(DATA, ".bin")


def test_a_wrong_bucket_is_a_wrong_recipe(server: S3Server) -> None:
    store = Store("s3://no-such-bucket-here/x", patience_s=20)
    ghost = Artifact(digest="0" * 64, size=3, suffix=".png")
    for ask in (
        store.check,
        lambda: store.put(DATA, ".bin"),
        lambda: store.get_outcome("0" * 64),
        lambda: list(store.outcomes()),
        lambda: store.put_outcome(outcome()),
        lambda: store.read(ghost),
    ):
        with pytest.raises(BadRecipe, match="no-such-bucket-here"):
            ask()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"s3://{KEY}:{SECRET}@bucket/x", "must not hold credentials"),
        (f"s3://bucket/x?secret={SECRET}", "must not hold credentials"),
        ("s3:///x", "names no bucket"),
        ("nowhere://bucket", "nowhere"),
    ],
)
def test_addresses_that_can_be_none_are_refused(url: str, words: str) -> None:
    with pytest.raises(BadRecipe, match=words) as error:
        Store(url)
    assert SECRET not in str(error.value)


def test_no_credentials_are_told(server: S3Server) -> None:
    code = f"from manifests.store import Store; Store({server.bucket()!r}).check()"
    environment = {k: v for k, v in os.environ.items() if k not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    environment |= {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stderr.splitlines()[-1].startswith("manifests.errors.BadRecipe")
    assert "AWS_ACCESS_KEY_ID" in done.stderr


def test_no_secret_is_in_errors_tracebacks_or_logs(store: Store, server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = repr(store)
    for status in (403, 503):
        server.trouble(status, count=10**6)
        try:
            Store(store.url, patience_s=0.3).put(DATA, ".bin")
        except (OutOfSpace, Transient) as error:
            seen += "".join(traceback.format_exception(error)) + repr(error)
    assert seen.count("not now") >= 2
    assert not any(word in seen + caplog.text for word in (KEY, SECRET, "Signature="))


def test_a_probe_is_answered_and_removed(store: Store, tmp_path: Path) -> None:
    with store.probing() as probe:
        assert answer_probe(store.url, probe, "node-1") == ""
        assert "sees another store" in answer_probe(store.url.replace("some", "another"), probe, "node-2")
    assert "no probe/" in answer_probe(store.url, probe, "node-1")
    assert list(store.outcomes()) == []
    store.check()
    local = Store(tmp_path / "store")
    with local.probing() as probe:
        assert answer_probe(local.url, probe, "node-1") == ""
        assert "folder that all nodes share" in answer_probe(str(tmp_path / "elsewhere"), probe, "node-2")
        (tmp_path / "store" / probe.name).chmod(0o644)
        (tmp_path / "store" / probe.name).write_bytes(b"other")
        assert "other bytes" in answer_probe(local.url, probe, "node-3")
    assert list((tmp_path / "store" / "probe").iterdir()) == []


def test_a_deleted_ledger_is_rebuilt_from_s3(store: Store, tmp_path: Path) -> None:
    kept = [store.put_outcome(outcome(i)) for i in range(12)]
    call = CallRecord(
        id="0" * 32, key=kept[0].key, role="checker", model="m", attempt=1, state="confirmed", prompt_tokens=3, completion_tokens=2,
        money_nano=7,
    )  # fmt: skip
    store.put_call(call)
    assert list(store.calls(kept[0].key)) == [call]
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.rebuild(store) == 12
        assert [ledger.lookup(o.key) for o in kept] == kept
        assert ledger.money_nano() == 7


def test_another_server_in_the_same_process_is_another_server() -> None:
    """fsspec keeps filesystems; one that was kept must not answer for another address."""
    for _ in range(2):
        with serving() as other:
            store = Store(f"{other.bucket()}/x", patience_s=5)
            assert store.read(store.put(b"here", ".bin")) == b"here"
