"""Planted videos, written, decoded and tracked anew, as the checker meets them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from agents.inspected import SyntheticVideo
from checker_parts.bases import Base
from checker_parts.cache import frames_of, load_people, save_people
from checker_parts.planting import KINDS, TIMES, Cast
from generators.masks.identity import match_people
from generators.poses.tracks import Bytes, People
from manifests import media

GOOD = "good"


@dataclass(frozen=True)
class Case:
    """A video that the checker is to judge, and the good output it is said to be."""

    base: Base
    kind: str
    """of `KINDS`, or `GOOD`"""
    variant: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.variant % 3}-{self.base.row.name}"

    @cached_property
    def frames_THWC(self) -> Bytes:  # noqa: N802 - the layout is part of the name
        return frames_of(self.folder / "video.mp4")

    @cached_property
    def people(self) -> People:
        return load_people(self.folder / "people.npz")

    def seen(self) -> SyntheticVideo:
        """As the factory shows it to the checker."""
        base, driven = self.base, self.base.driven
        return SyntheticVideo(
            mode=base.row.mode, frames_THWC=self.frames_THWC, clip_THWC=base.footage.frames_THWC, people=self.people,
            clip_people=driven, others=base.others, matched=match_people(driven, self.people),
            inspection=media.inspect(self.folder / "video.mp4"), geometry=base.footage.geometry, report=base.report,
            painted_HWC=base.painted_HWC, painted_people=base.painted_people,
            scene_HWC=base.scene_HWC if base.row.mode == "animation" else None,
        )  # fmt: skip


def good(base: Base) -> Case:
    """The output as it is."""
    return Case(base, GOOD, 0, base.folder)


def planted(base: Base, kind: str, cast: Cast) -> list[Case]:
    """The defect in this output, in the variants whose turn it is; fewer where it can't be planted."""
    first = zlib.crc32(f"{kind} {base.row.name}".encode()) % 1000
    found = (_planted(base, kind, first + i, cast) for i in range(TIMES.get(kind, 1)))
    return [case for case in found if case is not None]


def _planted(base: Base, kind: str, variant: int, cast: Cast) -> Case | None:
    def build(folder: Path) -> None:
        made = KINDS[kind](base, cast, variant)
        if made is None:
            (folder / "none").touch()
            return
        media.write_video(folder / "video.mp4", made.frames_THWC, base.row.fps)
        people = made.people or cast.studio.tracked(frames_of(folder / "video.mp4"), base.row.fps)
        save_people(people, folder / "people.npz")

    folder = cast.studio.cache.folder(["planted", base.folder.name, kind, variant], build)
    return None if (folder / "none").exists() else Case(base, kind, variant, folder)
