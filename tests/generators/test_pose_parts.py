"""What the tracker is made of, and the figures that are read off its arrays: no video is tracked here."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from generators.poses import association, blazepose, sides, silhouettes, smoothing, summary
from generators.poses.blazepose import Body
from generators.poses.tracks import INDEX, People
from manifests.records import rounded


def standing(frames: int = 5, turned_deg: float = 0.0, height: int = 320, width: int = 256) -> People:
    """One made-up person: arms down, facing the camera or turned about the vertical axis, 100 px a metre."""
    metres = {
        "nose": (0, -0.6, -0.12), "left_ear": (0.08, -0.6, 0), "right_ear": (-0.08, -0.6, 0), "left_shoulder": (0.2, -0.45, 0),
        "right_shoulder": (-0.2, -0.45, 0), "left_elbow": (0.25, -0.2, 0), "right_elbow": (-0.25, -0.2, 0), "left_wrist": (0.27, 0.05, 0),
        "right_wrist": (-0.27, 0.05, 0), "left_hip": (0.1, 0, 0), "right_hip": (-0.1, 0, 0), "left_knee": (0.1, 0.4, 0),
        "right_knee": (-0.1, 0.4, 0), "left_ankle": (0.1, 0.8, 0), "right_ankle": (-0.1, 0.8, 0), "left_heel": (0.1, 0.85, 0.03),
        "right_heel": (-0.1, 0.85, 0.03), "left_foot_index": (0.1, 0.85, -0.12), "right_foot_index": (-0.1, 0.85, -0.12),
    }  # fmt: skip
    world = np.zeros((33, 3))
    for name, where in metres.items():
        world[INDEX[name]] = where
    for side in ("left", "right"):
        for part in ("eye_inner", "eye", "eye_outer"):
            world[INDEX[f"{side}_{part}"]] = (0.03 if side == "left" else -0.03, -0.63, -0.1)
        world[INDEX[f"mouth_{side}"]] = (0.02 if side == "left" else -0.02, -0.56, -0.1)
        for part in ("pinky", "index", "thumb"):
            world[INDEX[f"{side}_{part}"]] = world[INDEX[f"{side}_wrist"]] + (0, 0.08, 0)
    angle = np.radians(turned_deg)
    x, z = world[:, 0].copy(), world[:, 2].copy()
    world[:, 0], world[:, 2] = np.cos(angle) * x - np.sin(angle) * z, np.sin(angle) * x + np.cos(angle) * z
    picture = world * 100 + [width / 2, height / 2, 0]
    masks = np.zeros((1, frames, height, width), np.uint8)
    masks[:, :, 90:250, 100:156] = 255
    shape = (1, frames, 33, 3)
    return People(
        np.broadcast_to(picture, shape).astype(np.float32), np.broadcast_to(world, shape).astype(np.float32),
        np.ones((1, frames, 33), np.float32), np.ones((1, frames), np.bool_), masks, 16.0,
    )  # fmt: skip


def test_the_detector_has_2254_anchors_inside_the_picture() -> None:
    anchors = blazepose.anchors()
    assert anchors.shape == (2254, 2)
    assert (anchors > 0).all()
    assert (anchors < 1).all()
    assert anchors[0].tolist() == [0.5 / 28, 0.5 / 28]


def test_a_crop_is_upright_and_invertible() -> None:
    crop = blazepose.crop_of(np.array([50.0, 60.0]), np.array([90.0, 60.0]))
    top = crop.to_picture(np.array([[128.0, 0.0]]))[0]
    assert top == pytest.approx([100.0, 60.0])
    assert crop.matrix() @ [*top, 1.0] == pytest.approx([128.0, 0.0], abs=1e-3)


@pytest.mark.parametrize("turned", [0, 45, 90, 135, -90, -135])
def test_yaw_is_0_towards_the_camera_and_positive_to_the_right(turned: float) -> None:
    (person,) = summary.describe(standing(turned_deg=turned))
    assert person.yaw_deg == pytest.approx(turned, abs=0.1)
    assert person.yaw_spread_deg == pytest.approx(0, abs=0.1)


def test_median_yaw_does_not_jump_at_180() -> None:
    middle, spread = summary.median_yaw(np.array([170.0, 178.0, -178.0, -170.0, 180.0]))
    assert abs(middle) == pytest.approx(180, abs=1)
    assert spread == pytest.approx(10, abs=1)


def test_framing_follows_the_joints_inside_the_picture() -> None:
    whole = standing()
    for rows, framing in ((320, "full"), (200, "half"), (140, "close")):
        cut = People(
            whole.landmarks_PT33x3, whole.world_PT33x3, whole.visibility_PT33, whole.present_PT, whole.masks_PTHW[:, :, :rows], 16.0
        )
        (person,) = summary.describe(cut)
        assert person.framing == framing
        assert person.box[3] < rows


def test_motion_is_in_body_heights_a_second() -> None:
    people = standing(frames=9)
    moved = people.landmarks_PT33x3.copy()
    moved[..., 0] += np.arange(9, dtype=np.float32)[None, :, None]
    (person,) = summary.describe(
        People(moved, people.world_PT33x3, people.visibility_PT33, people.present_PT, people.masks_PTHW, people.fps)
    )
    assert person.motion == pytest.approx(16 / 165, rel=0.05)


def test_crossed_arms_are_seen() -> None:
    people = standing()
    arms = people.landmarks_PT33x3.copy()
    arms[..., INDEX["left_wrist"], :] = arms[..., INDEX["right_shoulder"], :] + [8, 25, -20]
    arms[..., INDEX["right_wrist"], :] = arms[..., INDEX["left_shoulder"], :] + [-8, 25, -20]
    crossed = People(arms, people.world_PT33x3, people.visibility_PT33, people.present_PT, people.masks_PTHW, people.fps)
    assert not summary.describe(people)[0].arms_crossed
    assert summary.describe(crossed)[0].arms_crossed


def test_boxes_hold_the_hands_and_the_face_and_stay_inside() -> None:
    people = standing(frames=2)
    for at in summary.boxes(people):
        assert (len(at.hands), len(at.faces)) == (2, 1)
        for box, joint in zip((*at.hands, *at.faces), ("left_index", "right_index", "nose"), strict=True):
            x, y, _ = people.landmarks_PT33x3[0, 0, INDEX[joint]]
            assert box[0] < x < box[2]
            assert box[1] < y < box[3]
            assert 0 <= box[0] < box[2] <= 256
            assert all(v == rounded(v) for v in box)
            assert 10 < box[2] - box[0] < 60


def test_no_face_from_behind_and_no_boxes_of_the_absent() -> None:
    assert summary.boxes(standing(turned_deg=180))[0].faces == ()
    people = standing()
    people.present_PT[:, 1] = False
    assert summary.boxes(people)[1].hands == ()
    people.visibility_PT33[:, 2, INDEX["left_wrist"]] = 0.1
    assert len(summary.boxes(people)[2].hands) == 1


def test_assignment_is_the_cheapest_of_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        rows, columns = rng.integers(1, 5, 2)
        costs = [[None if rng.random() < 0.2 else float(rng.random()) for _ in range(columns)] for _ in range(rows)]

        def total(choice: list[int | None], costs: list[list[float | None]] = costs) -> float:
            return sum(0.8 if j is None else float(costs[i][j] or 0.0) for i, j in enumerate(choice))

        best = min(
            total(list(choice))
            for choice in itertools.product([None, *range(columns)], repeat=rows)
            if len({j for j in choice if j is not None}) == sum(j is not None for j in choice)
            and all(j is None or costs[i][j] is not None for i, j in enumerate(choice))
        )
        assert total(association.assign(costs, skip=0.8)) == pytest.approx(best)


def walking_bodies(count: int = 12) -> dict[int, Body]:
    """Of somebody who faces the camera, half turned, and moves to the right."""
    people = standing(frames=1, turned_deg=25.0)
    landmarks, world = people.landmarks_PT33x3[0, 0], people.world_PT33x3[0, 0]
    crop = blazepose.crop_of(np.array([128.0, 160.0]), np.array([128.0, 40.0]))
    empty = np.zeros((blazepose.CROP_SIDE,) * 2, np.uint8)
    still = Body(
        landmarks, crop.centre, np.array([128.0, 40.0]), world, people.visibility_PT33[0, 0], 1.0, crop, people.size_hw,
        np.stack([empty] * 3, 2), empty,
    )  # fmt: skip
    return {t: replace(still, landmarks_33x3=landmarks + np.array([t, 0, 0], np.float32)) for t in range(count)}


def shrunk(body: Body) -> Body:
    """The mean of a front and a back reading."""
    other = sides.about_face(body)
    return replace(
        body,
        landmarks_33x3=(body.landmarks_33x3 + other.landmarks_33x3) / 2,
        world_33x3=(body.world_33x3 + other.world_33x3) / 2,
    )


def test_a_body_read_from_behind_for_some_frames_is_turned_back_in_space_too() -> None:
    right = walking_bodies()
    wrong = {t: sides.about_face(body) if 4 <= t < 7 else body for t, body in right.items()}
    assert sides.doubtful(wrong) == [4, 5, 6]
    assert sides.doubtful(right) == []
    again = sides.settled({t: [body] for t, body in wrong.items()}, {})
    for t, body in right.items():
        np.testing.assert_allclose(again[t].world_33x3, body.world_33x3)
        np.testing.assert_allclose(again[t].landmarks_33x3, body.landmarks_33x3)


def test_a_reading_between_front_and_back_gives_way_to_a_decided_one() -> None:
    right = walking_bodies()
    bodies = {t: shrunk(body) if t in (3, 8) else body for t, body in right.items()}
    assert sides.doubtful(bodies) == [3, 8]
    readings = {t: [body, sides.about_face(right[t]), right[t]] if t in (3, 8) else [body] for t, body in bodies.items()}
    for t, body in sides.settled(readings, {}).items():
        np.testing.assert_allclose(body.landmarks_33x3, right[t].landmarks_33x3, atol=1e-4)


def test_a_face_outvotes_readings_from_behind() -> None:
    right = walking_bodies()
    behind = {t: [sides.about_face(body)] for t, body in right.items()}
    assert sides.facing(sides.settled(behind, {})[0]) < 0
    seen = sides.settled(behind, dict.fromkeys((2, 5, 8), 1.0))
    assert all(sides.facing(body) > 0 for body in seen.values())
    assert sides.outnumbered({**right, 5: behind[5][0]}) == [5]


def test_two_mirrors_are_none() -> None:
    body = walking_bodies(1)[0]
    there = sides.in_mirror(body)
    assert there.landmarks_33x3[11, 0] == pytest.approx(body.size_hw[1] - 1 - body.landmarks_33x3[12, 0])
    back = sides.in_mirror(there)
    np.testing.assert_allclose(back.landmarks_33x3, body.landmarks_33x3)
    np.testing.assert_allclose(back.world_33x3, body.world_33x3)
    np.testing.assert_allclose(back.crop.centre, body.crop.centre)


def test_smoothing_keeps_lines_and_parabolas_and_drops_spikes() -> None:
    t = np.arange(20.0)
    assert smoothing.savgol(t**2, 7) == pytest.approx(t**2, abs=15)
    assert smoothing.savgol(t**2, 7)[3:-3] == pytest.approx((t**2)[3:-3])
    assert smoothing.savgol(3 * t, 7) == pytest.approx(3 * t)
    spiky = 3 * t
    spiky[9] += 50
    assert smoothing.smooth(spiky, 16.0) == pytest.approx(3 * t, abs=3)
    for count in (1, 2, 3, 4):
        assert smoothing.smooth(np.ones((count, 2)), 16.0) == pytest.approx(np.ones((count, 2)))


def test_gaps_are_filled_by_lines_and_ends_are_held() -> None:
    found = np.array([False, True, False, False, True, False])
    assert smoothing.fill(np.array([9.0, 1, 9, 9, 4, 9]), found).tolist() == [1, 1, 2, 3, 4, 4]


def test_cleaning_drops_spots_and_fills_small_holes() -> None:
    people = standing(frames=1)
    mask = people.masks_PTHW[0, 0].copy()
    mask[5:15, 5:15] = 255
    mask[150:153, 120:123] = 0
    clean = silhouettes.cleaned(mask, people.landmarks_PT33x3[0, 0], people.visibility_PT33[0, 0])
    assert not clean[:20, :20].any()
    assert (clean[150:153, 120:123] == 255).all()
    assert not silhouettes.cleaned(mask * 0, people.landmarks_PT33x3[0, 0], people.visibility_PT33[0, 0]).any()
