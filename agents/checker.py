"""Quality Checker: from the scores of a painted picture or a synthetic video to accept, revise with findings, reject, or review.

Nothing is measured here (see agents/measuring.py), so other thresholds judge anew and measure nothing again. Every finding of the measures
is a hard check. A brain with eyes may add findings (`joined`); it can't overrule these.
"""

from __future__ import annotations

from agents.brains.base import Judgement
from agents.measuring import Scores
from agents.reasons import FATAL, REVIEW
from agents.rules import findings_of
from agents.text import clean
from generators.base import Mode, Report
from manifests.agency import CheckerSpec
from manifests.records import Finding, Geometry, Verdict, rounded

SHOW_MORE = "Show more of the body, further from the camera: arms and legs must be inside the picture."


def decided(findings: list[Finding], scores: Scores) -> Verdict:
    """The verdict that findings ask for. What no other attempt mends outweighs what one may; a look by a person comes last: it is not asked
    for what is dropped anyway."""
    fatal = [f for f in findings if f.code in FATAL]
    mendable = [f for f in findings if f.code not in FATAL | REVIEW]
    decision = "reject" if fatal else "revise" if mendable else "review" if findings else "accept"
    reason = next((f.code for f in (*fatal, *mendable, *findings)), "")
    return Verdict.model_validate({"decision": decision, "reason": reason, "findings": tuple(findings), "scores": scores})


def judge_video(scores: Scores, asked: Geometry, report: Report, spec: CheckerSpec) -> Verdict:
    """The verdict on a synthetic video, from its scores (`measure_video`), the geometry asked and what its generator says of it."""
    if "frames" in scores:
        got = f"{scores['frames']:g} frames of {scores['width']:g}×{scores['height']:g}"
        words = f"The video has {got}; asked were {asked.frames} of {asked.width}×{asked.height}."
        return decided([Finding(code="wrong_geometry", words=words)], scores)
    findings = findings_of(scores, spec)
    if scores["confidence"] < spec.confidence_min:
        why = ", ".join(report.reasons) or "no reason given"
        findings.append(Finding(code="low_confidence", words=f"The generator itself doubts the result: {why}."))
    return decided(findings, scores)


BY_POSES = frozenset({"motion_differs", "motion_late", "motion_early", "motion_mirrored", "limb_missing", "mask_incomplete"})
"""what a second reading of the poses may spoil"""
NOT_WORSE = Finding(code="loser_not_worse", words="The limbs of the second round's video are as near to the clip's as those of the first.")


def judge_loser(scores: Scores, winner: Scores, asked: Geometry, report: Report, spec: CheckerSpec) -> Verdict:
    """The verdict on a preference pair's loser, whose poses were read off the winner. Both are measured against the real span.

    Its motion may be as bad as it likes, and its limbs have to be further from the clip's than the winner's are. In all else it has to pass
    as any video, or the pair would teach another difference than the one it is made for.
    """
    verdict = judge_video(scores, asked, report, spec)
    findings = [finding for finding in verdict.findings if finding.code not in BY_POSES]
    if not scores.get("limb_mean_deg", 0.0) > winner.get("limb_mean_deg", 0.0):
        findings.append(NOT_WORSE)
    return decided(findings, scores)


def judge_picture(scores: Scores, mode: Mode, spec: CheckerSpec) -> Verdict:
    """The verdict on the painted picture of one character, from its scores (`measure_picture`)."""
    if scores["people"] == 0:
        return decided([Finding(code="no_person", words="No person can be seen; show one person, upright and whole.")], scores)
    same_face = scores.get("real_face", -1.0) > spec.real_face_max and scores["real_face_frames"] >= spec.face_frames_min
    found = [
        (scores["people"] > 1, "several_people", "Show exactly one person."),
        (scores["joints"] < spec.joints_min, "cropped", SHOW_MORE),
        (scores["yaw_gap_deg"] > spec.yaw_max_deg, "turned_away", "Turn the person the way the clip's person is turned."),
        (scores["arms_crossed"] > 0, "arms_crossed", "Let both arms hang free of the body."),
        (
            same_face or scores.get("identity_gap", spec.identity_gap_min) < spec.identity_gap_min,
            "looks_like_the_real_person", "Make the person look different from the one in the clip.",
        ),
        (mode == "animation" and scores["scale"] < spec.scale_min, "too_small", "Show the person larger."),
        (mode == "animation" and scores["scale"] > spec.scale_max, "too_large", "Show the person smaller."),
        (scores["unsafe"] > spec.unsafe_max, "unsafe", f"The classifier gives {scores['unsafe']:.2f}; somebody should look at it."),
    ]  # fmt: skip
    return decided([Finding(code=code, words=words) for failed, code, words in found if failed], scores)


def joined(verdict: Verdict, judgement: Judgement) -> Verdict:
    """The measures' verdict with what a brain with eyes found. A failed hard check stands whatever the brain says."""
    scores = verdict.scores | {"judged": rounded(judgement.score)}
    if verdict.decision == "reject":
        return verdict.model_copy(update={"scores": scores})
    return decided([*verdict.findings, *(Finding(code=f.code, words=clean(f.words, 400)) for f in judgement.findings)], scores)
