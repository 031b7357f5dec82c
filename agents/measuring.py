"""All scores of a synthetic video, by name: one small function for each aspect, none of them with a threshold.

A score that can't be told is left out. Of several driven people the worst one's counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from agents.inspected import Networks, SyntheticVideo
from agents.measures import agreement, background, clothing, hands_face, identity, motion, people, silhouette, stability, technical
from agents.measures.frames import grown
from agents.measures.lag import lag
from generators.poses.tracks import People
from manifests.records import rounded

Bools = npt.NDArray[np.bool_]
Scores = dict[str, float]

SOLID = 127
"""mask value, of 255, from which a pixel is the person's"""
HAZE = 16
"""...from which it may be"""
ELSEWHERE = 0.5
"""standing heights beyond which somebody is not the clip's other person who should stand there"""
PAINTED_RIM = 0.06
"""of the picture's shorter side: so far around its character a painted picture is not known to be scene"""


def measure_video(seen: SyntheticVideo, networks: Networks) -> Scores:
    """Every score of a video of the asked geometry, rounded to 4 digits."""
    scores = {**_technical(seen), **_cast(seen), "confidence": seen.report.confidence, "unsafe": networks.safety.worst(seen.frames_THWC)}
    if all(track >= 0 for track in seen.matched):
        for aspect in (_motion, _timing, _limbs, _mask, _clothes, _details):
            scores |= aspect(seen)
        scores |= _faces(seen, networks)
    scores |= _scene(seen) | _steadiness(seen)
    return {name: rounded(value) for name, value in scores.items() if value is not None and math.isfinite(value)}


def _worst(values: Iterable[float | None], pick: Callable[..., float]) -> float:
    """NaN where nothing is known."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return float(pick(known)) if known else float("nan")


def _technical(seen: SyntheticVideo) -> Scores:
    still, dark = technical.stillness(seen.frames_THWC, seen.clip_THWC), technical.darkness(seen.frames_THWC, seen.clip_THWC)
    clear = technical.clarity(seen.frames_THWC, _everybody(seen.people), seen.clip_THWC, _everybody(seen.clip_people))
    return {
        "black": dark.share - dark.clip_share, "held": still.held_share, "held_s": still.held_run / seen.geometry.fps,
        "sharpness": clear.sharpness_ratio, "contrast": clear.contrast_ratio,
    }  # fmt: skip


def _cast(seen: SyntheticVideo) -> Scores:
    """Who is missing, and who else is there: of several strangers the one that is seen most, counted by size."""
    scores: Scores = {"presence": _worst(people.presences(seen.clip_people, seen.people, seen.matched), min)}
    stay = seen.others if seen.mode == "replacement" else None
    found = people.strangers(seen.people, seen.matched, stay)
    unknown = [s for s in found if s.apart is None or s.apart > ELSEWHERE]
    scores["strangers"] = len(unknown)
    if unknown:
        most = max(unknown, key=lambda s: (s.beside * min(1.0, s.size) * (1 - s.shadow), -s.track))
        scores |= {"stranger_beside": most.beside, "stranger_size": most.size, "stranger_shadow": most.shadow}
    if stay is not None:
        scores["others_kept"] = _worst(people.others_kept(seen.people, seen.matched, stay), min)
    return scores


def _motion(seen: SyntheticVideo) -> Scores:
    """Does each character do what its driver does?"""
    pairs = list(enumerate(seen.matched))
    agreed = [agreement.agreement(seen.clip_people, seen.people, i, t) for i, t in pairs]
    follow = [motion.following(seen.clip_people, seen.people, i, t) for i, t in pairs]
    mirror = [agreement.mirroring(seen.clip_people, seen.people, i, t) for i, t in pairs]
    return {
        "limb_error_deg": max(motion.limb_error_deg(seen.clip_people, seen.people, i, t) for i, t in pairs),
        "limb_mean_deg": _worst([a.limb_deg for a in agreed], max), "pck": _worst([a.pck20 for a in agreed], min),
        "follows": _worst([f.correlation for f in follow], min), "follows_null": _worst([f.null for f in follow], min),
        "energy": _worst([f.energy_ratio for f in follow], min), "energy_most": _worst([f.energy_ratio for f in follow], max),
        "speed": _worst([f.speed for f in follow], max), "still_s": max(f.still_frames for f in follow) / seen.geometry.fps,
        "mirror_pck": _worst([m.margin_pck for m in mirror], min), "mirror_deg": _worst([m.margin_deg for m in mirror], min),
        "mirror_motion": _worst([m.margin_motion for m in mirror], min),
    }  # fmt: skip


def _timing(seen: SyntheticVideo) -> Scores:
    """Of the person with the largest lag."""
    lags = [found for i, t in enumerate(seen.matched) if (found := lag(seen.clip_people, seen.people, i, t)).frames is not None]
    if not lags:
        return {}
    worst = max(lags, key=lambda found: (found.peak - found.in_time, abs(found.frames or 0)))
    return {
        "lag_frames": worst.frames or 0, "lag_peak": worst.peak, "lag_gain": worst.peak - worst.in_time, "lag_slack": worst.slack,
    }  # fmt: skip


def _limbs(seen: SyntheticVideo) -> Scores:
    """How much of each limb is there and how far its ends are from where they should be: the worst of all people."""
    scores: Scores = {}
    for i, track in enumerate(seen.matched):
        for limb in silhouette.limbs(seen.clip_people, seen.people, i, track):
            shown, off, told = (f"{what}_{limb.name}" for what in ("shown", "off", "told"))
            if limb.shown <= scores.get(shown, 1.0):
                scores |= {shown: limb.shown, told: limb.frames}
            scores[off] = max(scores.get(off, 0.0), limb.gap)
    return scores


def _mask(seen: SyntheticVideo) -> Scores:
    return {
        "mask_joints": min(silhouette.mask_joints(seen.people, t) for t in seen.matched),
        "mask_coverage": float(_everybody(seen.people.only(list(seen.matched))).mean()),
    }


def _clothes(seen: SyntheticVideo) -> Scores:
    """The whole video against the painted picture, its worst quarter, and its quarters against each other."""
    gaps, worst, changes = [], [], []
    for i, track in enumerate(seen.matched):
        wanted = clothing.clothes_of(seen.painted_HWC[i][None], seen.painted_people[i])
        worn = clothing.worn_through(seen.frames_THWC, seen.people, track)
        gaps.append(clothing.distance(wanted, clothing.clothes_of(seen.frames_THWC, seen.people, track)))
        worst.append(clothing.worst(wanted, worn))
        changes.append(clothing.change(worn))
    return {"clothes": _worst(gaps, max), "clothes_worst": _worst(worst, max), "clothes_change": _worst(changes, max)}


def _faces(seen: SyntheticVideo, networks: Networks) -> Scores:
    alike, worst, steady, frames = [], [], [], []
    for i, track in enumerate(seen.matched):
        wanted = networks.faces.read(seen.painted_HWC[i][None], seen.painted_people[i])
        shown = networks.faces.read(seen.frames_THWC, seen.people, track)
        likeness = identity.likeness(wanted, shown)
        alike.append(likeness.cosine if likeness else None)
        frames.append(likeness.frames if likeness else None)
        worst.append(identity.worst_run(wanted, shown))
        steady.append(identity.continuity(shown))
    return {
        "face": _worst(alike, min), "face_worst": _worst(worst, min), "face_steady": _worst(steady, min),
        "face_frames": _worst(frames, min),
    }  # fmt: skip


def _details(seen: SyntheticVideo) -> Scores:
    """Hands and faces; nothing where nobody read them."""
    if seen.clip_people.details is None or seen.people.details is None:
        return {}
    scores: Scores = {}
    parts: tuple[hands_face.Part, ...] = ("hands", "face")
    for part in parts:
        found = [
            hands_face.detail_scores(part, seen.clip_THWC, seen.clip_people, i, seen.frames_THWC, seen.people, t)
            for i, t in enumerate(seen.matched)
        ]
        for name in ("detected", "sharpness", "plausible"):
            scores[f"{part}_{name}"] = _worst([getattr(f, name) for f in found], min)
    return scores


def _scene(seen: SyntheticVideo) -> Scores:
    """Is the scene the clip's, or the reference's; is anything left of what it should not show?"""
    synthetic, real = _everybody(seen.people), _everybody(seen.clip_people)
    if seen.mode == "replacement":
        kept = background.scene_kept(seen.frames_THWC, _performers(seen) | real, seen.clip_THWC)
        left = background.person_left(seen.frames_THWC, _performers(seen), seen.clip_THWC, real)
        extra = {"person_left": left.mean, "person_left_worst": left.worst}
    else:
        scene, known = _reference_scene(seen)
        kept = background.scene_shown(seen.frames_THWC, synthetic, scene, known)
        clip = background.clip_left(seen.frames_THWC, synthetic, seen.clip_THWC, scene, known)
        extra = {"clip_left": clip.mean, "clip_left_worst": clip.worst, "clip_left_near": clip.near}
    return {"scene": kept.alike, "scene_worst": kept.alike_worst, "scene_gap": kept.gap, "scene_gap_worst": kept.gap_worst, **extra}


def _reference_scene(seen: SyntheticVideo) -> tuple[npt.NDArray[np.uint8], Bools]:
    """The scene that an animation should show, and where it is known: without its character everywhere, else outside of it."""
    if seen.scene_HWC is not None:
        return seen.scene_HWC, np.ones(seen.scene_HWC.shape[:2], bool)
    person = seen.painted_people[0].masks_PTHW[:, 0].max(0, initial=0) > HAZE
    return seen.painted_HWC[0], ~grown(person, PAINTED_RIM * min(person.shape))


def _steadiness(seen: SyntheticVideo) -> Scores:
    found = stability.stability(seen.frames_THWC, _everybody(seen.people), seen.clip_THWC, _everybody(seen.clip_people))
    scores: Scores = {"flicker_tile_pct": found.tile_pct, "warp_ratio": found.warp_ratio}
    for name, part in (("whole", found.whole), ("person", found.person), ("scene", found.scene)):
        scores |= {
            f"flicker_{name}_pct": part.brightness_pct, f"flicker_{name}_contrast_pct": part.contrast_pct,
            f"flicker_{name}_colour_pct": part.colour_pct,
        }  # fmt: skip
    return scores


def _performers(seen: SyntheticVideo) -> Bools:
    return _everybody(seen.people.only([t for t in seen.matched if t >= 0]))


def _everybody(anybody: People) -> Bools:
    """(T, H, W)"""
    return np.asarray(anybody.masks_PTHW.max(0, initial=0) > SOLID)
