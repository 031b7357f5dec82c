import errno
import hashlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from stored import DATA, kept_in_every_way, outcome

from manifests.errors import BadInput, Damaged, OutOfSpace, Transient
from manifests.records import Artifact, canonical_json, digest_of
from manifests.store import Cost, Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "store") if request.param == "local" else Store(f"memory://{tmp_path.name}-{os.urandom(4).hex()}/store")


def test_bytes_files_and_streams_come_back_under_their_digest(store: Store, tmp_path: Path) -> None:
    artifact = kept_in_every_way(store, tmp_path)
    path = store.local_path(artifact, tmp_path / "scratch")
    assert path.suffix == ".mp4"
    assert path.read_bytes() == DATA
    assert store.local_path(artifact, tmp_path / "scratch") == path


def test_a_local_file_is_not_copied_for_tools(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    path = store.local_path(store.put(DATA, ".png"), tmp_path / "scratch")
    assert path.is_relative_to(tmp_path / "s" / "objects")
    assert not (tmp_path / "scratch").exists()


def test_empty_bytes_are_bytes(store: Store) -> None:
    assert store.read(store.put(b"", ".bin")) == b""


def test_what_is_missing_is_said(store: Store, tmp_path: Path) -> None:
    ghost = Artifact(digest="0" * 64, size=3, suffix=".png")
    assert not store.has(ghost)
    assert store.find(ghost.digest) is None
    for ask in (lambda: store.read(ghost), lambda: store.get(ghost.digest), lambda: store.local_path(ghost, tmp_path)):
        with pytest.raises(Damaged) as error:
            ask()
        assert error.value.code == "missing"
    with pytest.raises(BadInput, match="nowhere"):
        store.put(tmp_path / "nowhere", ".png")


@pytest.mark.parametrize("harm", [b"", DATA[:-1], b"b" + DATA[1:], DATA + b"x"])
def test_damage_is_seen_on_read_and_healed_by_the_next_put(tmp_path: Path, harm: bytes) -> None:
    store = Store(tmp_path)
    artifact = store.put(DATA, ".bin")
    path = store.local_path(artifact, tmp_path)
    path.chmod(0o644)
    path.write_bytes(harm)
    with pytest.raises(Damaged, match=artifact.digest):
        store.read(artifact)
    store.put(DATA, ".bin")
    assert store.read(artifact) == DATA


def test_outcomes_come_back_and_the_first_one_stands(store: Store) -> None:
    first = outcome(1, artifacts=(store.put(DATA, ".png"),), cost=Cost(seconds=1.5, pool="gpu", attempts=2), request={"seed": 1})
    assert store.get_outcome(first.key) is None
    assert store.put_outcome(first) == first
    assert store.put_outcome(outcome(1, answer="another")) == first
    rejected = outcome(2, status="rejected", reason="crossed_arms", message="the arms are crossed")
    store.put_outcome(rejected)
    assert store.get_outcome(first.key) == first
    assert list(store.outcomes()) == sorted([first, rejected], key=lambda o: o.key)


def test_an_outcome_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Its cost had fewer fields; its digest is of what was written then."""
    store, old = Store(tmp_path), outcome(1, cost=Cost(seconds=2.5, pool="gpu", attempts=3))
    content = old.model_dump(mode="json")
    content["cost"] = {"seconds": 2.5, "pool": "gpu", "attempts": 3}
    path = tmp_path / "outcomes" / old.key[:2] / f"{old.key}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(canonical_json({"digest": digest_of(content), "outcome": content}))
    assert store.get_outcome(old.key) == old


@pytest.mark.parametrize("harm", [b"", b"{}", b"[1]", b"\xff", b'{"digest":"x","outcome":{}}', "swap"])
def test_a_damaged_outcome_is_told_left_out_and_replaced(tmp_path: Path, harm: bytes | str) -> None:
    store = Store(tmp_path)
    one, two = outcome(1), outcome(2)
    store.put_outcome(one)
    store.put_outcome(two)
    path = tmp_path / "outcomes" / one.key[:2] / f"{one.key}.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7') if isinstance(harm, str) else harm)
    with pytest.raises(Damaged, match=one.key):
        store.get_outcome(one.key)
    told: list[Damaged] = []
    assert list(store.outcomes(told.append)) == [two]
    assert len(told) == 1
    assert store.put_outcome(one) == one
    assert store.get_outcome(one.key) == one


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(OutOfSpace, match="run again to resume"):
        store.put(DATA, ".png")
    with pytest.raises(OutOfSpace):
        store.put_outcome(outcome())


def test_a_full_disk_leaves_nothing_visible(tmp_path: Path) -> None:
    script = f"""
import resource, signal, sys
from manifests.store import Store
from manifests.errors import OutOfSpace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    Store({str(tmp_path)!r}).put(bytes(1 << 20), ".bin")
except OutOfSpace as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert os.strerror(errno.EFBIG) in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_killed_writer_leaves_nothing_but_what_sweep_removes(tmp_path: Path) -> None:
    script = f"""
import io, time
from manifests.store import Store
class Slow(io.RawIOBase):
    sent = False
    def read(self, n=-1):
        if self.sent:
            print("half", flush=True); time.sleep(60)
        self.sent = True
        return bytes(1 << 20)
Store({str(tmp_path)!r}).put(Slow(), ".bin")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    assert not (tmp_path / "objects").exists()
    assert list(store.outcomes()) == []
    artifact = store.put(DATA, ".bin")
    assert store.sweep() == 0
    time.sleep(0.01)
    assert store.sweep(older_than_s=0) == 1
    assert list((tmp_path / "tmp").iterdir()) == []
    assert store.read(artifact) == DATA


def _write_many(url: str, times: int) -> None:
    store = Store(url)
    for i in range(times):
        store.put(DATA, ".bin")
        store.put_outcome(outcome(i, answer=os.getpid()))


def test_two_processes_may_write_the_same(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_many, args=(str(tmp_path), 50)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    store = Store(tmp_path)
    assert store.get(hashlib.sha256(DATA).hexdigest()) == DATA
    assert len(list(store.outcomes())) == 50
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_store_travels(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = store.put(DATA, ".bin")
    assert pickle.loads(pickle.dumps(store)).read(artifact) == DATA


class Offline(MemoryFileSystem):
    """A remote filesystem whose client raises errors of its own kind."""

    protocol = "offline"
    error: Exception = ConnectionError("connection refused")

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise self.error

    put_file = pipe_file = cat_file = info = find = ls = _fail


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (RuntimeError("endpoint gone"), Transient),
        (TimeoutError("slow"), Transient),
        (PermissionError("no"), OutOfSpace),
        (OSError(28, "full"), OutOfSpace),
    ],
)
def test_a_remote_store_that_stumbles_is_told_from_one_that_refuses(error: Exception, answer: type[Exception]) -> None:
    fsspec.register_implementation("offline", Offline, clobber=True)
    Offline.error = error
    store = Store("offline://bucket/store", patience_s=0)
    with pytest.raises(answer):
        store.put(DATA, ".png")
    with pytest.raises(answer):
        store.put_outcome(outcome())
    if answer is Transient:
        ghost = Artifact(digest="0" * 64, size=3, suffix=".png")
        for ask in (
            lambda: store.has(ghost),
            lambda: store.read(ghost),
            lambda: store.get_outcome("0" * 64),
            lambda: list(store.outcomes()),
        ):
            with pytest.raises(Transient, match="did not answer"):
                ask()


def test_what_another_process_wrote_is_seen_at_once(store: Store) -> None:
    artifact = store.put(b"one", ".bin")
    assert store.find(artifact.digest) == artifact
    late = Store(store.url).put(b"two", ".bin")
    assert store.has(late)
    assert store.find(late.digest) == late


def test_a_race_for_an_outcome_has_one_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, first = Store(tmp_path), outcome(1, answer="first")
    store.put_outcome(first)
    monkeypatch.setattr(os.path, "exists", lambda _: False)  # as if the other writer came right after the look
    assert store.put_outcome(outcome(1, answer="second")) == first
