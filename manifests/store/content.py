"""The store: artifacts, outcomes and records of requests under their names, whatever holds the files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

from manifests.calls import CallRecord
from manifests.errors import BadInput, BadRecipe, Damaged, MotionpairError, OutOfSpace
from manifests.records import Artifact, Digest, Frozen
from manifests.store.disk import CHUNK_BYTES, Disk, Files, flush, writing
from manifests.store.outcomes import Outcome, call_bytes, outcome_bytes, parse_call, parse_outcome
from manifests.store.remote import PATIENCE_S, Remote

PROBE_PATIENCE_S = 30.0

T = TypeVar("T")


class Probe(Frozen):
    """A file in the store that every node of a cluster must read, and answer beside, before a run begins."""

    name: str
    digest: Digest
    """of its bytes"""


class Store:
    """A content-addressed store at a folder or an fsspec address (`s3://…`, `gs://…`, `memory://…`). Safe to share and to pickle.

    Making one touches no network. Raises BadRecipe for an address that can't be one. A remote store that stumbles is asked again for
    `patience_s`; then, and where it refuses, methods raise Transient, OutOfSpace (its quota, its permissions) or BadRecipe (no such bucket,
    no credentials).
    """

    def __init__(self, url: str | Path, patience_s: float = PATIENCE_S) -> None:
        self.url = str(url)
        self._patience_s = patience_s
        folder = local_folder(self.url)
        self._disk = Disk(folder) if folder else None
        self._files: Files = self._disk or Remote(self.url, patience_s)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str, float]]:
        return Store, (self.url, self._patience_s)

    @property
    def local(self) -> bool:
        """Whether artifacts are files of this machine, or of a mount."""
        return self._disk is not None

    def where(self, artifact: Artifact) -> str:
        """The address of an artifact's file, for people."""
        return f"{self.url.rstrip('/')}/{_object(artifact)}"

    # --- artifacts

    def put(self, data: bytes | Path | BinaryIO, suffix: str) -> Artifact:
        """Keep bytes, a file's bytes, or what a binary stream still holds. `suffix` is what a file made of them must be called.

        Raises OutOfSpace when the store can't be written and BadInput when the file can't be read. Writing the same bytes again
        replaces them by themselves, which also heals an object that was damaged on disk.
        """
        digest, size = hashlib.sha256(), 0
        with self._files.scratch() as (scratch, stream):
            for chunk in _chunks(data):
                digest.update(chunk)
                size += len(chunk)
                stream.write(chunk)
            flush(stream)
            artifact = Artifact(digest=digest.hexdigest(), size=size, suffix=suffix)
            self._files.publish(scratch, _object(artifact))
        return artifact

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact is there in its full size (its bytes are not read)."""
        return self._files.size(_object(artifact)) == artifact.size

    def find(self, digest: str) -> Artifact | None:
        """The artifact of a bare digest, whatever its suffix."""
        for name, size in self._files.files(f"objects/{digest[:2]}", f"{digest}."):
            return Artifact(digest=digest, size=size, suffix="." + name.rsplit(".", 1)[1])
        return None

    def get(self, digest: str) -> bytes:
        """The bytes of a bare digest, checked. Raises Damaged when they are missing or differ."""
        artifact = self.find(digest)
        if artifact is None:
            raise Damaged(f"no object {digest} in {self.url}; run the step that makes it again", "missing", digest)
        return self.read(artifact)

    def read(self, artifact: Artifact) -> bytes:
        """All bytes, checked against the digest. Raises Damaged when they are missing or differ."""
        return b"".join(self.stream(artifact))

    def stream(self, artifact: Artifact) -> Iterator[bytes]:
        """The bytes in chunks. Raises Damaged at the end of bytes whose digest or size is wrong, and removes them: use nothing before."""
        digest, size = hashlib.sha256(), 0
        for chunk in self._unchecked(artifact):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if (digest.hexdigest(), size) != (artifact.digest, artifact.size):
            with contextlib.suppress(OSError, MotionpairError):
                self._files.remove(_object(artifact))  # so that the step that made it runs again
            seen = f"had {size} bytes of digest {digest.hexdigest()}"
            words = f"object {artifact.digest}{artifact.suffix} in {self.url} {seen} and was removed; run again to make it anew"
            raise Damaged(words, digest=artifact.digest)

    def _unchecked(self, artifact: Artifact) -> Iterator[bytes]:
        try:
            yield from self._files.chunks(_object(artifact), artifact.size)
        except FileNotFoundError as error:
            words = f"no object {artifact.digest}{artifact.suffix} in {self.url}; run its step again"
            raise Damaged(words, "missing", artifact.digest) from error

    def local_path(self, artifact: Artifact, folder: Path) -> Path:
        """A file with these bytes and the right suffix, for tools that need one. Treat it as read-only.

        A local store answers with its own file (its size is checked, its digest is not); any other downloads into `folder`, checked.
        """
        if self._disk:
            if not self.has(artifact):
                words = f"object {artifact.digest}{artifact.suffix} in {self.url} is missing or cut short; run its step again"
                raise Damaged(words, "missing", artifact.digest)
            return self._disk.root / _object(artifact)
        target = folder / f"{artifact.digest}{artifact.suffix}"
        if target.is_file() and target.stat().st_size == artifact.size:
            return target
        with writing(folder):
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

    def take(self, artifact: Artifact, other: Store) -> None:
        """Have an artifact of another store as a file of this one: a hard link where both lie on one filesystem, else a copy.

        Its bytes are read and checked in either case. Raises Damaged when they are missing there or differ; there nothing is changed.
        """
        name = _object(artifact)
        if self.has(artifact):
            return
        if self._disk and other._disk and self._disk.link(other._disk.root / name, name, lambda path: _holds(path, artifact)):
            return
        digest, size = hashlib.sha256(), 0
        with self._files.scratch() as (scratch, stream):
            for chunk in _readable(other._unchecked(artifact), other.url):
                digest.update(chunk)
                size += len(chunk)
                stream.write(chunk)
            if (digest.hexdigest(), size) != (artifact.digest, artifact.size):
                raise Damaged(f"object {artifact.digest}{artifact.suffix} in {other.url} is not what was written", digest=artifact.digest)
            flush(stream)
            self._files.publish(scratch, name)

    # --- outcomes

    def put_outcome(self, outcome: Outcome) -> Outcome:
        """Keep an outcome and answer with the one that stands: the first writer of a key wins, so a recorded answer never changes.

        Only an outcome that can't be read, or whose artifacts are gone, gives way.
        """
        body, name = outcome_bytes(outcome), _outcome(outcome.key)
        if self._files.create(name, body):
            return outcome
        try:
            standing = self.get_outcome(outcome.key)
        except Damaged:
            standing = None
        if standing is not None and all(self.has(artifact) for artifact in standing.artifacts):
            return standing
        self._files.write(name, body)
        return outcome

    def get_outcome(self, key: str) -> Outcome | None:
        """The outcome of a key; None when there is none. Raises Damaged when its file is not what was written."""
        try:
            return parse_outcome(self._files.read(_outcome(key)), key)
        except FileNotFoundError:
            return None

    def outcomes(self, damaged: Callable[[Damaged], None] | None = None) -> Iterator[Outcome]:
        """All outcomes, by key. Files that can't be read as one are passed to `damaged` and left out."""
        yield from self._parsed("outcomes", lambda body, name: parse_outcome(body, Path(name).stem), damaged)

    # --- calls to language models

    def put_call(self, record: CallRecord) -> None:
        """Keep what a request costs, in place of an earlier record of its id. On the disk when it returns."""
        self._files.write(f"calls/{record.key[:2]}/{record.key}/{record.id}.json", call_bytes(record))

    def calls(self, key: str | None = None, damaged: Callable[[Damaged], None] | None = None) -> Iterator[CallRecord]:
        """The records of one step's requests, or all. Files that can't be read as one are passed to `damaged` and left out."""
        if key is None:
            yield from self._parsed("calls", parse_call, damaged)
        else:
            names = (name for name, _ in self._files.files(f"calls/{key[:2]}/{key}") if name.endswith(".json"))
            yield from _good(self._files.read_many(names), parse_call, damaged)

    def _parsed(self, top: str, parse: Callable[[bytes, str], T], damaged: Callable[[Damaged], None] | None) -> Iterator[T]:
        """All files below a folder that is split by the first digits, one part's names in memory at a time."""
        for part in self._files.folders(top):
            names = (name for name, _ in self._files.files(f"{top}/{part}") if name.endswith(".json"))
            yield from _good(self._files.read_many(names), parse, damaged)

    # --- readiness and housekeeping

    def check(self) -> None:
        """Write a file, read it and remove it. Raises BadRecipe, with the reason, when that can't be done."""
        with self.probing() as probe:
            reason = answer_probe(self.url, probe, "here")
        if reason:
            raise BadRecipe(reason)

    @contextlib.contextmanager
    def probing(self) -> Iterator[Probe]:
        """A probe for `answer_probe`, removed at the end with all answers. Raises BadRecipe when it can't be written, Transient
        when the store does not answer."""
        body = os.urandom(32)
        probe = Probe(name=f"probe/{uuid.uuid4().hex}", digest=hashlib.sha256(body).hexdigest())
        patient = Store(self.url, PROBE_PATIENCE_S)._files
        try:
            patient.write(probe.name, body)
        except OutOfSpace as error:
            raise BadRecipe(error.message) from None
        try:
            yield probe
        finally:
            with contextlib.suppress(OSError, MotionpairError):
                for name, _ in patient.files("probe", probe.name.removeprefix("probe/")):
                    patient.remove(name)

    def _answer(self, probe: Probe, node: str) -> str:
        try:
            body = self._files.read(probe.name)
        except FileNotFoundError:
            shared = "the folder is not the one of the driver; give a folder that all nodes share, or s3://BUCKET/PREFIX"
            return f"no {probe.name} in {self.url}: {shared if self.local else 'this node sees another store; compare AWS_ENDPOINT_URL'}."
        if hashlib.sha256(body).hexdigest() != probe.digest:
            return f"{probe.name} in {self.url} has other bytes here than where it was written; look at the mount."
        self._files.write(f"{probe.name}.{hashlib.sha256(node.encode()).hexdigest()[:16]}", body)
        return ""

    def sweep(self, older_than_s: float = 86400.0) -> int:
        """Remove what killed writers left half-written; returns how many files. They never disturb, they only take room."""
        return self._disk.sweep(older_than_s) if self._disk else 0


def answer_probe(url: str, probe: Probe, node: str) -> str:
    """Read a probe and write an answer beside it; to be called on a node. Returns why that failed, in one line; empty when it did not.

    `node` names the answer's file: no two calls with one probe should share it.
    """
    try:
        return Store(url, PROBE_PATIENCE_S)._answer(probe, node)
    except (MotionpairError, OSError) as error:
        return str(error)


def local_folder(url: str) -> Path | None:
    """The folder of a store's address that is one: a path or file://…; None for any other."""
    scheme = urlsplit(url).scheme
    if "://" not in url and "::" not in url:
        return Path(url)
    return Path(urlsplit(url).path) if scheme == "file" else None


def _object(artifact: Artifact) -> str:
    return f"objects/{artifact.digest[:2]}/{artifact.digest}{artifact.suffix}"


def _outcome(key: str) -> str:
    return f"outcomes/{key[:2]}/{key}.json"


def _holds(path: Path, artifact: Artifact) -> bool:
    """Whether a file has the artifact's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == artifact.digest


def _readable(chunks: Iterable[bytes], url: str) -> Iterator[bytes]:
    """The chunks of another store; a fault of its disk is none of the one that is written to."""
    try:
        yield from chunks
    except OSError as error:
        raise Damaged(f"a file of {url} can't be read: {error.strerror or error}", "unreadable") from error


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


def _good(files: Iterable[tuple[str, bytes]], parse: Callable[[bytes, str], T], damaged: Callable[[Damaged], None] | None) -> Iterator[T]:
    for name, body in files:
        try:
            yield parse(body, name)
        except Damaged as error:
            if damaged:
                damaged(error)
