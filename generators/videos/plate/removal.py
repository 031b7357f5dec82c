"""The scene without the people: a temporal median where it was ever seen, an invented fill where it was not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.videos.plate.belongings import SHADE_REACH, backdrop_of, belongings, box_around
from generators.videos.plate.camera import DARK_LEVEL, Array, Camera, camera_of, in_light, light_of, shots
from generators.videos.plate.fill import inpaint
from generators.videos.plate.median import median_of_free

MASK_ON = 60
"""a soft mask value (0 to 255) from which a pixel counts as the person's"""
_SAMPLES = 12
"""frames that enter the median; where they never show the scene, all frames do"""
_SEEN_LEAST = 2
"""frames that must show a place, in clips that are not very short: a single one may well be wrong about who is there"""
_RIM = 1 / 45
"""grown by so much of the short side, silhouettes hold soft edges and motion blur"""
_THIN_RIM = 1 / 90
"""where the grown silhouettes never leave a place free, so much must do"""
_LIGHT_APART = 0.3
"""a frame so much darker or brighter than the scene can't be compared with it"""
_THREADS = 2
"""frames are compared and painted by so many; none looks at another's results"""
_MOSAIC_MOST = 1.5
"""a moving camera's scene is laid out on at most so many frame sizes a side"""


@dataclass(frozen=True)
class Plate:
    """A clip's scene without the driven people."""

    frames_THWC: Array
    """RGB, uint8; outside the removed people these are the clip's own pixels"""
    never_THW: Array
    """bool: pixels that no frame shows, hence invented"""
    removed_THW: Array
    """bool: where people, what they carry and their shadows were taken out"""
    camera_px: float
    """how far the camera moves over the clip; 0 where it stands"""
    light_T3: Array
    """exposure of every frame relative to its shot's scene, per channel"""
    dark_T: Array
    """bool: frames that are as good as black"""
    lost_T: Array
    """bool: frames for which the moving camera's position could not be found"""
    cut_T: Array
    """bool: frames next to a cut"""
    grain: float
    """standard deviation of the clip's noise, grey levels"""

    def exposed(self, t: int, alpha_HW: Array) -> float:
        """Share of the removed area of frame `t` that shows invented scene beside what is drawn there (alpha 0 to 255)."""
        never = self.never_THW[t]
        bare = int(np.count_nonzero(never & (alpha_HW < 64))) if never.any() else 0
        return bare / max(1, int(np.count_nonzero(self.removed_THW[t])))


@dataclass(frozen=True)
class _Shot:
    """One shot's frames and who is in them; everything (T, H, W …)."""

    frames: Array
    core: Array
    """bool: silhouettes of those who go"""
    others: Array
    """bool: silhouettes of those who stay"""
    camera: Camera
    at: Array
    """(T, 2, 3) maps from frame to scene pixels"""
    scene_hw: tuple[int, int]

    def into_scene(self, t: int, image: Array, how: int = cv2.INTER_LINEAR, beyond: float = 0.0) -> Array:
        if not self.camera.moves:
            return image
        h, w = self.scene_hw
        return np.asarray(cv2.warpAffine(image, self.at[t], (w, h), flags=how, borderValue=(beyond,) * 3))

    def from_scene(self, t: int, image: Array, how: int = cv2.INTER_LINEAR) -> Array:
        if not self.camera.moves:
            return image
        h, w = self.core.shape[1:]
        return np.asarray(cv2.warpAffine(image, self.at[t], (w, h), flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE))


@dataclass(frozen=True)
class _Scene:
    """What stands behind the people, in scene pixels."""

    image_HWC: Array
    known_HW: Array


def _distance(mask_HW: Array) -> Array:
    """Pixels from the nearest pixel of a mask that has one."""
    return cv2.distanceTransform((~mask_HW).astype(np.uint8), cv2.DIST_L2, 3)


def _grown(mask_HW: Array, *radii_px: float) -> list[Array]:
    """The mask (bool) grown by each of some radii."""
    grown = [np.zeros(mask_HW.shape, bool) for _ in radii_px]
    if mask_HW.any():
        at = box_around(mask_HW, int(max(radii_px)) + 2)
        away = _distance(mask_HW[at])
        for out, radius in zip(grown, radii_px, strict=True):
            out[at] = away <= radius
    return grown


def _shot_of(frames: Array, core: Array, others: Array) -> _Shot:
    camera = camera_of(frames, core | others)
    _, h, w = core.shape
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], float).T
    reached = np.concatenate([(m @ corners)[:2].T for m in camera.path_T33])
    room = [(_MOSAIC_MOST - 1) * w, (_MOSAIC_MOST - 1) * h]
    low = np.floor(np.maximum(reached.min(0), -np.array(room))).astype(int)
    high = np.ceil(np.minimum(reached.max(0), np.array([w, h]) + room)).astype(int)
    to_scene = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]], float)
    return _Shot(frames, core, others, camera, (to_scene @ camera.path_T33)[:, :2], (int(high[1] - low[1]), int(high[0] - low[0])))


def _learn(shot: _Shot, bad_THW: Array, where_HW: Array, picks: Array, scene: _Scene) -> _Scene:
    """The scene with the median of free samples at `where` (scene pixels) wherever one of the picked frames is free."""
    if not where_HW.any():
        return scene
    where = np.flatnonzero(where_HW)
    outside = np.ones(shot.core.shape[1:], np.uint8)
    samples, covered = np.empty((len(picks), 3, len(where)), np.uint8), np.empty((len(picks), len(where)), bool)
    for k, t in enumerate(picks):
        for channel, out in zip(cv2.split(shot.into_scene(t, shot.frames[t])), samples[k], strict=True):
            channel.ravel().take(where, out=out)
        hidden = bad_THW[t]
        if shot.camera.moves:
            inside = cv2.erode(shot.into_scene(t, outside, cv2.INTER_NEAREST), np.ones((3, 3), np.uint8))
            hidden = (shot.into_scene(t, hidden.astype(np.uint8) * 255) > 0) | (inside == 0)
        hidden.ravel().take(where, out=covered[k])
    free = len(picks) - np.count_nonzero(covered, axis=0)
    seen = free >= (_SEEN_LEAST if len(picks) >= 4 * _SEEN_LEAST else 1)
    if not seen.all():
        where, samples, covered = where[seen], np.ascontiguousarray(samples[..., seen]), np.ascontiguousarray(covered[:, seen])
    image, known = scene.image_HWC.copy(), scene.known_HW.copy()
    image.reshape(-1, 3)[where] = median_of_free(samples, covered, _SAMPLES).T
    known.reshape(-1)[where] = True
    return _Scene(image, known)


def _picks(frames: Array, people: Array, most: int) -> Array:
    """Frames for the median, evenly spread, of one brightness: the one that most frames have, the brighter one of two."""
    grid = (slice(None), slice(None, None, 8), slice(None, None, 8))
    grey = frames[grid].mean(3)
    free = ~people[grid]
    level = np.array([g[f].mean() if f.any() else g.mean() for g, f in zip(grey, free, strict=True)])
    alike = np.abs(level[:, None] - level) <= 0.06 * level + 1  # (T, T): frames like each frame
    usual = np.flatnonzero(alike[:, np.lexsort((level, alike.sum(0)))[-1]])
    return np.asarray(usual[np.unique(np.linspace(0, len(usual) - 1, most).astype(int))])


def _first_scene(shot: _Shot, bad: Array, thin: Array, zone: Array, picks: Array, usual: Array) -> _Scene:
    """Pass one: medians over grown silhouettes, over all frames where few show the place, over thinly grown ones at last."""
    middle = int(usual[len(usual) // 2])
    if shot.camera.moves:
        where = np.ones(shot.scene_hw, bool)
        scene = _Scene(shot.into_scene(middle, shot.frames[middle]), np.zeros(shot.scene_hw, bool))
    else:
        where = zone
        scene = _Scene(shot.frames[middle].copy(), ~where)
    scene = _learn(shot, bad, where, picks, scene)
    for hidden in (bad, thin):
        scene = _learn(shot, hidden, ~scene.known_HW, usual, scene)
    return scene


def _belongings(shot: _Shot, scene: _Scene, wide: Array, lights_T3: Array) -> Array:
    """(T, H, W, bool): things and shadows that go with the people, beyond their grown silhouettes."""
    steady = not shot.camera.moves
    usual = backdrop_of(scene.image_HWC, scene.known_HW, steady) if steady else None

    def of_frame(t: int) -> Array:
        light = lights_T3[t]
        if not shot.core[t].any() or np.abs(light - 1).max() > _LIGHT_APART:
            return np.zeros_like(shot.core[t])
        backdrop = usual
        if backdrop is None or (light != 1).any():
            known = shot.from_scene(t, scene.known_HW.astype(np.uint8), cv2.INTER_NEAREST) > 0
            backdrop = backdrop_of(in_light(shot.from_scene(t, scene.image_HWC), light), known, steady)
        height = cv2.boundingRect(shot.core[t].astype(np.uint8))[3]
        return belongings(shot.frames[t], backdrop, wide[t], shot.others[t], height)

    with ThreadPoolExecutor(_THREADS) as pool:
        return np.stack(list(pool.map(of_frame, range(len(wide)))))


def _grain(shot: _Shot, bad: Array, picks: Array) -> float:
    """Noise of the clip: median absolute difference of neighbouring frames at free pixels (× 1.4826 / √2, as for a normal distribution)."""
    spreads = []
    for t in picks[:8]:
        if 0 < t < len(bad) and not shot.camera.moves:
            free = ~(bad[t] | bad[t - 1])[::4, ::4]
            change = (shot.frames[t][::4, ::4].astype(np.int16) - shot.frames[t - 1][::4, ::4]).mean(2)[free]
            if change.size > 100:
                spreads.append(float(np.median(np.abs(change))) * 1.4826 / 2**0.5)
    return float(np.median(spreads)) if spreads else 0.0


def _painted(shot: _Shot, scene: _Scene, removed: Array, light_T3: Array) -> tuple[Array, Array]:
    """Frames with the scene where people were, and which of these pixels are invented."""
    frames, never = shot.frames.copy(), np.zeros_like(removed)

    def paint(t: int) -> None:
        at = box_around(removed[t], 6)
        gone = removed[t][at]
        image = in_light(np.ascontiguousarray(shot.from_scene(t, scene.image_HWC)[at]), light_T3[t])
        known = shot.from_scene(t, scene.known_HW.astype(np.uint8), cv2.INTER_NEAREST)[at] > 0
        share = cv2.max(cv2.GaussianBlur(gone.astype(np.float32), (0, 0), 1.5), gone.astype(np.float32))
        share[shot.others[t][at] & ~gone] = 0
        frames[t][at] = cv2.blendLinear(image, np.ascontiguousarray(frames[t][at]), share, 1 - share)
        never[t][at] = ~known & gone

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(paint, [t for t in range(len(frames)) if removed[t].any()]))
    return frames, never


def _lights(shot: _Shot, scene: _Scene, bad: Array) -> Array:
    grid = (slice(None, None, 8), slice(None, None, 8))
    lights, known_HW = [], scene.known_HW.astype(np.uint8)
    for t in range(len(shot.frames)):
        image, known = shot.from_scene(t, scene.image_HWC), shot.from_scene(t, known_HW, cv2.INTER_NEAREST)
        lights.append(light_of(shot.frames[t][grid], image[grid], (known[grid] > 0) & ~bad[t][grid]))
    return np.stack(lights)


def _clean_shot(frames: Array, masks: Array, others: Array) -> Plate:
    n, h, w = masks.shape
    small_gaps = np.ones((2 * round(min(h, w) / 60) + 1,) * 2, np.uint8)
    core = np.stack([cv2.morphologyEx((m > MASK_ON).astype(np.uint8), cv2.MORPH_CLOSE, small_gaps) > 0 for m in masks])
    kept = others > 127
    shot = _shot_of(frames, core, kept)
    rim, thin_rim = _RIM * min(h, w), _THIN_RIM * min(h, w)
    wide, thin = (np.stack(grown) for grown in zip(*(_grown(m, rim, thin_rim) for m in core), strict=True))
    bad: Array = wide
    if kept.any():
        kept_wide, kept_thin = (np.stack(grown) for grown in zip(*(_grown(m, rim, thin_rim) for m in kept), strict=True))
        bad, thin = wide | kept_wide, thin | kept_thin
    height = max((cv2.boundingRect(m.astype(np.uint8))[3] for m in core), default=0)
    ever = cv2.resize(np.asarray(bad.any(0), np.uint8), (w // 4, h // 4), interpolation=cv2.INTER_AREA) > 0
    zone = cv2.resize(_grown(ever, SHADE_REACH * height / 4 + 4)[0].astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0
    usual, picks = _picks(frames, bad, n), _picks(frames, bad, _SAMPLES)
    scene = _first_scene(shot, bad, thin, zone | bad.any(0), picks, usual)
    lights = _lights(shot, scene, bad)
    extra = _belongings(shot, scene, wide, lights)
    if extra[picks].any() and not shot.camera.moves:  # what they carry and their shadows spoil the median too
        again = _learn(shot, bad | extra, extra[picks].any(0) & scene.known_HW, picks, scene)
        scene = _Scene(again.image_HWC, scene.known_HW)
    removed = (wide & ~kept) | extra
    needed = np.zeros(shot.scene_hw, bool)
    for t in range(n):
        needed |= shot.into_scene(t, removed[t].astype(np.uint8), cv2.INTER_NEAREST) > 0
    scene = replace(scene, image_HWC=inpaint(scene.image_HWC, ~scene.known_HW & needed, ~scene.known_HW & ~needed))
    painted, never = _painted(shot, scene, removed, lights)
    dark = frames[:, ::8, ::8].mean((1, 2, 3)) < DARK_LEVEL
    return Plate(
        painted, never, removed, shot.camera.shift_px, lights, dark, shot.camera.lost_T, np.zeros(n, bool), _grain(shot, bad, picks)
    )


def clean_plate(frames_THWC: Array, masks_THW: Array, others_THW: Array | None = None) -> Plate:
    """Take people out of a clip.

    frames_THWC: RGB, uint8. masks_THW: soft silhouettes of everybody to be removed, 0 to 255. others_THW: of everybody who stays.
    Outside the (grown) silhouettes, what moves with them and their shadows, every frame keeps its own pixels, so whoever is not removed
    goes on moving. A clip with cuts gets a plate for each shot.
    """
    others = np.zeros_like(masks_THW) if others_THW is None else others_THW
    cuts = shots(frames_THWC, (masks_THW > MASK_ON) | (others > MASK_ON))
    plates = [_clean_shot(frames_THWC[a:b], masks_THW[a:b], others[a:b]) for a, b in cuts]
    if len(plates) == 1:
        return plates[0]
    together = {
        name: np.concatenate([getattr(p, name) for p in plates])
        for name in ("frames_THWC", "never_THW", "removed_THW", "light_T3", "dark_T", "lost_T", "cut_T")
    }
    for a, _ in cuts[1:]:
        together["cut_T"][a - 1 : a + 1] = True
    return Plate(camera_px=max(p.camera_px for p in plates), grain=max(p.grain for p in plates), **together)
