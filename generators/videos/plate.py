"""The scene without the people: a temporal median where it was ever seen, an invented fill where it was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MASK_ON = 60
"""a soft mask value (0 to 255) from which a pixel counts as the person's"""
_STILL_PX = 1.5
"""background features that move less than this over the clip mean a camera that stands"""
_PLAIN_STRUCTURE = 2.0
"""structure (grey levels, see _texture) under which a backdrop is filled smoothly instead of by examples"""
_PATCH = 3
"""patch radius of the exemplar fill, px"""
_FILL_SIDES = (48, 96, 192)
"""longest sides of the exemplar fill's pyramid, px; finer detail is copied from the matched places"""


@dataclass(frozen=True)
class Plate:
    """A clip's scene without the driven people."""

    frames_THWC: Array
    """RGB, uint8; outside the removed people these are the clip's own pixels"""
    never_THW: Array
    """bool: pixels that no frame shows, hence invented"""
    camera_px: float
    """how far the camera moves over the clip; 0 where it stands"""
    removed_THW: Array
    """bool: where people were taken out"""

    def exposed(self, t: int, alpha_HW: Array) -> float:
        """Share of the removed area of frame `t` that shows invented scene beside what is drawn there (alpha 0 to 255)."""
        removed = self.removed_THW[t]
        return float((self.never_THW[t] & (alpha_HW < 64)).sum() / max(1, removed.sum()))


# ---------------------------------------------------------------------------------------------------------------- filling


def fill_from(image_HWC: Array, good_HW: Array) -> Array:
    """Every pixel takes the value of the nearest good pixel; an image without any comes back unchanged."""
    if not good_HW.any():
        return image_HWC
    _, label = cv2.distanceTransformWithLabels((~good_HW).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    source = np.zeros(int(label.max()) + 1, np.int64)
    source[label[good_HW]] = np.flatnonzero(good_HW)
    return np.asarray(image_HWC.reshape(-1, image_HWC.shape[-1])[source[label]])


def _relaxed(sheet: Array, hole_HW: Array, rounds: int) -> Array:
    for _ in range(rounds):
        sheet = np.where(hole_HW[..., None], cv2.blur(sheet, (3, 3), borderType=cv2.BORDER_REPLICATE), sheet)
    return sheet


def _membrane(values_HWC: Array, hole_HW: Array) -> Array:
    """Values (float32) in a hole as a smooth sheet held at its rim: Laplace's equation, solved coarse to fine."""
    h, w = hole_HW.shape
    if min(h, w) < 8 or not hole_HW.any():
        return _relaxed(fill_from(values_HWC, ~hole_HW), hole_HW, 60)
    half = ((w + 1) // 2, (h + 1) // 2)
    known = (~hole_HW).astype(np.float32)
    weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
    means = cv2.resize(values_HWC * known[..., None], half, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-6)[..., None]
    coarse = _membrane(means.astype(np.float32), weight < 1e-3)
    start = np.where(hole_HW[..., None], cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR), values_HWC)
    return _relaxed(start.astype(np.float32), hole_HW, 8)


def _joined(image_HWC: Array, fill_HWC: Array, hole_HW: Array) -> Array:
    """The fill in the hole, with a soft rim. uint8."""
    share = np.maximum(cv2.GaussianBlur(hole_HW.astype(np.float32), (0, 0), 1.5), hole_HW)[..., None]
    return np.asarray(np.clip(np.round(image_HWC * (1 - share) + fill_HWC * share), 0, 255), np.uint8)


def soft_fill(image_HWC: Array, hole_HW: Array) -> Array:
    """Fill a hole smoothly from its rim. RGB, uint8 in and out."""
    if not hole_HW.any() or hole_HW.all():
        return image_HWC
    return _joined(image_HWC, _membrane(image_HWC.astype(np.float32), hole_HW), hole_HW)


def _texture(image_HWC: Array, hole_HW: Array) -> tuple[float, float]:
    """Grain (median local contrast) and structure (contrast at 2 to 6 px, 80th percentile) around a hole, in grey levels."""
    near, touching = (cv2.dilate(hole_HW.astype(np.uint8), np.ones((k, k))) > 0 for k in (25, 9))
    ring = near & ~touching
    if not ring.any():
        return 0.0, 0.0
    exact = _membrane(image_HWC.astype(np.float32), hole_HW)  # or what is in the hole would count
    blurred = {sigma: cv2.GaussianBlur(exact, (0, 0), sigma) for sigma in (1.5, 2, 6)}
    grain = np.abs(exact - blurred[2]).mean(2)[ring]
    return float(np.median(grain)), float(np.percentile(np.abs(blurred[1.5] - blurred[6]).mean(2)[ring], 80))


def inpaint(image_HWC: Array, hole_HW: Array) -> Array:
    """Fill a hole with what its surroundings suggest: smoothly plus grain on plain backdrops, by examples elsewhere.

    image_HWC: RGB, uint8. hole_HW: bool. Deterministic. A hole over 90 % of the picture is filled smoothly.
    """
    if not hole_HW.any() or hole_HW.all():
        return image_HWC
    grain, structure = _texture(image_HWC, hole_HW)
    if structure < _PLAIN_STRUCTURE or hole_HW.mean() > 0.9:
        noise = np.random.default_rng(0).normal(0, 1.5 * grain, hole_HW.shape)[..., None] * hole_HW[..., None]
        return np.clip(np.round(soft_fill(image_HWC, hole_HW) + noise), 0, 255).astype(np.uint8)
    return _exemplar_fill(image_HWC, hole_HW)


class _Matcher:
    """PatchMatch (Barnes and others, 2009) at one scale: for every patch that touches the hole a similar whole one.

    The price of a match grows with distance, sideways less than up and down, so that floors stay floors.
    """

    def __init__(self, image: Array, hole: Array, rng: np.random.Generator) -> None:
        self.image, self.hole, self.rng = image, hole, rng
        self.h, self.w = hole.shape
        self.side = max(self.h, self.w)
        touched = cv2.dilate(hole.astype(np.uint8), np.ones((2 * _PATCH + 1,) * 2)) > 0
        self.whole = ~touched
        self.whole[:_PATCH] = self.whole[-_PATCH:] = False
        self.whole[:, :_PATCH] = self.whole[:, -_PATCH:] = False
        self.targets = np.stack(np.nonzero(touched), 1)
        self.number = np.full((self.h, self.w), -1)
        self.number[tuple(self.targets.T)] = np.arange(len(self.targets))
        dy, dx = (k.ravel() for k in np.mgrid[-_PATCH : _PATCH + 1, -_PATCH : _PATCH + 1])
        self.dy, self.dx = dy, dx
        rows, cols = np.clip(self.targets[:, :1] + dy, 0, self.h - 1), np.clip(self.targets[:, 1:] + dx, 0, self.w - 1)
        self.target_pixels = rows * self.w + cols

    @property
    def possible(self) -> bool:
        return bool(self.whole.any()) and len(self.targets) > 0

    def start(self, offsets_hw2: Array | None) -> None:
        """Begin with the nearest whole patch, or with a coarser scale's offsets where those land on whole patches."""
        near = fill_from(np.moveaxis(np.indices((self.h, self.w)), 0, -1), self.whole)[tuple(self.targets.T)]
        guess = near + np.round(self.rng.normal(0, self.side * 0.06, near.shape)).astype(int)
        if offsets_hw2 is not None:
            ch, cw = offsets_hw2.shape[:2]
            parent = np.minimum(self.targets * [ch, cw] // [self.h, self.w], [ch - 1, cw - 1])
            guess = self.targets + np.round(offsets_hw2[tuple(parent.T)] * (self.h / ch)).astype(int)
        guess = np.clip(guess, 0, [self.h - 1, self.w - 1])
        self.match = np.where(self.whole[tuple(guess.T)][:, None], guess, near)

    def _cost(self, match: Array, of: Array) -> Array:
        centre = match[:, 0] * self.w + match[:, 1]
        patch = self.flat[centre[:, None] + (self.dy * self.w + self.dx)] - self.wanted[of]
        shift = ((match - self.targets[of]) / self.side) ** 2
        price = (patch * patch).mean((1, 2)) * (1 + 2 * shift.sum(1)) + 900 * (shift @ np.array([2.0, 1.0]))
        return np.asarray(price, np.float32)

    def _try(self, match: Array) -> None:
        match = np.clip(match, 0, [self.h - 1, self.w - 1])
        of = np.flatnonzero(self.whole[tuple(match.T)] & (match != self.match).any(1))
        if len(of):
            price = self._cost(match[of], of)
            better = price < self.price[of]
            self.match[of[better]], self.price[of[better]] = match[of[better]], price[better]

    def search(self) -> None:
        """One round of propagation and random search against the current image."""
        self.flat = self.image.reshape(-1, 3)
        self.wanted = self.flat[self.target_pixels]
        self.price = self._cost(self.match, np.arange(len(self.targets)))
        for jump in (8, 2, 1):
            for step in ((jump, 0), (-jump, 0), (0, jump), (0, -jump)):
                at = np.clip(self.targets + step, 0, [self.h - 1, self.w - 1])
                neighbour = self.number[tuple(at.T)]
                self._try(np.where((neighbour >= 0)[:, None], self.match[neighbour] - step, self.match))
            reach = max(2.0, self.side * 0.12 * jump / 8)
            self._try(self.match + np.round(self.rng.normal(0, reach, self.match.shape)).astype(int))

    def vote(self) -> None:
        """Every hole pixel becomes the weighted mean of what the patches over it propose."""
        depth = cv2.distanceTransform(self.hole.astype(np.uint8), cv2.DIST_L2, 5)[tuple(self.targets.T)]
        trust = np.exp(-self.price / (2 * np.percentile(self.price, 60) + 1e-3)) * 1.25**-depth + 1e-6
        total, weight = np.zeros((self.h * self.w, 3)), np.zeros(self.h * self.w)
        for dy, dx in zip(self.dy, self.dx, strict=True):
            at = self.targets + np.array([dy, dx])
            inside = ((at >= 0) & (at < (self.h, self.w))).all(1)
            to = at[inside] @ (self.w, 1)  # one target each, so plain indexing adds up
            source = (self.match[inside] + np.array([dy, dx])) @ (self.w, 1)
            total[to] += self.flat[source] * trust[inside, None]
            weight[to] += trust[inside]
        mean = (total / np.maximum(weight, 1e-9)[:, None]).reshape(self.h, self.w, 3)
        voted = self.hole & (weight.reshape(self.h, self.w) > 0)
        self.image = np.where(voted[..., None], mean, self.image).astype(np.float32)
        self.missed = np.where((weight > 0).reshape(self.h, self.w, 1), self.image - mean, 0)

    def seamless(self) -> Array:
        """The image with the fill's colours bent to meet the rim's (Pérez, Gangnet, Blake, 2003, with a membrane).

        Patches reach over the rim, so what they propose there can be compared with what is there.
        """
        return np.asarray(self.image + _membrane(self.missed.astype(np.float32), self.hole) * self.hole[..., None], np.float32)

    def offsets(self) -> Array:
        """From each target to its match (h, w, 2), rows and columns."""
        out = np.zeros((self.h, self.w, 2))
        out[tuple(self.targets.T)] = self.match - self.targets
        return out


def _exemplar_fill(image_HWC: Array, hole_HW: Array) -> Array:
    rng = np.random.default_rng(0)
    h, w = hole_HW.shape
    coarse: Array | None = None
    offsets: Array | None = None
    for side in [s for s in _FILL_SIDES if s < max(h, w)] or [max(h, w)]:
        small = tuple(max(16, round(v * side / max(h, w))) for v in (w, h))
        hole = cv2.resize(hole_HW.astype(np.float32), small, interpolation=cv2.INTER_AREA) > 0.02
        image = cv2.resize(image_HWC, small, interpolation=cv2.INTER_AREA)
        guess = soft_fill(image, hole) if coarse is None else cv2.resize(coarse, small)
        matcher = _Matcher(np.where(hole[..., None], guess, image).astype(np.float32), hole, rng)
        if not matcher.possible:
            return soft_fill(image_HWC, hole_HW)
        matcher.start(offsets)
        for _ in range(5 if side < 60 else 3 if side < 120 else 2):
            matcher.search()
            matcher.vote()
        coarse, offsets = matcher.seamless(), matcher.offsets()
    assert coarse is not None
    assert offsets is not None
    return _with_detail(image_HWC, hole_HW, coarse, offsets)


def _with_detail(image_HWC: Array, hole_HW: Array, coarse: Array, offsets: Array) -> Array:
    """The coarse fill at full size, with the fine texture of the matched places on top."""
    h, w = hole_HW.shape
    factor = h / coarse.shape[0]
    base = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    shift = cv2.resize(offsets, (w, h), interpolation=cv2.INTER_NEAREST).astype(np.float32) * factor
    y, x = np.indices((h, w), dtype=np.float32)
    held = _membrane(image_HWC.astype(np.float32), hole_HW)  # or what is in the hole would glow around it
    detail = held - cv2.GaussianBlur(held, (0, 0), 0.7 * factor)
    fine = cv2.remap(detail, x + shift[..., 1], y + shift[..., 0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _joined(image_HWC, base + fine, hole_HW)


# ----------------------------------------------------------------------------------------------------------------- camera


def _features(grey: Array, free_HW: Array, most: int) -> Array | None:
    found = cv2.goodFeaturesToTrack(grey, most, 0.01, 8, mask=free_HW.astype(np.uint8))
    return found if found is not None and len(found) > 12 else None


def _step(before: Array, after: Array, points: Array) -> Array | None:
    """The similarity (2, 3) that takes features of `after` back to `before`; None when no half of them agrees on one."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, points.copy(), winSize=(31, 31))
    use = found.ravel() > 0
    if use.sum() < 12:
        return None
    step, inliers = cv2.estimateAffinePartial2D(moved[use], points[use], ransacReprojThreshold=1.0)
    return step if step is not None and inliers.mean() > 0.5 else None


def _drift_px(greys: list[Array], person_THW: Array) -> float:
    """Largest median motion of background features between the first and some later frames."""
    n = len(greys)
    ever = cv2.dilate(np.asarray(person_THW.any(0), np.uint8), np.ones((31, 31))) > 0
    points = _features(greys[0], ~ever, 400)
    drift = 0.0
    for i in sorted({n // 4, n // 2, 3 * n // 4, n - 1}):
        step = None if points is None else _step(greys[0], greys[i], points)
        if step is not None and points is not None:
            p = points[:, 0]
            drift = max(drift, float(np.median(np.linalg.norm(p @ step[:, :2].T + step[:, 2] - p, axis=1))))
    return drift


def camera_path(frames_THWC: Array, person_THW: Array) -> tuple[Array, float]:
    """(T, 3, 3) maps of every frame's pixels to the first frame's, and the largest shift of a corner in pixels.

    Identity and 0 where the camera stands. person_THW: bool, pixels not to look at.
    """
    still = np.tile(np.eye(3), (len(frames_THWC), 1, 1))
    greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames_THWC]
    if _drift_px(greys, person_THW) < _STILL_PX:
        return still, 0.0
    path = [np.eye(3)]
    for i in range(1, len(greys)):
        points = _features(greys[i - 1], ~person_THW[i - 1], 300)
        step = None if points is None else _step(greys[i - 1], greys[i], points)
        path.append(path[-1] @ (np.vstack([step, [0, 0, 1]]) if step is not None else np.eye(3)))
    h, w = frames_THWC.shape[1:3]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]).T
    shift = float(max(np.abs((m @ corners - corners)[:2]).max() for m in path))
    return (np.stack(path), shift) if shift > 2 else (still, 0.0)


# ------------------------------------------------------------------------------------------------------------------ plate


def _masked_median(stack_NHWC: Array, bad_NHW: Array) -> Array:
    """Median over the frames in which a pixel is free (H, W, C, uint8); 0 where it never is. In strips, to bound memory."""
    out = np.zeros(stack_NHWC.shape[1:], np.uint8)
    some = bad_NHW.any(0)
    out[~some] = np.median(stack_NHWC[:, ~some], 0).astype(np.uint8)
    ys, xs = np.nonzero(some & ~bad_NHW.all(0))
    for k in range(0, len(ys), 20000):
        y, x = ys[k : k + 20000], xs[k : k + 20000]
        values = stack_NHWC[:, y, x].astype(np.float32)
        values[bad_NHW[:, y, x]] = np.nan
        out[y, x] = np.nanmedian(values, 0).astype(np.uint8)
    return out


def clean_plate(frames_THWC: Array, masks_THW: Array, keep: int = 40, fill: Callable[[Array, Array], Array] = inpaint) -> Plate:
    """Take people out of a clip.

    frames_THWC: RGB, uint8. masks_THW: soft silhouettes of everybody to be removed, 0 to 255. keep: at most so many frames enter the
    median. Outside the (grown) silhouettes every frame keeps its own pixels, so whoever is not removed goes on moving.
    """
    n, h, w = masks_THW.shape
    grow = np.ones((2 * max(3, h // 45) + 1,) * 2)
    person = np.stack([cv2.dilate((m > MASK_ON).astype(np.uint8), grow) for m in masks_THW]) > 0
    path, camera = camera_path(frames_THWC, person)
    chosen = np.unique(np.linspace(0, n - 1, keep).astype(int))
    if camera:
        stack = np.stack([cv2.warpAffine(frames_THWC[i], path[i][:2], (w, h), borderMode=cv2.BORDER_REPLICATE) for i in chosen])
        bad = np.stack([cv2.warpAffine(person[i].astype(np.uint8), path[i][:2], (w, h), borderValue=1.0) for i in chosen]) > 0
    else:
        stack, bad = frames_THWC[chosen], person[chosen]
    never = np.asarray(bad.all(0))
    median = fill(_masked_median(stack, bad), never)
    frames, invented = np.empty_like(frames_THWC), np.zeros((n, h, w), bool)
    for i in range(n):
        scene, unseen = median, never
        if camera:
            back = {"M": path[i][:2], "dsize": (w, h)}
            scene = cv2.warpAffine(median, **back, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
            unseen = (
                cv2.warpAffine(np.asarray(never, np.uint8), **back, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderValue=1.0) > 0
            )
        share = cv2.GaussianBlur(person[i].astype(np.float32), (0, 0), 1.5)[..., None]
        frames[i] = np.round(scene * share + frames_THWC[i] * (1 - share)).astype(np.uint8)
        invented[i] = unseen & person[i]
    return Plate(frames, invented, camera, person)
