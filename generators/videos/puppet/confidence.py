"""How far the puppet trusts its own work, and why not further. A picture on sticks has known limits; this says when they are met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generators.poses.stretches import BRIDGED_S, TRUST, runs
from generators.videos.plate import Plate
from generators.videos.puppet.casting import Actor, Take
from generators.videos.puppet.cutout import Figure
from generators.videos.puppet.motion import Motion
from generators.videos.puppet.numerics import Array, ramp
from generators.videos.puppet.render import Character
from generators.videos.puppet.retarget import Pose, turned_deg
from generators.videos.puppet.skeleton import BONES, HEAD, JOINT, LONG_BONES, NECK

TURNED_DEG = 75.0
"""a frame in which driver and picture face more differently than this is worth nothing"""
INVENTED_MOST = 0.25
CAMERA_MOST_PX = 3.0
_OFTEN = 0.1
"""share of frames in which a fault must show before its code is reported"""


@dataclass(frozen=True)
class Trust:
    """Confidence per frame and the codes of what lowers it."""

    per_frame_T: Array
    reasons: tuple[str, ...]


def limb_cover(figure: Figure, motion: Motion) -> Array:
    """Share (T,) of the limb bones visible on the driver that the picture has too."""
    ends = [BONES[b].end for b in LONG_BONES]
    h, w = figure.picture_hw
    inside = (figure.joints_19x2[ends] < np.array([w, h]) * 1.01).all(1)
    have = np.array([b in figure.bones for b in LONG_BONES]) & inside
    shown = motion.visible_T19[:, ends] > 0.5
    return np.where(shown.any(1), (shown & have).sum(1) / np.maximum(1, shown.sum(1)), 1.0)


def _framed(pose: Pose, motion: Motion, size_hw: tuple[int, int]) -> Array:
    """Share (T,) of head and neck inside the frame, of those that the driver has inside."""
    h, w = size_hw

    def inside(joints: Array) -> Array:
        p = joints[:, [HEAD, NECK]]
        return np.asarray(((p >= 0) & (p < [w, h])).all(2))

    wanted = inside(motion.joints_T19x2)
    return np.where(wanted.any(1), (wanted & inside(pose.joints_T19x2)).sum(1) / np.maximum(1, wanted.sum(1)), 1.0)


def _matte_agreement(character: Character) -> float:
    """Overlap (intersection over union) of the matte, which goes by colour, and the pose model's silhouette."""
    by_colour, by_model = character.alpha_HW > 0.5, character.figure.mask_HW > 127
    return float((by_colour & by_model).sum() / max(1, (by_colour | by_model).sum()))


def trust_in(actor: Actor, size_hw: tuple[int, int]) -> Trust:
    """Judge one character's performance: in every frame that of the view it shows. size_hw: of the output."""
    by_take = [_factors(take, size_hw) for take in actor.takes]
    index = (actor.view_T, np.arange(len(actor.view_T)))

    def shown(code: str, k: int) -> Array:
        return np.asarray(np.stack([f[code][k] for f in by_take])[index])

    factors = {code: (shown(code, 0), shown(code, 1)) for code in by_take[0]}
    return _trust(factors)


def trust_in_plate(plate: Plate, exposed_T: Array) -> Trust:
    """Judge the clip without its people. exposed_T: share of the removed people's area that shows invented scene."""
    ones, moves = np.ones(len(exposed_T)), plate.camera_px > CAMERA_MOST_PX
    cut = Trust(np.where(plate.cut_T, 0.0, 1.0), ("cut",) if plate.cut_T.any() else ())  # one cut is a reason, however long the clip
    rest = _trust(
        {
            "plate_invented": (ramp(exposed_T, 0.6, 0.1), exposed_T > INVENTED_MOST),
            "camera_moves": (1 - 0.4 * moves * ones, moves * ones > 0),
            "camera_lost": (np.where(plate.lost_T, 0.0, 1.0), plate.lost_T),
            "dark": (np.where(plate.dark_T, 0.0, 1.0), plate.dark_T),
        }
    )
    return Trust(cut.per_frame_T * rest.per_frame_T, cut.reasons + rest.reasons)


def _trust(factors: dict[str, tuple[Array, Array]]) -> Trust:
    per_frame = np.prod([trust for trust, _ in factors.values()], axis=0)
    return Trust(per_frame, tuple(code for code, (_, due) in factors.items() if np.mean(due) > _OFTEN))


def _factors(take: Take, size_hw: tuple[int, int]) -> dict[str, tuple[Array, Array]]:
    """Code → trust per frame (T,), and whether the code is due (T,)."""
    figure, motion, ones = take.character.figure, take.motion, np.ones(take.motion.frames)
    agree = _matte_agreement(take.character)
    framed = _framed(take.rehearsed, motion, size_hw)
    turned, cover = turned_deg(figure.yaw_rad, motion), limb_cover(figure, motion)
    torso = np.median(motion.visible_T19[:, [JOINT["left_shoulder"], JOINT["right_shoulder"], JOINT["pelvis"]]], 1)
    return {
        "person_lost": (motion.present_T, motion.present_T < 0.5),
        "pose_uncertain": (ramp(motion.on_mask_T, 0.5, 0.8) * ramp(torso, 0.3, 0.8), (motion.on_mask_T < 0.65) | (torso < 0.5)),
        "turned_away": (np.where(turned > TURNED_DEG, 0.0, ramp(turned, 90, 40)), turned > TURNED_DEG),
        "profile": (1 - 0.3 * figure.in_profile * ones, figure.in_profile * ones > 0),
        "limbs_missing": (ramp(cover, 0.5, 0.9), cover < 0.9),
        "out_of_frame": (framed, framed < 1),
        "matte_uncertain": (ramp(agree * ones, 0.55, 0.8), agree * ones < 0.7),
    }


def together(trusts: list[Trust], plate: Trust | None = None) -> tuple[float, tuple[str, ...], tuple[float, ...]]:
    """Several people's trust as one, times the plate's: the worst of each frame, its mean, all codes in order of first mention."""
    worst = np.clip(np.min([t.per_frame_T for t in trusts], axis=0), 0, 1)
    if plate is not None:
        worst = worst * plate.per_frame_T
    reasons = tuple(dict.fromkeys(code for t in (*trusts, *([plate] if plate else [])) for code in t.reasons))
    return round(float(worst.mean()), 4), reasons, tuple(round(float(v), 4) for v in worst)


def stretches_of(per_frame_T: Array, fps: float) -> tuple[tuple[int, int], ...]:
    """The confident stretches: first frame and the one after the last. Dips of at most BRIDGED_S between them are bridged."""
    good = np.asarray(per_frame_T) >= TRUST
    for start, stop in runs(~good):
        if start > 0 and stop < len(good) and stop - start <= int(BRIDGED_S * fps):
            good[start:stop] = True
    return tuple(runs(good))
