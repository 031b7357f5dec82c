"""Which clip meets which characters. Settings were chosen on `TUNED`; figures are reported on `REPORTED`, which shares no clip with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from manifests import media

FPS = 30.0
SHORT_SIDE = 512
FRAMES_MOST = 97

Mode = Literal["animation", "replacement"]


@dataclass(frozen=True)
class Combo:
    """One output of the puppet."""

    clip: Path
    characters: tuple[Path, ...]
    """one a driven person, who are taken from the largest down"""
    mode: Mode
    scene: Path | None = None
    start_s: float = 0.0
    frames: int = FRAMES_MOST

    @property
    def name(self) -> str:
        """Short and unique."""
        when = f"@{self.start_s:g}s" if self.start_s else ""
        where = f"-in-{self.scene.stem}" if self.scene else ""
        return f"{self.mode[:4]}-{self.clip.stem}{when}-{'+'.join(c.stem for c in self.characters)}{where}"


Row = tuple[Mode, str, tuple[str, ...], str, float, int]
"""mode, clip, characters, scene, start in seconds, frames"""

TUNED: tuple[Row, ...] = (
    ("animation", "lab/single-cam01", ("drawn-1/mannequin-1",), "room-2", 0.0, 49),
    ("animation", "lab/single-cam01", ("drawn-3/mannequin-4@front",), "studio-0", 0.0, 49),
    ("replacement", "lab/single-cam01", ("drawn-2/mannequin-3",), "", 0.0, 49),
    ("replacement", "lab/multi-cam01", ("drawn-1/mannequin-1", "drawn-4/mannequin-5@front"), "", 0.0, 49),
    ("replacement", "lab/multi-cam03", ("drawn-2/mannequin-3", "drawn-3/mannequin-4@front"), "", 0.0, 49),
)
REPORTED: tuple[Row, ...] = (
    ("animation", "lab/single-cam02", ("drawn-5/mannequin-6@front",), "room-5", 0.0, 49),
    ("animation", "lab/single-cam02", ("drawn-7/robot-1@front",), "studio-3", 0.0, 49),
    ("animation", "lab/single-cam02", ("park/man",), "", 0.0, 49),
    ("animation", "lab/multi-cam04", ("drawn-8/robot-2@front",), "dusk-4", 0.0, 49),
    ("animation", "park/walk", ("drawn-6/mannequin-8@front",), "dusk-1", 0.0, 73),
    ("animation", "park/walk", ("drawn-12/robot-5-left",), "room-2", 5.0, 73),
    ("animation", "lab/single-cam03", ("drawn-8/robot-2@front",), "studio-0", 0.0, 49),
    ("replacement", "lab/single-cam02", ("drawn-6/mannequin-8@front",), "", 0.0, 49),
    ("replacement", "lab/single-cam02", ("drawn-8/robot-2@front",), "", 0.0, 49),
    ("replacement", "lab/single-cam04", ("drawn-5/mannequin-6@front",), "", 0.0, 49),
    ("replacement", "park/walk", ("drawn-9/robot-4",), "", 0.0, 73),
    ("replacement", "park/walk", ("drawn-10/mannequin-9-left",), "", 5.0, 73),
    ("replacement", "lab/multi-cam02", ("drawn-5/mannequin-6@front", "drawn-7/robot-1@front"), "", 0.0, 49),
    ("replacement", "lab/multi-cam02", ("drawn-8/robot-2@front", "park/man"), "", 0.0, 49),
    ("replacement", "lab/multi-cam04", ("drawn-6/mannequin-8@front", "drawn-9/robot-4"), "", 0.0, 49),
)
QUICK = (0, 7, 12)
"""of `REPORTED`"""


def of_samples(rows: tuple[Row, ...], samples: Path) -> list[Combo]:
    """Combinations of the sample set, which lies in `samples`."""
    return [
        Combo(
            samples / "clips" / f"{clip}.mp4", tuple(samples / "characters" / f"{c}.png" for c in characters), mode,
            samples / "scenes" / f"{scene}.png" if scene else None, start, frames,
        )
        for mode, clip, characters, scene, start, frames in rows
    ]  # fmt: skip


def of_folders(clips: Path, characters: Path) -> list[Combo]:
    """Every clip below a folder with the next character in turn, once in animation and once in replacement."""
    found = sorted(p for p in clips.rglob("*") if p.suffix.lower() in (".mp4", ".mov", ".mkv", ".webm", ".avi"))
    faces = sorted(p for p in characters.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not found or not faces:
        raise SystemExit(f"{len(found)} clips in {clips} and {len(faces)} pictures in {characters}; give folders with at least one each")
    modes: tuple[Mode, Mode] = ("animation", "replacement")
    return [
        Combo(clip, (faces[(2 * i + k) % len(faces)],), mode, frames=_frames_of(clip))
        for i, clip in enumerate(found)
        for k, mode in enumerate(modes)
    ]


def _frames_of(clip: Path) -> int:
    have = media.frames_within(media.probe(clip).duration_s, FPS)
    return min(FRAMES_MOST, max(5, (have - 1) // 4 * 4 + 1))
