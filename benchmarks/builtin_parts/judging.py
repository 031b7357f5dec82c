"""Figures of one output. The body model drives, so beside it three networks judge that have no part in the driving: palms with hands,
faces, and silhouettes. Every agreement figure stands beside its null: the same output against the motion played backwards.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from agents.measures.agreement import Body, backwards, body_of, expected, jitter, pck, pck_of_frames
from agents.measures.motion import limb_errors_deg
from builtin_parts.making import Made
from generators.masks.identity import match_people
from generators.masks.slots import crisp
from generators.poses.networks import FaceDetector, HandNet, PalmNet, SelfieNet, palm_region
from generators.poses.tracks import Bytes, People

Doubles = npt.NDArray[np.float64]

EVERY = 4
"""frames between those that the hand, face and selfie networks look at"""
NEAR_WRIST = 0.25
"""torso lengths between a found hand's wrist and where it is expected"""
NEAR_FACE = 0.15
SLACK_PX = 3
"""a mask may pass the drawn edge by this much before it leaks"""
HAND_PRESENCE = 0.5
TELLABLE = 15.0
"""CIELAB units between two people's torsos from which colour tells them apart, frame by frame"""


@dataclass
class Judges:
    """The independent networks."""

    palms: PalmNet
    hands: HandNet
    faces: FaceDetector
    selfie: SelfieNet

    @staticmethod
    def load() -> Judges:
        """All four, ready."""
        made = Judges(PalmNet(), HandNet(), FaceDetector(), SelfieNet())
        for network in (made.palms, made.hands, made.faces, made.selfie):
            network.setup()
        return made


def figures_of(made: Made, judges: Judges) -> dict[str, float | int | str | list[str]]:
    """All figures of one output. Of several people each figure is the worst one's; NaN where there was nothing to judge."""
    matched = match_people(made.driven, made.people)
    each = [_of_person(made, i, track, judges) for i, track in enumerate(matched) if track >= 0]
    sure = made.confident
    out: dict[str, float | int | str | list[str]] = {
        "frames": len(made.target_THWC), "confidence": made.report.confidence, "confident_frames": int(sure.sum()),
        "reasons": list(made.report.reasons), "fps": made.fps, **{f"{k}_s": v for k, v in made.seconds.items()},
        "found": 0.0 if min(matched) < 0 else min(_found(made, i, t) for i, t in enumerate(matched)),
        "others_found": made.people.count - sum(t >= 0 for t in matched),
        **_leakage(made, [t for t in matched if t >= 0]),
    }  # fmt: skip
    smaller_is_worse = {"pck", "pck_mean", "wrist", "wrist_found", "face", "face_found", "silhouette"}
    for name in each[0] if each else ():
        values = [e[name] for e in each if np.isfinite(e[name])]
        out[name] = float("nan") if not values else min(values) if name in smaller_is_worse else max(values)
    return out


def _found(made: Made, person: int, track: int) -> float:
    wanted = made.driven.present_PT[person] & made.confident
    return float(made.people.present_PT[track][wanted].mean()) if wanted.any() else float("nan")


def _of_person(made: Made, person: int, track: int, judges: Judges) -> dict[str, float]:
    real, synthetic = made.driven.only([person]), made.people.only([track])
    sure_T = made.confident & real.present_PT[0] & synthetic.present_PT[0]
    sure = replace(synthetic, present_PT=sure_T[None])
    reversed_real = backwards(real)
    output = body_of(synthetic)
    wanted, null = expected(body_of(real), output), expected(body_of(reversed_real), output)
    limbs, null_limbs = limb_errors_deg(real, sure), limb_errors_deg(reversed_real, sure)
    out = {
        "pck": _median(pck_of_frames(wanted, output, sure_T)), "pck_null": _median(pck_of_frames(null, output, sure_T)),
        "pck_mean": pck(wanted, output, sure_T), "pck_mean_null": pck(null, output, sure_T),
        "limb_deg": _median(limbs), "limb_null_deg": _median(null_limbs),
        "jitter_ratio": jitter(output) / max(1e-9, jitter(body_of(real))),
    }  # fmt: skip
    picked = [int(t) for t in np.flatnonzero(sure_T)[::EVERY]]
    for suffix, place in (("", wanted), ("_null", null)):
        wrists = [_wrist(made.output_THWC[t], place, t, side, output.torso_px, judges) for t in picked for side in ("left", "right")]
        out |= _hits("wrist", suffix, wrists, NEAR_WRIST)
        out |= _hits("face", suffix, [_face(made.output_THWC[t], place, t, output.torso_px, judges) for t in picked], NEAR_FACE)
    last = len(made.alpha_THW) - 1
    drawn = [(judges.selfie, made.output_THWC[t], made.alpha_THW[t], made.alpha_THW[last - t]) for t in picked]
    out["silhouette"], out["silhouette_null"] = (
        (_median(np.array(v)) for v in zip(*(_silhouette(*d) for d in drawn), strict=True)) if drawn else (np.nan, np.nan)
    )
    return out


def _median(values: Doubles) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _hits(name: str, suffix: str, gaps: list[float | None], within: float) -> dict[str, float]:
    """`gaps`: distances in torso lengths, None for a joint that is not to be seen, inf where the network found nothing."""
    asked = np.array([g for g in gaps if g is not None])
    found = asked[np.isfinite(asked)]
    out = {f"{name}{suffix}": float((found <= within).mean()) if len(found) else float("nan")}
    return out if suffix else out | {f"{name}_found": len(found) / len(asked) if len(asked) else float("nan")}


def _wrist(frame_HWC: Bytes, wanted: Body, t: int, side: str, torso_px: float, judges: Judges) -> float | None:
    """How far from the expected wrist the nearest hand's wrist is, in torso lengths; looked for within one torso length around."""
    if not wanted.seen[f"{side}_wrist"][t]:
        return None
    at = wanted.xy[f"{side}_wrist"][t]
    patch, corner, zoom = _window(frame_HWC, at, 2.0 * torso_px, 256)
    gaps = [float("inf")]
    for palm in judges.palms.find(patch, 0.4):
        hand = judges.hands.read(patch, palm_region(palm))
        if hand.presence >= HAND_PRESENCE:
            gaps.append(float(np.linalg.norm(hand.points_21x3[0, :2] / zoom + corner - at)) / torso_px)
    return min(gaps)


def _face(frame_HWC: Bytes, wanted: Body, t: int, torso_px: float, judges: Judges) -> float | None:
    """How far from the expected nose the nearest face's nose tip is, in torso lengths."""
    if not wanted.seen["nose"][t]:
        return None
    at = wanted.xy["nose"][t]
    patch, corner, zoom = _window(frame_HWC, at, 2.0 * torso_px, 256)
    return min(
        [float(np.linalg.norm(f.points_N2[2] / zoom + corner - at)) / torso_px for f in judges.faces.find(patch, 0.4)] or [float("inf")]
    )


def _window(frame_HWC: Bytes, middle: Doubles, side: float, pixels: int) -> tuple[Bytes, Doubles, float]:
    """A square of the frame at `pixels`, black outside; its corner in the frame and pixels of it per frame pixel."""
    zoom, corner = pixels / side, middle - side / 2
    matrix = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]])
    return np.asarray(cv2.warpAffine(frame_HWC, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR), np.uint8), corner, zoom


def _silhouette(selfie: SelfieNet, frame_HWC: Bytes, alpha_HW: Bytes, other_HW: Bytes) -> tuple[float, float]:
    """Overlap (intersection over union) of what the selfie network sees as a person with what was drawn, and with what is drawn in the
    frame that the time-reversed motion would have here; both inside the square around what was drawn."""
    rows, columns = np.flatnonzero((alpha_HW > 127).any(1)), np.flatnonzero((alpha_HW > 127).any(0))
    if not len(rows):
        return float("nan"), float("nan")
    middle = np.array([(columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2])
    side = 1.3 * max(columns[-1] - columns[0], rows[-1] - rows[0])
    seen = selfie.mask(_window(frame_HWC, middle, side, 256)[0]) > 0.5
    overlaps = []
    for alpha in (alpha_HW, other_HW):
        drawn = _window(alpha, middle, side, 256)[0] > 127
        overlaps.append(float((seen & drawn).sum() / max(1, (seen | drawn).sum())))
    return overlaps[0], overlaps[1]


def _leakage(made: Made, tracks: list[int]) -> dict[str, float]:
    """Share of the pair's mask that lies outside what was drawn, and of what was drawn that the mask misses, over the confident frames."""
    if not tracks:
        return {"leakage": float("nan"), "mask_missing": float("nan")}
    masks_THW = crisp(made.people.masks_PTHW[tracks]).any(0)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * SLACK_PX + 1,) * 2)
    out, missing, area, drawn_area = 0, 0, 0, 0
    for t in np.flatnonzero(made.confident):
        drawn = (made.alpha_THW[t] > 127).astype(np.uint8)
        out += int((masks_THW[t] & (cv2.dilate((made.alpha_THW[t] > 16).astype(np.uint8), disc) == 0)).sum())
        missing += int((~masks_THW[t] & (cv2.erode(drawn, disc) > 0)).sum())
        area, drawn_area = area + int(masks_THW[t].sum()), drawn_area + int(drawn.sum())
    return {"leakage": out / max(1, area), "mask_missing": missing / max(1, drawn_area)}


def swaps(frames_THWC: Bytes, people: People) -> int | None:
    """How often two tracked people exchange their clothes' colours: the count of frames at which a pair of tracks changes from each
    wearing its own colours (the track's median) to each wearing the other's. Torso pixels, CIELAB; nothing of the tracker's memory.
    None when no pair of tracks differs enough in colour to tell (or there is no pair)."""
    colours = [_torso_colours(frames_THWC, people, p) for p in range(people.count)]
    usual = [np.nanmedian(c, axis=0) for c in colours]
    found: list[int] = []
    for i, j in itertools.combinations(range(people.count), 2):
        apart = float(np.linalg.norm(usual[i] - usual[j]))
        if apart < TELLABLE:
            continue
        both = np.isfinite(colours[i]).all(1) & np.isfinite(colours[j]).all(1)
        own = _gap(colours[i], usual[i]) + _gap(colours[j], usual[j])
        other = _gap(colours[i], usual[j]) + _gap(colours[j], usual[i])
        changed = np.concatenate([[0], (other < own)[both].astype(int)])
        found.append(int((np.diff(changed) == 1).sum()))
    return sum(found) if found else None


def _gap(colours_T3: Doubles, usual_3: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(colours_T3 - usual_3, axis=1))


def _torso_colours(frames_THWC: Bytes, people: People, p: int) -> Doubles:
    """Median CIELAB colour (T, 3) inside the quadrilateral of shoulders and hips; NaN where the person is absent or it has no area."""
    out = np.full((people.frames, 3), np.nan)
    for t in np.flatnonzero(people.present_PT[p]):
        corners = people.landmarks_PT33x3[p, t][[11, 12, 24, 23], :2]
        inside = np.zeros(people.size_hw, np.uint8)
        cv2.fillConvexPoly(inside, np.round(corners).astype(np.int32), 1)
        rows, columns = np.nonzero(inside)
        if len(rows) >= 20:
            pixels = frames_THWC[t][rows, columns][None].astype(np.float32) / 255
            out[t] = np.median(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0], axis=0)
    return out
