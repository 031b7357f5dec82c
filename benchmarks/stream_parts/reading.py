"""Our stream at its work, the bounds it is held against, and plain webdataset."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from factory.trainer.reading import Run, plan
from factory.trainer.stream import PER_THREAD, Bytes, Stream
from manifests import media
from manifests.release import Release

WARM_UP = 8
"""samples before the clock starts: as many as a stream of two threads reads ahead"""

Job = tuple[int, Run, dict[str, tuple[int, int]]]
"""an open file, the bytes of a sample in it, and where its members lie in them"""


def rate(samples: Iterator[Any], count: int, touch: bool = True) -> float:
    """Samples per second after the first few. Every page of a sample's bytes is looked at, so that nobody is faster by not reading."""
    for _ in itertools.islice(samples, WARM_UP):
        pass
    began = time.perf_counter()
    for sample in itertools.islice(samples, count):
        if touch:
            touched(sample)
    return count / (time.perf_counter() - began)


def touched(sample: Any) -> int:
    """Look at every page of the values of a dictionary of bytes."""
    members = sample.members if hasattr(sample, "members") else sample
    return sum(
        int(np.frombuffer(data, np.uint8)[::4096].sum()) for data in members.values() if isinstance(data, bytes | memoryview | np.ndarray)
    )


def streamed(release: Release, count: int, threads: int, check: bool = False) -> float:
    """Bytes by our stream."""
    with Stream(release, threads=threads, check=check, decode=Bytes()) as stream:
        return rate(stream, count)


def streamed_pixels(release: Release, count: int, threads: int) -> float:
    """Arrays by our stream; every digest is checked."""
    with Stream(release, threads=threads) as stream:
        return rate(stream, count, touch=False)


def preadv_bound(release: Release, count: int, threads: int) -> float:
    """What a loader does at least: threads read each sample with one `preadv` at its known offset, in the stream's order and as far
    ahead as the stream does, each into one of as many buffers; the caller takes them in order and looks at them. 0 threads: the caller
    reads."""
    ahead = PER_THREAD * threads
    with _indexed(release, count) as jobs:
        ring = [np.empty(max(run.size for _, run, _ in jobs), np.uint8) for _ in range(ahead + 1)]
        with ThreadPoolExecutor(max(1, threads)) as pool:

            def samples() -> Iterator[dict[str, memoryview]]:
                asked: deque[Future[dict[str, memoryview]]] = deque()
                for number, job in enumerate(jobs):
                    if not threads:
                        yield _filled(job, ring[0])
                        continue
                    asked.append(pool.submit(_filled, job, ring[number % len(ring)]))
                    if len(asked) > ahead - 1:
                        yield asked.popleft().result()
                while asked:
                    yield asked.popleft().result()

            return rate(samples(), count)


def preadv_in_cache(release: Release, count: int, threads: int) -> float:
    """The same where nobody is given anything: whoever reads a sample looks at it, in a buffer that never leaves the processor's cache."""
    own = threading.local()
    with _indexed(release, count) as jobs, ThreadPoolExecutor(max(1, threads)) as pool:
        size = max(run.size for _, run, _ in jobs)

        def look(job: Job) -> int:
            if not hasattr(own, "buffer"):
                own.buffer = np.empty(size, np.uint8)
            return touched(_filled(job, own.buffer))

        mapped = pool.map if threads else map
        list(mapped(look, jobs[:WARM_UP]))
        began = time.perf_counter()
        list(mapped(look, jobs[WARM_UP:]))
        return count / (time.perf_counter() - began)


@contextlib.contextmanager
def _indexed(release: Release, count: int) -> Iterator[list[Job]]:
    """Where the stream's next samples lie."""
    with Stream(release, decode=Bytes()) as stream:
        places = stream.schedule.at(np.arange(count + WARM_UP))
        entries = [stream.schedule.entry(*place) for place in zip(places.source.tolist(), places.pair.tolist(), strict=True)]
    files = {shard.name: os.open(release.shard_path(shard.name), os.O_RDONLY) for shard in release.info.shards}
    reads = [plan(entry.members) for entry in entries]
    try:
        yield [(files[entry.shard], read.runs[0], read.places) for entry, read in zip(entries, reads, strict=True)]
    finally:
        for fd in files.values():
            os.close(fd)


def _filled(job: Job, buffer: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, memoryview]:
    """A sample's members, read."""
    fd, run, places = job
    view = memoryview(buffer)[: run.size]
    done = 0
    while done < run.size:
        done += os.preadv(fd, [view[done:]], run.offset + done)
    return {name: view[start:end] for name, (start, end) in places.items()}


def decoder_bound(release: Release, count: int, threads: int) -> float:
    """The decoders alone: the members of the same samples as files of their own, decoded by as many threads."""
    with tempfile.TemporaryDirectory() as folder, Stream(release, decode=Bytes()) as stream:
        jobs = []
        for sample in itertools.islice(stream, min(count, release.info.pairs)):
            paths = [Path(folder) / f"{sample.key}.{name}" for name in sample.members if name != "json"]
            for path, data in zip(paths, (d for n, d in sample.members.items() if n != "json"), strict=True):
                path.write_bytes(data)
            jobs.append(paths)

        def decode(paths: list[Path]) -> None:
            for path in paths:
                media.read_frames(path) if path.suffix == ".mp4" else media.read_image(path)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, jobs[:WARM_UP]))
            began = time.perf_counter()
            list(pool.map(decode, itertools.islice(itertools.cycle(jobs), count)))
            return count / (time.perf_counter() - began)


def first_after_resume(release: Release) -> float:
    """Seconds from nothing to the first decoded sample at a far position."""
    with Stream(release) as stream:
        state = {**stream.state_dict(), "position": 10**9}
    began = time.perf_counter()
    with Stream(release.folder) as stream:
        stream.load_state_dict(state)
        next(stream)
    return time.perf_counter() - began


def fastest(settings: dict[str, Callable[[], float]]) -> tuple[str, Callable[[], float]]:
    """The best setting by one short run each."""
    found = {name: run() for name, run in settings.items()}
    best = max(found, key=lambda name: found[name])
    print(f"  settings: {', '.join(f'{name} {value:.1f}/s' for name, value in found.items())}", flush=True)
    return best, settings[best]
