"""A character taken out of its picture: pixels, coverage, joints, and the picture without it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses.people import PeopleTracker
from generators.poses.summary import yaw_deg
from generators.poses.tracks import BODY, INDEX, People
from generators.videos.plate import fill_from, soft_fill
from generators.videos.puppet.cutout import figure_of, main_person, matte_of
from generators.videos.puppet.skeleton import pixels_per_metre
from manifests.errors import BadInput
from manifests.media import Image

Floats = npt.NDArray[np.float32]

WORK_PX = 1280
"""longest side a picture is worked on at"""
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

    Raises BadInput: "no_person", "too_small", "torso_cropped", "no_matte".
    """
    rgba_HWC = _workable(rgba_HWC)
    opaque = bool(rgba_HWC[..., 3].min() > 250)
    image_HWC = np.ascontiguousarray(rgba_HWC[..., :3]) if opaque else _on_grey(rgba_HWC)
    people = tracker.still(image_HWC)
    if people.count == 0:
        raise BadInput("no person was found in the character picture; use one that shows a person whole, facing the camera", "no_person")
    track = main_person(people)
    person = standing(people, track, 0)
    if opaque:
        figure = figure_of(image_HWC, people, track)
        # The figure's picture may be stretched for bending; placing wants it as it is.
        mask = people.masks_PTHW[track, 0]
        alpha = _steadied(matte_of(replace(figure, image_HWC=image_HWC, mask_HW=mask)).alpha_HW, mask, person)
        background = _without(image_HWC, alpha)
    else:
        alpha, background = np.asarray(rgba_HWC[..., 3] / np.float32(255), np.float32), None
    if (alpha > 0.5).sum() < LEAST_PX:
        raise BadInput("the character picture is almost wholly transparent; give its person an alpha of 255", "no_matte")
    reasons = _cropped(person, alpha)
    if people.count > 1:
        reasons = (*reasons, "several_people")
    confidence = float(person.visibility_33[[INDEX[j] for j in BODY]].mean()) * (0.5 if "reference_cropped" in reasons else 1.0)
    clean = _clean_rim(np.ascontiguousarray(rgba_HWC[..., :3]), alpha)
    return CutOut(clean, alpha.astype(np.float32), person, background, reasons, min(1.0, confidence))


def _workable(rgba_HWC: Image) -> Image:
    shrink = WORK_PX / max(rgba_HWC.shape[:2])
    if shrink >= 1:
        return rgba_HWC
    size = (round(rgba_HWC.shape[1] * shrink), round(rgba_HWC.shape[0] * shrink))
    return np.asarray(cv2.resize(rgba_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)


def _on_grey(rgba_HWC: Image) -> Image:
    alpha = rgba_HWC[..., 3:].astype(np.float32) / 255
    return np.round(rgba_HWC[..., :3] * alpha + 150 * (1 - alpha)).astype(np.uint8)


def _steadied(alpha_HW: Floats, mask_HW: Image, person: Standing) -> Floats:
    """The matte without what lies off the pose model's silhouette (things of the body's colour behind it) and without frayed edges."""
    body = (mask_HW > 90).astype(np.uint8)
    for chain in LIMBS:
        xy = person.landmarks_33x2[list(chain)]
        if person.visibility_33[list(chain)].min() > SEEN:
            cv2.polylines(body, [np.round(xy).astype(np.int32)], False, 1, max(1, round(0.05 * person.metre_px)))
    reach = 2 * max(1, round(0.022 * person.metre_px)) + 1
    near = cv2.dilate(body, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))).astype(np.float32)
    kept = alpha_HW * cv2.GaussianBlur(near, (0, 0), max(0.8, 0.004 * person.metre_px))
    smooth = cv2.GaussianBlur(kept, (0, 0), max(0.7, 0.005 * person.metre_px))
    return np.asarray(np.clip((smooth - 0.5) * 1.8 + 0.5, 0, 1), np.float32)


def _cropped(person: Standing, alpha_HW: Floats) -> tuple[str, ...]:
    """The body leaves the picture, or its feet are not seen."""
    height, width = alpha_HW.shape
    rims = ((alpha_HW[:2], width), (alpha_HW[-2:], width), (alpha_HW[:, :2], height), (alpha_HW[:, -2:], height))
    cut = any(float((rim > 0.5).sum()) / 2 > 0.02 * length for rim, length in rims)
    return ("reference_cropped",) if cut or not person.inside(FEET, (height, width)) else ()


def _without(image_HWC: Image, alpha_HW: Floats) -> Image:
    """The picture with the character's place filled from its rim."""
    reach = max(3, max(alpha_HW.shape) // 60) | 1
    hole = cv2.dilate((alpha_HW > 0.02).astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return np.asarray(soft_fill(image_HWC, hole), np.uint8)


def _clean_rim(image_HWC: Image, alpha_HW: Floats) -> Image:
    """Half-covered pixels carry the old background: give them the colour of the nearest pixel that is surely the character's."""
    sure = cv2.erode((alpha_HW > 0.97).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    near = np.asarray(fill_from(image_HWC, sure), np.float32)
    keep = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), 1.0)[..., None]
    keep = np.where(sure[..., None], np.float32(1), np.minimum(keep, 0.5))
    return np.clip(np.round(image_HWC * keep + near * (1 - keep)), 0, 255).astype(np.uint8)
