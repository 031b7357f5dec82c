"""Is the file that a generator wrote what was asked for? Nothing is believed because a program came back with exit code 0.

A missing or half-written file, another number, size or rate of frames, black and frozen frames are told apart by their code. What passes
here is only a sound file: whether it shows the right thing is the checker's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generators.poses.tracks import BODY, INDEX, Bools, People
from manifests import media, soundness
from manifests.errors import BadInput, BadOutput
from manifests.records import Geometry

EXTRA_FRAMES = 4
"""more than asked that a file may have: rounding to 4n+1 adds up to three, a rate's own rounding one; many more are another clip or
slow motion"""
RATE_TOLERANCE = 0.01
"""29.97 passes for 30, 25 does not"""
NOTHING_LEVEL = 24
"""a frame whose brightest channel anywhere stays below shows nothing: NaN becomes 0, and lossy coding adds less than ten levels. A night
scene or the thinnest limb of a pose rendering is well above"""
NOTHING_SHARE = 0.1
"""of the frames in which the clip shows somebody. A single black frame is left to the checker"""
STILL_S = 0.5
"""so long at least the same picture stands (or all of a shorter video) before it is held against the people's motion"""
MOVED = 0.04
"""of the clip's longer side: mean way of a person's visible joints from where they were when the picture stopped. Measured: on five real
frames that were held for a second under grain and coding, the tracker's own noise came to 0.025 at most; of eleven real clips (walking,
dancing, a cartoon) that were frozen as a whole all exceed it, the least with 0.058, and of freezes of a second 69 %. A clip that really
stands still has no way, so a good video of it is not called frozen; what moves less is left to the checker"""
VISIBLE = 0.5


@dataclass(frozen=True)
class Written:
    """What the file of a video generator has to be."""

    frames: tuple[int, int]
    """fewest and most"""
    fps: float
    sizes_hw: frozenset[tuple[int, int]] | None
    """one of these; None: any"""


def check_video(out: Path, asked: Written, geometry: Geometry, people: People) -> None:
    """Raise BadOutput unless `out` is a whole video as asked that moves where these people of the clip move.

    Codes: no_output, half_written, wrong_fps, wrong_frames, wrong_size, black, frozen.
    """
    _present(out)
    try:
        with media.Video(out) as video:
            _times(video, asked)
            nothing_T, still_T = _looks(video, asked, geometry)
            if video.missing or video.decoded < video.frames:
                raise BadOutput("the last frames can't be decoded: it was not written to its end", "half_written")
    except BadInput as e:
        raise BadOutput(f"what was written can't be used: {e.message}", "half_written") from e
    if complaints := soundness.decoder_errors(out):
        raise BadOutput(f"the decoder complains {complaints} times: the file is damaged or was not written to its end", "half_written")
    _shows(nothing_T, people, geometry)
    _moves(still_T, people, geometry)


def check_picture(out: Path, size_hw: tuple[int, int]) -> None:
    """Raise BadOutput unless `out` is a picture of this size that shows something. Codes: no_output, half_written, wrong_size, black."""
    if int(_picture(out, size_hw).max()) < NOTHING_LEVEL:
        raise BadOutput("the picture is black", "black")


def check_scene(scene: Path, size_hw: tuple[int, int]) -> None:
    """Raise BadOutput when the empty scene is there and is no picture of this size; a dark one may be black. Codes as `check_picture`."""
    if os.path.lexists(scene):
        _picture(scene, size_hw)


def _picture(out: Path, size_hw: tuple[int, int]) -> media.Image:
    _present(out)
    try:
        image_HWC = media.read_image(out)
    except BadInput as e:
        raise BadOutput(f"what was written can't be used: {e.message}", "half_written") from e
    height, width = image_HWC.shape[:2]
    if (height, width) != size_hw:
        raise BadOutput(f"{out.name} is {width}×{height}, asked was {size_hw[1]}×{size_hw[0]}", "wrong_size")
    return image_HWC


def _present(out: Path) -> None:
    if out.is_symlink() or not out.is_file() or not out.stat().st_size:
        raise BadOutput(f"nothing was written to {out.name}", "no_output")


def _times(video: media.Video, asked: Written) -> None:
    if abs(video.fps - asked.fps) > RATE_TOLERANCE * asked.fps:
        raise BadOutput(f"the video has {video.frames} frames at {video.fps:g} fps, it was to have {asked.fps:g} fps", "wrong_fps")
    fewest, most = asked.frames
    if not fewest <= video.frames <= most:
        allowed = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise BadOutput(f"the video has {video.frames} frames at {video.fps:g} fps, it was to have {allowed}", "wrong_frames")


def _looks(video: media.Video, asked: Written, geometry: Geometry) -> tuple[Bools, list[int]]:
    """At each of the pair's instants: does the frame show nothing; and the first of the instants since which the picture is the same."""
    at = media.sample_indices(video.starts_s, geometry.frames, geometry.fps)
    nothing: list[bool] = []
    since: list[int] = []
    anchor, shown = np.empty(0, np.float32), 0
    for index, frame in enumerate(_all(video, asked)):
        times = int((at == index).sum())
        if not times:
            continue
        thumb = soundness.thumbnail(frame)
        if not since or not soundness.show_the_same(anchor, thumb):
            anchor, shown = thumb, len(since)
        nothing += [int(frame.max()) < NOTHING_LEVEL] * times
        since += [shown] * times
    return np.array(nothing, bool), since


def _all(video: media.Video, asked: Written) -> Iterator[media.Image]:
    for frame in video:
        if asked.sizes_hw is not None and frame.shape[:2] not in asked.sizes_hw:
            allowed = " or ".join(f"{w}×{h}" for h, w in sorted(asked.sizes_hw))
            raise BadOutput(f"the video is {frame.shape[1]}×{frame.shape[0]}, it was to be {allowed}", "wrong_size")
        yield frame


def _on_grid(people: People, geometry: Geometry) -> list[int]:
    """Which tracked frame belongs to each of the pair's instants."""
    return [min(round(t / geometry.fps * people.fps), people.frames - 1) for t in range(geometry.frames)]


def _shows(nothing_T: Bools, people: People, geometry: Geometry) -> None:
    somebody_T = people.present_PT[:, _on_grid(people, geometry)].any(axis=0)
    share = float(nothing_T[somebody_T].mean()) if somebody_T.any() else 0.0
    if share > NOTHING_SHARE:
        raise BadOutput(f"{share:.0%} of the frames are black while the clip shows somebody", "black")


def _moves(since: list[int], people: People, geometry: Geometry) -> None:
    for t, start in enumerate(since):
        long = (t - start) / geometry.fps >= STILL_S or t - start == geometry.frames - 1
        if long and (moved := way(people, *(_on_grid(people, geometry)[i] for i in (start, t)))) > MOVED:
            stands = f"the picture stands from frame {start} to {t}"
            raise BadOutput(f"{stands} while the clip's people move by {moved:.1%} of its longer side", "frozen")


def way(people: People, start: int, end: int) -> float:
    """How far somebody's visible joints are at frame `end` from where they were at `start`: their mean, of the person who moved most, in
    parts of the clip's longer side."""
    joints = [INDEX[name] for name in BODY]
    at = [start, end]
    seen_PJ = np.all((people.visibility_PT33[:, at][..., joints] > VISIBLE) & people.present_PT[:, at, None], axis=1)
    points = people.landmarks_PT33x3[..., joints, :2]
    apart_PJ = np.linalg.norm(points[:, end] - points[:, start], axis=-1) / max(people.size_hw)
    return max((float(apart[seen].mean()) for apart, seen in zip(apart_PJ, seen_PJ, strict=True) if seen.any()), default=0.0)
