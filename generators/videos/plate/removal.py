"""The scene without the people: a temporal median where it was ever seen, an invented fill where it was not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from generators.videos.plate.camera import DARK_LEVEL, Array, Camera, camera_of, light_of, shots
from generators.videos.plate.fill import inpaint

MASK_ON = 60
"""a soft mask value (0 to 255) from which a pixel counts as the person's"""
_SAMPLES = 12
"""frames that enter the median; where they never show the scene, all frames do"""
_SEEN_LEAST = 2
"""frames that must show a place, in clips that are not very short: a single one may well be wrong about who is there"""
_BLOCK = 16384
_RIM = 1 / 45
"""grown by so much of the short side, silhouettes hold soft edges and motion blur"""
_THIN_RIM = 1 / 90
"""where the grown silhouettes never leave a place free, so much must do"""
_REACH = 0.16
"""hats, hair and bags are looked for so far around a silhouette, in its heights"""
_SHADE_REACH = 0.36
"""shadows so far"""
_CHANGED = 16
"""levels by which what belongs to a person differs from the scene, at least"""
_SHADE = (4.0, 0.04)
"""a shadow is darker by so many levels and by such a share of the scene, at least"""
_DEEPEST = 0.35
"""no soft shadow leaves less than this share of the light"""
_BELONGINGS_MOST = 0.8
"""what goes with people, and their shadows, cover less than this share of their grown silhouettes"""
_LIGHT_APART = 0.3
"""a frame so much darker or brighter than the scene can't be compared with it"""
_SHADE_SIDE = 200
"""shadows are looked for at about so many pixels a side"""
_TINT = 0.10
"""a shadow's channels darken alike to within this share"""
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
        removed = self.removed_THW[t]
        return float((self.never_THW[t] & (alpha_HW < 64)).sum() / max(1, removed.sum()))


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
        at = _box(mask_HW, int(max(radii_px)) + 2)
        away = _distance(mask_HW[at])
        for out, radius in zip(grown, radii_px, strict=True):
            out[at] = away <= radius
    return grown


def _box(mask_HW: Array, margin: int) -> tuple[slice, slice]:
    x, y, w, h = cv2.boundingRect(mask_HW.astype(np.uint8))
    return slice(max(0, y - margin), y + h + margin), slice(max(0, x - margin), x + w + margin)


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


def _network(n: int) -> list[tuple[int, int]]:
    """Comparisons that sort n values: Batcher's odd-even merge (1968)."""
    pairs, p = [], 1
    while p < n:
        k = p
        while k >= 1:
            pairs += [
                (i, i + k) for j in range(k % p, n - k, 2 * k) for i in range(j, min(j + k, n - k)) if i // (2 * p) == (i + k) // (2 * p)
            ]
            k //= 2
        p *= 2
    return pairs


def _sort_columns(rows_NM: Array) -> None:
    """Sort every column in place. All columns take each step of a network together, in blocks that fit a processor's cache."""
    pairs, low = _network(len(rows_NM)), np.empty(_BLOCK, rows_NM.dtype)
    for start in range(0, rows_NM.shape[1], _BLOCK):
        rows = rows_NM[:, start : start + _BLOCK]
        for i, j in pairs:
            smaller = np.minimum(rows[i], rows[j], out=low[: rows.shape[1]])
            np.maximum(rows[i], rows[j], out=rows[j])
            rows[i] = smaller


def _median(values_NMC: Array, bad_NM: Array) -> Array:
    """Median over the samples that are not bad, of many over the first ones (M, C, uint8); every place must have one.

    Of two middles the lower.
    """
    if len(bad_NM) > _SAMPLES:
        first = np.argsort(bad_NM, axis=0, kind="stable")[:_SAMPLES]
        values_NMC, bad_NM = np.take_along_axis(values_NMC, first[..., None], 0), np.take_along_axis(bad_NM, first, 0)
    ordered = np.array(values_NMC, order="C")
    ordered[bad_NM] = 255  # so the bad come last, or among their equals
    _sort_columns(ordered.reshape(len(ordered), -1))
    middle = ((~bad_NM).sum(0) - 1) // 2
    return np.asarray(np.take_along_axis(ordered, middle[None, :, None], 0)[0])


def _learn(shot: _Shot, bad_THW: Array, where_HW: Array, picks: Array, scene: _Scene) -> _Scene:
    """The scene with the median of free samples at `where` (scene pixels) wherever one of the picked frames is free."""
    if not where_HW.any():
        return scene
    ys, xs = np.nonzero(where_HW)
    outside = np.ones(shot.core.shape[1:], np.uint8)
    samples, bad = [], []
    for t in picks:
        samples.append(shot.into_scene(t, shot.frames[t])[ys, xs])
        hidden = bad_THW[t]
        if shot.camera.moves:
            inside = cv2.erode(shot.into_scene(t, outside, cv2.INTER_NEAREST), np.ones((3, 3), np.uint8))
            hidden = (shot.into_scene(t, hidden.astype(np.uint8) * 255) > 0) | (inside == 0)
        bad.append(hidden[ys, xs])
    values, hidden = np.stack(samples), np.stack(bad)
    seen = (~hidden).sum(0) >= (_SEEN_LEAST if len(picks) >= 4 * _SEEN_LEAST else 1)
    image, known = scene.image_HWC.copy(), scene.known_HW.copy()
    image[ys[seen], xs[seen]] = _median(values[:, seen], hidden[:, seen])
    known[ys[seen], xs[seen]] = True
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


def _touching(spots: Array, core: Array) -> Array:
    """Connected pieces of `spots` that reach the core."""
    _, labels = cv2.connectedComponents((spots | core).astype(np.uint8), connectivity=8)
    keep = np.zeros(int(labels.max()) + 1, bool)
    keep[np.unique(labels[core])] = True
    keep[0] = False
    found: Array = keep[labels] & spots
    return found


def _things(frame: Array, scene: Array, core: Array, free: Array, tolerance: float) -> Array:
    """What differs from the scene and hangs together with the silhouettes (H, W, bool). free: where a comparison means something."""
    differences = cv2.split(cv2.absdiff(cv2.blur(frame, (3, 3)), cv2.blur(scene, (3, 3))))
    edge = cv2.morphologyEx(cv2.cvtColor(scene, cv2.COLOR_RGB2GRAY), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    changed = (cv2.max(cv2.max(differences[0], differences[1]), differences[2]) > tolerance + edge // 3) & free
    closed = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    return _touching(closed & free, core)


def _shade(frame: Array, scene: Array, core: Array, free: Array) -> Array:
    """Where the frame is evenly darker than the scene, next to the silhouettes (H, W, bool). At reduced size: shadows are soft."""
    h, w = core.shape
    shrink = max(1, round(max(h, w) / _SHADE_SIDE))
    small = (max(1, w // shrink), max(1, h // shrink))
    soft, ground = (cv2.blur(cv2.resize(x, small, interpolation=cv2.INTER_AREA), (3, 3)).astype(np.float32) + 1 for x in (frame, scene))
    r, g, b = cv2.split(soft / ground)
    mean = (r + g + b) / 3
    alike = cv2.max(cv2.max(r, g), b) - cv2.min(cv2.min(r, g), b) < 2 * _TINT
    level = cv2.cvtColor(ground, cv2.COLOR_RGB2GRAY)
    darker = (level * (1 - mean) > _SHADE[0]) & (mean < 1 - _SHADE[1]) & (mean > _DEEPEST) & alike
    core, free = (cv2.resize(m.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST) > 0 for m in (core, free))
    opened = cv2.morphologyEx((darker & free).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    found = _touching(opened, core).astype(np.uint8)
    grown = cv2.resize(cv2.dilate(found, np.ones((3, 3), np.uint8)), (w, h), interpolation=cv2.INTER_NEAREST)
    return np.asarray((grown > 0) & ~cv2.resize(core.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST).astype(bool))


def _belongings(shot: _Shot, scene: _Scene, bad: Array, t: int, light_3: Array) -> Array:
    """(H, W, bool): things and shadows of frame `t` that go with the people, beyond their grown silhouettes."""
    out: Array = np.zeros_like(shot.core[t])
    if not shot.core[t].any() or np.abs(light_3 - 1).max() > _LIGHT_APART:
        return out
    height = cv2.boundingRect(shot.core[t].astype(np.uint8))[3]
    at = _box(shot.core[t], round(_SHADE_REACH * height) + 6)
    image, known = shot.from_scene(t, scene.image_HWC)[at], shot.from_scene(t, scene.known_HW.astype(np.uint8), cv2.INTER_NEAREST)[at] > 0
    if (light_3 != 1).any():
        image = np.clip(image * light_3, 0, 255).astype(np.uint8)
    frame, core, image = (np.ascontiguousarray(x) for x in (shot.frames[t][at], bad[t][at], image))
    away = _distance(core)
    free = known & ~core & ~shot.others[t][at] & (away <= _SHADE_REACH * height)
    thing = _things(frame, image, core, free & (away <= _REACH * height), _CHANGED + (8 if shot.camera.moves else 0))
    shade = _shade(frame, image, core | thing, free & ~thing)
    for found in (cv2.dilate(thing.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0, shade):
        if found.sum() < _BELONGINGS_MOST * core.sum():  # more than that is a scene that changes
            out[at] |= found
    return np.asarray(out & ~shot.others[t])


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
    for t in range(len(frames)):
        if not removed[t].any():
            continue
        at = _box(removed[t], 6)
        image = shot.from_scene(t, scene.image_HWC)[at].astype(np.float32)
        known = shot.from_scene(t, scene.known_HW.astype(np.uint8), cv2.INTER_NEAREST)[at] > 0
        if (light_T3[t] != 1).any():
            image = np.clip(image * light_T3[t].astype(np.float32), 0, 255)
        share = np.maximum(cv2.GaussianBlur(removed[t][at].astype(np.float32), (0, 0), 1.5), removed[t][at])[..., None]
        share *= ~shot.others[t][at][..., None] | removed[t][at][..., None]
        frames[t][at] = np.round(image * share + frames[t][at] * (1 - share)).astype(np.uint8)
        never[t][at] = ~known & removed[t][at]
    return frames, never


def _lights(shot: _Shot, scene: _Scene, bad: Array) -> Array:
    grid = (slice(None, None, 8), slice(None, None, 8))
    lights = []
    for t in range(len(shot.frames)):
        image, known = shot.from_scene(t, scene.image_HWC), shot.from_scene(t, scene.known_HW.astype(np.uint8), cv2.INTER_NEAREST)
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
    zone = cv2.resize(_grown(ever, _SHADE_REACH * height / 4 + 4)[0].astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0
    usual, picks = _picks(frames, bad, n), _picks(frames, bad, _SAMPLES)
    scene = _first_scene(shot, bad, thin, zone | bad.any(0), picks, usual)
    lights = _lights(shot, scene, bad)
    extra = np.stack([_belongings(shot, scene, wide, t, lights[t]) for t in range(n)])
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
