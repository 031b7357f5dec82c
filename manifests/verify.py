"""Checks a sealed release against itself: every byte, every count, every promise that can be seen in it.

Shards are plain enough (see `shards.py`) for each byte to be known from the manifest, so damage is named by its first pair and member.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from manifests.errors import Damaged
from manifests.paircheck import pair_problems
from manifests.records import PREFERENCE, Frozen, digest_of
from manifests.release import LEFT_OUT, MANIFEST, SHARDS, FileInfo, PairRow, Release, ShardInfo, format_of
from manifests.shards import BLOCK, END, Member, header
from manifests.store import CHUNK_BYTES


class Problem(Frozen):
    """One thing that is wrong; empty fields: it concerns the release as a whole."""

    what: str
    shard: str = ""
    key: str = ""
    member: str = ""

    def __str__(self) -> str:
        where = " ".join(part for part in (self.shard, f"{self.key}.{self.member}".strip(".")) if part)
        return f"{where}: {self.what}" if where else self.what


def verify(path: str | Path, decode: bool = True) -> list[Problem]:
    """Every problem of a release (the newest revision of a folder); empty when it is whole.

    Without `decode`, videos and pictures are not opened: bytes, digests, counts and splits are still checked. Raises BadInput when
    there is no sealed release. Of a damaged shard only the first damage is told, and its pairs from there on are not decoded.
    """
    try:
        release = Release.open(path)
        problems = _files(release)
        rows = release.rows()
    except Damaged as error:
        return [Problem(what=error.message)]
    problems += [*_counts(release, rows), *_keys(rows), *_groups(rows)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        problems += _shards(release, rows, pool, decode)
    return problems


def _files(release: Release) -> list[Problem]:
    """dataset.json against itself, and the small files against it."""
    info, problems = release.info, []
    if info.content != info.content_digest():
        problems.append(Problem(what="dataset.json was changed after sealing: its content digest does not fit"))
    if release.folder.name.isdecimal() and int(release.folder.name) != info.revision:
        problems.append(Problem(what=f"dataset.json says revision {info.revision}, the folder is {release.folder.name}"))
    for name, said in ((MANIFEST, info.manifest), (LEFT_OUT, info.left_out)):
        problems += [Problem(member=name, what=what) for what in _compare(release.folder / name, said)]
    listed = {shard.name for shard in info.shards}
    folder = release.folder / SHARDS
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    problems += [Problem(shard=name, what="is in the folder but not in dataset.json") for name in sorted(there - listed)]
    problems += [Problem(shard=name, what="is missing") for name in sorted(listed - there)]
    return problems


def _compare(path: Path, said: FileInfo) -> Iterator[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        yield f"can't be read: {error.strerror}"
        return
    if len(data) != said.size:
        yield f"has {len(data)} bytes, dataset.json says {said.size}"
    elif hashlib.sha256(data).hexdigest() != said.sha256:
        yield "its bytes were changed: the digest differs from dataset.json's"


def _counts(release: Release, rows: Sequence[PairRow]) -> Iterator[Problem]:
    info = release.info
    said = {(s, t, n): c for s, tasks in info.counts.items() for t, names in tasks.items() for n, c in names.items()}
    have = Counter((row.split, row.task, row.slice) for row in rows)
    for place in sorted({*said, *have}):
        if said.get(place, 0) != have[place]:
            yield Problem(what=f"{'/'.join(place)}: dataset.json counts {said.get(place, 0)} pairs, the manifest has {have[place]}")
    for what, number, counted in (
        ("pairs", info.pairs, len(rows)),
        ("reference_in_target", info.reference_in_target, sum(row.reference_in_target for row in rows)),
        ("pairs in shards", sum(shard.pairs for shard in info.shards), len(rows)),
    ):
        if number != counted:
            yield Problem(what=f"{what}: dataset.json says {number}, the manifest has {counted}")
    geometries = Counter((row.height, row.width, row.frames, row.fps) for row in rows)
    if geometries != {(g.geometry.height, g.geometry.width, g.geometry.frames, g.geometry.fps): g.pairs for g in info.geometries}:
        yield Problem(what="the geometries in dataset.json are not those of the manifest")
    if info.format != (needed := format_of(row.task for row in rows)):
        yield Problem(what=f"dataset.json says format {info.format}, its pairs make it {needed}")
    if PREFERENCE in info.mix:
        yield Problem(what=f"the mix {dict(info.mix)} holds preference pairs, which stand outside it")
    by_slice = Counter(row.slice for row in rows)
    for name, quota in info.quotas.items():
        if info.complete and by_slice[name] < quota:
            yield Problem(what=f"is called complete, but slice {name} has {by_slice[name]} of {quota} pairs")


def _keys(rows: Iterable[PairRow]) -> Iterator[Problem]:
    for field in ("key", "job"):
        seen: dict[str, PairRow] = {}
        for row in rows:
            first = seen.setdefault(getattr(row, field), row)
            if first is not row:
                yield Problem(shard=row.shard, key=row.key, what=f"has the same {field} as {first.key} in {first.shard}")


def _groups(rows: Iterable[PairRow]) -> Iterator[Problem]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.group].add(row.split)
    for group, sides in sorted(splits.items()):
        if len(sides) > 1:
            yield Problem(what=f"source group {group!r} is on both sides of the split ({', '.join(sorted(sides))})")


# --- shards


def _shards(release: Release, rows: Sequence[PairRow], pool: ThreadPoolExecutor, decode: bool) -> list[Problem]:
    by_shard: dict[str, list[PairRow]] = defaultdict(list)
    for row in rows:
        by_shard[row.shard].append(row)
    infos = {shard.name: shard for shard in release.info.shards}
    problems = [Problem(shard=name, what="is named by the manifest but not by dataset.json") for name in sorted(set(by_shard) - set(infos))]

    def read(shard: ShardInfo) -> tuple[list[Problem], list[PairRow]]:
        return _shard(release, shard, by_shard[shard.name])

    def look(row: PairRow) -> list[Problem]:
        return [Problem(shard=row.shard, key=row.key, member=member, what=what) for member, what in pair_problems(release, row, decode)]

    for found, intact in pool.map(read, infos.values()):
        problems += found
        for seen in pool.map(look, intact):
            problems += seen
    return problems


def _shard(release: Release, shard: ShardInfo, rows: list[PairRow]) -> tuple[list[Problem], list[PairRow]]:
    """What is wrong with a shard's bytes, and its pairs before the first damage."""
    try:
        path = release.shard_path(shard.name)
        if not path.exists():
            return ([], [])  # told already, among the files
        if not path.is_file():
            return [Problem(shard=shard.name, what="is no file")], []
        rows = sorted(rows, key=lambda row: row.members[0].offset if row.members else -1)
        with path.open("rb") as stream:
            return _walk(stream, shard, rows)
    except (OSError, Damaged) as error:
        return [Problem(shard=shard.name, what=f"can't be read: {error}")], []


def _walk(stream: BinaryIO, shard: ShardInfo, rows: list[PairRow]) -> tuple[list[Problem], list[PairRow]]:
    size = os.fstat(stream.fileno()).st_size
    note = "" if size == shard.size else f" (the shard has {size} bytes, dataset.json says {shard.size})"
    whole = hashlib.sha256()

    def take(count: int, also: Callable[[bytes], None] | None = None) -> bytes:
        """The next bytes into the shard's digest; data go to `also` in chunks, small things are returned."""
        kept = b""
        while count > 0 and (chunk := stream.read(min(count, CHUNK_BYTES))):
            whole.update(chunk)
            count -= len(chunk)
            if also:
                also(chunk)
            else:
                kept += chunk
        return kept

    position = 0
    for i, row in enumerate(rows):
        for member in row.members:
            what = _member(row, member, position, take)
            if what:
                return [Problem(shard=shard.name, key=row.key, member=member.name, what=f"{what}{note}; the first damage")], rows[:i]
            position = member.end
    problems = []
    if len(rows) != shard.pairs:
        problems.append(Problem(shard=shard.name, what=f"dataset.json says {shard.pairs} pairs, the manifest has {len(rows)}"))
    if take(len(END) + 1) != END:
        problems.append(Problem(shard=shard.name, what=f"does not end where the manifest's last pair does{note}"))
    take(size, lambda _: None)
    if whole.hexdigest() != shard.sha256:
        problems.append(Problem(shard=shard.name, what=f"its bytes have another digest than dataset.json says{note}"))
    if digest_of([[f"{row.key}.{m.name}", m.size, m.sha256] for row in rows for m in row.members]) != shard.contents:
        problems.append(Problem(shard=shard.name, what="the manifest lists other members than dataset.json's contents digest says"))
    return problems, rows


def _member(row: PairRow, member: Member, position: int, take: Callable[..., bytes]) -> str:
    """What is wrong with the header, data or padding of the member at the stream's position; empty when nothing is."""
    if member.offset != position + BLOCK or member.size < 0:
        return f"the manifest says its data start at byte {member.offset}, they start at {position + BLOCK}"
    if take(BLOCK) != header(f"{row.key}.{member.name}", member.size):
        return f"its tar header at byte {position} is damaged"
    digest = hashlib.sha256()
    take(member.size, digest.update)
    if digest.hexdigest() != member.sha256:
        return "its bytes have another digest than the manifest says"
    count = member.end - member.offset - member.size
    if take(count) != bytes(count):
        return "the padding behind it is damaged"
    return ""
