"""Releases: immutable, numbered revisions of a dataset, and reading them.

::

    DIR/release/0001/shards/train-00000.tar …   one tar a split and block, readable by plain `webdataset`
                     manifest.parquet           one row a pair, with the byte offset of every member
                     left_out.jsonl             the jobs of the plan that are not in it, and why
                     dataset.json               written last: a revision without it is unfinished

Nothing inside a revision tells of times, hosts, paths or costs, so the same pairs give the same bytes. Writing is in `sealing.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from manifests.errors import BadInput, Damaged
from manifests.records import PREFERENCE, Digest, Frozen, Geometry, Split, Task, digest_of
from manifests.shards import Member

FORMAT = 1
FORMAT_WITH_PREFERENCES = 2
"""of a release that holds preference pairs: what knows only format 1 would take its pairs for damaged ones"""
FORMATS = (FORMAT, FORMAT_WITH_PREFERENCES)
"""that this version reads"""
DATASET, MANIFEST, LEFT_OUT, SHARDS = "dataset.json", "manifest.parquet", "left_out.jsonl", "shards"


class LeftOut(Frozen):
    """A job of the plan that is not in the release."""

    job: Digest
    slice: str
    split: Split
    state: str
    """rejected, quarantined, undecided, review, duplicate or surplus"""
    reason: str = ""


class ReleaseMeta(Frozen):
    """What the caller says of a release; all of it stands in dataset.json."""

    name: str
    recipe: Digest
    mix: dict[Task, int]
    """the trainer's sampling weights"""
    quotas: dict[str, int] = Field(default_factory=dict)
    """pairs asked for, by slice"""
    complete: bool = True
    """every quota is met"""
    left_out: tuple[LeftOut, ...] = ()
    shard_mb: int = Field(default=1024, ge=1)
    """1 MB = 1,000,000 bytes"""


class ShardInfo(Frozen):
    name: str
    split: Split
    block: int
    pairs: int
    size: int
    """bytes"""
    contents: Digest
    """of every member's name, size and digest"""
    sha256: Digest


class FileInfo(Frozen):
    size: int
    sha256: Digest


class GeometryCount(Frozen):
    geometry: Geometry
    pairs: int


class DatasetInfo(Frozen):
    """dataset.json."""

    format: int
    name: str
    revision: int
    content: Digest
    """of everything here but the revision's number and the files' digests: same content, same samples"""
    recipe: Digest
    pairs: int
    counts: dict[Split, dict[Task, dict[str, int]]]
    """split → task → slice → pairs"""
    quotas: dict[str, int]
    complete: bool
    mix: dict[Task, int]
    reference_in_target: int
    geometries: tuple[GeometryCount, ...]
    shard_mb: int
    shards: tuple[ShardInfo, ...]
    left_out_counts: dict[str, dict[str, int]]
    """state → reason → jobs"""
    left_out: FileInfo
    manifest: FileInfo

    def content_digest(self) -> str:
        """What `content` must be. File digests are left out: the shards' contents already fix them, and they need the files first."""
        value = self.model_dump(mode="json", exclude={"content", "revision", "manifest"})
        for shard in value["shards"]:
            del shard["sha256"]
        return digest_of(value)


@dataclass(frozen=True, slots=True)
class PairRow:
    """One row of the manifest."""

    key: str
    job: str
    slice: str
    task: Task
    split: Split
    group: str
    generator: str
    height: int
    width: int
    frames: int
    fps: float
    slots: int
    reference_in_target: bool
    caption: str
    scores: str
    """JSON"""
    lineage: str
    """JSON"""
    licence: str
    shard: str
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        for member in self.members:
            if member.name == name:
                return member
        raise BadInput(f"pair {self.key} has no member {name!r}; it has {', '.join(m.name for m in self.members)}")

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the reference pictures, first one first."""
        return tuple(m.name for m in self.members if m.name.startswith("reference") and not m.name.startswith("reference_mask"))

    @property
    def reference_masks(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.members if m.name.startswith("reference_mask"))


def _column(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_MEMBER = pa.struct(
    [_column("name", pa.string()), _column("offset", pa.int64()), _column("size", pa.int64()), _column("sha256", pa.string())]
)
SCHEMA = pa.schema(
    [_column(name, pa.string()) for name in ("key", "job", "slice", "task", "split", "group", "generator")]
    + [_column(name, pa.int32()) for name in ("height", "width", "frames")]
    + [_column("fps", pa.float64()), _column("slots", pa.int32()), _column("reference_in_target", pa.bool_())]
    + [_column(name, pa.string()) for name in ("caption", "scores", "lineage", "licence", "shard")]
    + [_column("members", pa.list_(_column("member", _MEMBER)))]
)


def check_format(number: object, where: object) -> None:
    """Raises BadInput for a format that this version does not read."""
    if number not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise BadInput(f"{where} has release format {number}, this version reads {known}; use the version that wrote it")


def format_of(tasks: Iterable[str]) -> int:
    """The lowest format that can hold pairs of these tasks, so that a release without preference pairs stays what it was."""
    return FORMAT_WITH_PREFERENCES if PREFERENCE in tasks else FORMAT


def resolve(path: str | Path) -> Path:
    """The revision that a path means: itself, or the newest sealed one in it (or in its folder `release`)."""
    folder = Path(path)
    if (folder / DATASET).is_file():
        return folder
    for parent in (folder, folder / "release"):
        if sealed := revisions(parent):
            return parent / f"{sealed[-1]:04d}"
    raise BadInput(f"no sealed release in {folder}; give a folder with {DATASET} in it, or one of numbered revisions (0001, …)")


def revisions(root: Path) -> list[int]:
    """Numbers of the sealed revisions in a folder, ascending."""
    if not root.is_dir():
        return []
    return sorted(int(p.name) for p in root.iterdir() if p.name.isdecimal() and (p / DATASET).is_file())


class Release:
    """A sealed revision, opened for reading. Threads may share it; it keeps no file open."""

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        self.folder = folder
        self.info = info

    @classmethod
    def open(cls, path: str | Path) -> Release:
        """Open what `resolve` finds. Raises BadInput when there is nothing, Damaged when dataset.json can't be read."""
        folder = resolve(path)
        try:
            raw = json.loads((folder / DATASET).read_bytes())
            if isinstance(raw, Mapping):
                check_format(raw.get("format", FORMAT), folder)
            return cls(folder, DatasetInfo.model_validate(raw))
        except (ValueError, ValidationError) as error:
            where = str(error).splitlines()[0]
            raise Damaged(f"{folder / DATASET} is damaged ({where}); restore it, or remove the revision and seal again") from error

    def rows(self) -> tuple[PairRow, ...]:
        """The manifest's rows, in shard order."""
        return self._rows

    @cached_property
    def _rows(self) -> tuple[PairRow, ...]:
        path = self.folder / MANIFEST
        try:
            with path.open("rb") as stream:  # given a path, pyarrow would guess columns from folder names
                # No threads: one that still lets go of its buffer while the interpreter ends would abort the process.
                table = pq.ParquetFile(stream, pre_buffer=False).read(use_threads=False)
            if not table.schema.equals(SCHEMA):
                raise Damaged(f"{path} has other columns than format {FORMAT}; restore it from another copy")
            return _parse(table)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise Damaged(f"{path} is damaged or missing: {str(error).splitlines()[0]}; restore it, or seal again") from error

    def shard_path(self, name: str) -> Path:
        """Where a shard lies. Raises Damaged for a name that is not a plain file name, so that a manifest can't point elsewhere."""
        if not name.endswith(".tar") or Path(name).name != name:
            raise Damaged(f"the manifest of {self.folder} names a shard {name!r}; restore it from another copy")
        return self.folder / SHARDS / name

    def read_member(self, row: PairRow, name: str, check: bool = False) -> bytes:
        """The bytes of one member of a pair; with `check`, against their digest. Raises Damaged when they can't be had."""
        member, path = row.member(name), self.shard_path(row.shard)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Damaged(f"shard {path} can't be opened: {error.strerror}; restore it from another copy") from error
        try:
            data = _pread(fd, member.size, member.offset)
        except OSError as error:
            raise Damaged(f"shard {path} can't be read: {error.strerror}; restore it from another copy") from error
        finally:
            os.close(fd)
        if len(data) != member.size or (check and hashlib.sha256(data).hexdigest() != member.sha256):
            raise Damaged(f"{row.key}.{name} in shard {row.shard} is damaged; run verify on {self.folder} and restore the shard")
        return data


def _pread(fd: int, size: int, offset: int) -> bytes:
    """`size` bytes, fewer only at the end of the file: one call may return less than 2 GiB or a network's piece."""
    parts: list[bytes] = []
    while size and (part := os.pread(fd, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def _parse(table: pa.Table) -> tuple[PairRow, ...]:
    """Column by column, which is several times faster than row by row."""
    lists = table["members"].combine_chunks()
    flat = lists.values
    members = list(map(Member, *(flat.field(i).to_pylist() for i in range(4))))
    of_pair = [tuple(members[a:b]) for a, b in pairwise(lists.offsets.to_pylist())]
    columns = [table[name].to_pylist() for name in SCHEMA.names[:-1]]
    return tuple(PairRow(*row) for row in zip(*columns, of_pair, strict=True))
