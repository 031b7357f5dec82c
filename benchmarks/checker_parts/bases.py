"""Good outputs, as the factory makes and looks at them: painted, performed, written, decoded, tracked anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from checker_parts.cache import Cache, frames_of, load_bytes, load_people, save_bytes, save_people
from checker_parts.rows import Row
from generators.base import ImageRequest, Report, VideoRequest, scene_beside
from generators.images.collage import Collage
from generators.masks.identity import match_people
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.poses.summary import describe
from generators.poses.tracks import INDEX, LANDMARKS, Bytes, People
from generators.videos.plate import clean_plate
from generators.videos.puppet.generator import Performance, Puppet
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry, Span

PRESENCE_MIN = 0.6
"""share of the frames in which somebody must be found to be driven"""
MIRRORED = [INDEX[n.replace("left", "?").replace("right", "left").replace("?", "right")] for n in LANDMARKS]


@dataclass(frozen=True)
class Footage:
    """A stretch of a clip at the benchmark's size, and who is in it."""

    folder: Path
    geometry: Geometry

    @cached_property
    def frames_THWC(self) -> Bytes:  # noqa: N802 - the layout is part of the name
        return frames_of(self.folder / "clip.mp4")

    @cached_property
    def people(self) -> People:
        return load_people(self.folder / "people.npz")

    @cached_property
    def plate_THWC(self) -> Bytes:  # noqa: N802 - the layout is part of the name
        """Without those whom any row drives."""
        return load_bytes(self.folder / "plate.npz")


@dataclass(frozen=True)
class Base:
    """One good output and all that is needed to judge it."""

    row: Row
    folder: Path
    footage: Footage
    chosen: tuple[int, ...]
    """tracks of the driven people"""

    @cached_property
    def driven(self) -> People:
        return self.footage.people.only(list(self.chosen))

    @cached_property
    def others(self) -> People | None:
        rest = [t for t in range(self.footage.people.count) if t not in self.chosen]
        return self.footage.people.only(rest) if rest else None

    @cached_property
    def frames_THWC(self) -> Bytes:  # noqa: N802 - the layout is part of the name
        return frames_of(self.video)

    @property
    def video(self) -> Path:
        return self.folder / "video.mp4"

    @cached_property
    def people(self) -> People:
        return load_people(self.folder / "people.npz")

    @cached_property
    def alpha_THW(self) -> Bytes:  # noqa: N802 - the layout is part of the name
        """How much of each pixel is a driven character."""
        return load_bytes(self.folder / "alpha.npz")

    @cached_property
    def painted_HWC(self) -> tuple[Bytes, ...]:  # noqa: N802 - the layout is part of the name
        return tuple(media.read_image(self.folder / f"painted-{i}.png") for i in range(len(self.chosen)))

    @cached_property
    def painted_people(self) -> tuple[People, ...]:
        return tuple(load_people(self.folder / f"painted-{i}.npz") for i in range(len(self.chosen)))

    @cached_property
    def scene_HWC(self) -> Bytes | None:  # noqa: N802 - the layout is part of the name
        path = self.folder / "scene.png"
        return media.read_image(path) if path.exists() else None

    @cached_property
    def backdrop_THWC(self) -> Bytes:  # noqa: N802 - the layout is part of the name
        """What the output shows where no character is: the clip's plate, or the character's scene."""
        if self.row.mode == "replacement":
            return self.footage.plate_THWC
        assert self.scene_HWC is not None
        return np.broadcast_to(self.scene_HWC, self.frames_THWC.shape)

    @cached_property
    def report(self) -> Report:
        return Report.model_validate_json((self.folder / "report.json").read_text())

    @cached_property
    def matched(self) -> tuple[int, ...]:
        return match_people(self.driven, self.people)


class Studio:
    """The built-in generators, loaded once."""

    def __init__(self, cache: Cache, samples: Path) -> None:
        self.cache, self.samples = cache, samples
        self.tracker, self.details, self.collage, self.puppet = PeopleTracker(), DetailReader(threads=1), Collage(), Puppet()
        for part in (self.tracker, self.details, self.collage, self.puppet):
            part.setup()

    def tracked(self, frames_THWC: Bytes, fps: float) -> People:
        """Everybody, as the factory's step `analyze` finds them, but without hands and faces: no kind of defect is one of them, and no hard
        check looks at them."""
        return self.tracker.track(frames_THWC, fps)

    def clip_of(self, row: Row) -> Path:
        """`samples` holds the sample set; any other clip is given by its path."""
        own = Path(row.clip)
        return own if own.is_absolute() else self.samples / "clips" / f"{row.clip}.mp4"

    def geometry(self, row: Row) -> Geometry:
        """Of the row's pair."""
        return _span(self.clip_of(row), row).geometry

    def footage(self, row: Row) -> Footage:
        """The row's clip, cut and looked at."""
        span = _span(self.clip_of(row), row)

        def build(folder: Path) -> None:
            media.write_video(folder / "clip.mp4", media.read_span(self.clip_of(row), span), row.fps)
            frames = frames_of(folder / "clip.mp4")
            people = self.details.read(frames, self.tracked(frames, row.fps))  # the puppet moves hands and faces too
            save_people(people, folder / "people.npz")
            there = [p.track for p in describe(people) if p.presence >= PRESENCE_MIN]
            masks = people.masks_PTHW[there].max(0, initial=0)
            save_bytes(clean_plate(frames, masks, None).frames_THWC, folder / "plate.npz")

        key = ["footage", row.clip, row.start_s, row.frames, row.fps, row.short_side, *row.window]
        return Footage(self.cache.folder(key, build), span.geometry)

    def usable(self, row: Row) -> bool:
        """Whether the row's people are found in its clip."""
        try:
            _largest(self.footage(row).people, len(row.characters) or None)
        except BadInput:
            return False
        return True

    def base(self, row: Row) -> Base:
        """Raises BadInput when the clip or a picture can't be used."""
        footage = self.footage(row)
        chosen = _largest(footage.people, len(row.characters) or None)
        key = ["base", row.clip, row.start_s, row.frames, row.fps, row.short_side, row.mode, row.characters, row.scene, *row.window]
        draft = Base(row, Path(), footage, tuple(chosen))
        build = self._perform if row.characters else self._keep
        return replace(draft, folder=self.cache.folder(key, lambda folder: build(replace(draft, folder=folder))))

    def _keep(self, base: Base) -> None:
        """The clip itself is the output; its people's pictures are its frame in the middle."""
        footage, folder = base.footage, base.folder
        media.write_video(folder / "video.mp4", footage.frames_THWC, base.row.fps)
        save_people(self.tracked(frames_of(folder / "video.mp4"), base.row.fps), folder / "people.npz")
        save_bytes(base.driven.masks_PTHW.max(0), folder / "alpha.npz")
        t = base.row.frames // 2
        for i in range(len(base.chosen)):
            media.write_png(folder / f"painted-{i}.png", footage.frames_THWC[t])
            save_people(base.driven.only([i]).window(t, t + 1), folder / f"painted-{i}.npz")
        (folder / "report.json").write_text(Report().model_dump_json())

    def _perform(self, base: Base) -> None:
        folder, row = base.folder, base.row
        for i, character in enumerate(row.characters):
            pictures = {"character": self.samples / "characters" / f"{character}.png"}
            if row.scene:
                pictures["scene"] = self.samples / "scenes" / f"{row.scene}.png"
            out = folder / f"painted-{i}.png"
            self.collage.run(ImageRequest(pictures, "", "", 1.0, base.footage.geometry, base.driven.only([i]), row.mode, 0), out)
            seen = self.tracker.still(media.read_image(out))
            if seen.count != 1:
                raise BadInput(f"{seen.count} people in the painted picture", "not_one_person")
            save_people(seen, folder / f"painted-{i}.npz")
        if scene_beside(folder / "painted-0.png").exists():
            scene_beside(folder / "painted-0.png").rename(folder / "scene.png")
        made = self.performed(base, base.driven)
        media.write_video(folder / "video.mp4", made.frames_NHWC[: row.frames], row.fps)
        save_bytes(made.alpha_NHW[: row.frames], folder / "alpha.npz")
        (folder / "report.json").write_text(made.report.model_dump_json())
        save_people(self.tracked(frames_of(folder / "video.mp4"), row.fps), folder / "people.npz")

    def scene(self, picture: Path, height: int, width: int) -> Bytes:
        """A scene of the sample set, cut to a size from its middle."""
        image = media.read_image(picture)
        zoom = max(height / image.shape[0], width / image.shape[1])
        large = cv2.resize(image, (round(image.shape[1] * zoom), round(image.shape[0] * zoom)), interpolation=cv2.INTER_AREA)
        top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
        return np.ascontiguousarray(large[top : top + height, left : left + width], np.uint8)

    def performed(self, base: Base, driver: People, clip: Path | None = None) -> Performance:
        """The base's characters moved by a driver, in the clip of the base or in another one of its size."""
        row, folder, geometry = base.row, base.folder, base.footage.geometry
        scene = folder / "scene.png"
        request = VideoRequest(
            row.mode, clip or base.footage.folder / "clip.mp4", driver,
            tuple(folder / f"painted-{i}.png" for i in range(len(row.characters))), "", geometry, 0,
            views=tuple(_views(self.samples / "characters" / f"{c}.png") for c in row.characters),
            scene=scene if scene.exists() else None, others=base.others if clip is None and row.mode == "replacement" else None,
        )  # fmt: skip
        return self.puppet.perform(request)


def mirrored(people: People) -> People:
    """The same motion seen in a mirror: left is right. Without hands and faces. Not the checker's own function: a mistake there would be
    planted, and be right."""
    width = people.size_hw[1]
    landmarks, world = people.landmarks_PT33x3[:, :, MIRRORED].copy(), people.world_PT33x3[:, :, MIRRORED].copy()
    landmarks[..., 0] = width - 1 - landmarks[..., 0]
    world[..., 0] *= -1
    return People(
        landmarks, world, people.visibility_PT33[:, :, MIRRORED], people.present_PT, people.masks_PTHW[..., ::-1].copy(), people.fps
    )


def _span(clip: Path, row: Row) -> Span:
    """The row's window, or as much of the frame's middle as there may be; the sides are multiples of 32."""
    seen = media.probe(clip)
    x, y, w, h = row.window or (0, 0, seen.width, seen.height)
    zoom = row.short_side / min(w, h)
    width, height = (round(side * zoom) // 32 * 32 for side in (w, h))
    left, top = x + int((w - width / zoom) / 2), y + int((h - height / zoom) / 2)
    geometry = Geometry(frames=row.frames, fps=row.fps, height=height, width=width)
    crop = (left, top, int(left + width / zoom), int(top + height / zoom))
    return Span(source="0" * 64, start_frame=round(row.start_s * row.fps), geometry=geometry, crop=crop)


def _largest(people: People, count: int | None) -> list[int]:
    """The tallest who are there most of the time, in the tracker's order; all of them where no number is asked."""
    there = sorted((p for p in describe(people) if p.presence >= PRESENCE_MIN), key=lambda p: -p.height)
    if len(there) < (count or 1):
        raise BadInput(f"{len(there)} people are seen most of the time, {count or 1} are to be driven", "people_mismatch")
    return sorted(p.track for p in there[:count])


def _views(picture: Path) -> tuple[Path, ...]:
    """The other pictures of the same character: `NAME@VIEW` of one folder."""
    name, at, _ = picture.stem.rpartition("@")
    return tuple(sorted(p for p in picture.parent.glob(f"{name}@*") if p != picture)) if at else ()
