"""Holes in pictures: filled from the nearest pixel, smoothly, or by examples from elsewhere in the picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PLAIN_STRUCTURE = 2.0
"""structure (grey levels, see _texture) under which a backdrop is filled smoothly instead of by examples"""
_PATCH = 3
"""patch radius of the exemplar fill, px"""
_FILL_SIDE = 96
"""longest side on which it looks for examples, px; they are copied at full size"""
_FAR_PRICE = 900.0
"""of an example one picture side away, squared grey levels: double up and down, so that floors stay floors"""
_SOLVER_ROUNDS = 300
_BENT_MOST = 20.0
"""grey levels by which a copied colour may be bent: pieces that fit worse would glow"""
_AROUND = 0.8
"""examples come from so far around a hole, in hole sizes"""


def fill_from(image_HWC: Array, good_HW: Array) -> Array:
    """Every pixel takes the value of the nearest good pixel; an image without any comes back unchanged."""
    if not good_HW.any():
        return image_HWC
    _, label = cv2.distanceTransformWithLabels((~good_HW).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    source = np.zeros(int(label.max()) + 1, np.int64)
    source[label[good_HW]] = np.flatnonzero(good_HW)
    return np.asarray(image_HWC.reshape(-1, image_HWC.shape[-1])[source[label]])


def _relaxed(sheet: Array, hole_HW: Array, rounds: int) -> Array:
    """The sheet, its hole smoothed so many times."""
    out, hole = sheet.copy(), hole_HW.astype(np.uint8)
    for _ in range(rounds):
        cv2.copyTo(cv2.blur(out, (3, 3), borderType=cv2.BORDER_REPLICATE), hole, out)
    return out


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


def _window(hole_HW: Array) -> tuple[slice, slice]:
    """The part of the picture that matters to a hole: examples from farther away would not fit in anyway."""
    ys, xs = np.nonzero(hole_HW)
    reach = int(max(32, _AROUND * max(np.ptp(ys), np.ptp(xs))))
    return slice(max(0, ys.min() - reach), ys.max() + 1 + reach), slice(max(0, xs.min() - reach), xs.max() + 1 + reach)


def inpaint(image_HWC: Array, hole_HW: Array, avoid_HW: Array | None = None) -> Array:
    """Fill a hole with what its surroundings suggest: smoothly plus grain on plain backdrops, by examples elsewhere.

    image_HWC: RGB, uint8. hole_HW: bool. avoid_HW: bool, pixels not to copy (other people). Deterministic. A hole over 90 % of its
    surroundings is filled smoothly.
    """
    if not hole_HW.any() or hole_HW.all():
        return image_HWC
    at = _window(hole_HW)
    image, hole = image_HWC[at], hole_HW[at]
    avoid = np.zeros_like(hole) if avoid_HW is None else avoid_HW[at] & ~hole
    grain, structure = _texture(image, hole)
    if structure < _PLAIN_STRUCTURE or hole.mean() > 0.9:
        noise = np.random.default_rng(0).normal(0, 1.5 * grain, hole.shape)[..., None] * hole[..., None]
        filled = np.clip(np.round(soft_fill(image, hole) + noise), 0, 255).astype(np.uint8)
    else:
        filled = _exemplar_fill(image, hole, avoid)
    out = image_HWC.copy()
    out[at] = filled
    return out


class _Quilt:
    """Exemplar filling (Criminisi, Pérez, Toyama, 2004): patch after patch is copied into the hole, lines first.

    All sums are of whole numbers below 2²⁴, so that float32 is exact and no order of summation can change a choice.
    """

    def __init__(self, image_HWC: Array, hole_HW: Array, avoid_HW: Array) -> None:
        edge = ((_PATCH, _PATCH), (_PATCH, _PATCH))
        self.image = np.pad(image_HWC, (*edge, (0, 0)), mode="edge").astype(np.float32)
        self.known = np.pad(~hole_HW, edge)
        self.hole = np.pad(hole_HW, edge)
        self.sure = self.known.astype(np.float32)
        self.shift = np.zeros((*self.hole.shape, 2), np.int64)
        around = np.ones((2 * _PATCH + 1,) * 2, np.uint8)
        whole = cv2.erode((self.known & ~np.pad(avoid_HW, edge)).astype(np.uint8), around, borderValue=0) > 0
        self.sources = np.stack(np.nonzero(whole), 1)
        steps = np.arange(-_PATCH, _PATCH + 1)
        self.window = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
        rows, cols = np.moveaxis(self.sources[:, None] + self.window, -1, 0)
        self.patches = self.image[rows, cols].reshape(len(self.sources), -1)
        self.squares = self.patches**2

    def fill(self) -> bool:
        """Fill the whole hole; False when there is nothing to copy from."""
        if not len(self.sources):
            return False
        while self.hole.any():
            self._copy_to(*self._next())
        return True

    def _next(self) -> tuple[int, int]:
        """The place at the hole's rim that knows most and where an edge runs in."""
        rim = self.hole & (cv2.dilate(self.known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        rim = rim if rim.any() else self.hole
        grey = cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY)
        inside = cv2.erode(self.known.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        gx, gy = (np.where(inside, cv2.Sobel(grey, cv2.CV_32F, dx, dy), 0) for dx, dy in ((1, 0), (0, 1)))
        strength = cv2.dilate(np.hypot(gx, gy), np.ones((5, 5), np.uint8))
        knows = cv2.boxFilter(self.sure * self.known, -1, (2 * _PATCH + 1,) * 2)
        score = np.where(rim, knows**2 * (strength + 20), -1.0)
        y, x = np.unravel_index(int(np.argmax(score)), score.shape)
        self.sure_here = float(knows[y, x])
        return int(y), int(x)

    def _copy_to(self, y: int, x: int) -> None:
        rows, cols = self.window[:, 0] + y, self.window[:, 1] + x
        known = self.known[rows, cols]
        weight = np.repeat(known, 3).astype(np.float32)
        wanted = self.image[rows, cols].ravel() * weight
        cost = np.einsum("ij,j->i", self.squares, weight) - 2 * np.einsum("ij,j->i", self.patches, wanted)  # no threads, unlike @
        away = (self.sources - [y, x]) / max(self.hole.shape)
        best = int(np.argmin(cost + _FAR_PRICE * 3 * known.sum() * (2 * away[:, 0] ** 2 + away[:, 1] ** 2)))
        new = self.hole[rows, cols]
        rows, cols = rows[new], cols[new]
        step = self.sources[best] - [y, x]
        self.image[rows, cols] = self.image[rows + step[0], cols + step[1]]
        self.shift[rows, cols] = step
        self.sure[rows, cols] = self.sure_here
        self.known[rows, cols], self.hole[rows, cols] = True, False

    def offsets(self) -> Array:
        """(H, W, 2) rows and columns from a filled pixel to the one it was copied from."""
        return self.shift[_PATCH:-_PATCH, _PATCH:-_PATCH]

    def correction(self) -> Array:
        """What to add to the copied colours (H, W, 3) so that pieces meet without a step (Pérez, Gangnet, Blake, 2003)."""
        filled = (self.shift != 0).any(2)
        rows, cols = np.nonzero(filled)
        step = self.shift[rows, cols]
        h, w = filled.shape
        rise = np.zeros_like(self.image)
        for away in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            beside = np.clip(np.stack([rows, cols], 1) + step + away, 0, [h - 1, w - 1])
            rise[rows, cols] += self.image[rows + step[:, 0], cols + step[:, 1]] - self.image[tuple(beside.T)]
        cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
        bent, where = self.image.copy(), filled.astype(np.uint8)
        for _ in range(_SOLVER_ROUNDS):
            cv2.copyTo((cv2.filter2D(bent, -1, cross, borderType=cv2.BORDER_REPLICATE) + rise) / 4, where, bent)
        return np.asarray(np.clip(bent - self.image, -_BENT_MOST, _BENT_MOST)[_PATCH:-_PATCH, _PATCH:-_PATCH])


def _exemplar_fill(image_HWC: Array, hole_HW: Array, avoid_HW: Array) -> Array:
    h, w = hole_HW.shape
    shrink = min(1.0, _FILL_SIDE / max(h, w))
    small = tuple(max(16, round(v * shrink)) for v in (w, h))
    hole, avoid = (cv2.resize(m.astype(np.float32), small, interpolation=cv2.INTER_AREA) > 0.02 for m in (hole_HW, avoid_HW))
    quilt = _Quilt(cv2.resize(image_HWC, small, interpolation=cv2.INTER_AREA), hole, avoid)
    if not quilt.fill():
        return soft_fill(image_HWC, hole_HW)
    return _with_detail(image_HWC, hole_HW, quilt.offsets(), quilt.correction())


def _with_detail(image_HWC: Array, hole_HW: Array, shift_hw2: Array, correction_hwC: Array) -> Array:
    """The hole copied at full size from where the small fill was copied, its colours corrected, seams between pieces softened."""
    (h, w), (small_h, small_w) = hole_HW.shape, shift_hw2.shape[:2]
    shift = cv2.resize(shift_hw2.astype(np.float32), (w, h), interpolation=cv2.INTER_NEAREST)
    y, x = np.indices((h, w), dtype=np.float32)
    held = _membrane(image_HWC.astype(np.float32), hole_HW)  # where the enlarged places overlap the hole
    from_x, from_y = x + shift[..., 1] * np.float32(w / small_w), y + shift[..., 0] * np.float32(h / small_h)
    copied = cv2.remap(held, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    corrected = copied + cv2.resize(correction_hwC, (w, h), interpolation=cv2.INTER_LINEAR)
    copied = np.where(hole_HW[..., None], corrected, held)
    seam = np.zeros((h, w), np.float32)
    for axis in (0, 1):
        seam = np.maximum(seam, (np.abs(shift - np.roll(shift, 1, axis)).sum(2) > 0) & hole_HW)
    share = np.clip(2 * cv2.GaussianBlur(seam, (0, 0), 1.5), 0, 1)[..., None]
    return _joined(image_HWC, copied * (1 - share) + cv2.GaussianBlur(copied, (0, 0), 1.5) * share, hole_HW)
