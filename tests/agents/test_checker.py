"""The Quality Checker: what its rules say of scores that are known, and what it says of a real clip and of things done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents import reasons
from agents.checker import decided, judge_picture, judge_video
from agents.inspected import Networks, PaintedPicture, SyntheticVideo
from agents.measures import appearance
from agents.measures.agreement import about_face, mirrored
from agents.measuring import measure_picture, measure_video
from agents.rules import RULES, findings_of
from generators.base import Report
from generators.masks.identity import match_people
from generators.poses.people import PeopleTracker
from generators.poses.summary import describe
from generators.poses.tracks import INDEX, Bytes, People
from manifests import media
from manifests.agency import CheckerSpec
from manifests.records import Finding, Geometry, Verdict

SPEC = CheckerSpec()
GEOMETRY = Geometry(frames=21, fps=16.0, height=512, width=288)
GOOD: dict[str, float] = {
    "confidence": 1.0, "mirror_deg": 20.0, "mirror_pck": 0.3, "lag_frames": 0, "lag_gain": 0.0, "lag_peak": 0.9, "stranger_beside": 0.0,
    **{f"told_{side}_{limb}": 20 for side in ("left", "right") for limb in ("arm", "leg")},
    **{f"shown_{side}_{limb}": 1.0 for side in ("left", "right") for limb in ("arm", "leg")},
}  # fmt: skip


def codes(**scores: float) -> list[str]:
    return [f.code for f in findings_of(GOOD | scores, SPEC)]


def test_reasons_are_a_closed_list_and_thresholds_exist() -> None:
    known = set(reasons.REASONS)
    assert {rule.reason for rule in RULES} <= known
    assert {*reasons.SEEN_IN_IMAGES, *reasons.SEEN_IN_VIDEOS, *reasons.FATAL, *reasons.REVIEW} <= known
    assert {rule.limit for rule in RULES} <= set(CheckerSpec.model_fields)


def test_nothing_is_found_in_good_scores() -> None:
    assert codes() == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.score)
def test_each_rule_bites_behind_its_threshold_only(rule: object) -> None:
    assert isinstance(rule, type(RULES[0]))
    limit, step = float(getattr(SPEC, rule.limit)), 1e-3 if rule.bad == "above" else -1e-3
    assert codes(**{rule.score: limit}) == []
    assert codes(**{rule.score: limit + step}) == [rule.reason]


def test_a_missing_limb_is_named() -> None:
    found = findings_of(GOOD | {"shown_left_arm": 0.1, "shown_right_leg": 0.0}, SPEC)
    assert [f.code for f in found] == ["limb_missing", "limb_missing"]
    assert found[0].words == "The left arm is missing; show both arms, whole."
    assert "right leg" in found[1].words
    assert codes(shown_left_arm=0.1, told_left_arm=2) == [], "two frames are too few to tell"
    assert codes(contrast_left_shank=0.1, contrasted_left_shank=16) == ["limb_missing"], "the mask has it, the picture has not"
    assert codes(contrast_left_shank=0.1, contrasted_left_shank=2) == []
    assert codes(contrast_left_shank=0.1, contrasted_left_shank=16, shown_left_leg=0.1) == ["limb_missing"], "told once"
    assert codes(shown_left_arm=0.1, follows=0.0) == ["motion_differs"], "it is somewhere else"


def test_a_lag_counts_when_it_explains_something() -> None:
    late = {"lag_frames": 8.0, "lag_gain": 0.4}
    assert codes(**late) == ["motion_late"]
    assert codes(**late | {"lag_frames": -8.0}) == ["motion_early"]
    assert codes(**late | {"lag_gain": 0.0}) == []
    assert codes(**late | {"lag_frames": 1.0}) == []
    assert codes(**late | {"lag_peak": 0.2}) == [], "another motion is not a late one"


def test_the_mirror_image_must_fit_better_in_place_and_direction() -> None:
    assert codes(mirror_deg=-30.0, mirror_pck=-0.4) == ["motion_mirrored"]
    assert codes(mirror_deg=-30.0, mirror_pck=0.1) == []


def test_a_ghost_or_a_far_passer_by_is_no_stranger() -> None:
    somebody = {"stranger_beside": 0.9, "stranger_size": 0.9, "stranger_shadow": 0.2}
    assert codes(**somebody) == ["extra_person"]
    assert codes(**somebody | {"stranger_shadow": 0.99}) == []
    assert codes(**somebody | {"stranger_size": 0.1}) == []
    assert codes(**somebody | {"stranger_beside": 0.05}) == []


def test_what_weighs_more_decides() -> None:
    unsafe, late, twins = (Finding(code=c, words=c) for c in ("unsafe", "motion_late", "looks_like_the_real_person"))
    assert decided([], {}).decision == "accept"
    assert decided([unsafe], {}).decision == "review"
    assert (decided([unsafe, late], {}).decision, decided([unsafe, late], {}).reason) == ("revise", "motion_late")
    assert (decided([unsafe, late, twins], {}).decision, decided([late, twins], {}).reason) == ("reject", "looks_like_the_real_person")


def test_the_generators_doubts_are_told() -> None:
    verdict = judge_video(GOOD | {"confidence": 0.1}, GEOMETRY, Report(confidence=0.1, reasons=("turned_away",)), SPEC)
    assert (verdict.decision, verdict.reason) == ("reject", "low_confidence")
    assert "turned_away" in verdict.findings[0].words


FRAMES = 21


@pytest.fixture(scope="module")
def real(sample_clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> SyntheticVideo:
    """A man's clip as its own synthetic video: the best that any generator can do."""
    path = tmp_path_factory.mktemp("checker") / "clip.mp4"
    media.write_video(path, media.read_clip(sample_clip("front"), 16.0, short_side=288, count=FRAMES), 16.0)
    frames, _ = media.read_frames(path)
    people = PeopleTracker().track(frames, 16.0).only([0])
    picture = people.window(10, 11)
    return SyntheticVideo(
        mode="replacement", frames_THWC=frames, clip_THWC=frames, people=people, clip_people=people, others=None,
        matched=match_people(people, people), inspection=media.inspect(path),
        geometry=Geometry(frames=FRAMES, fps=16.0, height=frames.shape[1], width=frames.shape[2]), report=Report(),
        painted_HWC=(frames[10],), painted_people=(picture,), scene_HWC=None,
    )  # fmt: skip


def shown(real: SyntheticVideo, frames: Bytes, people: People) -> SyntheticVideo:
    return replace(real, frames_THWC=frames, people=people, matched=match_people(real.clip_people, people))


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks()


def checked(seen: SyntheticVideo, networks: Networks) -> Verdict:
    return judge_video(measure_video(seen, networks), seen.geometry, seen.report, SPEC)


def inspected(seen: PaintedPicture) -> Verdict:
    return judge_picture(measure_picture(seen, Networks()), "animation", SPEC)


def test_a_real_clip_is_accepted_with_all_its_scores(real: SyntheticVideo, networks: Networks) -> None:
    verdict = checked(real, networks)
    assert verdict.accepted, verdict.findings
    assert {"pck", "follows", "clothes", "scene", "flicker_whole_pct", "shown_left_arm", "unsafe"} <= set(verdict.scores)
    assert verdict.scores["pck"] == 1
    assert verdict == checked(real, Networks())


def test_a_back_that_the_tracker_takes_for_a_front_is_no_other_motion(real: SyntheticVideo, networks: Networks) -> None:
    """The outlines are the same; left and right are the tracker's word only. The mirror image lies elsewhere and is found."""
    turned = replace(real, people=about_face(real.people, [0]))
    verdict = checked(turned, networks)
    assert verdict.accepted, verdict.findings
    assert verdict.scores["about_face"] == 1
    image = replace(turned, people=mirrored(real.people), frames_THWC=np.ascontiguousarray(real.frames_THWC[:, :, ::-1]))
    found = checked(image, networks)
    assert "motion_mirrored" in {f.code for f in found.findings}
    assert found.scores["about_face"] == 0


def test_somebody_half_hidden_needs_no_more_of_a_mask_than_the_real_one_has(real: SyntheticVideo, networks: Networks) -> None:
    hidden = real.people.masks_PTHW.copy()
    hidden[:, :, int(real.people.landmarks_PT33x3[0, :, INDEX["left_hip"], 1].mean()) :] = 0
    cut = replace(real.people, masks_PTHW=hidden)
    assert "mask_incomplete" in {f.code for f in checked(replace(real, people=cut), networks).findings}
    assert checked(replace(real, people=cut, clip_people=cut), networks).scores["mask_joints"] == 1


def test_a_frozen_video_is_not(real: SyntheticVideo, networks: Networks) -> None:
    first = np.zeros(FRAMES, int)
    still = real.people
    held = People(
        still.landmarks_PT33x3[:, first], still.world_PT33x3[:, first], still.visibility_PT33[:, first], still.present_PT,
        still.masks_PTHW[:, first], still.fps,
    )  # fmt: skip
    verdict = checked(shown(real, real.frames_THWC[first], held), networks)
    assert (verdict.decision, verdict.reason) == ("revise", "frozen")


def test_a_video_one_frame_short_is_not(real: SyntheticVideo) -> None:
    verdict = checked(replace(real, inspection=replace(real.inspection, frames=FRAMES - 1)), Networks())
    assert (verdict.decision, verdict.reason) == ("revise", "wrong_geometry")
    assert "20 frames" in verdict.findings[0].words


def test_an_empty_video_is_not(real: SyntheticVideo, networks: Networks) -> None:
    """Nobody in it, not even a pixel that differs."""
    verdict = checked(shown(real, np.zeros_like(real.frames_THWC), real.people.only([])), networks)
    assert verdict.decision == "revise"
    assert {"black", "person_lost"} <= {f.code for f in verdict.findings}


def test_scores_are_finite_and_rounded(real: SyntheticVideo, networks: Networks) -> None:
    scores = measure_video(real, networks)
    assert all(np.isfinite(v) and round(v, 4) == v for v in scores.values())


def test_a_picture_of_the_real_person_is_rejected_and_so_is_an_empty_one(real: SyntheticVideo) -> None:
    one = real.painted_people[0]
    seen = PaintedPicture(
        image_HWC=real.painted_HWC[0], clip_THWC=real.clip_THWC, people=one,
        clip_person=describe(one)[0], clip_people=one, clip_appearance=appearance.describe(real.painted_HWC[0][None], one)[0],
    )  # fmt: skip
    verdict = inspected(seen)
    assert (verdict.decision, verdict.reason) == ("reject", "looks_like_the_real_person")
    assert verdict.scores["scale"] == 1
    other = inspected(replace(seen, clip_appearance=(90.0, 60.0, 60.0, 0.3) * 3))
    assert other.accepted
    assert inspected(replace(seen, people=one.only([]))).reason == "no_person"
    assert inspected(replace(seen, people=one.only([0, 0]))).reason == "several_people"
    small = replace(one, landmarks_PT33x3=one.landmarks_PT33x3 * 0.4)
    assert inspected(replace(seen, people=small, clip_appearance=())).reason == "too_small"
