"""What a shard's bytes are: a plain tar whose every byte follows from its members' names, sizes and contents.

So the byte offset of every member is known before anything is written, and `verify` can tell for each 512-byte header and each
padding what it must be. Headers are ustar with time 0, owner 0:0 without names, mode 0644.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from manifests.errors import Damaged
from manifests.records import PREFERENCE, Artifact, Pair, Split, canonical_json, digest_of
from manifests.store import Store

BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a shard."""

    name: str
    """without the pair's key: "driving.mp4" """
    offset: int
    """of the data's first byte, from the start of the shard"""
    size: int
    """bytes"""
    sha256: str

    @property
    def end(self) -> int:
        """Where the next member's header starts."""
        return self.offset + self.size + padding(self.size)


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """A pair at its place in a shard."""

    pair: Pair
    members: tuple[Member, ...]
    """in the order they stand; the last is the pair's JSON"""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard before it is written."""

    name: str
    split: Split
    block: int
    pairs: tuple[PlannedPair, ...]

    @property
    def size(self) -> int:
        """bytes"""
        return self.pairs[-1].members[-1].end + len(END)

    @property
    def contents(self) -> str:
        """Digest of every member's name, size and digest: two shards of the same contents have the same bytes."""
        return digest_of([[f"{p.pair.key}.{m.name}", m.size, m.sha256] for p in self.pairs for m in p.members])


END = bytes(2 * BLOCK)
"""two empty blocks end an archive"""


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member's data. Pure."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT)


def padding(size: int) -> int:
    """How many zero bytes follow data of this size."""
    return -size % BLOCK


def pair_json(pair: Pair) -> bytes:
    """KEY.json: the pair's record, with the digests of its files by member name instead of the store's records."""
    files = {"driving", "target", "winner", "loser", "driving_mask", "references", "reference_masks"}
    record = pair.model_dump(mode="json", exclude=files if pair.task == PREFERENCE else files | {"loser_boxes"})
    record["members"] = {name: {"sha256": a.digest, "size": a.size} for name, a in pair.members().items()}
    return canonical_json(record) + b"\n"


def plan_shards(pairs: Iterable[tuple[Pair, int]], limit_bytes: int) -> list[ShardPlan]:
    """Cut (pair, block number) into shards: one a split and block, more when it would be larger than `limit_bytes`.

    Shards are ordered by split, block and part; pairs within a block keep the order they came in. The parts after the first are
    called `train-00003_01.tar`, `train-00003_02.tar`, …; a single pair above the limit gets a part for itself.
    """
    blocks: dict[tuple[Split, int], list[Pair]] = {}
    for pair, block in pairs:
        blocks.setdefault((pair.split, block), []).append(pair)
    plans: list[ShardPlan] = []
    for (split, block), members in sorted(blocks.items()):
        for part, placed in enumerate(_parts(members, limit_bytes)):
            tail = f"_{part:02d}" if part else ""
            plans.append(ShardPlan(f"{split}-{block:05d}{tail}.tar", split, block, tuple(placed)))
    return plans


def _parts(pairs: Sequence[Pair], limit_bytes: int) -> Iterator[list[PlannedPair]]:
    placed: list[PlannedPair] = []
    offset = 0
    for pair in pairs:
        members = _place(pair, offset)
        if placed and members[-1].end + len(END) > limit_bytes:
            yield placed
            placed, members = [], _place(pair, 0)
        placed.append(PlannedPair(pair, members))
        offset = members[-1].end
    yield placed


def _place(pair: Pair, start: int) -> tuple[Member, ...]:
    body = pair_json(pair)
    files = [(name, a.size, a.digest) for name, a in pair.members().items()]
    files.append(("json", len(body), hashlib.sha256(body).hexdigest()))
    members: list[Member] = []
    for name, size, sha256 in files:
        members.append(Member(name, start + BLOCK, size, sha256))
        start = members[-1].end
    return tuple(members)


def shard_bytes(plan: ShardPlan, store: Store) -> Iterator[bytes]:
    """The shard's bytes in chunks. Raises Damaged, naming the pair, when the store's bytes are not what the pair says."""
    for planned in plan.pairs:
        artifacts: dict[str, Artifact] = planned.pair.members()
        for member in planned.members:
            yield header(f"{planned.pair.key}.{member.name}", member.size)
            if member.name == "json":
                yield pair_json(planned.pair)
            else:
                yield from _stored(store, artifacts[member.name], f"{planned.pair.key}.{member.name}")
            yield bytes(padding(member.size))
    yield END


def _stored(store: Store, artifact: Artifact, name: str) -> Iterator[bytes]:
    try:
        yield from store.stream(artifact)
    except Damaged as error:
        raise Damaged(f"{name} can't be sealed: {error}", error.code) from error
