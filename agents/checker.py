"""Quality Checker: measures the painted picture and the synthetic video and answers accept, revise with findings, reject, or review.

Every finding of the measures is a hard check. A brain with eyes may add findings (`joined`); it can't overrule these.
"""

from __future__ import annotations

import numpy as np

from agents.brains.base import Judgement
from agents.fitting import yaw_gap_deg
from agents.inspected import Networks, PaintedPicture, SyntheticVideo
from agents.measures import appearance
from agents.measures.identity import likeness
from agents.measuring import Scores, measure_video
from agents.reasons import FATAL, REVIEW
from agents.rules import findings_of
from agents.text import clean
from generators.base import Report
from generators.poses.summary import describe
from generators.poses.tracks import INDEX, People
from manifests.agency import CheckerSpec
from manifests.records import Finding, Verdict, rounded

__all__ = ["Networks", "PaintedPicture", "SyntheticVideo", "check_image", "check_video", "joined"]

SHOW_MORE = "Show more of the body, further from the camera: arms and legs must be inside the picture."


def decided(findings: list[Finding], scores: Scores) -> Verdict:
    """The verdict that findings ask for. What no other attempt mends outweighs what one may; a look by a person comes last: it is not asked
    for what is dropped anyway."""
    fatal = [f for f in findings if f.code in FATAL]
    mendable = [f for f in findings if f.code not in FATAL | REVIEW]
    decision = "reject" if fatal else "revise" if mendable else "review" if findings else "accept"
    reason = next((f.code for f in (*fatal, *mendable, *findings)), "")
    return Verdict.model_validate({"decision": decision, "reason": reason, "findings": tuple(findings), "scores": scores})


def check_video(seen: SyntheticVideo, spec: CheckerSpec, networks: Networks | None = None) -> Verdict:
    """Inspect the synthetic video at the pair's geometry against the clip it was driven by. `networks`: those loaded already."""
    found, asked = seen.inspection, seen.geometry
    if (found.frames, found.width, found.height) != (asked.frames, asked.width, asked.height):
        got = f"{found.frames} frames of {found.width}×{found.height}"
        words = f"The video has {got}; asked were {asked.frames} of {asked.width}×{asked.height}."
        return decided([Finding(code="wrong_geometry", words=words)], {})  # frame by frame there is nothing to compare
    return judged(measure_video(seen, networks or Networks()), seen.report, spec)


def judged(scores: Scores, report: Report, spec: CheckerSpec) -> Verdict:
    """The verdict on a video's scores."""
    findings = findings_of(scores, spec)
    if scores["confidence"] < spec.confidence_min:
        why = ", ".join(report.reasons) or "no reason given"
        findings.append(Finding(code="low_confidence", words=f"The generator itself doubts the result: {why}."))
    return decided(findings, scores)


def torso_length(people: People, person: int = 0) -> float:
    """Median distance of the shoulders' to the hips' middle, pixels."""
    xy = people.landmarks_PT33x3[person, :, :, :2]
    shoulders = (xy[:, INDEX["left_shoulder"]] + xy[:, INDEX["right_shoulder"]]) / 2
    hips = (xy[:, INDEX["left_hip"]] + xy[:, INDEX["right_hip"]]) / 2
    return float(np.median(np.linalg.norm(shoulders - hips, axis=1)))


def check_image(seen: PaintedPicture, spec: CheckerSpec, networks: Networks | None = None) -> Verdict:
    """Inspect the painted picture of one character. `networks`: those loaded already."""
    scores: Scores = {"people": float(seen.people.count)}
    if seen.people.count == 0:
        return decided([Finding(code="no_person", words="No person can be seen; show one person, upright and whole.")], scores)
    scores |= measure_image(seen, networks or Networks())
    same_face = scores.get("real_face", -1.0) > spec.real_face_max and scores["real_face_frames"] >= spec.face_frames_min
    found = [
        (seen.people.count > 1, "several_people", "Show exactly one person."),
        (scores["joints"] < spec.joints_min, "cropped", SHOW_MORE),
        (scores["yaw_gap_deg"] > spec.yaw_max_deg, "turned_away", "Turn the person the way the clip's person is turned."),
        (scores["arms_crossed"] > 0 and not seen.clip_person.arms_crossed, "arms_crossed", "Let both arms hang free of the body."),
        (
            same_face or scores.get("identity_gap", spec.identity_gap_min) < spec.identity_gap_min,
            "looks_like_the_real_person", "Make the person look different from the one in the clip.",
        ),
        (seen.mode == "animation" and scores["scale"] < spec.scale_min, "too_small", "Show the person larger."),
        (seen.mode == "animation" and scores["scale"] > spec.scale_max, "too_large", "Show the person smaller."),
        (scores["unsafe"] > spec.unsafe_max, "unsafe", f"The classifier gives {scores['unsafe']:.2f}; somebody should look at it."),
    ]  # fmt: skip
    return decided([Finding(code=code, words=words) for failed, code, words in found if failed], scores)


def measure_image(seen: PaintedPicture, networks: Networks) -> Scores:
    """Every score of a picture with somebody in it, rounded to 4 digits."""
    real = networks.faces.read(seen.clip_THWC, seen.clip_people)
    alike = likeness(networks.faces.read(seen.image_HWC[None], seen.people), real)
    person, looks = describe(seen.people)[0], appearance.describe(seen.image_HWC[None], seen.people)[0]
    wanted = set(seen.clip_person.visible_joints)
    gap = appearance.distance(looks, seen.clip_appearance)
    scores = {
        "joints": len(wanted & set(person.visible_joints)) / max(1, len(wanted)),
        "yaw_gap_deg": yaw_gap_deg(person.yaw_deg, seen.clip_person.yaw_deg), "arms_crossed": float(person.arms_crossed),
        "scale": torso_length(seen.people) / max(1.0, torso_length(seen.clip_people)), "unsafe": networks.safety.score(seen.image_HWC),
        **({} if gap is None else {"identity_gap": gap}),
        **({} if alike is None else {"real_face": alike.cosine, "real_face_frames": float(alike.frames)}),
    }  # fmt: skip
    return {name: rounded(value) for name, value in scores.items()}


def joined(verdict: Verdict, judgement: Judgement) -> Verdict:
    """The measures' verdict with what a brain with eyes found. A failed hard check stands whatever the brain says."""
    scores = verdict.scores | {"judged": rounded(judgement.score)}
    if verdict.decision == "reject":
        return verdict.model_copy(update={"scores": scores})
    return decided([*verdict.findings, *(Finding(code=f.code, words=clean(f.words, 400)) for f in judgement.findings)], scores)
