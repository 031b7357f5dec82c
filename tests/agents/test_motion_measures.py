"""The checker's measures of motion and people, on made-up people whose every joint and pixel is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from agents.measures.agreement import agreement, backwards, mirrored, mirroring
from agents.measures.lag import lag
from agents.measures.motion import following, longest_run
from agents.measures.people import others_kept, presences, strangers
from agents.measures.silhouette import CHAINS, PARTS, limbs
from generators.masks.identity import match_people
from generators.poses.curves import correlation, curves_of
from generators.poses.tracks import INDEX, LANDMARKS, People

FRAMES = 41
SIZE = (360, 480)
NOISE_PX = 0.3
"""what the tracker's joints shake by"""


def dancer(
    seed: int = 0,
    at: tuple[float, float] = (240.0, 170.0),
    scale: float = 100.0,
    start: int = 0,
    speed: float = 1.0,
    frames: int = FRAMES,
    fps: float = 30.0,
    without: str = "",
    beat_s: float | None = None,
    sway: float = 1.0,
) -> People:
    """Somebody upright whose arms and legs swing, each in its own time. `seed`: another dance; `start`: frame of the dance that comes
    first; `without`: a limb that is missing from the mask; `beat_s`: everything repeats after so long; `sway`: 0 stands still."""
    rng = np.random.default_rng(seed)
    beats = rng.uniform(0.9, 2.1, 8) if beat_s is None else np.full(8, beat_s)
    phases, base = rng.uniform(0, 2 * np.pi, 8), rng.uniform(-0.2, 0.2, 8)
    shake = np.random.default_rng([seed, int(at[0]), int(scale), start])
    world, pixels = np.zeros((1, frames, 33, 3), np.float32), np.zeros((1, frames, 33, 3), np.float32)
    masks = np.zeros((1, frames, *SIZE), np.uint8)
    for t in range(frames):
        now = (t + start) * speed / fps
        angles = base + sway * 0.55 * np.sin(2 * np.pi * now / beats + phases)
        joints = {"nose": np.array([0.02, -0.75])}
        for k, (side, sign) in enumerate((("left", 1), ("right", -1))):
            shoulder, hip = np.array([sign * 0.2, -0.5]), np.array([sign * 0.12, 0.0])
            arm, leg = 0.9 + angles[4 * k], 0.3 + 0.5 * angles[4 * k + 2]
            elbow = shoulder + 0.28 * np.array([sign * np.sin(arm), np.cos(arm)])
            knee = hip + 0.45 * np.array([sign * np.sin(leg), np.cos(leg)])
            arm, leg = arm + 0.6 + angles[4 * k + 1], leg + 0.4 * angles[4 * k + 3]
            joints |= {f"{side}_shoulder": shoulder, f"{side}_hip": hip, f"{side}_elbow": elbow, f"{side}_knee": knee}
            joints[f"{side}_wrist"] = elbow + 0.26 * np.array([sign * np.sin(arm), np.cos(arm)])
            joints[f"{side}_ankle"] = knee + 0.42 * np.array([sign * np.sin(leg), np.cos(leg)])
        for name in LANDMARKS:
            xy = joints.get(name, joints["nose"])
            world[0, t, INDEX[name], :2] = xy
            pixels[0, t, INDEX[name], :2] = np.array(at) + xy * scale + shake.normal(0, NOISE_PX, 2)
        masks[0, t] = silhouette({name: np.array(at) + xy * scale for name, xy in joints.items()}, scale, without)
    seen = np.ones((1, frames, 33), np.float32)
    return People(pixels, world, seen, np.ones((1, frames), bool), masks, fps)


def silhouette(joints: dict[str, np.ndarray], scale: float, without: str) -> np.ndarray:
    out = np.zeros(SIZE, np.uint8)
    corners = [joints[name] for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    cv2.fillConvexPoly(out, np.round(corners).astype(np.int32), 255)
    cv2.circle(out, [int(v) for v in joints["nose"]], int(0.12 * scale), 255, -1)
    for name, chain in CHAINS.items():
        left = chain[:2] if without in PARTS and PARTS[without] == (name, chain[1:]) else () if name == without else chain
        if left:
            cv2.polylines(out, [np.round([joints[j] for j in left]).astype(np.int32)], False, 255, int(0.13 * scale))
    return out


def together(*people: People) -> People:
    return People(
        np.concatenate([p.landmarks_PT33x3 for p in people]), np.concatenate([p.world_PT33x3 for p in people]),
        np.concatenate([p.visibility_PT33 for p in people]), np.concatenate([p.present_PT for p in people]),
        np.concatenate([p.masks_PTHW for p in people]), people[0].fps,
    )  # fmt: skip


def at_frames(people: People, frames: np.ndarray) -> People:
    """The frames of these numbers, in this order."""
    return replace(
        people, landmarks_PT33x3=people.landmarks_PT33x3[:, frames], world_PT33x3=people.world_PT33x3[:, frames],
        visibility_PT33=people.visibility_PT33[:, frames], present_PT=people.present_PT[:, frames], masks_PTHW=people.masks_PTHW[:, frames],
    )  # fmt: skip


def frozen_from(people: People, frame: int) -> People:
    """Stands still from a frame on; the tracker still shakes."""
    still = at_frames(people, np.minimum(np.arange(people.frames), frame))
    noise = np.random.default_rng(5).normal(0, NOISE_PX, still.landmarks_PT33x3.shape).astype(np.float32)
    noise[:, :frame] = 0
    return replace(still, landmarks_PT33x3=still.landmarks_PT33x3 + noise)


@pytest.fixture(scope="module")
def driver() -> People:
    return dancer()


@pytest.fixture(scope="module")
def performer() -> People:
    """The same dance, smaller and elsewhere."""
    return dancer(at=(160, 200), scale=70)


def test_the_same_motion_agrees_and_backwards_does_not(driver: People, performer: People) -> None:
    found, null = agreement(driver, performer), agreement(backwards(driver), performer)
    assert found.pck10 > 0.95
    assert found.limb_deg < 3
    assert found.frames == FRAMES
    assert found.joints == 11 * FRAMES
    assert null.pck20 < 0.8
    assert null.limb_deg > 3 * found.limb_deg


def test_an_absent_output_has_no_agreement(driver: People, performer: People) -> None:
    gone = replace(performer, present_PT=np.zeros((1, FRAMES), bool))
    found = agreement(driver, gone)
    assert np.isnan([found.pck10, found.pck20, found.limb_deg]).all()
    assert (found.joints, found.frames) == (0, 0)


@pytest.mark.parametrize("seed", range(1, 7))
def test_another_dance_does_not_follow(driver: People, performer: People, seed: int) -> None:
    """So short a time holds few swings, so that two dances may agree by half by chance."""
    assert following(driver, performer).correlation > 0.9
    assert abs(following(driver, dancer(seed, scale=70)).correlation) < 0.7


def test_a_still_person_correlates_with_nothing(driver: People) -> None:
    assert abs(following(driver, dancer(sway=0.0)).correlation) < 0.2


def test_frozen_people_are_told_from_calm_ones(driver: People, performer: People) -> None:
    whole, half, calm = (following(driver, p) for p in (frozen_from(performer, 0), frozen_from(performer, 20), dancer(scale=70, sway=0.6)))
    assert whole.energy_ratio < 0.3
    assert whole.still_frames > 0.9 * FRAMES
    assert 15 <= half.still_frames <= 24
    assert calm.still_frames == 0
    assert calm.energy_ratio == pytest.approx(0.6, abs=0.08)
    assert following(driver, performer).still_frames == 0
    assert following(dancer(sway=0.0), performer).moving_frames == 0


@pytest.mark.parametrize("frames", [33, 49])
@pytest.mark.parametrize("fps", [16.0, 30.0])
@pytest.mark.parametrize("late", [-8, -3, 0, 1, 8])
def test_lag_is_found(frames: int, fps: float, late: int) -> None:
    for seed in range(4):
        found = lag(dancer(seed, start=20, frames=frames, fps=fps), dancer(seed, start=20 - late, frames=frames, fps=fps, scale=60))
        assert found.frames is not None
        assert abs(found.frames - late) <= 1
        assert found.peak > 0.8
        gained = found.peak - found.in_time
        assert gained > 0.1 if abs(late) == 8 else (gained > 0.02) == (abs(late) > 1)


def test_a_start_that_waits_is_late_too(driver: People) -> None:
    assert lag(driver, at_frames(driver, np.maximum(np.arange(FRAMES) - 8, 0))).frames == 8


def test_of_two_ways_to_explain_a_repeating_motion_the_nearer_is_meant() -> None:
    """Everything repeats after 20 frames: 8 late is 12 early."""
    found = lag(dancer(beat_s=20 / 30, start=20), dancer(beat_s=20 / 30, start=12, scale=70))
    assert found.frames == 8
    assert found.rival == pytest.approx(found.peak, abs=0.05)


def test_the_still_have_no_lag(driver: People, performer: People) -> None:
    assert lag(dancer(sway=0.0), performer).frames is None
    assert lag(driver, dancer(sway=0.0)).frames is None
    assert np.isnan(lag(driver, dancer(sway=0.0)).peak)


def test_a_mirror_image_has_the_other_sign(driver: People, performer: People) -> None:
    own, image = mirroring(driver, performer), mirroring(driver, mirrored(performer))
    for right, wrong in ((own.margin_pck, image.margin_pck), (own.margin_deg, image.margin_deg), (own.margin_motion, image.margin_motion)):
        assert right > 0.1
        assert wrong < -0.1
    assert own.margin_deg == pytest.approx(own.apart_deg, abs=5)
    again = mirrored(mirrored(driver))
    assert np.allclose(again.landmarks_PT33x3, driver.landmarks_PT33x3, atol=1e-3)
    assert np.array_equal(again.masks_PTHW, driver.masks_PTHW)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_an_erased_limb_is_missed(driver: People, part: str) -> None:
    """The pose model still puts its joints where they would be, so only the mask tells. Of a limb without its outer half some is there."""
    found = {one.name: one for one in limbs(driver, dancer(at=(160, 200), scale=70, without=part))}
    assert set(found) == set(PARTS)
    assert found[part].shown < 0.3
    assert found[part].gone_frames > 0.8 * FRAMES
    assert all(one.shown > 0.85 and one.gone_frames == 0 for name, one in found.items() if PARTS[name][0] != PARTS[part][0])
    if part not in CHAINS:
        assert found[PARTS[part][0]].shown > 0.3


def test_a_limb_folded_onto_the_body_is_missed(driver: People) -> None:
    """The pose model lays the joints of an erased arm on the trunk, where the mask covers them."""
    people = dancer(without="left_arm")
    for joint in ("elbow", "wrist"):
        people.landmarks_PT33x3[0, :, INDEX[f"left_{joint}"], :2] = people.landmarks_PT33x3[0, :, INDEX["left_hip"], :2]
    arm = next(one for one in limbs(driver, people) if one.name == "left_arm")
    assert arm.shown < 0.3
    assert arm.gap > 0.5


def test_a_limb_that_the_driver_does_not_show_is_no_finding(driver: People) -> None:
    hidden = driver.visibility_PT33.copy()
    hidden[0, :, INDEX["left_elbow"]] = 0.1
    assert "left_arm" not in {one.name for one in limbs(replace(driver, visibility_PT33=hidden), dancer(without="left_arm"))}


def test_two_who_crossed_are_matched_by_what_they_do() -> None:
    """Both stand at the same place in the end; only motion can tell them."""
    real = together(dancer(1, at=(200, 170)), dancer(2, at=(260, 170)))
    assert match_people(real, together(dancer(2, at=(230, 170)), dancer(1, at=(232, 170)))) == (1, 0)
    assert match_people(real, together(dancer(1, at=(200, 170)), dancer(2, at=(260, 170)))) == (0, 1)


def test_people_who_do_not_move_are_matched_by_place() -> None:
    real = together(dancer(1, at=(120, 170), sway=0.0), dancer(2, at=(360, 170), sway=0.0))
    assert match_people(real, together(dancer(2, at=(350, 170), sway=0.0), dancer(1, at=(130, 170), sway=0.0))) == (1, 0)
    assert match_people(real, dancer(2, at=(350, 170), sway=0.0)) == (-1, 0)


def test_one_person_is_matched_by_motion_before_size(driver: People) -> None:
    assert match_people(driver, together(dancer(3, scale=75, at=(120, 170)), dancer(scale=65, at=(330, 170)))) == (1,)
    assert match_people(driver, dancer(scale=30).only([])) == (-1,)


def test_strangers_are_told_from_those_who_belong_there(driver: People) -> None:
    neighbour, extra = dancer(2, at=(100, 170)), dancer(3, at=(380, 170), scale=80)
    output = together(driver, neighbour, extra)
    first, second = strangers(output, (0,), neighbour)
    assert (first.track, second.track) == (1, 2)
    assert first.apart is not None
    assert first.apart < 0.05
    assert second.apart is None
    assert (second.presence, second.beside) == (1.0, 1.0)
    assert second.size == pytest.approx(0.8, abs=0.05)
    assert second.shadow == 0.0
    assert others_kept(output, (0,), neighbour) == (1.0,)
    assert others_kept(together(driver, extra), (0,), neighbour) == (0.0,)


def test_a_piece_of_a_performer_is_beside_nobody(driver: People) -> None:
    """The tracker lost the performer half way and found it again under another number."""
    early = np.arange(FRAMES)[None] < 20
    output = together(replace(driver, present_PT=early), replace(driver, present_PT=~early))
    piece = strangers(output, (0,))[0]
    assert piece.presence == pytest.approx(21 / FRAMES)
    assert piece.beside == 0.0


def test_a_lost_performer_has_no_presence(driver: People) -> None:
    seen = replace(driver, present_PT=np.arange(FRAMES)[None] < 20)
    assert presences(together(driver, driver), seen, (0, -1)) == pytest.approx((20 / FRAMES, 0.0))


def test_correlation_refuses_other_lengths_and_knows_no_motion_unseen(driver: People) -> None:
    with pytest.raises(ValueError, match="41 frames against 10"):
        correlation(curves_of(driver), curves_of(driver.window(0, 10)))
    assert np.isnan(correlation(curves_of(driver), curves_of(replace(driver, present_PT=np.zeros((1, FRAMES), bool)))))


def test_the_longest_run() -> None:
    assert longest_run(np.array([1, 0, 1, 1, 1, 0, 1], bool)) == 3
    assert longest_run(np.zeros(0, bool)) == 0
