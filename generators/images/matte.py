"""A character taken out of its picture: pixels, coverage, joints, and the picture without it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from generators.images import edges
from generators.poses.people import PeopleTracker
from generators.poses.summary import yaw_deg
from generators.poses.tracks import BODY, INDEX, People
from generators.videos.plate import soft_fill
from generators.videos.puppet.cutout import figure_of, main_person, matte_of
from generators.videos.puppet.skeleton import pixels_per_metre
from manifests.errors import BadInput
from manifests.media import Image

Floats = npt.NDArray[np.float32]

WORK_PX = 1280
"""longest side a picture is worked on at"""
WORK_MOST_PX = 2560
"""the same for a picture in which the figure is small"""
FIGURE_PX = 640
"""height of a figure that is large enough"""
CERTAIN = 0.6
"""share of the rim that stands off, and overlap with the pose model's silhouette, under which a matte is doubtful"""
RIM = 0.0045
"""metres by which an outline may be wrong"""
ROUND = 0.012
"""metres over which an outline before a restless background is smoothed"""
PLAIN, BUSY = 16.0, 50.0
"""mean Sobel response of a plain and of a restless background"""
RIVAL = 0.5
"""size, as a share of the main person's, from which somebody else is as likely to be meant"""
LEAST_PX = 400
"""fewer covered pixels are no character"""
SEEN = 0.5
FEET = tuple(INDEX[f"{side}_{part}"] for side in ("left", "right") for part in ("heel", "foot_index"))
HIPS = (INDEX["left_hip"], INDEX["right_hip"])
LIMBS = ((11, 13, 15, 19), (12, 14, 16, 20), (23, 25, 27, 31), (24, 26, 28, 32))
"""shoulder to fingers, hip to toes"""
SHOULDERS = (INDEX["left_shoulder"], INDEX["right_shoulder"])


@dataclass(frozen=True)
class Standing:
    """One person in one frame, as far as placing somebody there needs it."""

    landmarks_33x2: Floats
    """pixels"""
    visibility_33: Floats
    metre_px: float
    """how many pixels a metre of this body takes"""
    yaw_deg: float

    def inside(self, joints: tuple[int, ...], size_hw: tuple[int, int]) -> bool:
        """Whether any of these joints is seen and lies in the picture."""
        xy = self.landmarks_33x2[list(joints)]
        within = (xy >= 0).all(1) & (xy < [size_hw[1], size_hw[0]]).all(1)
        return bool((within & (self.visibility_33[list(joints)] > SEEN)).any())

    def middle(self, joints: tuple[int, ...]) -> tuple[float, float]:
        x, y = self.landmarks_33x2[list(joints)].mean(0).tolist()
        return x, y

    @property
    def upright(self) -> bool:
        """Whether the trunk stands rather than lies: its hips lie below its shoulders, within 50° of the vertical."""
        (x, y), (hip_x, hip_y) = self.middle(SHOULDERS), self.middle(HIPS)
        return hip_y - y > 0.84 * abs(hip_x - x)

    @property
    def ground_y(self) -> float:
        """Of the lowest point of the feet, pixels."""
        return float(self.landmarks_33x2[list(FEET), 1].max())


@dataclass(frozen=True)
class CutOut:
    """A character without its background."""

    image_HWC: Image
    """RGB; the outermost pixels are cleaned of the background's colour"""
    alpha_HW: Floats
    """0 to 1"""
    person: Standing
    background_HWC: Image | None
    """the picture without the character; None when it had an alpha channel"""
    cut_sides: frozenset[str]
    """top, bottom, left, right: where the picture cuts the body off"""
    reasons: tuple[str, ...]
    confidence: float


def standing(people: People, track: int, frame: int, around: int = 0) -> Standing:
    """A person in one frame; its size is the median over the `around` frames that follow, because one frame's is noisy."""
    frames = [t for t in range(frame, min(people.frames, frame + around + 1)) if people.present_PT[track, t]] or [frame]
    sizes = [float(pixels_per_metre(people.landmarks_PT33x3[track, t, :, :2], people.world_PT33x3[track, t])) for t in frames]
    yaw = float(yaw_deg(people.world_PT33x3[track, frame : frame + 1])[0])
    xy = np.asarray(people.landmarks_PT33x3[track, frame, :, :2], np.float32)
    return Standing(xy, people.visibility_PT33[track, frame], max(1.0, float(np.median(sizes))), yaw)


def cut_out(rgba_HWC: Image, tracker: PeopleTracker) -> CutOut:
    """The largest person of a picture.

    Raises BadInput: "no_person", "several_people" (nobody stands out), "too_small", "torso_cropped", "no_matte".
    """
    rgba_HWC, people = _looked_at(rgba_HWC, tracker)
    track = main_person(people)
    _stands_out(people, track)
    person, mask = standing(people, track, 0), people.masks_PTHW[track, 0]
    image_HWC = on_grey(rgba_HWC)
    reasons = ["several_people"] if people.count > 1 else []
    clear = 1.0
    if _cut_already(rgba_HWC[..., 3], mask):
        figure_of(image_HWC, people, track)  # refuses what is too small or cropped
        alpha, background = np.asarray(rgba_HWC[..., 3] / np.float32(255), np.float32), None
        colour = edges.spread(np.ascontiguousarray(rgba_HWC[..., :3]), alpha)
    else:
        # The figure's picture may be stretched for bending; placing wants it as it is.
        figure = replace(figure_of(image_HWC, people, track), image_HWC=image_HWC, mask_HW=mask)
        outline = _steadied(image_HWC, matte_of(figure).alpha_HW, mask, person)
        alpha, colour, clear = edges.refined(image_HWC, outline, RIM * person.metre_px)
        background = _without(image_HWC, alpha)
    if (alpha > 0.5).sum() < LEAST_PX:
        raise BadInput("the character picture is almost wholly transparent; give its person an alpha of 255", "no_matte")
    cut_sides = cut_at(person, alpha)
    confidence = min(1.0, float(person.visibility_33[[INDEX[j] for j in BODY]].mean()))
    if cut_sides:
        reasons.append("reference_cropped")
    elif not person.inside(FEET, alpha.shape[:2]):
        reasons.append("feet_hidden")
        confidence *= 0.5
    if not person.upright:
        reasons.append("not_upright")
        confidence *= 0.4
    if min(clear, _agreement(alpha, mask)) < CERTAIN:
        reasons.append("matte_uncertain")
        confidence *= 0.7
    clean = np.clip(np.round(colour), 0, 255).astype(np.uint8)
    return CutOut(clean, alpha.astype(np.float32), person, background, cut_sides, tuple(reasons), confidence)


def _stands_out(people: People, track: int) -> None:
    """Raise BadInput when somebody else is nearly as large, because then nobody can say who is meant."""
    sizes = (people.masks_PTHW[:, 0] > 127).sum((1, 2))
    rivals = int((sizes > RIVAL * sizes[track]).sum()) - 1
    if rivals:
        raise BadInput(
            f"{1 + rivals} people of like size are in the character picture, it must show one; cut it to the one that is meant",
            "several_people",
        )


def _looked_at(rgba_HWC: Image, tracker: PeopleTracker) -> tuple[Image, People]:
    """The picture at a workable size and who is in it; where the figure is small in a large picture, that size is larger."""
    small_HWC, people, tall = _seen_at(rgba_HWC, WORK_PX, tracker)
    longest = min(WORK_MOST_PX, max(rgba_HWC.shape[:2]), round(max(small_HWC.shape[:2]) * FIGURE_PX / tall))
    if longest > 1.2 * max(small_HWC.shape[:2]):
        small_HWC, people, _ = _seen_at(rgba_HWC, longest, tracker)
    return small_HWC, people


def _seen_at(rgba_HWC: Image, longest_px: int, tracker: PeopleTracker) -> tuple[Image, People, int]:
    """The picture, shrunk to a longest side; its people; and the height of the main one in pixels."""
    rgba_HWC = at_most(rgba_HWC, longest_px)
    people = tracker.still(on_grey(rgba_HWC))
    if people.count == 0:
        raise BadInput("no person was found in the character picture; use one that shows a person whole, facing the camera", "no_person")
    rows = np.flatnonzero((people.masks_PTHW[main_person(people), 0] > 127).any(1))
    return rgba_HWC, people, int(rows[-1] - rows[0] + 1) if len(rows) else 1


def at_most(rgba_HWC: Image, longest_px: int) -> Image:
    """The picture, shrunk when its longest side is longer."""
    shrink = longest_px / max(rgba_HWC.shape[:2])
    if shrink >= 1:
        return rgba_HWC
    size = (max(1, round(rgba_HWC.shape[1] * shrink)), max(1, round(rgba_HWC.shape[0] * shrink)))
    return np.asarray(cv2.resize(rgba_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cut_already(alpha_HW: Image, mask_HW: Image) -> bool:
    """Whether an alpha channel is the character's coverage: clear over most of what is not the character.

    Rounded corners, a watermark or a vignette make no matte.
    """
    around = cv2.dilate((mask_HW > 60).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    return bool(around.any() and (alpha_HW[around] < 128).mean() > 0.7)


def _agreement(alpha_HW: Floats, mask_HW: Image) -> float:
    """Overlap of the matte and the pose model's silhouette, intersection over union."""
    ours, theirs = alpha_HW > 0.5, mask_HW > 127
    return float((ours & theirs).sum() / max(1, (ours | theirs).sum()))


def on_grey(rgba_HWC: Image) -> Image:
    """RGB with grey where the picture is clear."""
    alpha = rgba_HWC[..., 3:].astype(np.float32) / 255
    return np.round(rgba_HWC[..., :3] * alpha + 150 * (1 - alpha)).astype(np.uint8)


def _steadied(image_HWC: Image, alpha_HW: Floats, mask_HW: Image, person: Standing) -> Floats:
    """The matte without what lies off the pose model's silhouette (things of the body's colour behind it) and without frayed edges."""
    body = (mask_HW > 90).astype(np.uint8)
    for chain in LIMBS:
        xy = person.landmarks_33x2[list(chain)]
        if person.visibility_33[list(chain)].min() > SEEN:
            cv2.polylines(body, [np.round(xy).astype(np.int32)], False, 1, max(1, round(0.05 * person.metre_px)))
    reach = 2 * max(1, round(0.022 * person.metre_px)) + 1
    near = cv2.dilate(body, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))).astype(np.float32)
    kept = alpha_HW * cv2.GaussianBlur(near, (0, 0), max(0.8, 0.004 * person.metre_px))
    fine = cv2.GaussianBlur(kept, (0, 0), max(0.7, 0.005 * person.metre_px))
    # Before clutter colours draw a ragged outline, so there it is rounded, and drawn towards the silhouette.
    round_ = cv2.GaussianBlur(0.6 * kept + 0.4 * np.minimum(near, mask_HW / np.float32(255)), (0, 0), ROUND * person.metre_px)
    mixed = fine + (round_ - fine) * _clutter(image_HWC, alpha_HW, person)
    return np.asarray(np.clip((mixed - 0.5) * 1.8 + 0.5, 0, 1), np.float32)


def _clutter(image_HWC: Image, alpha_HW: Floats, person: Standing) -> Floats:
    """How restless the background is around every pixel, 0 (plain) to 1."""
    behind = (cv2.dilate((alpha_HW > 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0).astype(np.float32)
    grey = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)
    edges_HW = (np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))) * behind
    reach = max(2.0, 0.04 * person.metre_px)
    weight = cv2.GaussianBlur(behind, (0, 0), reach)
    mean = cv2.GaussianBlur(edges_HW, (0, 0), reach) / np.maximum(weight, 0.02)
    return np.asarray(np.clip((mean - PLAIN) / (BUSY - PLAIN), 0, 1), np.float32)


def cut_at(person: Standing, alpha_HW: Floats) -> frozenset[str]:
    """Sides of its picture at which the body is cut off.

    A body that only touches a side (a cut-out trimmed to its figure) grows quickly away from it; a cut one is as wide a little further in.
    """
    deep = max(2, round(0.04 * person.metre_px))
    least = max(2.0, 0.02 * person.metre_px)
    body = alpha_HW > 0.5
    strips = {"top": body[: deep + 1], "bottom": body[::-1][: deep + 1], "left": body.T[: deep + 1], "right": body.T[::-1][: deep + 1]}
    cut = {name for name, strip in strips.items() if strip[0].sum() >= max(least, 0.6 * strip[-1].sum())}
    # Soles are flat: feet that stand on the picture's edge are no cut legs.
    return frozenset(cut - {"bottom"} if person.inside(FEET, body.shape) else cut)


def _without(image_HWC: Image, alpha_HW: Floats) -> Image:
    """The picture with the character's place filled from its rim."""
    reach = max(3, max(alpha_HW.shape) // 60) | 1
    hole = cv2.dilate((alpha_HW > 0.02).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return np.asarray(soft_fill(image_HWC, hole), np.uint8)
