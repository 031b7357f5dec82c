"""The hard checks of a synthetic video: which score is held against which threshold, and what the weaver is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.measuring import Scores
from manifests.agency import CheckerSpec
from manifests.records import Finding


@dataclass(frozen=True)
class Rule:
    """One score, one threshold, one reason."""

    score: str
    bad: Literal["above", "below"]
    limit: str
    """field of `CheckerSpec`"""
    reason: str
    words: str
    """may hold {value}"""

    def finding(self, scores: Scores, spec: CheckerSpec) -> Finding | None:
        """Nothing where the score is not known: what can't be told fails no check."""
        value = scores.get(self.score)
        limit = float(getattr(spec, self.limit))
        if value is None or not (value > limit if self.bad == "above" else value < limit):
            return None
        return Finding(code=self.reason, words=self.words.format(value=value))


NO_MOTION = "The character does something else than the person in the clip; follow the clip's motion limb by limb."
NOT_ITSELF = "The character does not look like its painted picture; keep face, hair and clothes as painted, in every frame."
UNSTEADY = "Light or colour jumps from frame to frame; keep the lighting steady."
OTHER_SCENE = "The scene is not the one that was asked; keep background and camera as they are."

RULES: tuple[Rule, ...] = (
    Rule("black", "above", "black_max", "black", "The video holds black frames; show the scene in every frame."),
    Rule("held", "above", "frozen_max", "frozen", "The video stands still for {value:.0%} of the time that the clip moves; keep moving."),
    Rule("still_s", "above", "still_max_s", "frozen", "The character stands for {value:.1f} s while the real person moves; keep moving."),
    Rule("presence", "below", "presence_min", "person_lost", "A character is found in {value:.0%} of the frames only; show it throughout."),
    Rule("others_kept", "below", "others_kept_min", "bystander_lost", "Somebody who should stay is gone; leave all others in the scene."),
    Rule("limb_error_deg", "above", "limb_error_max_deg", "motion_differs", NO_MOTION),
    Rule("limb_mean_deg", "above", "limb_mean_max_deg", "motion_differs", NO_MOTION),
    Rule("pck", "below", "pck_min", "motion_differs", NO_MOTION),
    Rule("follows", "below", "follows_min", "motion_differs", NO_MOTION),
    Rule("clothes", "above", "clothes_max", "identity_changed", NOT_ITSELF),
    Rule("clothes_worst", "above", "clothes_worst_max", "identity_changed", NOT_ITSELF),
    Rule("face", "below", "face_min", "identity_changed", NOT_ITSELF),
    Rule("mask_joints", "below", "mask_joints_min", "mask_incomplete", "The silhouette has {value:.0%} of the joints; set the figure off."),
    Rule("mask_coverage", "below", "coverage_min", "too_small_in_frame", "The characters fill {value:.2%} of the frame; show them larger."),
    Rule("flicker_whole_pct", "above", "flicker_max_pct", "flicker", UNSTEADY),
    Rule("flicker_scene_pct", "above", "flicker_max_pct", "flicker", UNSTEADY),
    Rule("flicker_person_pct", "above", "flicker_person_max_pct", "flicker", UNSTEADY),
    Rule("flicker_person_colour_pct", "above", "flicker_person_max_pct", "flicker", UNSTEADY),
    Rule("flicker_tile_pct", "above", "flicker_tile_max_pct", "flicker", UNSTEADY),
    Rule("warp_ratio", "above", "warp_ratio_max", "flicker", "Textures boil; keep surfaces the same from frame to frame."),
    Rule("scene", "below", "scene_min", "wrong_scene", OTHER_SCENE),
    Rule("scene_worst", "below", "scene_worst_min", "wrong_scene", OTHER_SCENE),
    Rule("scene_gap", "above", "scene_gap_max", "wrong_scene", OTHER_SCENE),
    Rule("scene_gap_worst", "above", "scene_gap_worst_max", "wrong_scene", OTHER_SCENE),
    Rule("clip_left", "above", "clip_left_max", "clip_scene_left", "The clip's own scene shows through; show the reference's only."),
    Rule("person_left", "above", "person_left_max", "real_person_left", "Parts of the replaced person can be seen; show the scene there."),
    Rule("unsafe", "above", "unsafe_max", "unsafe", "The classifier gives {value:.2f}; somebody should look at it."),
)  # fmt: skip


FIRST = frozenset({"black"})
"""What makes everything else fail too."""
MISTIMED = frozenset({"frozen", "motion_late", "motion_early", "motion_mirrored"})
"""With these, or with another motion altogether, the limbs are elsewhere, and nobody can say whether they are missing."""


def findings_of(scores: Scores, spec: CheckerSpec) -> list[Finding]:
    """Everything that fails, what explains most first; the same words once."""
    found = [_lag(scores, spec), _mirrored(scores, spec), _stranger(scores, spec), *(rule.finding(scores, spec) for rule in RULES)]
    known = [finding for finding in found if finding is not None]
    follows = scores.get("follows", 1.0) >= spec.follows_min
    if follows and not any(finding.code in MISTIMED for finding in known):
        known = _limbs(scores, spec) + known
    known.sort(key=lambda finding: finding.code not in FIRST)
    return list(dict.fromkeys(known))


def _stranger(scores: Scores, spec: CheckerSpec) -> Finding | None:
    """Somebody else who is there for long enough, is large enough and is no ghost of a performer."""
    beside, size = scores.get("stranger_beside", 0.0), scores.get("stranger_size", 0.0)
    if beside <= spec.stranger_max or size < spec.stranger_size_min or scores["stranger_shadow"] > spec.stranger_shadow_max:
        return None
    return Finding(code="extra_person", words="Somebody else is in the video who should not be; show the asked people only.")


def _mirrored(scores: Scores, spec: CheckerSpec) -> Finding | None:
    """The mirror image fits better, in where the limbs are and in how they point."""
    margins = [scores.get(name) for name in ("mirror_deg", "mirror_pck")]
    if any(m is None for m in margins) or scores["mirror_deg"] > -spec.mirror_margin_deg or scores["mirror_pck"] > -spec.mirror_margin_pck:
        return None
    return Finding(code="motion_mirrored", words="Left and right are exchanged; raise the same arm and leg as the person in the clip.")


def _lag(scores: Scores, spec: CheckerSpec) -> Finding | None:
    """The motion fits well some frames later or earlier, and clearly worse in time."""
    frames = round(scores.get("lag_frames", 0))
    if abs(frames) <= spec.lag_max_frames or scores["lag_gain"] < spec.lag_gain_min or scores["lag_peak"] < spec.lag_peak_min:
        return None
    code, word = ("motion_late", "late") if frames > 0 else ("motion_early", "early")
    return Finding(code=code, words=f"The motion comes {abs(frames)} frames too {word}; move in time with the clip.")


LIMBS = (("arm", "arms"), ("forearm", "arms"), ("leg", "legs"), ("shank", "legs"))
"""Whole before half."""


def _limbs(scores: Scores, spec: CheckerSpec) -> list[Finding]:
    """Each limb that is mostly not there, by name; of the others, their outer halves."""
    out: dict[tuple[str, str], Finding] = {}
    for side in ("left", "right"):
        for limb, both in LIMBS:
            name = f"{side}_{limb}"
            bare = scores.get(f"told_{name}", 0) >= spec.limb_frames_min and scores[f"shown_{name}"] < spec.limb_shown_min
            seen_through = (
                scores.get(f"contrasted_{name}", 0) >= spec.limb_frames_min and scores[f"contrast_{name}"] < spec.limb_contrast_min
            )
            if bare or seen_through:
                found = Finding(code="limb_missing", words=f"The {side} {limb} is missing; show both {both}, whole.")
                out.setdefault((side, both), found)
    return list(out.values())
