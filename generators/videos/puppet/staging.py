"""Puts drawn characters into a scene: who stands before whom, where shadows lie, and what of the clip shows in front."""

from __future__ import annotations

import cv2
import numpy as np

from generators.poses.tracks import INDEX, People
from generators.videos.puppet.cutout import point
from generators.videos.puppet.numerics import Array, ramp, running_median, unit
from generators.videos.puppet.retarget import Pose
from generators.videos.puppet.skeleton import ANKLES, BONES, HEAD, HIPS, JOINT, LIMBS, NECK, PELVIS, TOES, joints_of

_FEET = [INDEX[f"{side}_{part}"] for side in ("left", "right") for part in ("ankle", "heel", "foot_index")]
_KNEES = (JOINT["left_knee"], JOINT["right_knee"])
_ALONG = np.linspace(0.1, 0.9, 5)
_EVIDENCE_LEAST = 3.0
"""places on bones, in the mean of a window, whose owner must be somebody else to say who is in front"""
_LEAVES_S = 0.25
"""before the first and after the last sighting of somebody at the picture's edge, so long the silhouette there is still removed"""
_CROWN = 0.27
"""radius of a head with a cap on, in torso lengths"""
_TIP = 0.16
"""thickness of shoes and hands, in torso lengths"""
_SHADOW = 0.42


def driven_masks(people: People) -> Array:
    """Union of the driven people's silhouettes (T, H, W, uint8).

    A frame in which one was lost borrows both neighbours' silhouettes, and so do some frames after one who walks out of the picture.
    """
    union = np.zeros(people.masks_PTHW.shape[1:], np.uint8)
    frames, tail = people.frames, max(1, round(_LEAVES_S * people.fps))
    joints_PT19x2 = joints_of(people.landmarks_PT33x3[..., :2].astype(float))
    for masks, present, joints in zip(people.masks_PTHW, people.present_PT, joints_PT19x2, strict=True):
        there = np.flatnonzero(present & masks.any((1, 2)))
        if not len(there):
            continue
        first, last = int(there[0]), int(there[-1])
        start = max(0, first - tail) if _at_edge(masks[first]) else first
        stop = min(frames - 1, last + tail) if _at_edge(masks[last]) else last
        for t in range(start, stop + 1):
            before, after = int(there[there <= t].max(initial=first)), int(there[there >= t].min(initial=last))
            union[t] = np.maximum(union[t], np.maximum(masks[before], masks[after]))
            if present[t]:
                _cover_head(union[t], joints[t])
                _cover_tips(union[t], joints[t])
                _cover_below(union[t], joints[t])
    return union


def _cover_head(mask_HW: Array, joints_19x2: Array) -> None:
    """Add what models of bare heads leave out of silhouettes: caps, hair."""
    head, neck, torso = joints_19x2[HEAD], joints_19x2[NECK], float(np.linalg.norm(joints_19x2[NECK] - joints_19x2[PELVIS]))
    crown = head + 0.12 * torso * unit(head - neck)
    if np.abs(crown).max() < 1e5:
        cv2.circle(mask_HW, (round(crown[0]), round(crown[1])), round(_CROWN * torso), 255, -1)


def _cover_tips(mask_HW: Array, joints_19x2: Array) -> None:
    """Add shoes and hands: where they rest all the time no comparison with the scene finds what a silhouette lacks."""
    torso = float(np.linalg.norm(joints_19x2[NECK] - joints_19x2[PELVIS]))
    for limb in LIMBS.values():
        end, tip = joints_19x2[limb.joints[2]], joints_19x2[limb.joints[3]]
        far = tip + 0.3 * (tip - end)
        if max(np.abs(end).max(), np.abs(far).max()) < 1e4:
            cv2.line(mask_HW, point(end), point(far), 255, max(1, round(_TIP * torso)))


def _cover_below(mask_HW: Array, joints_19x2: Array) -> None:
    """Let the silhouette of somebody whom the picture cuts off above the knees reach its lower edge: models are unsure there."""
    h = len(mask_HW)
    hips, knees = joints_19x2[list(HIPS), 1], joints_19x2[list(_KNEES), 1]
    if knees.min() > h and hips.max() < h:
        low = max(1, int(hips.min()))
        mask_HW[low:] = np.maximum(mask_HW[low:], mask_HW[max(0, low - h // 20) : low].max(0))


def _at_edge(mask_HW: Array) -> bool:
    rim = np.concatenate([mask_HW[0], mask_HW[-1], mask_HW[:, 0], mask_HW[:, -1]])
    return bool((rim > 127).sum() > 3)


def _hidden_by(joints_T19x2: Array, own_THW: Array, other_THW: Array) -> Array:
    """How many places on a body's bones show another one's silhouette and not its own (T,)."""
    frames, h, w = own_THW.shape
    ends = np.array([[bone.start, bone.end] for bone in BONES.values()])
    a, b = joints_T19x2[:, ends[:, 0]], joints_T19x2[:, ends[:, 1]]
    places = (a[:, :, None] + (b - a)[:, :, None] * _ALONG[:, None]).reshape(frames, -1, 2)
    at = np.round(np.nan_to_num(places, nan=-1.0)).astype(int)
    inside = ((at >= 0) & (at < [w, h])).all(2)
    x, y = np.clip(at[..., 0], 0, w - 1), np.clip(at[..., 1], 0, h - 1)
    t = np.arange(frames)[:, None]
    return np.asarray(((other_THW[t, y, x] > 127) & (own_THW[t, y, x] < 64) & inside).sum(1), float)


def depth_order(people: People, others: People | None = None) -> Array:
    """Tracks from far to near (T, P) for every frame; those of `others` are numbered on from those of `people`.

    Where silhouettes overlap, the one whose bones lie under the other's silhouette is behind; elsewhere whoever stands lower in the
    picture is nearer. Both are smoothed over half a second, so that a step does not change the order.
    """
    crowd = [(p, i) for p in (people, others) if p is not None for i in range(p.count)]
    count, frames = len(crowd), people.frames
    half = max(1, round(0.25 * people.fps))
    landmarks = [p.landmarks_PT33x3[i, ..., :2].astype(float) for p, i in crowd]
    feet = np.stack([running_median(xy[:, _FEET, 1].max(1), half) for xy in landmarks])
    joints, masks = [joints_of(xy) for xy in landmarks], [p.masks_PTHW[i] for p, i in crowd]
    present = [p.present_PT[i] for p, i in crowd]
    nearer = np.zeros((count, count, frames), bool)
    for p in range(count):
        for q in range(p):
            before = _hidden_by(joints[p], masks[p], masks[q]) - _hidden_by(joints[q], masks[q], masks[p])  # above 0: q is in front of p
            before = np.where(present[p] & present[q], before, 0.0)
            before = np.convolve(np.pad(before, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), "valid")
            q_first = np.where(np.abs(before) >= _EVIDENCE_LEAST, before > 0, feet[q] > feet[p])
            nearer[q, p], nearer[p, q] = q_first, ~q_first
    wins = nearer.sum(1)
    return np.stack([np.lexsort((feet[:, t], wins[:, t])) for t in range(frames)])


def shade(scene_HWC: Array, pose: Pose, t: int, keep_HW: Array | None) -> None:
    """Darken a scene (uint8, in place) under the feet of a character: soft, always straight below, fainter the less a foot stands.

    keep_HW: soft silhouettes (0 to 255) of people on whom no shadow falls.
    """
    scale = float(pose.scale_T[t])
    wide, tall = max(1.5, 0.24 * scale), max(1.0, 0.075 * scale)
    feet = pose.joints_T19x2[t, list(ANKLES)] * 0.6 + pose.joints_T19x2[t, list(TOES)] * 0.4
    h, w = scene_HWC.shape[:2]
    reach = np.array([2 * wide, 3 * tall])
    low, high = feet.min(0) - reach, feet.max(0) + reach
    (x0, y0), (x1, y1) = np.clip(np.floor(low), 0, [w, h]).astype(int), np.clip(np.ceil(high), 0, [w, h]).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    x, y = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)[:, None]
    dark = np.zeros((y1 - y0, x1 - x0), np.float32)
    for (foot_x, foot_y), stands in zip(feet, pose.standing_T2[t], strict=True):
        off = ((x - foot_x) / wide) ** 2 + ((y - foot_y - 0.04 * scale) / tall) ** 2
        dark = np.maximum(dark, _SHADOW * float(stands) * np.exp(-1.2 * off).astype(np.float32))
    if keep_HW is not None:
        dark *= 1 - keep_HW[y0:y1, x0:x1].astype(np.float32) / 255
    part = scene_HWC[y0:y1, x0:x1]
    part[...] = cv2.multiply(part, cv2.merge([1 - dark] * 3), dtype=cv2.CV_8U)  # rounds


def erase(canvas_HWx4: Array, mask_HW: Array) -> None:
    """Take the characters drawn so far (premultiplied, float32, in place) away where somebody of the scene stands before them."""
    x, y, w, h = cv2.boundingRect((mask_HW > 95).astype(np.uint8))
    if w:
        at = (slice(y, y + h), slice(x, x + w))
        canvas_HWx4[at] *= 1 - ramp(mask_HW[at], 95, 160).astype(np.float32)[..., None]


def compose(scene_HWC: Array, canvas_HWx4: Array, light_3: Array, noise_HW: Array | None) -> None:
    """Put the canvas over the scene (uint8, in place), in the frame's light and with the clip's noise (int16 levels)."""
    x, y, w, h = cv2.boundingRect((cv2.extractChannel(canvas_HWx4, 3) > 0.5).astype(np.uint8))
    if not w:
        return
    at = (slice(y, y + h), slice(x, x + w))
    *colours, cover = cv2.split(canvas_HWx4[at])
    colours = [c if light == 1 else c * np.float32(light) for c, light in zip(colours, light_3, strict=True)]
    cover *= np.float32(1 / 255)
    if noise_HW is not None:
        noise = noise_HW[at] * cover
        colours = [c + noise for c in colours]
    under = cv2.multiply(scene_HWC[at], cv2.merge([1 - cover] * 3), dtype=cv2.CV_32F)
    scene_HWC[at] = cv2.add(under, cv2.merge(colours), dtype=cv2.CV_8U)  # rounds and saturates
