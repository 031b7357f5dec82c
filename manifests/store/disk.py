"""The store's files on a disk of this machine or a mount that all machines share."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from manifests.errors import OutOfSpace

CHUNK_BYTES = 1 << 20


class Files(Protocol):
    """Where a store's files lie. Names are relative, with slashes. What is not there is a FileNotFoundError."""

    def scratch(self) -> contextlib.AbstractContextManager[tuple[Path, BinaryIO]]:
        """A private file to write into; it is gone afterwards unless it was published."""
        ...

    def publish(self, scratch: Path, name: str) -> None:
        """Give a whole scratch file its name, in place of what has it now."""
        ...

    def write(self, name: str, body: bytes) -> None:
        """The same with bytes."""
        ...

    def create(self, name: str, body: bytes) -> bool:
        """Write a file unless it is there already; says whether it was written."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes."""
        ...

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and bytes, in the names' order; those that are not there are left out."""
        ...

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """The bytes of a file that should have this size."""
        ...

    def size(self, name: str) -> int | None:
        """In bytes; None when it is not there."""
        ...

    def files(self, folder: str, prefix: str = "") -> list[tuple[str, int]]:
        """Names and sizes of all files below a folder whose path there begins with `prefix`, by name."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...


class Disk:
    """See Files. Errors in writing are OutOfSpace, errors in reading stay what they are."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def scratch(self) -> Iterator[tuple[Path, BinaryIO]]:
        """On the store's own filesystem, so that renaming it is atomic."""
        folder = self.root / "tmp"
        with writing(folder), scratch_file(folder) as made:
            yield made

    def publish(self, scratch: Path, name: str) -> None:
        path = self.root / name
        scratch.chmod(0o444)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch, path)

    def link(self, source: Path, name: str, right: Callable[[Path], bool]) -> bool:
        """Give a file of another store a name here as well if its bytes are `right`; says whether it could be done. Its mode and its own
        name stay as they are."""
        folder, path = self.root / "tmp", self.root / name
        scratch = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            if source.is_symlink():
                return False
            folder.mkdir(parents=True, exist_ok=True)
            os.link(source, scratch)
            if not right(scratch):
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch, path)
        except OSError:  # another filesystem, or one without links, or somebody else's file: a copy may do
            return False
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
        return True

    def write(self, name: str, body: bytes) -> None:
        with self.scratch() as (scratch, stream):
            stream.write(body)
            flush(stream)
            self.publish(scratch, name)

    def create(self, name: str, body: bytes) -> bool:
        path = self.root / name
        if os.path.exists(path):
            return False
        with self.scratch() as (scratch, stream):
            stream.write(body)
            flush(stream)
            scratch.chmod(0o444)
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)
                return True
        return False

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name)

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        with (self.root / name).open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def size(self, name: str) -> int | None:
        try:
            return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def files(self, folder: str, prefix: str = "") -> list[tuple[str, int]]:
        top = self.root / folder
        found = []
        for place, _, names in os.walk(top):
            for path in (Path(place, name) for name in names):
                if path.relative_to(top).as_posix().startswith(prefix):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((path.relative_to(self.root).as_posix(), path.stat().st_size))
        return sorted(found)

    def folders(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def sweep(self, older_than_s: float) -> int:
        """Remove scratch files of killed writers; returns how many."""
        removed, limit_s = 0, time.time() - older_than_s
        for path in (self.root / "tmp").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= limit_s:
                    path.unlink()
                    removed += 1
        return removed


@contextlib.contextmanager
def scratch_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in a folder, removed at the end unless it was moved away."""
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as stream:
            yield path, stream
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(where: Path | str) -> Iterator[None]:
    """Errors of the disk as OutOfSpace."""
    try:
        yield
    except OSError as error:
        raise OutOfSpace(
            f"can't write to {where}: {error.strerror or error}. Free some room or fix its permissions, then run again to resume."
        ) from error


def flush(stream: BinaryIO) -> None:
    """To the disk itself, so that an outcome never outlives its artifacts in a power cut."""
    stream.flush()
    os.fsync(stream.fileno())
