"""The stream on remote releases, in torch's loaders, with shapes and several releases."""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from s3_server import S3Server, serving

from factory.trainer.cache import Cache
from factory.trainer.reading import Buffers, plan
from factory.trainer.stream import Bytes, Source, Stream
from manifests.errors import BadInput, Transient
from manifests.records import Geometry
from manifests.release import Release
from manifests.sealing import write_release
from manifests.shards import Member
from manifests.store import Store
from manifests.store.remote import Remote


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("loading")
    store = Store(base / "store")
    return write_release(base / "release", tiny.pairs(tiny.parts(store, base / "parts"), 28), store, tiny.meta())


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shapes by what the manifest says; nobody decodes them."""
    base = tmp_path_factory.mktemp("shaped")
    store = Store(base / "store")
    files = tiny.parts(store, base / "parts")
    wide = Geometry(frames=5, height=64, width=96)
    pairs = [(tiny.pair(i, files, split="train", **({"geometry": wide} if i // 5 % 3 == 0 else {})), 0) for i in range(60)]
    return write_release(base / "release", pairs, store, tiny.meta())


def taken(stream: Stream, count: int) -> list[tuple[int, str]]:
    return [(s.position, s.key) for s in itertools.islice(stream, count)]


# --- shapes and several releases


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_micro_batches_have_one_shape_and_the_mix_stays(shaped: Path, world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        with Stream(shaped, rank=rank, world_size=world_size, micro_batch=4, decode=Bytes("json")) as stream:
            for batch in itertools.islice(stream.batches(), 60 // world_size):
                assert len(batch) == 4
                assert len({sample.entry.shape for sample in batch}) == 1
                seen += [(s.position, s.task, s.key) for s in batch]
            report = stream.report()
    seen.sort()
    assert [position for position, _, _ in seen] == list(range(240))
    assert Counter(task for _, task, _ in seen) == {"animation": 144, "replacement": 48, "pose": 48}
    assert report.position == 240
    for bucket in report.buckets:
        assert bucket.share == pytest.approx(2 / 3 if bucket.shape == "5x64x64" else 1 / 3, abs=0.08)
        assert bucket.repeats == bucket.draws / bucket.pairs
    assert sum(bucket.draws for bucket in report.buckets) == 240
    assert "5x64x96" in str(report)


def test_the_report_counts_what_was_given(shaped: Path) -> None:
    with Stream(shaped, decode=Bytes("json")) as stream:
        seen = Counter((s.task, str(s.entry.shape)) for s in itertools.islice(stream, 137))
        assert {(b.task, b.shape): b.draws for b in stream.report().buckets} == seen


def test_shapes_may_be_chosen_and_what_is_left_out_is_told(shaped: Path) -> None:
    with Stream(shaped, shapes={"5x64x96": 1}, decode=Bytes("json")) as stream:
        assert {str(s.entry.shape) for s in itertools.islice(stream, 30)} == {"5x64x96"}
        assert stream.report().unused == {"animation": 24, "replacement": 8, "pose": 8}


def test_a_shape_block_keeps_the_order_of_smaller_micro_batches(shaped: Path) -> None:
    orders = []
    for size in (1, 2, 4):
        with Stream(shaped, micro_batch=size, shape_block=4, decode=Bytes("json")) as stream:
            orders.append(taken(stream, 48))
            state = stream.state_dict()
    assert orders[0] == orders[1] == orders[2]
    with Stream(shaped, micro_batch=2, shape_block=4, world_size=3, decode=Bytes("json")) as stream:
        stream.load_state_dict(state)
        assert next(stream).position >= 48
    with Stream(shaped, micro_batch=2, decode=Bytes("json")) as stream, pytest.raises(BadInput, match="order"):
        stream.load_state_dict(state)


def test_several_releases_share_their_tasks(release: Path, shaped: Path) -> None:
    sources = [Source(release, 1), Source(shaped, 2, tasks=("animation", "pose"))]
    with Stream(sources, decode=Bytes("json")) as stream:
        seen = list(itertools.islice(stream, 150))
        report = stream.report()
        assert len(json.dumps(stream.state_dict())) < 4096
    assert Counter(s.task for s in seen) == {"animation": 90, "replacement": 30, "pose": 30}
    draws: Counter[tuple[str, str]] = Counter()
    for bucket in report.buckets:
        draws[bucket.task, bucket.release] += bucket.draws
    assert draws == {
        ("animation", str(release)): 30, ("animation", str(shaped)): 60, ("replacement", str(release)): 30,
        ("pose", str(release)): 10, ("pose", str(shaped)): 20,
    }  # fmt: skip
    with Stream(release, decode=Bytes("json")) as other, pytest.raises(BadInput, match="the state was taken with release"):
        other.load_state_dict(stream.state_dict())


# --- memory


def test_members_that_lie_together_are_read_at_once() -> None:
    members = [Member("a", 512, 100, ""), Member("b", 1536, 50, ""), Member("c", 10_000_000, 7, "")]
    assert plan(members) == (((512, 1074), (10_000_000, 7)), {"a": (0, 100), "b": (1024, 1074), "c": (1074, 1081)})
    assert plan([]).size == 0


def test_memory_is_used_again_only_when_nobody_looks_at_it() -> None:
    made: list[int] = []

    def allocate(size: int) -> np.ndarray:
        made.append(size)
        return np.empty(size, np.uint8)

    buffers = Buffers(allocate)
    one = buffers.take(1000)
    one[:3] = b"abc"
    kept = np.frombuffer(one[:3], np.uint8)
    del one
    two = buffers.take(1000)
    two[:3] = b"xyz"
    assert kept.tobytes() == b"abc"
    assert len(made) == 2
    del kept, two
    buffers.take(900), buffers.take(800)
    assert len(made) == 2


@pytest.mark.parametrize("limit", [1, 400_000])
def test_the_prefetch_is_bounded_in_bytes(release: Path, limit: int) -> None:
    waiting: list[int] = []

    class Slow(Bytes):
        def size(self, entry: object) -> int:
            return 100_000

    with Stream(release, decode=Slow(), threads=4, prefetch_bytes=limit) as stream:
        for _ in range(10):
            next(stream)
            waiting.append(sum(size for _, size in stream._ahead))
    assert max(waiting) <= limit
    assert (max(waiting) > 0) == (limit > 1)


def test_a_cache_keeps_to_its_limit_and_forgets_the_oldest(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    for number in range(30):
        cache.write(str(number), memoryview(bytes([number]) * 1000))
        os.utime(cache._path(str(number)), ns=(number, number))
        assert sum(p.stat().st_size for p in tmp_path.glob("*.sample")) <= 10_000
    buffer = memoryview(bytearray(1000))
    assert cache.read("29", buffer)
    assert bytes(buffer) == bytes([29]) * 1000
    assert not cache.read("0", buffer)
    assert not cache.read("29", memoryview(bytearray(999)))
    cache.remove("29")
    assert not cache.read("29", buffer)
    cache.write("huge", memoryview(bytes(20_000)))
    assert len(list(tmp_path.glob("*.sample"))) >= 8
    Cache(tmp_path, 3000)
    assert sum(p.stat().st_size for p in tmp_path.glob("*.sample")) <= 3000
    with pytest.raises(BadInput):
        Cache(tmp_path, 0)


# --- remote


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def bucket(server: S3Server, release: Path) -> str:
    url = server.bucket()
    remote = Remote(f"{url}/data/release/{release.name}")
    for path in sorted(p for p in release.rglob("*") if p.is_file()):
        remote.write(str(path.relative_to(release)), path.read_bytes())
    return f"{url}/data"


def test_a_remote_release_gives_the_same_samples_and_is_fetched_once(bucket: str, server: S3Server, release: Path, tmp_path: Path) -> None:
    with Stream(release) as local:
        wanted = list(itertools.islice(local, 8))
    for url in (bucket, f"{bucket}/release/{release.name}"):
        with Stream(url, cache=tmp_path / "cache", threads=4) as stream:
            assert stream.state_dict() == {**stream.state_dict(), "release": Release.open(release).info.content}
            for mine, other in zip(itertools.islice(stream, 8), wanted, strict=True):
                assert (mine.position, mine.key, mine.seed) == (other.position, other.key, other.seed)
                assert np.array_equal(mine.target_THWC, other.target_THWC)
    with Stream(bucket, cache=tmp_path / "cache", patience_s=0.01, decode=Bytes(), threads=1, prefetch_bytes=1) as stream:
        server.trouble(503, count=1000)
        assert taken(stream, 8) == [(s.position, s.key) for s in wanted]  # all from the cache
        server.trouble(count=0)


def test_a_server_that_throttles_is_waited_for(bucket: str, server: S3Server) -> None:
    failed = server.failed()
    with Stream(bucket, decode=Bytes("json"), patience_s=30) as stream:
        server.trouble(503, count=6)
        assert [position for position, _ in taken(stream, 5)] == list(range(5))
        assert stream.replaced_count == 0
    assert server.failed() == failed + 6


def test_a_server_that_stays_away_is_no_corrupt_sample(bucket: str, server: S3Server) -> None:
    with Stream(bucket, decode=Bytes("json"), patience_s=0.2, threads=1) as stream:
        server.trouble(503, count=10_000)
        with pytest.raises(Transient):
            next(stream)
        server.trouble(count=0)
        assert next(stream).position == 0
        assert stream.replaced_count == 0


def test_a_damaged_cache_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    def run() -> list[bytes]:
        with Stream(bucket, cache=tmp_path, decode=Bytes("target.mp4")) as stream:
            found = [bytes(s.members["target.mp4"]) for s in itertools.islice(stream, 4)]
            assert stream.replaced_count == 0
        return found

    first = run()
    for path in tmp_path.glob("*.sample"):
        path.write_bytes(bytes(path.stat().st_size))
    assert run() == first


def test_an_address_without_a_release_is_refused(server: S3Server) -> None:
    with pytest.raises(BadInput, match="no sealed release in s3://"):
        Stream(server.bucket())


# --- torch's loaders


def test_a_stateful_loader_resumes_exactly_and_with_another_world_size(release: Path) -> None:
    loader_type = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    from factory.trainer.loader import StreamDataset

    def loader(rank: int, world_size: int, workers: int = 0, batch: int | None = None) -> object:
        stream = Stream(release, rank=rank, world_size=world_size, micro_batch=batch or 1, decode=Bytes("json"))
        return loader_type(StreamDataset(stream), batch_size=batch, num_workers=workers, collate_fn=lambda one: one)

    def places(samples: Iterator[object], count: int) -> list[tuple[int, str]]:
        return [(s.position, s.key) for s in itertools.islice(samples, count)]  # type: ignore[attr-defined]

    with Stream(release, decode=Bytes("json")) as stream:
        whole = taken(stream, 18)
    one = loader(0, 1)
    first = places(iter(one), 6)
    state = one.state_dict()  # type: ignore[attr-defined]
    rest = []
    for rank in range(2):
        other = loader(rank, 2)
        other.load_state_dict(state)  # type: ignore[attr-defined]
        rest += places(iter(other), 6)
    assert first == whole[:6]
    assert sorted(rest) == whole[6:]


def test_a_loader_with_workers_keeps_the_order(release: Path) -> None:
    loader_type = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    from factory.trainer.loader import StreamDataset

    with Stream(release, decode=Bytes("json")) as stream:
        whole = taken(stream, 9)
    made = loader_type(StreamDataset(Stream(release, decode=Keys())), batch_size=None, num_workers=2)
    samples = iter(made)
    assert [tuple(next(samples)) for _ in range(5)] == whole[:5]
    state = made.state_dict()
    again = loader_type(StreamDataset(Stream(release, decode=Keys())), batch_size=None, num_workers=2)
    again.load_state_dict(state)
    samples = iter(again)
    assert [tuple(next(samples)) for _ in range(4)] == whole[5:]


class Keys(Bytes):
    """What can go from a worker process to another."""

    def __call__(self, raw: object) -> object:
        return (raw.position, raw.key)  # type: ignore[attr-defined]


# --- resuming


def test_the_first_sample_after_resuming_far_ahead_comes_within_a_second(release: Path) -> None:
    with Stream(release) as stream:
        state = stream.state_dict()
    began = time.perf_counter()
    with Stream(release) as stream:
        stream.load_state_dict({**state, "position": 10**12})
        assert next(stream).position == 10**12
    assert time.perf_counter() - began < 1


def test_a_state_within_a_micro_batch_holds_for_the_same_ranks_only(shaped: Path) -> None:
    options = {"micro_batch": 4, "decode": Bytes("json"), "world_size": 2}
    with Stream(shaped, **options) as stream:  # type: ignore[arg-type]
        taken(stream, 6)
        state = stream.state_dict()
        rest = taken(stream, 6)
    with Stream(shaped, **options) as stream:  # type: ignore[arg-type]
        stream.load_state_dict(state)
        assert taken(stream, 6) == rest
    with Stream(shaped, **{**options, "world_size": 1}) as stream, pytest.raises(BadInput, match="in the middle of a step"):  # type: ignore[arg-type]
        stream.load_state_dict(state)
