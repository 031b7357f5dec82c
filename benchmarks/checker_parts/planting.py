"""The twelve kinds of defect, made as a generator would make them: another performance where the motion or the character is wrong, the
pixels changed where the picture is. Every planter takes a good output and a variant and gives frames, or None where the defect would not
be one: nothing moves, the limb is hidden, there is no room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from checker_parts.bases import Base, Studio, mirrored
from checker_parts.rows import Row
from generators.poses.tracks import INDEX, Bytes, People

Doubles = npt.NDArray[np.float64]

LATE_FRAMES = 8
MOVES_LEAST = 0.25
"""torso lengths by which a hand or a foot must move over `LATE_FRAMES`, at some time, for lateness to be seen"""
LOPSIDED_LEAST = 0.35
"""torso lengths between a hand or foot and its mirror image, from which a mirrored motion is another one"""
SCENE_LEVELS = 6.0
"""mean difference of all pixels from which another scene is seen to be another: a bare wall, mirrored, is not"""
LIMBS = {
    "arm": ("shoulder", "elbow", "wrist", "index"), "forearm": ("elbow", "wrist", "index"), "shank": ("knee", "ankle", "foot_index"),
}  # fmt: skip
LIMB_WIDTH = 0.3
"""of the torso's length"""
SEEN = 0.6
FREE_OF_TORSO = 0.6
"""share of the erased limb that must hang beside the trunk: what is erased before it leaves a hole in the trunk instead"""


@dataclass(frozen=True)
class Planted:
    """Frames with a defect, and who is in them where that need not be found out anew."""

    frames_THWC: Bytes
    people: People | None = None


@dataclass(frozen=True)
class Cast:
    """What planters may borrow from: the studio and the other good outputs."""

    studio: Studio
    rows: Sequence[Row]
    """of one scene"""

    def of_same_span(self, base: Base) -> list[Row]:
        """Puppet outputs of the same stretch and kind with nobody in common, in the rows' order."""
        return [
            r for r in self.rows
            if r.characters and (r.span, r.mode) == (base.row.span, base.row.mode)
            and not set(r.characters) & set(base.row.characters) and len(r.characters) == len(base.chosen)
        ]  # fmt: skip

    def of_same_size(self, base: Base) -> list[Row]:
        """Puppet outputs with as many frames of the same size."""
        own = base.footage.geometry
        return [r for r in self.rows if r.characters and r.frames == own.frames and self._size(r) == (own.height, own.width)]

    def _size(self, row: Row) -> tuple[int, int]:
        geometry = self.studio.geometry(row)
        return geometry.height, geometry.width


def people_at(people: People, frames: npt.NDArray[np.int64]) -> People:
    """The people of a video whose frames were taken from another's."""
    index = (slice(None), frames)
    return People(
        people.landmarks_PT33x3[index], people.world_PT33x3[index], people.visibility_PT33[index], people.present_PT[index],
        people.masks_PTHW[index], people.fps, people.details and people.details.picked(index),
    )  # fmt: skip


def moves(people: People, person: int = 0) -> float:
    """How far a hand or a foot gets within `LATE_FRAMES` at its quickest, torso lengths."""
    xy = people.landmarks_PT33x3[person, :, [INDEX[f"{s}_{j}"] for s in ("left", "right") for j in ("wrist", "ankle")], :2]
    return float(np.linalg.norm(xy[:, LATE_FRAMES:] - xy[:, :-LATE_FRAMES], axis=2).max() / torso_px(people, person))


def lopsided(people: People, person: int = 0) -> float:
    """How far the hands and feet are from where a mirror through the hips would put them, torso lengths: the farthest of the four in each
    frame, median over the frames."""
    other, joints = mirrored(people.only([person])), [INDEX[f"{s}_{j}"] for s in ("left", "right") for j in ("wrist", "ankle")]
    sides = [p.landmarks_PT33x3[k][:, joints, :2] - _middle(p, k, "hip")[:, None] for p, k in ((people, person), (other, 0))]
    return float(np.median(np.linalg.norm(sides[0] - sides[1], axis=2).max(1)) / torso_px(people, person))


def torso_px(people: People, person: int = 0) -> float:
    """Length of the trunk, median over the frames."""
    return max(1.0, float(np.median(np.linalg.norm(_middle(people, person, "shoulder") - _middle(people, person, "hip"), axis=1))))


def _middle(people: People, person: int, joint: str) -> Doubles:
    sides = people.landmarks_PT33x3[person][:, [INDEX[f"left_{joint}"], INDEX[f"right_{joint}"]], :2]
    return np.asarray(sides.mean(1), np.float64)


def _still(base: Base) -> bool:
    return max(moves(base.driven, i) for i in range(base.driven.count)) < MOVES_LEAST


def _shown(base: Base, frames: npt.NDArray[np.int64]) -> Planted:
    return Planted(base.frames_THWC[frames], people_at(base.people, frames))


def frozen(base: Base, cast: Cast, variant: int) -> Planted | None:
    """The first frame for good; the motion stops after a third; it begins after two thirds."""
    t = np.arange(base.row.frames)
    third = base.row.frames // 3
    held = (np.zeros_like(t), np.minimum(t, third), np.maximum(t, 2 * third))[variant % 3]
    return None if _still(base) else _shown(base, held)


def black(base: Base, cast: Cast, variant: int) -> Planted | None:
    """All frames; the last quarter; three in the middle."""
    frames, count = base.frames_THWC.copy(), base.row.frames
    frames[(slice(None), slice(count - count // 4, None), slice(count // 2, count // 2 + 3))[variant % 3]] = 0
    return Planted(frames)


def swapped(base: Base, cast: Cast, variant: int) -> Planted | None:
    """Another character does it all."""
    others = cast.of_same_span(base)
    if not others:
        return None
    other = cast.studio.base(others[variant % len(others)])
    return Planted(other.frames_THWC, other.people)


def other_motion(base: Base, cast: Cast, variant: int) -> Planted | None:
    """The right characters in the right scene do what was filmed elsewhere, where the real people stand."""
    if not base.row.characters:
        return None
    drivers = []
    for track in base.chosen:
        found = _who_does_other_things(base, cast, base.row.motions[track])
        if not found:
            return None
        row, other = found[variant % len(found)]
        people = cast.studio.footage(row).people
        if other >= people.count:
            return None
        drivers.append(people.only([other]))
    return _performed(base, cast, drivers)


def _who_does_other_things(base: Base, cast: Cast, motion: str) -> list[tuple[Row, int]]:
    """People of other stretches whose motion is another one, by track."""
    rows = {r.span: r for r in cast.of_same_size(base) if r.span != base.row.span}
    return [(row, track) for row in rows.values() for track, other in enumerate(row.motions) if other != motion]


def mirrored_motion(base: Base, cast: Cast, variant: int) -> Planted | None:
    """Left is right, every one about their own middle."""
    if max(lopsided(base.driven, i) for i in range(base.driven.count)) < LOPSIDED_LEAST:
        return None
    if not base.row.characters:
        return _mirrored_cutout(base)
    return _performed(base, cast, [mirrored(base.driven.only([i])) for i in range(base.driven.count)])


def _mirrored_cutout(base: Base) -> Planted:
    """A real person turned about where they stand, on average."""
    frames = base.backdrop_THWC.copy()
    for i in range(base.driven.count):
        shift = round(2 * float(_middle(base.driven, i, "hip")[:, 0].mean()) - (frames.shape[2] - 1))
        alpha = _shifted(base.driven.masks_PTHW[i, ..., ::-1], shift)
        frames = over(frames, _shifted(base.frames_THWC[:, :, ::-1], shift), alpha)
    return Planted(frames)


def _shifted(array_THW: Bytes, right_px: int) -> Bytes:
    out = np.zeros_like(array_THW)
    if right_px >= 0:
        out[:, :, right_px:] = array_THW[:, :, : array_THW.shape[2] - right_px]
    else:
        out[:, :, :right_px] = array_THW[:, :, -right_px:]
    return out


def _performed(base: Base, cast: Cast, drivers: list[People]) -> Planted:
    """The base's characters moved by other people, who stand where the base's do and are as tall."""
    placed = [_in_place(driver, base.driven, i) for i, driver in enumerate(drivers)]
    driver = replace(
        base.driven, landmarks_PT33x3=np.concatenate([p.landmarks_PT33x3 for p in placed]),
        world_PT33x3=np.concatenate([p.world_PT33x3 for p in placed]), present_PT=np.ones_like(base.driven.present_PT),
        visibility_PT33=np.concatenate([p.visibility_PT33 for p in placed]), details=None,
    )  # fmt: skip
    return Planted(cast.studio.performed(base, driver).frames_NHWC[: base.row.frames])


def _in_place(driver: People, real: People, person: int) -> People:
    zoom = torso_px(real, person) / torso_px(driver)
    xy = driver.landmarks_PT33x3 * np.float32(zoom)
    feet = [INDEX[f"{s}_ankle"] for s in ("left", "right")]
    ground = [float(np.percentile(x[..., 1], 90)) for x in (real.landmarks_PT33x3[person][:, feet], xy[0][:, feet])]
    across = [float(x.mean()) for x in (_middle(real, person, "hip")[:, 0], _middle(driver, 0, "hip")[:, 0] * zoom)]
    xy[..., 0] += across[0] - across[1]
    xy[..., 1] += ground[0] - ground[1]
    return replace(driver, landmarks_PT33x3=xy)


def late(base: Base, cast: Cast, variant: int) -> Planted | None:
    """Everything comes eight frames late; the first is held."""
    return None if _still(base) else _shown(base, np.maximum(np.arange(base.row.frames) - LATE_FRAMES, 0))


def limb_erased(base: Base, cast: Cast, variant: int) -> Planted | None:
    """The scene shows where an arm, a forearm or a shank should be, throughout."""
    choices = [(part, side) for part in LIMBS for side in ("left", "right")]
    for part, side in choices[variant % 6 :] + choices[: variant % 6]:
        hole = _limb(base, LIMBS[part], side)
        if hole is not None:
            return Planted(over(base.frames_THWC, base.backdrop_THWC, hole))
    return None


def _limb(base: Base, joints: tuple[str, ...], side: str) -> Bytes | None:
    """Coverage (T, H, W) of a limb of the first driven person, with soft edges; None where it is hidden or before the trunk."""
    track, people = base.matched[0], base.people
    if track < 0:
        return None
    places = [INDEX[f"{side}_{j}"] for j in joints]
    seen_T = (people.visibility_PT33[track][:, places[:-1]] > SEEN).all(1) & people.present_PT[track]
    if seen_T.mean() < 0.9:
        return None
    width = max(3, round(LIMB_WIDTH * torso_px(people, track)))
    hole, free = np.zeros(people.masks_PTHW.shape[1:], np.uint8), 0.0
    for t in range(people.frames):
        points = people.landmarks_PT33x3[track, t][:, :2]
        tip = points[places[-1]] + 0.5 * (points[places[-1]] - points[places[-2]])
        begin = points[places[0]] + 0.3 * (points[places[1]] - points[places[0]])
        line = np.round([begin, *points[places[1:]], tip]).astype(np.int32)
        cv2.polylines(hole[t], [line], False, 255, width, cv2.LINE_AA)
        trunk = np.zeros_like(hole[t])
        cv2.fillConvexPoly(trunk, np.round(points[[11, 12, 24, 23]]).astype(np.int32), 255)
        free += float((trunk[hole[t] > 0] == 0).mean()) / people.frames
        hole[t] = cv2.GaussianBlur(hole[t], (0, 0), 1.0)
    return hole if free >= FREE_OF_TORSO else None


def driving_background(base: Base, cast: Cast, variant: int) -> Planted | None:
    """An animation shows the clip's scene: from the start; from the middle on; through its own, half and half."""
    if base.row.mode != "animation":
        return None
    behind = base.footage.plate_THWC
    if variant % 3 == 2:
        behind = ((behind.astype(np.uint16) + base.backdrop_THWC) // 2).astype(np.uint8)
    frames = over(behind, base.frames_THWC, base.alpha_THW)
    if variant % 3 == 1:
        frames[: base.row.frames // 2] = base.frames_THWC[: base.row.frames // 2]
    return Planted(frames)


def scene_changed(base: Base, cast: Cast, variant: int) -> Planted | None:
    """A replacement shows another place; the same one from the other side; the same one a fifth nearer."""
    if base.row.mode != "replacement":
        return None
    plate, (_, height, width, _) = base.footage.plate_THWC, base.frames_THWC.shape
    if variant % 3 == 0:
        scenes = sorted((cast.studio.samples / "scenes").glob("*.png"))
        picture = cast.studio.scene(scenes[variant // 3 % len(scenes)], height, width)
        behind = np.broadcast_to(picture, plate.shape)
    elif variant % 3 == 1:
        behind = plate[:, :, ::-1]
    else:
        h, w = round(height / 1.2), round(width / 1.2)
        behind = np.stack([cv2.resize(f[(height - h) // 2 :][:h, (width - w) // 2 :][:, :w], (width, height)) for f in plate])
    frames = over(behind, base.frames_THWC, base.alpha_THW)
    return Planted(frames) if float(np.abs(frames.astype(np.int16) - base.frames_THWC).mean()) >= SCENE_LEVELS else None


def flicker(base: Base, cast: Cast, variant: int) -> Planted | None:
    """Brightness jumps by up to a fifth between frames, of everything or of the characters; or every fourth frame is darker by a third."""
    rng = np.random.default_rng(variant)
    gain_T = 1 + rng.choice([-1.0, 1.0], base.row.frames) * rng.uniform(0.12, 0.22, base.row.frames)
    if variant % 3 == 2:
        gain_T = np.where(np.arange(base.row.frames) % 4 == 2, 0.67, 1.0)
    lit = np.clip(base.frames_THWC * gain_T[:, None, None, None], 0, 255).astype(np.uint8)
    return Planted(over(base.frames_THWC, lit, base.alpha_THW) if variant % 3 == 1 else lit)


def one_short(base: Base, cast: Cast, variant: int) -> Planted | None:
    """The last frame is missing."""
    return _shown(base, np.arange(base.row.frames - 1))


def extra_person(base: Base, cast: Cast, variant: int) -> Planted | None:
    """Somebody else is there too, a little smaller, on the side with more room."""
    donors = [r for r in cast.of_same_size(base) if len(r.characters) == 1 and not set(r.characters) & set(base.row.characters)]
    if not donors:
        return None
    donor = cast.studio.base(donors[variant % len(donors)])
    width = base.frames_THWC.shape[2]
    track = max(base.matched[0], 0)
    here = float(np.mean([_middle(base.people, t, "hip")[:, 0].mean() for t in base.matched if t >= 0] or [width / 2]))
    room = 0.2 * width if here > width / 2 else 0.8 * width
    zoom = 0.9 * torso_px(base.people, track) / torso_px(donor.people, max(donor.matched[0], 0))
    hip = _middle(donor.people, max(donor.matched[0], 0), "hip").mean(0)
    ground = _middle(base.people, track, "hip").mean(0)[1]
    matrix = np.array([[zoom, 0, room - zoom * hip[0]], [0, zoom, ground - zoom * hip[1]]])
    size = base.frames_THWC.shape[2:0:-1]
    layer = np.stack([np.asarray(cv2.warpAffine(f, matrix, size, flags=cv2.INTER_AREA), np.uint8) for f in donor.frames_THWC])
    alpha = np.stack([np.asarray(cv2.warpAffine(a, matrix, size), np.uint8) for a in donor.alpha_THW])
    return Planted(over(base.frames_THWC, layer, alpha))


def over(below_THWC: Bytes, above_THWC: Bytes, alpha_THW: Bytes) -> Bytes:
    """`above` laid over `below`, alpha 0 to 255."""
    share = alpha_THW[..., None].astype(np.float32) / 255
    return np.round(below_THWC + share * (above_THWC.astype(np.float32) - below_THWC)).astype(np.uint8)


Planter = Callable[[Base, Cast, int], Planted | None]

KINDS: dict[str, Planter] = {
    "frozen": frozen, "black": black, "swapped_identity": swapped, "motion_of_another_clip": other_motion,
    "mirrored_motion": mirrored_motion, "eight_frames_late": late, "limb_erased": limb_erased,
    "driving_background": driving_background, "scene_changed": scene_changed, "flicker": flicker, "one_frame_short": one_short,
    "extra_person": extra_person,
}  # fmt: skip
TIMES = {
    "driving_background": 3,
    "scene_changed": 2,
    "motion_of_another_clip": 2,
    "swapped_identity": 2,
    "limb_erased": 2,
    "extra_person": 2,
}
"""how often a kind is planted in one output, if not once: those that can't be planted in every output"""
