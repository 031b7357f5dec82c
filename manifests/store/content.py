"""Bytes by their own digest, and what every step answered, on any filesystem that fsspec knows.

Layout below the store's address (`objects` and `outcomes` are split by the first two hex digits)::

    objects/ab/<sha256><suffix>      artifacts
    outcomes/cd/<key>.json           one file a finished step
    calls/cd/<key>/<id>.json         one file a request to a language model, by the step that asked
    tmp/                             half-written files; local stores only

A file appears under its name only when it is whole: locally through `os.replace`/`os.link`, on object stores because a single upload
is atomic. So any process may be killed at any time, and two processes may write the same thing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field, JsonValue, ValidationError

from manifests.calls import CallRecord
from manifests.errors import BadInput, Damaged, MotionpairError, OutOfSpace, Transient
from manifests.records import Artifact, Digest, Frozen, canonical_json, digest_of

CHUNK_BYTES = 1 << 20
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


class Cost(Frozen):
    """What an outcome took. Kept beside it, never part of a key or a release."""

    seconds: float = Field(default=0.0, ge=0)
    pool: str = ""
    attempts: int = Field(default=1, ge=1)


class Outcome(Frozen):
    """How one call of a step ended. A rejection is an outcome like any other; faults of machines are not."""

    key: Digest
    """digest of the frozen request: same key, same answer"""
    step: str
    status: Literal["ok", "rejected"]
    reason: str = ""
    """code, when rejected"""
    message: str = ""
    answer: JsonValue = None
    artifacts: tuple[Artifact, ...] = ()
    request: JsonValue = None
    cost: Cost = Cost()


class Store:
    """A content-addressed store at a folder or an fsspec address (`s3://…`, `gs://…`, `memory://…`). Safe to share and to pickle."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        # Other processes write too: a remembered listing would hide what they made.
        fs, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        self._fs: Any = fs
        self._root: str = root.rstrip("/")
        self._local = isinstance(fs, LocalFileSystem)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # --- artifacts

    def put(self, data: bytes | Path | BinaryIO, suffix: str) -> Artifact:
        """Keep bytes, a file's bytes, or what a binary stream still holds. `suffix` is what a file made of them must be called.

        Raises OutOfSpace when the store can't be written and BadInput when the file can't be read. Writing the same bytes again
        replaces them by themselves, which also heals an object that was damaged on disk.
        """
        digest, size = hashlib.sha256(), 0
        with self._scratch() as (scratch, stream):
            for chunk in _chunks(data):
                digest.update(chunk)
                size += len(chunk)
                stream.write(chunk)
            _flush(stream)
            artifact = Artifact(digest=digest.hexdigest(), size=size, suffix=suffix)
            self._publish(scratch, self._object(artifact))
        return artifact

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact is there in its full size (its bytes are not read)."""
        with self._reading():
            try:
                return int(self._fs.size(self._object(artifact))) == artifact.size
            except FileNotFoundError:
                return False

    def find(self, digest: str) -> Artifact | None:
        """The artifact of a bare digest, whatever its suffix."""
        with self._reading():
            for path in sorted(self._fs.glob(f"{self._root}/objects/{digest[:2]}/{digest}.*")):
                return Artifact(digest=digest, size=int(self._fs.size(path)), suffix="." + path.rsplit(".", 1)[1])
        return None

    def get(self, digest: str) -> bytes:
        """The bytes of a bare digest, checked. Raises Damaged when they are missing or differ."""
        artifact = self.find(digest)
        if artifact is None:
            raise Damaged(f"no object {digest} in {self.url}; run the step that makes it again", "missing")
        return self.read(artifact)

    def read(self, artifact: Artifact) -> bytes:
        """All bytes, checked against the digest. Raises Damaged when they are missing or differ."""
        return b"".join(self.stream(artifact))

    def stream(self, artifact: Artifact) -> Iterator[bytes]:
        """The bytes in chunks. Raises Damaged at the end of bytes whose digest or size is wrong, and removes them: use nothing before."""
        digest, size = hashlib.sha256(), 0
        with self._reading(), self.open(artifact) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        if (digest.hexdigest(), size) != (artifact.digest, artifact.size):
            with contextlib.suppress(OSError):
                self._fs.rm_file(self._object(artifact))  # so that the step that made it runs again
            seen = f"had {size} bytes of digest {digest.hexdigest()}"
            raise Damaged(f"object {artifact.digest}{artifact.suffix} in {self.url} {seen} and was removed; run again to make it anew")

    def open(self, artifact: Artifact) -> BinaryIO:
        """The raw bytes as a stream, unchecked. Raises Damaged when they are missing."""
        with self._reading():
            try:
                return cast(BinaryIO, self._fs.open(self._object(artifact), "rb"))
            except FileNotFoundError as error:
                raise Damaged(f"no object {artifact.digest}{artifact.suffix} in {self.url}; run its step again", "missing") from error

    def local_path(self, artifact: Artifact, folder: Path) -> Path:
        """A file with these bytes and the right suffix, for tools that need one. Treat it as read-only.

        A local store answers with its own file (its size is checked, its digest is not); any other downloads into `folder`, checked.
        """
        if self._local:
            if not self.has(artifact):
                raise Damaged(
                    f"object {artifact.digest}{artifact.suffix} in {self.url} is missing or cut short; run its step again", "missing"
                )
            return Path(self._object(artifact))
        target = folder / f"{artifact.digest}{artifact.suffix}"
        if target.is_file() and target.stat().st_size == artifact.size:
            return target
        with _local_guard(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{uuid.uuid4().hex}{artifact.suffix}"
            try:
                with part.open("wb") as out:
                    for chunk in self.stream(artifact):
                        out.write(chunk)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
        return target

    # --- outcomes

    def put_outcome(self, outcome: Outcome) -> Outcome:
        """Keep an outcome and answer with the one that stands: the first writer of a key wins, so a recorded answer never changes.

        Only an outcome that can't be read, or whose artifacts are gone, gives way.
        """
        body = canonical_json({"digest": digest_of(outcome), "outcome": outcome.model_dump(mode="json")})
        path = self._outcome(outcome.key)
        if self._create(path, body):
            return outcome
        try:
            standing = self.get_outcome(outcome.key)
        except Damaged:
            standing = None
        if standing is not None and all(self.has(artifact) for artifact in standing.artifacts):
            return standing
        with self._guard(), self._scratch() as (scratch, stream):
            stream.write(body)
            _flush(stream)
            self._publish(scratch, path)
        return outcome

    def get_outcome(self, key: str) -> Outcome | None:
        """The outcome of a key; None when there is none. Raises Damaged when its file is not what was written."""
        with self._reading():
            try:
                body: bytes = self._fs.cat_file(self._outcome(key))
            except FileNotFoundError:
                return None
        return _parse_outcome(body, key)

    def outcomes(self, damaged: Callable[[Damaged], None] | None = None) -> Iterator[Outcome]:
        """All outcomes, by key. Files that can't be read as one are passed to `damaged` and left out."""
        with self._reading():
            paths = sorted(self._fs.glob(f"{self._root}/outcomes/*/*.json"))
        for path in paths:
            try:
                outcome = self.get_outcome(path.rsplit("/", 1)[1].removesuffix(".json"))
            except Damaged as error:
                if damaged:
                    damaged(error)
                continue
            if outcome is not None:
                yield outcome

    # --- calls to language models

    def put_call(self, record: CallRecord) -> None:
        """Keep what a request costs, in place of an earlier record of its id. On the disk when it returns."""
        body = canonical_json({"digest": digest_of(record), "call": record.model_dump(mode="json")})
        with self._guard(), self._scratch() as (scratch, stream):
            stream.write(body)
            _flush(stream)
            self._publish(scratch, self._call(record))

    def calls(self, key: str | None = None, damaged: Callable[[Damaged], None] | None = None) -> Iterator[CallRecord]:
        """The records of one step's requests, or all. Files that can't be read as one are passed to `damaged` and left out."""
        folder = f"{key[:2]}/{key}" if key else "*/*"
        with self._reading():
            paths = sorted(self._fs.glob(f"{self._root}/calls/{folder}/*.json"))
        for path in paths:
            with self._reading():
                body: bytes = self._fs.cat_file(path)
            try:
                yield _parse_call(body, path)
            except Damaged as error:
                if damaged:
                    damaged(error)

    # --- housekeeping

    def sweep(self, older_than_s: float = 86400.0) -> int:
        """Remove what killed writers left half-written; returns how many files. They never disturb, they only take room."""
        if not self._local:
            return 0
        removed, limit_s = 0, time.time() - older_than_s
        for path in Path(self._root, "tmp").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= limit_s:
                    path.unlink()
                    removed += 1
        return removed

    # --- the backend

    def _object(self, artifact: Artifact) -> str:
        return f"{self._root}/objects/{artifact.digest[:2]}/{artifact.digest}{artifact.suffix}"

    def _call(self, record: CallRecord) -> str:
        return f"{self._root}/calls/{record.key[:2]}/{record.key}/{record.id}.json"

    def _outcome(self, key: str) -> str:
        return f"{self._root}/outcomes/{key[:2]}/{key}.json"

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A private file, on the store's own filesystem when that is local (so that renaming it is atomic)."""
        folder = Path(self._root, "tmp") if self._local else Path(tempfile.gettempdir())
        path = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
        with _local_guard(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as stream:
                    yield path, stream
            finally:
                path.unlink(missing_ok=True)

    def _publish(self, scratch: Path, path: str) -> None:
        if not self._local:
            with self._guard():
                self._fs.put_file(str(scratch), path)
            return
        scratch.chmod(0o444)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch, path)

    def _create(self, path: str, body: bytes) -> bool:
        """Write a file unless it is there already; says whether it was written."""
        if not self._local:
            with self._guard(), contextlib.suppress(FileExistsError):
                self._fs.pipe_file(path, body, mode="create")
                return True
            return False
        if os.path.exists(path):
            return False
        with self._scratch() as (scratch, stream):
            stream.write(body)
            _flush(stream)
            scratch.chmod(0o444)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)
                return True
        return False

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Around writes to a remote store: one that refuses stops the run, one that stumbles is tried again."""
        try:
            with self._reading():
                yield
        except OSError as error:
            raise _no_space(self.url, error) from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Remote filesystems raise whatever their client library does: it is all Transient, but for what the disk itself would say."""
        try:
            yield
        except MotionpairError:
            raise
        except Exception as error:
            final = isinstance(error, FileNotFoundError | FileExistsError | PermissionError) or getattr(error, "errno", None) in _REFUSED
            if self._local or final:
                raise
            raise Transient(f"the store {self.url} did not answer: {error}") from error


@contextlib.contextmanager
def _local_guard(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _no_space(where, error) from error


def _no_space(where: str, error: OSError) -> OutOfSpace:
    return OutOfSpace(
        f"can't write to {where}: {error.strerror or error}. Free some room or fix its permissions, then run again to resume."
    )


def _flush(stream: BinaryIO) -> None:
    """To the disk itself, so that an outcome never outlives its artifacts in a power cut."""
    stream.flush()
    os.fsync(stream.fileno())


def _chunks(data: bytes | Path | BinaryIO) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, Path):
        try:
            stream = data.open("rb")
        except OSError as error:
            raise BadInput(f"can't read {data}: {error.strerror}") from error
        with stream:
            yield from _chunks(stream)
    else:
        while chunk := data.read(CHUNK_BYTES):
            yield chunk


def _parse_outcome(body: bytes, key: str) -> Outcome:
    try:
        envelope = json.loads(body)
        outcome = Outcome.model_validate(envelope["outcome"])
        intact = outcome.key == key and envelope["digest"] == digest_of(outcome)
    except (ValueError, KeyError, TypeError, ValidationError):
        intact = False
    if not intact:
        raise Damaged(f"the outcome {key} is not what was written; its step has to run again")
    return outcome


def _parse_call(body: bytes, path: str) -> CallRecord:
    try:
        envelope = json.loads(body)
        record = CallRecord.model_validate(envelope["call"])
        intact = path.endswith(f"{record.key}/{record.id}.json") and envelope["digest"] == digest_of(record)
    except (ValueError, KeyError, TypeError, ValidationError):
        intact = False
    if not intact:
        raise Damaged(f"the call record {path} is not what was written; what it cost is unknown")
    return record
