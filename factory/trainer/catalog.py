"""What a release holds, as far as the stream needs it: pairs by task, in an order of their own, without an object for each.

The order of a task's pairs is by shape and key. So it does not depend on how shards are cut, and the pairs of one shape lie together.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from factory.trainer.cache import Cache
from factory.trainer.reading import LocalShards, RemoteShards, Shards, plain_name
from manifests.errors import BadInput, Damaged
from manifests.latents import INDEX, INDEX_FORMAT, INDEX_KEY, LatentIndex
from manifests.records import Split
from manifests.release import DATASET, MANIFEST, SHARDS, DatasetInfo, Release, check_format
from manifests.shards import Member
from manifests.store.content import local_folder
from manifests.store.remote import Remote

COLUMNS = ["key", "task", "split", "slice", "frames", "height", "width", "fps", "shard", "members"]
"""of the manifest; captions and all else stand in each sample's JSON too"""
PATIENCE_S = 120.0
"""how long a server may stumble until a read gives up"""


class Shape(NamedTuple):
    """A shape bucket."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From "81x512x896": frames, height, width. Raises BadInput."""
        parts = text.split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
            raise BadInput(f"a shape is written FRAMESxHEIGHTxWIDTH, as 81x512x896; got {text!r}")
        return cls(*map(int, parts))


@dataclass(frozen=True, slots=True)
class Entry:
    """A pair's row of the manifest."""

    key: str
    task: str
    slice: str
    shape: Shape
    fps: float
    shard: str
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        for member in self.members:
            if member.name == name:
                return member
        raise Damaged(f"pair {self.key} has no member {name!r}, it has {', '.join(m.name for m in self.members)}", "no_member")


class Catalog:
    """An opened release, on this machine or behind a network, or indexed latent shards of others."""

    def __init__(self, url: str, info: DatasetInfo | LatentIndex, table: pa.Table, shards: Shards) -> None:
        self.url, self.info, self.shards = url, info, shards
        self._table = table

    def shelf(self, task: str, split: Split) -> Shelf:
        """The pairs of a task in a split; it may be empty."""
        wanted = pc.and_(pc.equal(self._table["task"], task), pc.equal(self._table["split"], split))
        rows = pc.indices_nonzero(wanted).to_numpy().astype(np.int64)
        found = self._table.select(["frames", "height", "width", "key"]).take(rows)
        order = pc.sort_indices(found, sort_keys=[(name, "ascending") for name in found.column_names]).to_numpy()
        sizes_N3 = np.stack([found[name].to_numpy()[order] for name in ("frames", "height", "width")], 1).reshape(-1, 3)
        return Shelf(self, rows[order], sizes_N3)

    def tasks(self, split: Split) -> dict[str, int]:
        """Pairs by task."""
        found = pc.value_counts(self._table["task"].filter(pc.equal(self._table["split"], split))).to_pylist()
        return {row["values"]: row["counts"] for row in sorted(found, key=lambda row: str(row["values"]))}

    def entries(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Entry]:
        """Several rows at once, which takes a sixth of the time."""
        return [_entry(said) for said in self._table.take(pa.array(rows, pa.int64())).to_pylist()]


def _entry(said: dict[str, Any]) -> Entry:
    members = tuple(Member(**member) for member in said["members"])
    shape = Shape(said["frames"], said["height"], said["width"])
    return Entry(said["key"], said["task"], said["slice"], shape, said["fps"], plain_name(said["shard"]), members)


class Shelf:
    """The pairs of one task of a release, numbered by shape and key."""

    def __init__(self, catalog: Catalog, rows: NDArray[np.int64], sizes_N3: NDArray[np.int32]) -> None:
        self.catalog = catalog
        self._rows = rows
        changes = np.flatnonzero((sizes_N3[1:] != sizes_N3[:-1]).any(1)) + 1 if len(rows) else np.zeros(0, np.int64)
        starts = [0, *changes.tolist()] if len(rows) else []
        self.ranges: dict[Shape, tuple[int, int]] = {
            Shape(*sizes_N3[start].tolist()): (start, end) for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)
        }
        """shape → its first pair's number and the number after its last one"""

    def __len__(self) -> int:
        return len(self._rows)

    def entries(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[Entry]:
        return self.catalog.entries(self._rows[numbers])


def open_catalog(release: str | Path | Release, cache: Cache | None = None, patience_s: float = PATIENCE_S) -> Catalog:
    """Open a release by a path, an fsspec address or as it is, or a folder of latent shards with an index of ours. Raises BadInput when
    there is none, Damaged when it can't be read, Transient when its server stays away."""
    if isinstance(release, Release):
        return _local(release)
    folder = local_folder(str(release))
    if folder and (Path(folder) / INDEX).is_file():
        return _indexed(Path(folder))
    return _local(Release.open(folder)) if folder else _remote(str(release), cache, patience_s)


def _local(release: Release) -> Catalog:
    return Catalog(str(release.folder), release.info, _table(release.folder / MANIFEST), LocalShards(release.folder / SHARDS))


def _indexed(folder: Path) -> Catalog:
    """Shards of others. Their sizes are looked at, so that an index of other files is not believed."""
    table = _table(folder / INDEX)
    try:
        info = LatentIndex.model_validate_json((table.schema.metadata or {}).get(INDEX_KEY, b""))
    except ValidationError as error:
        raise Damaged(f"{folder / INDEX} is no index that this version reads; run motionpair adopt {folder} again") from error
    for name, size in info.shards.items():
        path = folder / plain_name(name)
        if info.format != INDEX_FORMAT or not path.is_file() or path.stat().st_size != size:
            raise Damaged(f"{path} is not the file that was indexed; restore it, or run motionpair adopt {folder} again")
    return Catalog(str(folder), info, table, LocalShards(folder))


def _remote(url: str, cache: Cache | None, patience_s: float) -> Catalog:
    """The small files are fetched, the manifest once for each cache folder."""
    remote = Remote(url, patience_s)
    revision = _revision(remote)
    try:
        info = DatasetInfo.model_validate(json.loads(remote.read(f"{revision}{DATASET}")))
    except (ValueError, ValidationError) as error:
        raise Damaged(f"{url}/{revision}{DATASET} is damaged ({str(error).splitlines()[0]}); restore it") from error
    check_format(info.format, url)
    body = _manifest(remote, f"{revision}{MANIFEST}", info, cache)
    shards = RemoteShards(remote, revision.rstrip("/"), info.content, cache)
    return Catalog(url, info, _table(pa.BufferReader(body), f"{url}/{revision}{MANIFEST}"), shards)


def _revision(remote: Remote) -> str:
    """The folder of the newest sealed revision below an address, with a slash at its end; empty when the address is one itself."""
    for top in ("", "release/"):
        if remote.size(f"{top}{DATASET}") is not None:
            return top
        numbers = sorted((name for name in remote.folders(top.rstrip("/")) if name.isdecimal()), key=int, reverse=True)
        for number in numbers:
            if remote.size(f"{top}{number}/{DATASET}") is not None:
                return f"{top}{number}/"
    raise BadInput(f"no sealed release in {remote.url}; give an address with {DATASET} below it, or one of numbered revisions (0001, …)")


def _manifest(remote: Remote, name: str, info: DatasetInfo, cache: Cache | None) -> bytes:
    kept = cache.folder / f"{info.manifest.sha256}.parquet" if cache else None
    if kept and kept.is_file() and hashlib.sha256(body := kept.read_bytes()).hexdigest() == info.manifest.sha256:
        return body
    try:
        body = remote.read(name)
    except FileNotFoundError as error:
        raise Damaged(f"{remote.url}/{name} is missing; restore it from another copy") from error
    if hashlib.sha256(body).hexdigest() != info.manifest.sha256:
        raise Damaged(f"{remote.url}/{name} is not what dataset.json says; restore it from another copy")
    if kept:
        part = kept.with_name(f"{kept.name}.{uuid.uuid4().hex}")
        part.write_bytes(body)
        os.replace(part, kept)
    return body


def _table(source: Path | Any, name: str = "") -> pa.Table:
    """The columns that are needed. No threads: one that still lets go of its buffer while the interpreter ends would abort the process."""
    try:
        with source.open("rb") if isinstance(source, Path) else source as stream:
            table = pq.ParquetFile(stream, pre_buffer=False).read(columns=COLUMNS, use_threads=False)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        what = f"{name or source} is damaged or missing: {str(error).splitlines()[0]}"
        raise Damaged(f"{what}; restore it, or seal again") from error
    missing = sorted(set(COLUMNS) - set(table.column_names))
    if missing:
        raise Damaged(f"{name or source} lacks the columns {', '.join(missing)}; restore it from another copy")
    return table.select(COLUMNS).combine_chunks()  # rows are then taken without a search


def identity_of(catalogs: Sequence[Catalog]) -> str:
    """One digest for releases in their order: what the positions of a stream mean depends on it."""
    contents = [catalog.info.content for catalog in catalogs]
    return contents[0] if len(contents) == 1 else hashlib.sha256("/".join(contents).encode()).hexdigest()
