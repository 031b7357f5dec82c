"""Bytes of samples out of shards: ranged reads into buffers that are used again, from a disk or from another machine."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from factory.trainer.cache import Cache
from manifests.errors import BadInput, Damaged, Transient
from manifests.shards import Member
from manifests.store.remote import Remote

GAP_BYTES = 64 << 10
"""members that lie this close are read at once"""
OPEN_FILES = 128
TRIES = 4
"""of a local read that fails"""
PAUSE_S = 0.1
"""before the second try; doubled before each further one"""
ROUND_BYTES = 1 << 20
"""sizes of buffers are multiples of this, so that they fit other samples too"""

Allocate = Callable[[int], Any]
"""size → a writable buffer of that many bytes"""


def plain_memory(size: int) -> Any:
    """The default allocator. For pinned memory: lambda size: torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()"""
    return np.empty(size, np.uint8)


class Buffers:
    """Memory that is lent out and comes back by itself when nobody holds a view of it any more.

    New memory costs about as much as the read into it (the kernel clears every page first), pinned memory far more.
    """

    def __init__(self, allocate: Allocate = plain_memory, keep_bytes: int = 1 << 30) -> None:
        """`keep_bytes`: how much unused memory is kept at most."""
        self._allocate, self._keep_bytes = allocate, keep_bytes
        self._free: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        self._free_bytes = 0
        self._lock = threading.RLock()  # a view may be collected, and its memory come back, while this thread is in here
        self._lent: dict[int, Any] = {}

    def take(self, size: int) -> memoryview:
        """`size` writable bytes."""
        whole = self._reused(size)
        if whole is None:
            rounded = -(-max(1, size) // ROUND_BYTES) * ROUND_BYTES
            whole = np.frombuffer(self._allocate(rounded), np.uint8)
        lent = whole[:size]  # an object of its own: when it goes, all views of it are gone
        number = id(lent)
        with self._lock:
            self._lent[number] = weakref.ref(lent, lambda _: self._back(number, whole))
        return lent.data

    def _reused(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        with self._lock:
            fitting = [i for i, buffer in enumerate(self._free) if size <= buffer.size <= 2 * size + ROUND_BYTES]
            if not fitting:
                return None
            # Of equal ones the last that came back: it may still be in the processor's cache.
            buffer = self._free.pop(min(reversed(fitting), key=lambda i: self._free[i].size))
            self._free_bytes -= buffer.size
            return buffer

    def _back(self, number: int, whole: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        with self._lock:
            self._lent.pop(number, None)
            self._free.append(whole)
            self._free_bytes += whole.size
            while self._free_bytes > self._keep_bytes:
                self._free_bytes -= self._free.pop(0).size


class Run(NamedTuple):
    """Bytes that are read at once."""

    offset: int
    size: int


class Plan(NamedTuple):
    """How the wanted members of a sample are read."""

    runs: tuple[Run, ...]
    places: dict[str, tuple[int, int]]
    """member → where its bytes begin and end in the buffer"""

    @property
    def size(self) -> int:
        return sum(run.size for run in self.runs)


def plan(members: Sequence[Member]) -> Plan:
    """Reads of members of one shard: one where they lie together."""
    runs: list[Run] = []
    places: dict[str, tuple[int, int]] = {}
    before = 0
    for member in sorted(members, key=lambda m: m.offset):
        if runs and 0 <= member.offset - (end := runs[-1].offset + runs[-1].size) <= GAP_BYTES:
            runs[-1] = Run(runs[-1].offset, runs[-1].size + member.offset - end + member.size)
        else:
            before += runs[-1].size if runs else 0
            runs.append(Run(member.offset, member.size))
        start = before + member.offset - runs[-1].offset
        places[member.name] = (start, start + member.size)
    return Plan(tuple(runs), places)


class Shards(Protocol):
    """Where a release's shards lie. Threads share it."""

    def read(self, shard: str, runs: Sequence[Run], into: memoryview) -> None:
        """Fill `into` with runs of bytes. Raises Damaged when they are not there, Transient when they can't be had now."""
        ...

    def forget(self, shard: str, runs: Sequence[Run]) -> bool:
        """The bytes were wrong: whether reading again may give others."""
        ...

    def close(self) -> None: ...


class LocalShards:
    """Shards in a folder, by `preadv` on files that stay open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, int] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._stale: set[int] = set()
        self._lock = threading.Lock()

    def read(self, shard: str, runs: Sequence[Run], into: memoryview) -> None:
        for number in range(TRIES):
            if number:
                time.sleep(PAUSE_S * 2 ** (number - 1))
            try:
                with self._file(shard) as fd:
                    done = 0
                    for run in runs:
                        _fill(fd, run, into[done : done + run.size], self.folder / shard)
                        done += run.size
                return
            except FileNotFoundError as error:
                raise Damaged(f"shard {self.folder / shard} is missing; restore it from another copy", "missing") from error
            except OSError as error:
                self._drop(shard)
                said = error
                if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR):
                    break
        raise Transient(f"shard {self.folder / shard} can't be read: {said.strerror}; mend the disk or its permissions and go on") from said

    def forget(self, shard: str, runs: Sequence[Run]) -> bool:
        return False

    def close(self) -> None:
        with self._lock:
            shards = list(self._open)
        for shard in shards:
            self._drop(shard)

    @contextlib.contextmanager
    def _file(self, shard: str) -> Iterator[int]:
        with self._lock:
            fd = self._open.get(shard)
            if fd is None:
                fd = self._open[shard] = os.open(self.folder / shard, os.O_RDONLY | os.O_CLOEXEC)
                if len(self._open) > OPEN_FILES:
                    self._retire(self._open.popitem(last=False)[1])
            self._open.move_to_end(shard)
            self._busy[fd] = self._busy.get(fd, 0) + 1
        try:
            yield fd
        finally:
            with self._lock:
                self._busy[fd] -= 1
                if not self._busy[fd] and fd in self._stale:
                    self._stale.discard(fd)
                    os.close(fd)

    def _drop(self, shard: str) -> None:
        with self._lock:
            fd = self._open.pop(shard, None)
            if fd is not None:
                self._retire(fd)

    def _retire(self, fd: int) -> None:
        """Close a file, now or when its last reader is done. Called under the lock."""
        if self._busy.get(fd):
            self._stale.add(fd)
        else:
            os.close(fd)


def _fill(fd: int, run: Run, into: memoryview, path: Path) -> None:
    done = 0
    while done < run.size:
        got = os.preadv(fd, [into[done:]], run.offset + done)
        if not got:
            raise Damaged(f"shard {path} ends at byte {run.offset + done}, before the sample does; restore it from another copy", "cut")
        done += got


class RemoteShards:
    """Shards behind a network: one ranged request a run, kept in a cache where there is one. Tried again while the server stumbles."""

    def __init__(self, remote: Remote, folder: str, release: str, cache: Cache | None) -> None:
        """`folder` is the revision's name below the remote's address, `release` its content digest: the cache keeps samples by it."""
        self._remote, self._prefix, self._release, self._cache = remote, f"{folder}/shards".lstrip("/"), release, cache

    def read(self, shard: str, runs: Sequence[Run], into: memoryview) -> None:
        name = self._name(shard, runs)
        if self._cache and self._cache.read(name, into):
            return
        done = 0
        for run in runs:
            try:
                data = self._remote.read_range(f"{self._prefix}/{shard}", run.offset, run.size)
            except FileNotFoundError as error:
                raise Damaged(f"shard {shard} of {self._remote.url} is missing; restore it from another copy", "missing") from error
            if len(data) != run.size:
                raise Damaged(f"shard {shard} of {self._remote.url} is cut before byte {run.offset + run.size}; restore it", "cut")
            into[done : done + run.size] = data
            done += run.size
        if self._cache:
            self._cache.write(name, into)

    def forget(self, shard: str, runs: Sequence[Run]) -> bool:
        if self._cache:
            self._cache.remove(self._name(shard, runs))
        return True

    def close(self) -> None:
        pass

    def _name(self, shard: str, runs: Sequence[Run]) -> str:
        return f"{self._release}/{shard}/{','.join(f'{run.offset}+{run.size}' for run in runs)}"


def plain_name(shard: str) -> str:
    """A shard's name from a manifest. Raises BadInput for one that leads elsewhere."""
    if not shard.endswith(".tar") or "/" in shard or "\0" in shard:
        raise BadInput(f"the manifest names a shard {shard!r}; restore it from another copy")
    return shard
