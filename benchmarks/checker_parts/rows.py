"""Which real clips and which puppet outputs defects are planted in. Thresholds are set on `TUNING`, figures reported on `REPORTING`:
other people, another scene, other characters. Several cameras of one scene are one scene."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

SHORT_SIDE = 384
NOT_KEPT = Path(__file__).parent.parent / "marks" / "bases_by_eye.json"

Mode = Literal["animation", "replacement"]


@dataclass(frozen=True)
class Row:
    """One good output: a real clip as it is (no characters), or a puppet's."""

    clip: str
    start_s: float
    frames: int
    fps: float
    mode: Mode
    characters: tuple[str, ...] = ()
    """one a driven person, who are taken from the largest down; empty: the clip itself is the output"""
    scene: str = ""
    short_side: int = SHORT_SIDE
    window: tuple[int, ...] = ()
    """part of the clip's frame that is used: left, top, width, height; empty: all of it"""

    @property
    def span(self) -> str:
        """What rows of the same stretch of a clip have in common."""
        return f"{Path(self.clip).stem}@{self.start_s:g}s{self.frames}x{self.fps:g}"

    @property
    def motions(self) -> tuple[str, ...]:
        """What each tracked person does: the same word for the same motion, whatever camera sees it."""
        if not self.clip.startswith("lab/"):
            return (self.span,)
        return CAST_OF.get(self.clip, ("man",))

    @property
    def name(self) -> str:
        """Short and unique."""
        who = "+".join(Path(c).name for c in self.characters) or "untouched"
        return f"{self.mode[:4]}-{self.span}-{who}"


LAB_SPANS = ((0.0, 33, 20.0), (0.6, 25, 24.0))
LAB_CLIPS = tuple(f"lab/{who}-cam0{n}" for n in (2, 1, 4, 3) for who in ("single", "multi"))
MORE_UNTOUCHED = tuple(Row(clip, 0.3, 29, 22.0, "replacement") for clip in LAB_CLIPS)
"""one more stretch of every clip of the lab, of which most are judged as they are only"""
JUDGED_ONLY = MORE_UNTOUCHED[4:]
"""nothing is planted in these"""
LAB_CAST = ("drawn-5/mannequin-6@front", "drawn-7/robot-1@front", "drawn-6/mannequin-8@front", "drawn-8/robot-2@front")
LAB_SCENES = ("room-5", "studio-3", "dusk-1", "studio-0")
ON_ROOF, PASSING = (416, 0, 480, 854), (900, 100, 480, 854)
PARK_SPANS = ((0.0, 33, 24.0, ON_ROOF), (0.95, 33, 24.0, ON_ROOF), (1.95, 33, 24.0, ON_ROOF), (2.1, 33, 24.0, PASSING))
CAST_OF = {
    "lab/multi-cam01": ("man", "woman"), "lab/multi-cam02": ("woman", "man"), "lab/multi-cam03": ("woman", "man"),
    "lab/multi-cam04": ("man", "woman"),
}  # fmt: skip
"""tracks of the clips with two people, in the tracker's order; the man does the same in all of the lab's clips: they are one take"""
PARK_CAST = ("drawn-3/mannequin-4@front", "drawn-4/mannequin-5@front", "drawn-1/mannequin-1", "drawn-2/mannequin-3")
PARK_SCENES = ("room-2", "dusk-4", "room-5", "studio-3")


Stretch = tuple[float, int, float] | tuple[float, int, float, tuple[int, ...]]
"""start in seconds, frames, rate, window"""


def rows_of(clip: str, spans: Sequence[Stretch], cast: Sequence[str], scenes: Sequence[str], turn: int) -> list[Row]:
    """For each span the clip itself, two characters in their own scenes, and two in the clip's."""
    out = []
    people = 2 if "multi" in clip else 1
    for i, (start, frames, fps, *window) in enumerate(spans):
        plain = Row(clip, start, frames, fps, "replacement", window=window[0] if window else ())
        who = [cast[(turn + i + k) % len(cast)] for k in range(4)]
        out.append(plain)
        for k in (0, 1):
            out.append(replace(plain, mode="animation", characters=(who[k],), scene=scenes[(turn + i + k) % len(scenes)]))
        for k in (2, 3):
            out.append(replace(plain, characters=(who[k], who[(k + 1) % 4])[:people]))
    return out


def reporting() -> list[Row]:
    """The lab: two people, eight cameras' clips, four characters that no threshold has seen."""
    rows = (row for i, clip in enumerate(LAB_CLIPS) for row in rows_of(clip, LAB_SPANS, LAB_CAST, LAB_SCENES, i))
    return _kept([*rows, *MORE_UNTOUCHED])


def tuning() -> list[Row]:
    """The park, with other characters."""
    return _kept(rows_of("park/walk", PARK_SPANS, PARK_CAST, PARK_SCENES, 0))


def _kept(rows: Iterable[Row]) -> list[Row]:
    """Without those that a look at the contact sheet would not keep."""
    bad = json.loads(NOT_KEPT.read_text())["not_kept"]
    return [row for row in rows if row.name not in bad]


def quick() -> list[Row]:
    """The first is planted, the second is a clip as it is, the others lend motion and characters."""
    lean, both = (Row(f"lab/{clip}", 0.4, 21, 20.0, "replacement", short_side=288) for clip in ("single-cam03", "multi-cam01"))
    played = [replace(lean, characters=(LAB_CAST[k],)) for k in (0, 1)]
    return [played[0], lean, played[1], replace(both, characters=(LAB_CAST[2], LAB_CAST[3]))]
