"""Our stream at its work, the bounds it is held against, and plain webdataset."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from factory.trainer.reading import plan
from factory.trainer.stream import PER_THREAD, Bytes, Stream
from manifests import media
from manifests.release import Release

WARM_UP = 8
"""samples before the clock starts: as many as a stream of two threads reads ahead"""


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


def preadv_bound(release: Release, count: int, threads: int, buffers: int = 0) -> float:
    """As fast as it goes: each sample in one `preadv` by its known offset, in the stream's order. 0 threads: in a plain loop.

    buffers: samples go to so many buffers in turn, as they must where somebody holds samples while the next ones are read. 0: as many as
    the stream has then, with one sample in the caller's hands. 1 a thread is less than any loader can do: the buffer never leaves the
    processor's cache.
    """
    jobs = []
    with Stream(release, decode=Bytes()) as stream:
        places = stream.schedule.at(np.arange(count + WARM_UP))
        files = {shard.name: os.open(release.shard_path(shard.name), os.O_RDONLY) for shard in release.info.shards}
        for source, pair in zip(places.source.tolist(), places.pair.tolist(), strict=True):
            entry = stream.schedule.entry(source, pair)
            reads = plan(entry.members)
            jobs.append((files[entry.shard], reads.runs[0], reads.places))
    size = max(run.size for _, run, _ in jobs)
    ring = [np.empty(size, np.uint8) for _ in range(buffers or PER_THREAD * threads + 1)]

    def read(numbered: Any) -> int:
        number, (fd, run, places) = numbered
        view = memoryview(ring[number % len(ring)])[: run.size]
        done = 0
        while done < run.size:
            done += os.preadv(fd, [view[done:]], run.offset + done)
        return touched({name: view[start:end] for name, (start, end) in places.items()})

    work = list(enumerate(jobs))
    try:
        with ThreadPoolExecutor(threads) if threads else contextlib.nullcontext() as pool:
            mapped = pool.map if pool else map
            list(mapped(read, work[:WARM_UP]))
            began = time.perf_counter()
            list(mapped(read, work[WARM_UP:]))
            return count / (time.perf_counter() - began)
    finally:
        for fd in files.values():
            os.close(fd)


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
