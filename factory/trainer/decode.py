"""From a sample's bytes to what a trainer works with. A decoder is any object with the three methods of `Decoder`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from factory.trainer.catalog import Entry
from manifests import media
from manifests.errors import BadInput, Damaged
from manifests.records import PREFERENCE, mode_of

U8 = NDArray[np.uint8]
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, eq=False)
class Raw:
    """One sample as it stands in the shard."""

    position: int
    """in the global stream"""
    epoch: int
    """how often its source (or the source's pairs of its shape) was gone through before"""
    seed: int
    """64 bits for augmentations: a function of the release, the stream's seed, the pair and the epoch"""
    entry: Entry
    members: dict[str, memoryview]
    """name without the key → bytes. They lie in memory that is used again when nobody holds a view of it any more: copy what you keep"""
    replaces: str = ""
    """key of the pair that stands at this position but can't be read"""

    @property
    def key(self) -> str:
        return self.entry.key

    @property
    def task(self) -> str:
        return self.entry.task


@dataclass(frozen=True, eq=False, kw_only=True)
class Conditions:
    """What a decoded pair gives a model to go by. All pictures are RGB."""

    position: int
    """in the global stream"""
    epoch: int
    """see Raw"""
    seed: int
    """see Raw"""
    task: str
    key: str
    driving_THWC: U8
    driving_mask_THWC: U8
    references: tuple[U8, ...]
    """each H, W, C"""
    reference_masks: tuple[U8, ...]
    """each H, W, C, of its reference's size"""
    caption: str
    meta: dict[str, Any]
    """the pair's KEY.json"""
    replaces: str = ""
    """see Raw"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Conditions):
    """One pair, decoded."""

    target_THWC: U8


@dataclass(frozen=True, eq=False, kw_only=True)
class PreferenceSample(Conditions):
    """One preference pair, decoded: two videos for the same conditions, the first to be preferred."""

    winner_THWC: U8
    loser_THWC: U8

    def sides(self) -> tuple[Sample, Sample]:
        """Winner and loser as the targets of two animations with the same conditions, seed and boxes.

        `meta["boxes"]` of both holds the boxes of both, frame by frame, so that both errors are taken over the same pixels.
        """
        frames = zip(self.meta["boxes"], self.meta["loser_boxes"], strict=True)
        boxes = [{name: [*winner[name], *loser[name]] for name in winner} for winner, loser in frames]
        own = {name: value for name, value in self.meta.items() if name != "loser_boxes"}
        common = {field.name: getattr(self, field.name) for field in fields(Conditions)}
        common |= {"task": mode_of(PREFERENCE), "meta": own | {"task": mode_of(PREFERENCE), "boxes": boxes}}
        return Sample(**common, target_THWC=self.winner_THWC), Sample(**common, target_THWC=self.loser_THWC)


class Decoder(Protocol, Generic[T_co]):
    """What the stream's threads do with a sample. Raise Damaged or BadInput for bytes that can't be decoded: it is replaced then."""

    def members(self, entry: Entry) -> tuple[str, ...]:
        """Which members are read."""
        ...

    def size(self, entry: Entry) -> int:
        """How many bytes the result takes, about, besides the members' own: the prefetch is bounded by it."""
        ...

    def __call__(self, raw: Raw) -> T_co: ...


class Bytes:
    """No decoding: samples are `Raw`."""

    def __init__(self, *members: str) -> None:
        """Which members are read; none named: all."""
        self._members = members

    def members(self, entry: Entry) -> tuple[str, ...]:
        return self._members or tuple(member.name for member in entry.members)

    def size(self, entry: Entry) -> int:
        return 0

    def __call__(self, raw: Raw) -> Raw:
        return raw


class Pixels:
    """Videos and pictures as arrays: samples are `Sample`, preference pairs `PreferenceSample`."""

    def members(self, entry: Entry) -> tuple[str, ...]:
        return tuple(member.name for member in entry.members)

    def size(self, entry: Entry) -> int:
        frames, height, width = entry.shape
        references = sum(m.name.startswith("reference") for m in entry.members)
        videos = sum(m.name.endswith(".mp4") for m in entry.members)
        return 3 * height * width * (videos * frames + references)

    def __call__(self, raw: Raw) -> Sample | PreferenceSample:
        names = [m.name for m in raw.entry.members]
        references = [n for n in names if n.startswith("reference") and not n.startswith("reference_mask")]
        meta = json.loads(_member(raw, "json").tobytes())
        conditions: dict[str, Any] = {
            "position": raw.position,
            "epoch": raw.epoch,
            "seed": raw.seed,
            "task": raw.task,
            "key": raw.key,
            "driving_THWC": _decoded(raw, "driving.mp4"),
            "driving_mask_THWC": _decoded(raw, "driving_mask.mp4"),
            "references": tuple(_decoded(raw, name) for name in references),
            "reference_masks": tuple(_decoded(raw, name) for name in names if name.startswith("reference_mask")),
            "caption": meta["caption"],
            "meta": meta,
            "replaces": raw.replaces,
        }
        if raw.task == PREFERENCE:
            return PreferenceSample(**conditions, winner_THWC=_decoded(raw, "winner.mp4"), loser_THWC=_decoded(raw, "loser.mp4"))
        return Sample(**conditions, target_THWC=_decoded(raw, "target.mp4"))


def _member(raw: Raw, name: str) -> memoryview:
    if name not in raw.members:
        raise Damaged(f"pair {raw.key} has no member {name!r}, it has {', '.join(raw.members)}", "no_member")
    return raw.members[name]


def _decoded(raw: Raw, name: str) -> U8:
    """A video's frames (T, H, W, C) or a picture (H, W, C)."""
    try:
        with as_file(_member(raw, name), Path(name).suffix) as path:
            return media.read_frames(path)[0] if name.endswith(".mp4") else media.read_image(path)
    except BadInput as error:
        raise Damaged(f"{raw.key}.{name} in shard {raw.entry.shard} can't be decoded", error.code) from error


@contextlib.contextmanager
def as_file(data: memoryview, suffix: str) -> Iterator[Path]:
    """A file with these bytes for decoders that want one; in memory where the system can."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("sample", os.MFD_CLOEXEC)
        try:
            with os.fdopen(fd, "wb", buffering=0, closefd=False) as file:
                done = 0
                while done < len(data):
                    done += file.write(data[done:])
            yield Path(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    else:
        with tempfile.NamedTemporaryFile(prefix="motionpair-", suffix=suffix) as named:
            named.write(data)
            named.flush()
            yield Path(named.name)
