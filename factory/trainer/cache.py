"""A folder of samples that were fetched before, with a limit to its size. Processes of one machine may share it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from manifests.errors import BadInput

FREED = 0.9
"""share of the limit that is kept when room is made"""


class Cache:
    """Bytes by name; those read longest ago go first. What it holds is a convenience: a file that is gone or cut is a miss.

    The room taken is kept in a file beside the others, under a lock, so the limit holds for all processes together. A process that is
    killed between writing and counting makes that number wrong until a cache is opened again, which counts anew.
    """

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        if limit_bytes < 1:
            raise BadInput(f"a cache of {limit_bytes} bytes holds nothing; give cache_bytes of at least 1, or no cache folder")
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked() as total:
            self._write_total(total, self._sweep())

    def read(self, name: str, into: memoryview) -> bool:
        """Fill `into` with a file of exactly its size; False when there is none."""
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != len(into):
                    return False
                done = 0
                while done < len(into) and (got := file.readinto(into[done:])):
                    done += got
        except OSError:
            return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return done == len(into)

    def write(self, name: str, data: memoryview) -> None:
        """Keep bytes, and remove others where there is no room. A full or broken disk is not an error: nothing is kept then."""
        path, part = self._path(name), self.folder / f".{uuid.uuid4().hex}"
        if len(data) > self.limit_bytes:
            return
        try:
            with self._locked() as total:
                taken = self._read_total(total)
                if taken + len(data) > self.limit_bytes:
                    taken = self._sweep(int(self.limit_bytes * FREED) - len(data))
                part.write_bytes(data)
                old = path.stat().st_size if path.exists() else 0
                os.replace(part, path)
                self._write_total(total, taken + len(data) - old)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Forget a file, as its bytes were wrong."""
        with contextlib.suppress(OSError), self._locked() as total:
            size = self._path(name).stat().st_size
            self._path(name).unlink()
            self._write_total(total, self._read_total(total) - size)

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / f"{digest}.sample"

    def _sweep(self, keep_bytes: int | None = None) -> int:
        """Remove the oldest files until `keep_bytes` are left, and half-written ones; returns the bytes left. Called under the lock."""
        found: list[tuple[int, str, int]] = []
        for entry in os.scandir(self.folder):
            if entry.name.startswith(".") and len(entry.name) == 33:
                os.unlink(entry.path)  # nobody else is writing: the lock is ours
            elif entry.name.endswith(".sample"):
                status = entry.stat()
                found.append((status.st_mtime_ns, entry.path, status.st_size))
        taken = sum(size for _, _, size in found)
        limit = self.limit_bytes if keep_bytes is None else max(0, keep_bytes)
        for _, path, size in sorted(found):
            if taken <= limit:
                break
            os.unlink(path)
            taken -= size
        return taken

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file with the bytes taken, locked; the lock goes with its process."""
        fd = os.open(self.folder / ".total", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def _read_total(fd: int) -> int:
        text = os.pread(fd, 32, 0)
        return int(text) if text.strip().isdigit() else 0

    @staticmethod
    def _write_total(fd: int, taken: int) -> None:
        os.pwrite(fd, f"{max(0, taken):<31}\n".encode(), 0)
