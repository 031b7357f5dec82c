"""The built-in image generator: cut the character out, dress it, put it where the clip's person stands. No network, no GPU.

It paints nothing new, so it ignores the prompt; what it can't do well it says in its report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from generators.base import Capabilities, ImageGenerator, ImageRequest, Report, scene_beside
from generators.base import Options as BaseOptions
from generators.images import composing, dressing
from generators.images.matte import FEET, HIPS, SHOULDERS, WORK_PX, CutOut, Floats, Standing, at_most, cut_out, on_grey, standing
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from generators.videos.puppet.cutout import main_person
from manifests import media
from manifests.errors import BadInput
from manifests.media import Image
from manifests.records import Geometry, rounded

TURNED_DEG = 60.0
SHARP_SCALE = 2.0
"""enlargement of the character from which the picture is soft"""
FLUSH = 0.12
"""of the picture's height, by which a character cut by its picture may be moved so that the new picture cuts it too"""
MARGIN = 0.02
"""of the picture's height, kept free around a character that must be seen whole"""


class CollageOptions(BaseOptions):
    """Options of the recipe entry `kind: collage`."""

    colour_match: float = Field(default=0.35, ge=0, le=1)
    """share of the way that the character's light moves towards the scene's"""
    shadow: float = Field(default=0.5, ge=0, le=1)
    """darkness of the contact shadow"""


@dataclass(frozen=True)
class _Place:
    """Where the cut-out goes: picture = scale × cut-out + (left, top)."""

    scale: float
    left: float
    top: float

    def map(self, xy_N2: Floats) -> Floats:
        return np.asarray(xy_N2 * self.scale + [self.left, self.top], np.float32)


class Collage(ImageGenerator):
    """Character, clothing and scene put together from their pictures."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"image"}), people_max=1, deterministic=True, roles=frozenset({"character", "clothing", "scene"})
    )
    options_type: ClassVar[type[BaseOptions]] = CollageOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark", "face_landmark")

    def __init__(self, options: BaseOptions | None = None) -> None:
        super().__init__(options)
        self._tracker = PeopleTracker()

    def setup(self) -> None:
        self._tracker.setup()

    def validate(self, request: ImageRequest) -> None:
        super().validate(request)
        if "character" not in request.pictures:
            raise BadInput("collage needs a picture in the role character", "no_character")
        if request.mode not in ("animation", "replacement"):
            raise BadInput(f"collage paints for animation and replacement, not {request.mode}", "mode_unsupported")
        if request.clip_people.count != 1 or not request.clip_people.present_PT.any():
            raise BadInput(f"collage paints for one person who is seen in the clip, got {request.clip_people.count}", "people_mismatch")
        if not 0.05 <= request.scale <= 20:
            raise BadInput(f"scale is {request.scale:g}, allowed is 0.05 to 20", "bad_scale")

    def run(self, request: ImageRequest, out: Path) -> Report:
        """Write a PNG of the geometry's size; in animation its empty scene too.

        Raises BadInput: what `validate`, `matte.cut_out` and `placed` raise.
        """
        self.validate(request)
        cut = cut_out(media.read_image_rgba(request.pictures["character"]), self._tracker)
        reasons, confidence, done = list(cut.reasons), cut.confidence, False
        if "clothing" in request.pictures:
            cut, done = self._dress(cut, request.pictures["clothing"])
        place = placed(cut, request)
        scene_beside(out).unlink(missing_ok=True)
        if request.mode == "replacement":
            picture = _over(_laid(cut, request.geometry, place), composing.neutral(cut, request.geometry.height, request.geometry.width))
        else:
            picture, empty, invented = self._in_scene(cut, request, place)
            media.write_png(scene_beside(out), empty)
            if invented is not None:
                reasons.append("no_scene")
                confidence *= 1 - 0.4 * invented
        if request.mode == "replacement" and cut.cut_sides - _open_sides(
            request.clip_people.masks_PTHW[0, _driver(request.clip_people)[1]]
        ):
            confidence *= 0.5  # the clip moves limbs that the picture can't show
        if place.scale > SHARP_SCALE:
            reasons.append("too_small_in_picture")
            confidence *= SHARP_SCALE / place.scale
        turned = abs((cut.person.yaw_deg - _driver(request.clip_people)[0].yaw_deg + 180) % 360 - 180)
        if turned > TURNED_DEG:
            reasons.append("turned_away")
            confidence *= 0.7
        if "clothing" in request.pictures:
            reasons.append("clothing_colour_only" if done else "clothing_unused")
        media.write_png(out, picture)
        return Report(confidence=rounded(min(1.0, max(0.0, confidence))), reasons=tuple(reasons))

    def _dress(self, cut: CutOut, path: Path) -> tuple[CutOut, bool]:
        """The cut-out in the colours of a clothing picture: its wearer's torso, or all of it when nobody wears it."""
        rgba = at_most(media.read_image_rgba(path), WORK_PX)
        image = on_grey(rgba)
        people = self._tracker.still(image)
        where = rgba[..., 3] > 127
        if people.count:
            wearer = main_person(people)
            torso = dressing.torso_of(standing(people, wearer, 0), people.masks_PTHW[wearer, 0].astype(np.float32) / 255)
            where = torso if torso.sum() >= 50 else where
        if not where.any():
            return cut, False
        dressed, done = dressing.dressed(cut, dressing.cloth_of(image, where))
        return replace(cut, image_HWC=dressed), done

    def _in_scene(self, cut: CutOut, request: ImageRequest, place: _Place) -> tuple[Image, Image, float | None]:
        """The picture, the scene without the character, and the share of an own background that was invented (None: a scene was given)."""
        options = self.options
        assert isinstance(options, CollageOptions)
        g = request.geometry
        feet = place.map(cut.person.landmarks_33x2)
        shows_feet = cut.person.inside(FEET, cut.alpha_HW.shape[:2]) and float(feet[list(FEET), 1].max()) < g.height
        ground = float(feet[list(FEET), 1].max()) if shows_feet else None
        given = "scene" in request.pictures
        if not given and cut.background_HWC is not None:
            scene, invented = composing.extended(cut.background_HWC, place.scale, place.left, place.top, g.height, g.width)
            return _over(_laid(cut, g, place), scene), scene, invented
        scene = composing.neutral(cut, g.height, g.width)
        if given:
            scene = composing.scene_window(media.read_image(request.pictures["scene"]), g.height, g.width, ground, request.seed)
        layer = _laid(cut, g, place)
        here = composing.light_of(scene, _around(layer[..., 3]))
        behind = cut.background_HWC
        if behind is not None:
            there = composing.light_of(behind, _around(cut.alpha_HW))
            cut = replace(cut, image_HWC=composing.matched(cut.image_HWC, cut.alpha_HW, there, here, options.colour_match))
            layer = _laid(cut, g, place)
        empty = scene
        if ground is not None:
            side = composing.light_of(scene).side
            scene = composing.shaded(scene, layer[..., 3], feet, cut.person.metre_px * place.scale, options.shadow, side)
        return _over(layer, scene), empty, None if given else 1.0


def _driver(people: People) -> tuple[Standing, int]:
    """The clip's person in the first frame that shows it, and that frame."""
    frame = int(np.flatnonzero(people.present_PT[0])[0])
    return standing(people, 0, frame, around=4), frame


def placed(cut: CutOut, request: ImageRequest) -> _Place:
    """Size by pixels a metre, feet (else hips, else shoulders) where the clip's person has them; whole in the picture if that one is.

    The clip's People may have another size than the geometry; they are scaled to it. Raises BadInput("cropped_inside_frame") when a cut
    edge of the character would be seen.
    """
    g, people = request.geometry, request.clip_people
    driver, frame = _driver(people)
    height, width = people.size_hw
    zoom = np.array([g.width / width, g.height / height], np.float32)
    scale = driver.metre_px * float(zoom[1]) / cut.person.metre_px * request.scale
    open_sides = _open_sides(people.masks_PTHW[0, frame]) if request.mode == "animation" else frozenset[str]()
    x0, y0, x1, y1 = _box(cut.alpha_HW)
    margin = MARGIN * g.height
    if not open_sides & {"top", "bottom"}:
        scale = min(scale, (g.height - 2 * margin) / (y1 - y0))
    if not open_sides & {"left", "right"}:
        scale = min(scale, (g.width - 2 * margin) / (x1 - x0))
    if request.mode == "replacement":
        middle = _Place(scale, g.width / 2 - scale * (x0 + x1) / 2, g.height / 2 - scale * (y0 + y1) / 2)
        return _flush(middle, cut, g, g.height)
    theirs = Standing(driver.landmarks_33x2 * zoom, driver.visibility_33, driver.metre_px, driver.yaw_deg)
    ours = cut.person
    size, own_size = (g.height, g.width), (cut.alpha_HW.shape[0], cut.alpha_HW.shape[1])
    joints = HIPS if theirs.inside(HIPS, size) and ours.inside(HIPS, own_size) else SHOULDERS
    (x, y), (own_x, own_y) = theirs.middle(joints), ours.middle(joints)
    if theirs.inside(FEET, size) and ours.inside(FEET, own_size):
        y, own_y = theirs.ground_y, ours.ground_y
    left, top = x - scale * own_x, y - scale * own_y
    free = open_sides | cut.cut_sides
    left += _nudge(left + scale * x0, left + scale * x1, g.width, margin, "left" in free, "right" in free)
    top += _nudge(top + scale * y0, top + scale * y1, g.height, margin, "top" in free, "bottom" in free)
    return _flush(_Place(scale, left, top), cut, g, FLUSH * g.height)


def _flush(place: _Place, cut: CutOut, g: Geometry, most_px: float) -> _Place:
    """Moved so that where the character's picture cuts it off, the new picture does too.

    Raises BadInput("cropped_inside_frame") when that takes more than `most_px`.
    """
    rows, columns = cut.alpha_HW.shape
    gaps = {
        "left": place.left, "top": place.top,
        "right": g.width - place.left - place.scale * columns, "bottom": g.height - place.top - place.scale * rows,
    }  # fmt: skip
    moves = {side: max(0.0, gaps[side]) for side in cut.cut_sides}
    opposite = min(moves.get("left", 0), moves.get("right", 0)) + min(moves.get("top", 0), moves.get("bottom", 0))
    if opposite > 0 or max(moves.values(), default=0) > most_px:
        raise BadInput(
            f"the character is cut off at the {' and '.join(sorted(moves))} of its picture, the clip shows more of the body; "
            "use a picture that shows it whole", "cropped_inside_frame",
        )  # fmt: skip
    left = place.left - moves.get("left", 0) + moves.get("right", 0)
    return _Place(place.scale, left, place.top - moves.get("top", 0) + moves.get("bottom", 0))


def _open_sides(mask_HW: Image) -> frozenset[str]:
    """Sides of the picture through which the clip's person leaves it."""
    rims = {"top": mask_HW[:2], "bottom": mask_HW[-2:], "left": mask_HW[:, :2], "right": mask_HW[:, -2:]}
    return frozenset(name for name, rim in rims.items() if (rim > 127).mean() > 0.02)


def _nudge(low: float, high: float, length: int, margin: float, open_low: bool, open_high: bool) -> float:
    """How far to move an interval so that it stays inside on the closed sides; the low side wins."""
    move = 0.0
    if not open_high:
        move = min(move, length - margin - high)
    if not open_low and low + move < margin:
        move = margin - low
    return move


def _box(alpha_HW: Floats) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(alpha_HW > 0.2)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _around(cover_HW: Floats) -> Floats:
    """Weights of what surrounds a figure, 0 to 1, the figure itself left out."""
    height, width = cover_HW.shape
    rows = np.flatnonzero((cover_HW > 0.5).any(1))
    if not len(rows):
        return np.ones((height, width), np.float32)
    reach = max(2.0, 0.25 * float(rows[-1] - rows[0]))
    soft = cv2.GaussianBlur(cv2.resize(cover_HW, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA), (0, 0), max(0.6, reach / 8))
    return np.asarray((cv2.resize(soft, (width, height)) + 0.02) * (cover_HW < 0.02), np.float32)


def _laid(cut: CutOut, g: Geometry, place: _Place) -> Floats:
    """The cut-out at its place in an empty picture, (H, W, 4): colour times coverage, coverage (0 to 1)."""
    alpha = cut.alpha_HW[..., None]
    layer = np.concatenate([cut.image_HWC.astype(np.float32) * alpha, alpha], 2)
    if place.scale < 1:
        layer = cv2.GaussianBlur(layer, (0, 0), 0.40 / place.scale, borderType=cv2.BORDER_REPLICATE)
    # Pixel centres, not corners, are what the map moves.
    half = 0.5 * place.scale - 0.5
    m = np.array([[place.scale, 0, place.left + half], [0, place.scale, place.top + half]])
    how = cv2.INTER_CUBIC if place.scale > 1 else cv2.INTER_LINEAR
    over = np.asarray(cv2.warpAffine(layer, m, (g.width, g.height), flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=0), np.float32)
    over[..., 3] = np.clip(over[..., 3], 0, 1)
    return over


def _over(layer_HW4: Floats, under_HWC: Image) -> Image:
    return np.clip(np.round(layer_HW4[..., :3] + under_HWC * (1 - layer_HW4[..., 3:])), 0, 255).astype(np.uint8)
