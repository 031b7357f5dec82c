"""All scores of a painted picture or a synthetic video, by name: one small function for each aspect, none of them with a threshold.

A score that can't be told is left out. Of several driven people the worst one's counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from agents.fitting import yaw_gap_deg
from agents.inspected import Networks, PaintedPicture, SyntheticVideo
from agents.measures import (
    agreement,
    appearance,
    background,
    clothing,
    hands_face,
    identity,
    limb_colour,
    motion,
    people,
    silhouette,
    stability,
    technical,
)
from agents.measures.frames import grown
from agents.measures.lag import lag
from generators.poses.summary import describe
from generators.poses.tracks import INDEX, People
from manifests.records import rounded

Bools = npt.NDArray[np.bool_]
Scores = dict[str, float]

SOLID = 127
"""mask value, of 255, from which a pixel is the person's"""
HAZE = 16
"""...from which it may be"""
ELSEWHERE = 0.5
"""standing heights beyond which somebody is not the clip's other person who should stand there"""
ABOUT_FACE_DEG, ABOUT_FACE_PCK = 5.0, 0.1
"""how much better limbs and joints must agree with a driver read as facing the other way"""
PAINTED_RIM = 0.06
"""of the picture's shorter side: so far around its character a painted picture is not known to be scene"""


def measure_picture(seen: PaintedPicture, networks: Networks) -> Scores:
    """Every score of the painted picture of one character, rounded to 4 digits; without anybody in it just that."""
    scores: Scores = {"people": float(seen.people.count)}
    if seen.people.count:
        scores |= _figure(seen) | _likeness(seen, networks)
        scores["unsafe"] = networks.safety.score(seen.image_HWC)
    return {name: rounded(value) for name, value in scores.items()}


def _figure(seen: PaintedPicture) -> Scores:
    """What is shown of the character, and how. `arms_crossed`: they are, and the clip's are not."""
    person, wanted = describe(seen.people)[0], set(seen.clip_person.visible_joints)
    return {
        "joints": len(wanted & set(person.visible_joints)) / max(1, len(wanted)),
        "yaw_gap_deg": yaw_gap_deg(person.yaw_deg, seen.clip_person.yaw_deg),
        "arms_crossed": float(person.arms_crossed and not seen.clip_person.arms_crossed),
        "scale": torso_length(seen.people) / max(1.0, torso_length(seen.clip_people)),
    }


def _likeness(seen: PaintedPicture, networks: Networks) -> Scores:
    """To the real person, who must not be painted again."""
    looks = appearance.describe(seen.image_HWC[None], seen.people)[0]
    gap = appearance.distance(looks, seen.clip_appearance)
    alike = identity.likeness(networks.faces.read(seen.image_HWC[None], seen.people), networks.faces.read(seen.clip_THWC, seen.clip_people))
    return {
        **({} if gap is None else {"identity_gap": gap}),
        **({} if alike is None else {"real_face": alike.cosine, "real_face_frames": float(alike.frames)}),
    }


def torso_length(anybody: People, person: int = 0) -> float:
    """Median distance of the shoulders' to the hips' middle, pixels."""
    xy = anybody.landmarks_PT33x3[person, :, :, :2]
    shoulders = (xy[:, INDEX["left_shoulder"]] + xy[:, INDEX["right_shoulder"]]) / 2
    hips = (xy[:, INDEX["left_hip"]] + xy[:, INDEX["right_hip"]]) / 2
    return float(np.median(np.linalg.norm(shoulders - hips, axis=1)))


def measure_video(seen: SyntheticVideo, networks: Networks) -> Scores:
    """Every score of a video, rounded to 4 digits. Of one that has not the asked geometry only `frames`, `width` and `height`: frame by
    frame there is nothing to compare."""
    found, asked = seen.inspection, seen.geometry
    if (found.frames, found.width, found.height) != (asked.frames, asked.width, asked.height):
        return {"frames": float(found.frames), "width": float(found.width), "height": float(found.height)}
    scores = {**_technical(seen), **_cast(seen), "confidence": seen.report.confidence, "unsafe": networks.safety.worst(seen.frames_THWC)}
    if all(track >= 0 for track in seen.matched):
        alike, scores["about_face"] = _read_alike(seen)
        for aspect in (_motion, _timing, _limbs):
            scores |= aspect(alike)
        for aspect in (_mask, _clothes, _details):
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


def _read_alike(seen: SyntheticVideo) -> tuple[SyntheticVideo, int]:
    people, count = read_alike(seen.clip_people, seen.people, seen.matched)
    return replace(seen, clip_people=people), count


def read_alike(drivers: People, made: People, matched: Sequence[int]) -> tuple[People, int]:
    """The drivers, with those about face whose performers' outlines do the same while the pose model takes one for a front and the other
    for a back; and how many those are. The mirror image of a motion is no such case: its outlines lie elsewhere. -1 in `matched` is
    nobody."""
    turned = agreement.about_face(drivers, range(drivers.count))
    which = []
    for i, track in enumerate(matched):
        if track < 0:
            continue
        own, other = (agreement.agreement(people, made, i, track) for people in (drivers, turned))
        if other.limb_deg < own.limb_deg - ABOUT_FACE_DEG and other.pck20 > own.pck20 + ABOUT_FACE_PCK:
            which.append(i)
    return agreement.about_face(drivers, which) if which else drivers, len(which)


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
        for part in limb_colour.contrasts(seen.painted_HWC[i], seen.painted_people[i], seen.frames_THWC, seen.people, track):
            if part.ratio <= scores.get(f"contrast_{part.name}", 10.0):
                scores |= {f"contrast_{part.name}": part.ratio, f"contrasted_{part.name}": part.frames}
    return scores


def _mask(seen: SyntheticVideo) -> Scores:
    """A mask can't hold more of somebody's joints than the driver's holds, who may be half hidden."""
    shares = [(silhouette.mask_joints(seen.people, t), silhouette.mask_joints(seen.clip_people, i)) for i, t in enumerate(seen.matched)]
    return {
        "mask_joints": min(min(1.0, share / max(driver, 1e-6)) for share, driver in shares),
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
