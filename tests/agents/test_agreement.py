"""Agreement figures on made-up people whose every joint is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.measures.agreement import SCORED, backwards, body_of, expected, jitter, pck
from generators.poses.tracks import INDEX, Details, Floats, People

FRAMES = 24
REST = {  # metres, y down
    "nose": (0.0, -0.75), "left_shoulder": (0.2, -0.5), "right_shoulder": (-0.2, -0.5), "left_elbow": (0.45, -0.45),
    "right_elbow": (-0.45, -0.45), "left_wrist": (0.7, -0.45), "right_wrist": (-0.7, -0.45), "left_hip": (0.12, 0.0),
    "right_hip": (-0.12, 0.0), "left_knee": (0.14, 0.45), "right_knee": (-0.14, 0.45), "left_ankle": (0.15, 0.9),
    "right_ankle": (-0.15, 0.9),
}  # fmt: skip


def waving(scale: float = 100.0, arm: float = 1.0, at: tuple[float, float] = (200.0, 250.0), growth: float = 0.0) -> People:
    """Somebody who lifts both arms over the frames. `arm`: length of the forearm over the usual; `growth`: the camera comes nearer."""
    world = np.zeros((1, FRAMES, 33, 3), np.float32)
    pixels = np.zeros((1, FRAMES, 33, 3), np.float32)
    for t in range(FRAMES):
        joints = {name: np.array(xy) for name, xy in REST.items()}
        lift = 1.5 * t / FRAMES
        for side, sign in (("left", 1), ("right", -1)):
            up = np.array([sign * np.cos(lift), -np.sin(lift)])
            joints[f"{side}_elbow"] = joints[f"{side}_shoulder"] + 0.28 * up
            joints[f"{side}_wrist"] = joints[f"{side}_elbow"] + 0.26 * arm * up
        for name, xy in joints.items():
            world[0, t, INDEX[name], :2] = xy
            pixels[0, t, INDEX[name], :2] = np.array(at) + xy * scale * (1 + growth * t / FRAMES)
    return People(
        pixels, world, np.ones((1, FRAMES, 33), np.float32), np.ones((1, FRAMES), bool), np.zeros((1, FRAMES, 8, 8), np.uint8), 16.0
    )


def every() -> np.ndarray:
    return np.ones(FRAMES, bool)


def moved(people: People, joint: str, by: tuple[float, float]) -> People:
    landmarks: Floats = people.landmarks_PT33x3.copy()
    landmarks[0, :, INDEX[joint], :2] += by
    return replace(people, landmarks_PT33x3=landmarks)


@pytest.mark.parametrize("other", [waving(60), waving(100, at=(20, 30)), waving(100, arm=1.4), waving(80, growth=0.5)])
def test_proportions_place_and_approach_are_taken_out(other: People) -> None:
    driver, output = body_of(waving()), body_of(other)
    assert pck(expected(driver, output), output, every()) == 1.0


def test_a_joint_elsewhere_is_counted_wrong() -> None:
    """The ankle is moved by 0.2 torso lengths: one of the eleven scored joints is wrong in every frame."""
    driver, output = body_of(waving()), body_of(moved(waving(), "left_ankle", (-10.0, 0.0)))
    assert pck(expected(driver, output), output, every()) == pytest.approx(1 - 1 / len(SCORED))
    assert pck(expected(driver, output), output, every(), within=0.25) == 1.0


def test_unseen_joints_and_left_out_frames_do_not_count() -> None:
    output_people = moved(waving(), "left_ankle", (-10.0, 0.0))
    output_people.visibility_PT33[0, :, INDEX["left_ankle"]] = 0.1
    driver, output = body_of(waving()), body_of(output_people)
    assert pck(expected(driver, output), output, every()) == 1.0
    assert np.isnan(pck(expected(driver, output), output, ~every()))


def test_the_null_is_far_below() -> None:
    driver, output = waving(), body_of(waving(70))
    assert pck(expected(body_of(backwards(driver)), output), output, every()) < 0.75


def test_backwards_turns_everything_round() -> None:
    people = waving()
    details = Details.unseen(1, FRAMES)
    details.face_seen_PT[0, 0] = 0.75
    turned = backwards(replace(people, details=details))
    assert np.array_equal(turned.landmarks_PT33x3[0, 0], people.landmarks_PT33x3[0, -1])
    assert turned.details is not None
    assert turned.details.face_seen_PT[0, -1] == 0.75
    assert np.array_equal(backwards(turned).landmarks_PT33x3, people.landmarks_PT33x3)


def test_jitter_sees_noise_and_not_speed() -> None:
    calm = waving()
    noise = np.random.default_rng(0).normal(0, 1.5, calm.landmarks_PT33x3.shape).astype(np.float32)
    shaken = replace(calm, landmarks_PT33x3=calm.landmarks_PT33x3 + noise)
    assert jitter(body_of(shaken)) > 10 * jitter(body_of(calm))
    assert jitter(body_of(waving(50))) == pytest.approx(jitter(body_of(calm)), rel=0.02)


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="10 frames against 24"):
        expected(body_of(waving().window(0, 10)), body_of(waving()))


def test_three_frames_have_no_jitter() -> None:
    assert np.isnan(jitter(body_of(waving().window(0, 3))))
