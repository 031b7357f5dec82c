"""Latent shards that others made, as the published ones are: looked through once, indexed, and then read by the stream like a release.

The index is one Parquet file beside the shards, with a row a sample: task, shape, and place and digest of every member. What published
readers pass over without a word is told.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from factory.trainer.catalog import COLUMNS
from factory.trainer.latent_sample import task_told, unpacked
from manifests.errors import BadInput, Damaged, OutOfSpace
from manifests.latents import CAPTION, END_TO_END, FRAMES, INDEX, INDEX_FORMAT, INDEX_KEY, NEEDED, REF_MASK_FLAG, REFERENCE, LatentIndex
from manifests.records import TASKS, Task, canonical_json
from manifests.release import SCHEMA
from manifests.shards import BLOCK, Member, padding

FPS = 16.0
"""of the published videos; latent shards do not say"""
MIX: dict[Task, int] = {"animation": 60, "replacement": 20, "pose": 20}
NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
"""key and member of a file in a shard, as webdataset parts them: at the first dot of the file name"""
LOOKED_AT = {END_TO_END, REF_MASK_FLAG, FRAMES, CAPTION, REFERENCE}
"""members whose content is needed here; of the others only the digest"""


class Skipped(NamedTuple):
    """What is not in the index."""

    shard: str
    key: str
    """empty: the rest of the shard"""
    why: str


class Indexed(NamedTuple):
    """What was found."""

    path: Path
    """of the index"""
    samples: dict[Task, int]
    shards: int
    skipped: tuple[Skipped, ...]


class _File(NamedTuple):
    key: str
    member: Member
    data: bytes
    """of members in LOOKED_AT, else empty"""


def index_shards(folder: str | Path, threads: int | None = None, progress: Callable[[int, int], None] = lambda done, of: None) -> Indexed:
    """Index all `*.tar` of a folder; the same files give the same bytes. Raises BadInput when no sample can be used, OutOfSpace when the
    index can't be written."""
    folder = Path(folder)
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise BadInput(f"{folder} has no *.tar; give the folder that the latent shards lie in")
    rows: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for done, found in enumerate(pool.map(_samples, paths), 1):
            rows += [one for one in found if not isinstance(one, Skipped)]
            skipped += [one for one in found if isinstance(one, Skipped)]
            progress(done, len(paths))
    rows, twice = _once(rows)
    skipped += twice
    if not rows:
        raise BadInput(f"{folder} has no sample that can be used; the first: {skipped[0].key or skipped[0].shard} {skipped[0].why}")
    counts = Counter(row["task"] for row in rows)
    samples = {task: counts[task] for task in TASKS if counts[task]}
    info = LatentIndex(
        format=INDEX_FORMAT, content=_digest(rows), mix={task: MIX[task] for task in samples},
        shards={path.name: path.stat().st_size for path in paths},
    )  # fmt: skip
    _write(folder / INDEX, rows, info)
    return Indexed(folder / INDEX, samples, len(paths), tuple(skipped))


def _samples(path: Path) -> list[dict[str, Any] | Skipped]:
    """Rows of a shard, and what of it can't be used."""
    out: list[dict[str, Any] | Skipped] = []
    files: list[_File] = []
    broken: Skipped | None = None
    try:
        _read(path, files)
    except (OSError, tarfile.TarError, Damaged) as error:
        broken = Skipped(path.name, "", f"can't be read to its end: {str(error).splitlines()[0]}")
    for key, group in groupby(files, key=lambda file: file.key):
        try:
            out.append(_row(path.name, key, list(group)))
        except (BadInput, Damaged) as error:
            out.append(Skipped(path.name, key, error.message))
    return [*out, broken] if broken else out


def _read(path: Path, into: list[_File]) -> None:
    """The files of a shard in their order; into a list, so that those before a damage are not lost. Raises OSError, TarError, Damaged."""
    end = 0
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            end = info.offset_data + info.size + padding(info.size) if info.isreg() else info.offset_data
            parted = NAME.fullmatch(info.name)
            if not info.isreg() or not parted:
                continue
            stream = tar.extractfile(info)
            data = stream.read() if stream else b""
            if len(data) != info.size:
                raise Damaged(f"{info.name} is cut off")
            member = Member(parted[2], info.offset_data, info.size, hashlib.sha256(data).hexdigest())
            into.append(_File(parted[1], member, data if member.name in LOOKED_AT else b""))
    with path.open("rb") as raw:  # tarfile takes a damaged header for the end
        raw.seek(end)
        if any(raw.read(BLOCK)):
            raise Damaged(f"no header at byte {end}")


def _row(shard: str, key: str, files: list[_File]) -> dict[str, Any]:
    """Raises BadInput or Damaged for a sample that can't be trained with."""
    data = {file.member.name: file.data for file in files}
    if len(data) < len(files):
        raise BadInput("has a member twice")
    if missing := [name for name in NEEDED if name not in data]:
        raise BadInput(f"has no {', '.join(missing)}")
    if not data[CAPTION].strip():
        raise BadInput(f"has an empty {CAPTION}")
    shape = tuple(unpacked(data[REFERENCE], f"{key}.{REFERENCE}").shape)
    if len(shape) != 4 or shape[:2] != (16, 1):
        raise Damaged(f"{key}.{REFERENCE} is {shape}, expected (16, 1, H, W)")
    said = data.get(FRAMES, b"").strip()
    if not said.isdigit() or not 1 <= int(said) <= 10_000:
        raise BadInput(f"its {FRAMES} is {said[:20]!r}, expected the count of latent frames")
    return {
        "key": key, "task": task_told(data, key), "split": "train", "slice": "published", "frames": 4 * int(said) - 3,
        "height": 8 * shape[2], "width": 8 * shape[3], "fps": FPS, "shard": shard,
        "members": [{"name": m.name, "offset": m.offset, "size": m.size, "sha256": m.sha256} for m in (file.member for file in files)],
    }  # fmt: skip


def _once(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """The first sample of every key: draws are keyed by it."""
    seen: dict[str, str] = {}
    kept, twice = [], []
    for row in rows:
        if row["key"] in seen:
            twice.append(Skipped(row["shard"], row["key"], f"has the key of a sample in {seen[row['key']]}"))
        else:
            seen[row["key"]] = row["shard"]
            kept.append(row)
    return kept, twice


def _digest(rows: list[dict[str, Any]]) -> str:
    """Of what the samples are, wherever they lie: the order of the stream stands on it."""
    whole = hashlib.sha256()
    for row in sorted(rows, key=lambda row: str(row["key"])):
        about = {name: row[name] for name in ("key", "task", "split", "frames", "height", "width")}
        whole.update(canonical_json(about | {"members": [[m["name"], m["sha256"]] for m in row["members"]]}))
    return whole.hexdigest()


def _write(path: Path, rows: list[dict[str, Any]], info: LatentIndex) -> None:
    schema = pa.schema([SCHEMA.field(name) for name in COLUMNS]).with_metadata({INDEX_KEY: canonical_json(info.model_dump(mode="json"))})
    part = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema), part)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutOfSpace(f"can't write {path}: {error.strerror or error}. Make room or mend its permissions, then run again.") from error
