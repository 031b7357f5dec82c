"""Writing a release. The order of the writes is what makes it safe: shards, manifest, list of what was left out, dataset.json."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import BadInput, OutOfSpace
from manifests.preference import record_problems
from manifests.records import MODES, PREFERENCE, Geometry, Pair, canonical_json
from manifests.release import (
    DATASET,
    LEFT_OUT,
    MANIFEST,
    SCHEMA,
    SHARDS,
    DatasetInfo,
    FileInfo,
    GeometryCount,
    Release,
    ReleaseMeta,
    ShardInfo,
    format_of,
    revisions,
)
from manifests.shards import PlannedPair, ShardPlan, pair_json, plan_shards, shard_bytes
from manifests.store import CHUNK_BYTES, Store

_UNKNOWN = "0" * 64
"""a shard's digest before it is written"""


def write_release(root: str | Path, pairs: Sequence[tuple[Pair, int]], store: Store, meta: ReleaseMeta) -> Path:
    """Seal (pair, block number), chosen and ordered by the caller, as the next revision in `root`; returns the revision's folder.

    When the newest revision has exactly this content, nothing is written and that one is returned. Unfinished revisions of killed
    sealings are removed first. Raises BadInput for pairs that can't make a release, Damaged when the store's bytes are wrong, and
    OutOfSpace; after any of them, calling again gives the bytes an undisturbed call would have given.
    """
    _check(pairs, meta)
    root = Path(root)
    plans = plan_shards(pairs, meta.shard_mb * 1_000_000)
    manifest, left_out = _manifest(plans), _left_out(meta)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            _remove_unfinished(root)
            sealed = revisions(root)
            newest = Release.open(root / f"{sealed[-1]:04d}") if sealed else None
            draft = _info(plans, meta, manifest, left_out, revision=sealed[-1] + 1 if sealed else 1)
            if newest and newest.info.content == draft.content:
                return newest.folder
            return _seal(root / f"{draft.revision:04d}", draft, plans, store, newest, {MANIFEST: manifest, LEFT_OUT: left_out})
    except OSError as error:
        where = error.filename or root
        raise OutOfSpace(
            f"can't seal into {where}: {error.strerror or error}. Free some room or fix its permissions, then run again."
        ) from error


def _check(pairs: Sequence[tuple[Pair, int]], meta: ReleaseMeta) -> None:
    twice = [key for key, count in Counter(pair.key for pair, _ in pairs).items() if count > 1]
    if twice:
        raise BadInput(
            f"{len(twice)} pair keys are there more than once, the first is {min(twice)}; keys derive from job ids, give each once"
        )
    if not pairs:
        raise BadInput("no pair was accepted, so there is nothing to seal; see the reasons of the rejected jobs", "nothing_to_seal")
    if any(not 0 <= block <= 99_999 for _, block in pairs):
        raise BadInput("block numbers must be between 0 and 99999")
    if any(weight < 0 for weight in meta.mix.values()) or not sum(meta.mix.values()):
        raise BadInput(f"the mix must be whole weights of at least 0 and not all 0, got {meta.mix}")
    if PREFERENCE in meta.mix:
        raise BadInput(f"preference pairs stand outside the mix, got {meta.mix}; leave {PREFERENCE} out")
    for pair, _ in pairs:
        for member, what in record_problems(json.loads(pair_json(pair))) if pair.task == PREFERENCE else ():
            raise BadInput(f"preference pair {pair.key} can't be sealed: {member} {what}", "broken_preference")


def _seal(
    folder: Path, draft: DatasetInfo, plans: Sequence[ShardPlan], store: Store, previous: Release | None, files: dict[str, bytes]
) -> Path:
    (folder / SHARDS).mkdir(parents=True)
    known = {shard.contents: shard for shard in previous.info.shards} if previous else {}
    shards: list[ShardInfo] = []
    for plan, shard in zip(plans, draft.shards, strict=True):
        path = folder / SHARDS / plan.name
        old = known.get(shard.contents)
        if not (previous and old and _link(previous.shard_path(old.name), path, old.sha256)):
            sha256 = _write(path, shard_bytes(plan, store))
        else:
            sha256 = old.sha256
        shards.append(shard.model_copy(update={"sha256": sha256}))
    for name, data in files.items():
        _write(folder / name, [data])
    _sync(folder / SHARDS)
    _sync(folder)
    info = draft.model_copy(update={"shards": tuple(shards)})
    _write(folder / DATASET, [_pretty(info)])
    _sync(folder)
    _sync(folder.parent)
    return folder


def _info(plans: Sequence[ShardPlan], meta: ReleaseMeta, manifest: bytes, left_out: bytes, revision: int) -> DatasetInfo:
    pairs = [planned.pair for plan in plans for planned in plan.pairs]
    shards = tuple(
        ShardInfo(name=p.name, split=p.split, block=p.block, pairs=len(p.pairs), size=p.size, contents=p.contents, sha256=_UNKNOWN)
        for p in plans
    )
    draft = DatasetInfo(
        format=format_of(p.task for p in pairs),
        name=meta.name,
        revision=revision,
        content=_UNKNOWN,
        recipe=meta.recipe,
        pairs=len(pairs),
        counts=_nested(sorted((p.split, p.task, p.slice) for p in pairs)),
        quotas=dict(sorted(meta.quotas.items())),
        complete=meta.complete,
        mix={task: meta.mix[task] for task in MODES if task in meta.mix},
        reference_in_target=sum(p.reference_in_target for p in pairs),
        geometries=_geometries(pairs),
        shard_mb=meta.shard_mb,
        shards=shards,
        left_out_counts=_nested(sorted((job.state, job.reason) for job in meta.left_out)),
        left_out=_file(left_out),
        manifest=_file(manifest),
    )
    return draft.model_copy(update={"content": draft.content_digest()})


def _nested(rows: Iterable[tuple[str, ...]]) -> Any:
    """Counts of equal rows as nested dictionaries, one level a column."""
    out: dict[str, Any] = {}
    for (*path, last), count in Counter(rows).items():
        level = out
        for name in path:
            level = level.setdefault(name, {})
        level[last] = count
    return out


def _geometries(pairs: Iterable[Pair]) -> tuple[GeometryCount, ...]:
    counts = Counter((p.geometry.height, p.geometry.width, p.geometry.frames, p.geometry.fps) for p in pairs)
    return tuple(
        GeometryCount(geometry=Geometry(height=h, width=w, frames=t, fps=fps), pairs=n) for (h, w, t, fps), n in sorted(counts.items())
    )


def _manifest(plans: Sequence[ShardPlan]) -> bytes:
    """The Parquet file. Every setting that shapes its bytes is fixed here."""
    rows = [_manifest_row(planned, plan.name) for plan in plans for planned in plan.pairs]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(
        table,
        sink,
        row_group_size=4096,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=6,
        use_dictionary=True,
    )
    return bytes(sink.getvalue().to_pybytes())


def _manifest_row(planned: PlannedPair, shard: str) -> dict[str, Any]:
    pair, geometry = planned.pair, planned.pair.geometry
    return {
        **pair.model_dump(include={"key", "job", "slice", "task", "split", "group", "generator", "slots", "reference_in_target"}),
        **geometry.model_dump(),
        "caption": pair.caption,
        "scores": canonical_json(pair.scores).decode(),
        "lineage": canonical_json(pair.lineage).decode(),
        "licence": pair.licence,
        "shard": shard,
        "members": [{"name": m.name, "offset": m.offset, "size": m.size, "sha256": m.sha256} for m in planned.members],
    }


def _left_out(meta: ReleaseMeta) -> bytes:
    return b"".join(canonical_json(job) + b"\n" for job in sorted(meta.left_out, key=lambda job: job.job))


def _file(data: bytes) -> FileInfo:
    return FileInfo(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _pretty(info: DatasetInfo) -> bytes:
    return json.dumps(info.model_dump(mode="json"), indent=1, ensure_ascii=False).encode() + b"\n"


# --- files


def _write(path: Path, chunks: Iterable[bytes]) -> str:
    """Write a read-only file that appears whole; returns its digest."""
    digest, part = hashlib.sha256(), path.with_name(f".{path.name}.part")
    with part.open("wb") as stream:
        for chunk in chunks:
            digest.update(chunk)
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    part.chmod(0o444)
    os.replace(part, path)
    return digest.hexdigest()


def _link(old: Path, new: Path, sha256: str) -> bool:
    """Take over a shard of the previous revision when its bytes are still right and the filesystem can; says whether it did."""
    digest = hashlib.sha256()
    try:
        with old.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            return False
        os.link(old, new)
    except OSError:
        return False
    return True


def _remove_unfinished(root: Path) -> None:
    for folder in root.iterdir():
        if folder.name.isdecimal() and folder.is_dir() and not (folder / DATASET).exists():
            shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One sealing at a time in a folder; the lock goes with its process."""
    fd = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
