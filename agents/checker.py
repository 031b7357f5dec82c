"""Quality Checker: measures the painted picture and the synthetic video and answers accept, revise with findings, or reject.

Every finding is a hard check on a measured score. A brain may add judgement one day; it can't overrule these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agents.measures import appearance
from agents.measures.motion import limb_error_deg
from agents.measures.silhouette import mask_joints
from agents.selector import yaw_gap_deg
from generators.base import Mode, Report
from generators.poses.summary import describe
from generators.poses.tracks import INDEX, People
from manifests.media import Inspection
from manifests.recipe import CheckerSpec
from manifests.records import Finding, Geometry, Person, Verdict, rounded

REVISE = frozenset({"too_small", "too_large", "cropped"})
"""Findings that another prompt can answer; all others end the attempt."""

SCALE_BOUNDS = (0.5, 1.9)
"""allowed torso length of the painted character over the clip person's, in animation"""
JOINTS_MIN = 0.75
"""share of the clip's visible joints that the painted character must show"""
PRESENCE_MIN = 0.9
"""share of frames in which the synthetic person must be found"""


@dataclass(frozen=True)
class PaintedPicture:
    """What `check_image` looks at."""

    image_HWC: npt.NDArray[np.uint8]
    people: People
    mode: Mode
    report: Report
    clip_person: Person
    clip_people: People
    """only the clip's person"""
    clip_appearance: appearance.Descriptor


@dataclass(frozen=True)
class SyntheticVideo:
    """What `check_video` looks at, after it was brought to the pair's geometry."""

    frames_THWC: npt.NDArray[np.uint8]
    people: People
    inspection: Inspection
    geometry: Geometry
    report: Report
    clip_people: People
    """the driven people only"""
    clip_moves: bool
    painted_appearance: tuple[appearance.Descriptor, ...]
    """in the order of `clip_people`"""
    matched: tuple[int, ...]
    """track of the synthetic person that performs each driven person; -1 where none was found"""


class _Findings:
    """Collects scores and findings."""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        self.findings: list[Finding] = []

    def score(self, name: str, value: float) -> float:
        self.scores[name] = rounded(value)
        return self.scores[name]

    def add(self, code: str, words: str) -> None:
        self.findings.append(Finding(code=code, words=words))

    def verdict(self) -> Verdict:
        fatal = [f for f in self.findings if f.code not in REVISE]
        decision = "accept" if not self.findings else "reject" if fatal else "revise"
        reason = (fatal or self.findings or [Finding(code="", words="")])[0].code
        return Verdict.model_validate({"decision": decision, "reason": reason, "findings": tuple(self.findings), "scores": self.scores})


def torso_length(people: People, person: int = 0) -> float:
    """Median distance of the shoulders' to the hips' middle, pixels."""
    xy = people.landmarks_PT33x3[person, :, :, :2]
    shoulders = (xy[:, INDEX["left_shoulder"]] + xy[:, INDEX["right_shoulder"]]) / 2
    hips = (xy[:, INDEX["left_hip"]] + xy[:, INDEX["right_hip"]]) / 2
    return float(np.median(np.linalg.norm(shoulders - hips, axis=1)))


def check_image(seen: PaintedPicture, spec: CheckerSpec) -> Verdict:
    """Inspect the painted picture of one character."""
    out = _Findings()
    count = seen.people.count
    out.score("people", count)
    if count == 0:
        out.add("no_person", "No person can be seen; show one person, upright and whole.")
        return out.verdict()
    if count > 1:
        out.add("several_people", "Show exactly one person.")
    person = describe(seen.people)[0]
    wanted = set(seen.clip_person.visible_joints)
    shown = out.score("joints", len(wanted & set(person.visible_joints)) / max(1, len(wanted)))
    if shown < JOINTS_MIN:
        out.add("cropped", "Show more of the body, further from the camera: arms and legs must be inside the picture.")
    turn = out.score("yaw_gap_deg", yaw_gap_deg(person.yaw_deg, seen.clip_person.yaw_deg))
    if turn > spec.yaw_max_deg:
        out.add("turned_away", "Turn the person the way the clip's person is turned.")
    if person.arms_crossed and not seen.clip_person.arms_crossed:
        out.add("arms_crossed", "Let both arms hang free of the body.")
    looks = appearance.describe(seen.image_HWC[None], seen.people)[0]
    gap = appearance.distance(looks, seen.clip_appearance)
    if gap is not None and out.score("identity_gap", gap) < spec.identity_gap_min:
        out.add("looks_like_the_real_person", "Make the person look different from the one in the clip.")
    scale = out.score("scale", torso_length(seen.people) / max(1.0, torso_length(seen.clip_people)))
    if seen.mode == "animation" and scale < SCALE_BOUNDS[0]:
        out.add("too_small", "Show the person larger.")
    if seen.mode == "animation" and scale > SCALE_BOUNDS[1]:
        out.add("too_large", "Show the person smaller.")
    return out.verdict()


def check_video(seen: SyntheticVideo, spec: CheckerSpec) -> Verdict:
    """Inspect the synthetic video at the pair's geometry against the clip it was driven by."""
    out = _Findings()
    _technical(seen, spec, out)
    _people(seen, spec, out)
    confidence = out.score("confidence", seen.report.confidence)
    if confidence < spec.confidence_min:
        why = ", ".join(seen.report.reasons) or "no reason given"
        out.add(seen.report.reasons[0] if seen.report.reasons else "low_confidence", f"The generator itself doubts the result: {why}.")
    return out.verdict()


def _technical(seen: SyntheticVideo, spec: CheckerSpec, out: _Findings) -> None:
    found, asked = seen.inspection, seen.geometry
    if (found.frames, found.width, found.height) != (asked.frames, asked.width, asked.height):
        got = f"{found.frames} frames of {found.width}×{found.height}"
        out.add("wrong_geometry", f"The video has {got}; asked were {asked.frames} of {asked.width}×{asked.height}.")
    if out.score("black", found.black_share) > spec.black_max:
        out.add("black", "The video holds black frames.")
    if out.score("frozen", found.frozen_share) > spec.frozen_max and seen.clip_moves:
        out.add("frozen", "The video stands still while the clip moves.")


def _people(seen: SyntheticVideo, spec: CheckerSpec, out: _Findings) -> None:
    lost = [i for i, track in enumerate(seen.matched) if track < 0]
    if lost:
        out.add("person_lost", f"{len(lost)} of {len(seen.matched)} characters can't be found in the video.")
        return
    presence = out.score("presence", min(float(seen.people.present_PT[t].mean()) for t in seen.matched))
    if presence < PRESENCE_MIN:
        out.add("person_lost", f"A character is found in {presence:.0%} of the frames only.")
    errors = [limb_error_deg(seen.clip_people, seen.people, i, t) for i, t in enumerate(seen.matched)]
    if out.score("limb_error_deg", max(errors)) > spec.limb_error_max_deg:
        out.add("motion_differs", f"The limbs point {max(errors):.0f}° away from the clip's.")
    looks = appearance.describe(seen.frames_THWC, seen.people)
    drifts = [appearance.distance(looks[t], want) for t, want in zip(seen.matched, seen.painted_appearance, strict=True)]
    known = [drift for drift in drifts if drift is not None]
    if known and out.score("identity_drift", max(known)) > spec.identity_drift_max:
        out.add("identity_changed", "The character does not look like its painted picture.")
    covered = min(mask_joints(seen.people, t) for t in seen.matched)
    if out.score("mask_joints", covered) < spec.mask_joints_min:
        out.add("mask_incomplete", f"The mask covers {covered:.0%} of the visible joints.")
    coverage = float(np.mean((seen.people.masks_PTHW[list(seen.matched)] > 127).max(0)))
    if out.score("mask_coverage", coverage) < spec.coverage_min:
        out.add("too_small_in_frame", f"The characters cover {coverage:.2%} of the frame.")
