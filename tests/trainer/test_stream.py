import errno
import itertools
import os
import subprocess
import sys
import threading
from collections import Counter, deque
from pathlib import Path

import numpy as np
import pytest
import tiny

from factory.trainer.catalog import Entry
from factory.trainer.show import main
from factory.trainer.stream import Bytes, Raw, Stream
from manifests.errors import BadInput, Damaged, Transient
from manifests.release import Release
from manifests.sealing import write_release
from manifests.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 train pairs (of 28) and 5 for validation, of which none is left out."""
    base = tmp_path_factory.mktemp("stream")
    store = Store(base / "store")
    files = tiny.parts(store, base / "parts")
    write_release(base / "release", tiny.pairs(files, 28), store, tiny.meta())
    no_pose = [(p, block) for p, block in tiny.pairs(files, 28) if p.task != "pose" or p.split == "train"]
    write_release(base / "gap", no_pose, store, tiny.meta())
    return base


# --- on a release


def entries(release: Path | Release, count: int, **options: object) -> list[Entry]:
    """What stands at the first positions."""
    with Stream(release, **options) as stream:  # type: ignore[arg-type]
        places = stream.schedule.at(np.arange(count))
        return [stream.schedule.entry(int(s), int(p)) for s, p in zip(places.source, places.pair, strict=True)]


def test_an_epoch_has_every_pair_once(folder: Path) -> None:
    release = Release.open(folder / "release")
    drawn: dict[str, list[str]] = {}
    for entry in entries(release, 500, seed=3):
        drawn.setdefault(entry.task, []).append(entry.key)
    for task, keys in drawn.items():
        have = sorted(row.key for row in release.rows() if row.task == task and row.split == "train")
        epochs = [keys[i : i + len(have)] for i in range(0, len(keys) - len(have) + 1, len(have))]
        assert len(epochs) > 10
        assert all(sorted(epoch) == have for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_the_order_does_not_depend_on_how_shards_are_cut(folder: Path) -> None:
    store = Store(folder / "store")
    files = tiny.parts(store, folder / "parts2")
    recut = write_release(folder / "recut", [(p, 0) for p, _ in reversed(tiny.pairs(files, 28))], store, tiny.meta())
    one, two = (entries(path, 200, seed=1) for path in (folder / "release", recut))
    assert [entry.key for entry in one] == [entry.key for entry in two]


def test_samples_are_the_pairs_decoded(folder: Path) -> None:
    with Stream(folder / "release", seed=1) as stream:
        samples = list(itertools.islice(stream, 10))
    assert [s.position for s in samples] == list(range(10))
    assert Counter(s.task for s in samples) == {"animation": 6, "replacement": 2, "pose": 2}
    for s in samples:
        for video in (s.driving_THWC, s.target_THWC, s.driving_mask_THWC):
            assert (video.shape, video.dtype) == ((5, 64, 64, 3), np.uint8)
        assert np.array_equal(s.driving_mask_THWC, tiny.mask_frames(s.task, "driving"))
        assert np.array_equal(s.reference_masks[-1], tiny.mask_frames(s.task, "reference")[0])
        assert len(s.references) == len(s.reference_masks) in (1, 2)
        assert s.meta["key"] == s.key
        assert s.meta["caption"] == s.caption


def keys(folder: Path, count: int, **options: object) -> list[tuple[int, str]]:
    with Stream(folder / "release", seed=1, **options) as stream:  # type: ignore[arg-type]
        return [(s.position, s.key) for s in itertools.islice(stream, count)]


def test_threads_and_ranks_do_not_change_the_order(folder: Path) -> None:
    whole = keys(folder, 20)
    assert keys(folder, 20, threads=0) == keys(folder, 20, threads=1, prefetch_bytes=1) == keys(folder, 20, threads=4) == whole
    for world_size in (2, 5):
        parts = [keys(folder, 20 // world_size, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sorted(itertools.chain(*parts)) == whole


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (5, 5), (2, 5), (4, 3), (3, 2)])
def test_a_resumed_stream_goes_on_also_with_another_world_size(folder: Path, before: int, after: int) -> None:
    first, states = [], []
    for rank in range(before):
        with Stream(folder / "release", seed=1, rank=rank, world_size=before) as stream:
            first += [(s.position, s.key) for s in itertools.islice(stream, 3)]
            states.append(stream.state_dict())
    assert all(state == states[0] for state in states)
    assert states[0]["position"] == 3 * before
    second, per_rank = [], []
    for rank in range(after):
        with Stream(folder / "release", seed=1, rank=rank, world_size=after) as stream:
            stream.load_state_dict(states[0])
            per_rank.append([(s.position, s.key) for s in itertools.islice(stream, 3)])
            second += per_rank[-1]
    assert sorted(first + second) == keys(folder, 3 * (before + after))
    if before == after:
        assert per_rank[0] == keys(folder, 6, rank=0, world_size=after)[3:]


def test_a_state_of_something_else_is_refused(folder: Path) -> None:
    with Stream(folder / "release") as stream, Stream(folder / "gap") as other:
        state = stream.state_dict()
        for harm in (other.state_dict(), {**state, "seed": 5}, {**state, "split": "validation"}, {**state, "position": -1}, {}):
            with pytest.raises(BadInput):
                stream.load_state_dict(harm)
        with pytest.raises(BadInput, match="release"):
            stream.load_state_dict(other.state_dict())


def test_a_task_without_pairs_is_told_with_a_way_out(folder: Path) -> None:
    with pytest.raises(
        BadInput, match=r"'validation' has no pairs of pose, it has: animation \(3\), replacement \(1\); .*--tasks animation,"
    ):
        Stream(folder / "gap", "validation")
    with Stream(folder / "gap", "validation", tasks=("replacement", "animation")) as stream:
        assert Counter(s.task for s in itertools.islice(stream, 8)) == {"animation": 6, "replacement": 2}
    with pytest.raises(BadInput, match="no task dance"):
        Stream(folder / "release", tasks=("dance",))


@pytest.mark.parametrize(
    "bad",
    [
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"world_size": 0},
        {"threads": -1},
        {"prefetch_bytes": 0},
        {"position": -5},
        {"micro_batch": 0},
        {"position": 3, "micro_batch": 2},
        {"micro_batch": 3, "shape_block": 4},
    ],
)
def test_options_that_cannot_be_are_refused(folder: Path, bad: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        Stream(folder / "release", **bad)  # type: ignore[arg-type]


def test_closing_stops_the_threads(folder: Path) -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("stream")]

    with Stream(folder / "release", threads=3) as stream:
        assert threads() == []
        next(stream)
        assert threads()
    assert threads() == []
    with pytest.raises(StopIteration):
        next(stream)


# --- damage


def damaged(folder: Path, to: Path, keys: set[str], count: int = 40) -> Path:
    """A release in which one byte of each of these pairs' target videos is another."""
    store = Store(folder / "store")
    sealed = write_release(to, tiny.pairs(tiny.parts(store, to / "p"), count), store, tiny.meta())
    release = Release.open(sealed)
    for row in release.rows():
        if row.key in keys:
            path = release.shard_path(row.shard)
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.seek(row.member("target.mp4").offset + 100)
                byte = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([byte ^ 1]))
    return sealed


def test_a_corrupt_pair_is_replaced_and_told_and_no_other_moves(folder: Path, tmp_path: Path) -> None:
    whole = [(e.task, e.key) for e in entries(damaged(folder, tmp_path / "whole", set()), 60)]
    bad = {whole[2][1], whole[3][1], whole[7][1]}
    release = damaged(folder, tmp_path / "bad", bad)
    seen = []
    for rank in range(2):
        with Stream(release, rank=rank, world_size=2, decode=Bytes()) as stream:
            samples = list(itertools.islice(stream, 30))
            seen += [(s.position, s.task, s.key, s.replaces) for s in samples]
            report = stream.report()
        hit = [s for s in samples if s.replaces]
        assert report.replaced_count == len(hit) > 0
        assert [(r.position, r.key, r.by) for r in report.replaced] == [(s.position, s.replaces, s.key) for s in hit]
        assert all(f"{r.key}.target.mp4" in r.why for r in report.replaced)
    seen.sort()
    assert [task for _, task, _, _ in seen] == [task for task, _ in whole]
    for (position, _, key, replaces), (_, planned) in zip(seen, whole, strict=True):
        assert (replaces or key) == planned, position
        assert bool(replaces) == (planned in bad)
        assert key not in bad
    again = []
    with Stream(release, decode=Bytes(), threads=4) as stream:
        again = [(s.position, s.task, s.key, s.replaces) for s in itertools.islice(stream, 60)]
    assert again == seen


def test_an_undecodable_pair_is_replaced_too(folder: Path, tmp_path: Path) -> None:
    class Picky(Bytes):
        def __call__(self, raw: Raw) -> Raw:
            if raw.key == first:
                raise BadInput("no such codec")
            return raw

    first = entries(folder / "release", 1)[0].key
    with Stream(folder / "release", decode=Picky()) as stream:
        assert next(stream).replaces == first
        assert stream.report().replaced[0].why == "no such codec"


def test_too_much_damage_stops_the_stream(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = damaged(folder, tmp_path, {entries(damaged(folder, tmp_path / "w", set()), 1)[0].key})
    monkeypatch.setattr("factory.trainer.stream.FORGIVEN", 3)
    with Stream(release, decode=Bytes(), bad_share=0.02) as stream, pytest.raises(Damaged, match=r"4 of \d+ samples could not be read"):
        deque(itertools.islice(stream, 500), maxlen=0)


def test_a_task_of_which_nothing_can_be_read_is_an_error(folder: Path, tmp_path: Path) -> None:
    sealed = damaged(folder, tmp_path, set())
    for path in (sealed / "shards").iterdir():
        path.unlink()
    with Stream(sealed) as stream:
        for _ in range(2):
            with pytest.raises(Damaged, match=r"no pair of animation .* is missing; restore it"):
                next(stream)
        assert stream.state_dict()["position"] == 0


def test_a_disk_that_fails_is_no_corrupt_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are tried again; then the same sample comes when the disk is back."""
    calls, working = [], os.preadv

    def failing(*arguments: object) -> int:
        calls.append(arguments)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("factory.trainer.reading.PAUSE_S", 0.001)
    with Stream(folder / "release", threads=1, prefetch_bytes=1) as stream:
        monkeypatch.setattr("os.preadv", failing)
        with pytest.raises(Transient, match="Input/output error"):
            next(stream)
        assert len(calls) == 4
        monkeypatch.setattr("os.preadv", working)
        assert next(stream).position == 0
        assert stream.replaced_count == 0


def test_the_command_prints_a_line_per_sample(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder / "release"), "--take", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "driving 5×64×64×3" in lines[0]
    assert lines[4].endswith("mix animation 60.0% replacement 20.0% pose 20.0%")


def test_the_command_tells_errors_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder / "nothing")]) == 2
    assert main([str(folder / "gap"), "--split", "validation"]) == 2
    assert main([str(folder / "gap"), "--split", "validation", "--tasks", "animation", "--take", "2"]) == 0
    assert capsys.readouterr().err.count("\n") == 2


def test_it_runs_without_ray_or_torch(folder: Path) -> None:
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("torch", "ray", "agents", "generators")))
from factory.trainer.stream import Stream
with Stream({str(folder / "release")!r}) as stream:
    print(next(stream).key)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == entries(folder / "release", 1)[0].key, done.stderr
