"""Hands and faces on real people, and the arrays that carry them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generators.poses import following, summary
from generators.poses.details import DetailReader
from generators.poses.hands import LEFT, RIGHT, Arm, apart
from generators.poses.networks import FaceDetector, FaceNet, Hand, HandNet, PalmNet, Region, SelfieNet, face_region, palm_region, upwards
from generators.poses.people import PeopleTracker
from generators.poses.tracks import Details, People
from manifests import media
from manifests.errors import BadInput

Clips = Callable[[str], Path]
FPS = 30.0


@pytest.fixture(scope="module")
def frames(sample_clip: Clips) -> np.ndarray:
    """A woman who faces the camera at an angle, and a man seen from behind."""
    return media.read_clip(sample_clip("multi3"), FPS, short_side=512, count=16)


@pytest.fixture(scope="module")
def people(frames: np.ndarray) -> People:
    return DetailReader().read(frames, PeopleTracker().track(frames, FPS))


@pytest.fixture(scope="module")
def details(people: People) -> Details:
    assert people.details is not None
    return people.details


def saved(people: People) -> bytes:
    buffer = io.BytesIO()
    people.save(buffer)
    return buffer.getvalue()


def test_the_face_that_looks_at_us_is_read_and_the_one_from_behind_is_not(people: People, details: Details) -> None:
    seen = (details.face_seen_PT > 0).mean(axis=1)
    woman, man = int(np.argmax(seen)), int(np.argmin(seen))
    assert seen[woman] == 1.0
    assert seen[man] == 0.0
    assert not details.faces_PT468x3[man].any()
    nose = people.landmarks_PT33x3[woman, :, 0, :2]
    mesh = details.faces_PT468x3[woman, :, :, :2]
    assert np.linalg.norm(mesh[:, 1] - nose, axis=-1).max() < 0.35 * np.ptp(mesh[..., 1], axis=1).min()  # point 1 is the nose's tip


def test_hands_hang_on_their_own_wrists(people: People, details: Details) -> None:
    shares = (details.hand_seen_PT2 > 0).mean(axis=1)
    assert (shares > 0.5).sum() >= 2
    for p in range(people.count):
        hand = 0.108 * summary.standing_height(people.world_PT33x3[p], people.landmarks_PT33x3[p])
        wrists_T2x2 = people.landmarks_PT33x3[p][:, [15, 16], :2]
        for side in (LEFT, RIGHT):
            seen = details.hand_seen_PT2[p, :, side] > 0
            starts = details.hands_PT2x21x3[p, seen, side, 0, :2]
            assert (np.linalg.norm(starts - wrists_T2x2[seen, side], axis=-1) < hand).all()
            other = np.linalg.norm(starts - wrists_T2x2[seen, 1 - side], axis=-1)
            assert (np.linalg.norm(starts - wrists_T2x2[seen, side], axis=-1) < other).all()
            assert not details.hands_PT2x21x3[p, ~seen, side].any()


def test_a_mirrored_video_swaps_the_hands(people: People, details: Details, frames: np.ndarray) -> None:
    names = [*range(33)]
    for left, right in ((1, 4), (2, 5), (3, 6), (7, 8), (9, 10), *((k, k + 1) for k in range(11, 32, 2))):
        names[left], names[right] = right, left
    landmarks, world = people.landmarks_PT33x3[:, :, names].copy(), people.world_PT33x3[:, :, names].copy()
    landmarks[..., 0], world[..., 0] = frames.shape[2] - 1 - landmarks[..., 0], -world[..., 0]
    mirrored = replace(
        people, landmarks_PT33x3=landmarks, world_PT33x3=world, visibility_PT33=people.visibility_PT33[:, :, names],
        masks_PTHW=people.masks_PTHW[..., ::-1], details=None,
    )  # fmt: skip
    again = DetailReader().read(np.ascontiguousarray(frames[:, :, ::-1]), mirrored).details
    assert again is not None
    same = (again.hand_seen_PT2[..., ::-1] > 0) == (details.hand_seen_PT2 > 0)
    assert same.mean() > 0.8


def test_threads_change_nothing(people: People, frames: np.ndarray) -> None:
    one = DetailReader(threads=1).read(frames, people)
    assert saved(one) == saved(people)
    assert saved(DetailReader(threads=3).read(frames, people)) == saved(people)


def test_arrays_travel_with_the_people(people: People, details: Details) -> None:
    back = People.load(saved(people))
    assert back.details is not None
    np.testing.assert_allclose(back.details.hands_PT2x21x3, details.hands_PT2x21x3, atol=0.006)
    assert saved(back) == saved(people)
    part = people.only([people.count - 1]).window(2, 7).details
    assert part is not None
    np.testing.assert_array_equal(part.faces_PT468x3, details.faces_PT468x3[-1:, 2:7])
    assert People.load(saved(replace(people, details=None))).details is None


def test_details_of_other_frames_are_refused(people: People, frames: np.ndarray) -> None:
    with pytest.raises(BadInput, match="give the tracked frames"):
        DetailReader().read(frames[:3], people)
    with pytest.raises(ValueError, match="details are of"):
        replace(people, details=Details.unseen(people.count, people.frames + 1))
    with pytest.raises(BadInput, match="at least 1"):
        DetailReader(threads=0)


def test_nobody_and_tiny_people_have_no_details(frames: np.ndarray, people: People) -> None:
    nobody = DetailReader().read(frames, people.only([])).details
    assert nobody is not None
    assert nobody.hand_seen_PT2.shape == (0, len(frames), 2)
    small = frames[:3, ::10, ::10].copy()
    tiny = people.window(0, 3)
    tiny = replace(tiny, landmarks_PT33x3=tiny.landmarks_PT33x3 / 10, masks_PTHW=tiny.masks_PTHW[..., ::10, ::10], details=None)
    read = DetailReader().read(small, tiny).details
    assert read is not None
    assert not read.hand_seen_PT2.any()
    assert not read.face_seen_PT.any()


def test_boxes_come_from_the_points_where_there_are_any(people: People, details: Details) -> None:
    t = int(np.flatnonzero((details.hand_seen_PT2 > 0).any(axis=(0, 2)))[0])
    p, side = (int(i) for i in np.argwhere(details.hand_seen_PT2[:, t] > 0)[0])
    (low, high) = details.hands_PT2x21x3[p, t, side, :, :2].min(axis=0), details.hands_PT2x21x3[p, t, side, :, :2].max(axis=0)
    pad = summary.PADDING * (high - low).max()
    text = (((1.0, 2.0, 3.0, 4.0),),) * people.frames
    at = summary.boxes(people, text)[t]
    assert any(np.allclose(box, [*(low - pad), *(high + pad)], atol=0.01) for box in at.hands)
    assert at.text == ((1.0, 2.0, 3.0, 4.0),)
    body = summary.boxes(replace(people, details=None))[t]
    assert body.hands != at.hands
    assert body.text == ()


def a_hand(x: float, left: float, y: float = 50.0) -> Hand:
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(3.0)), axis=-1).reshape(21, 2) * 3
    return Hand(np.concatenate([grid + np.array([x, y]), np.zeros((21, 1))], axis=1), 0.9, left)


def an_arm(side: int, x: float) -> Arm:
    wrist = np.array([[x, 50.0]])
    return Arm(side, wrist, wrist + np.array([0, 10]), np.array([True]), np.array([20.0]))


def test_two_readings_of_one_hand_leave_the_one_that_fits() -> None:
    arms = (an_arm(LEFT, 60.0), an_arm(RIGHT, 50.0))
    left, right = apart(({0: a_hand(50.0, 0.1)}, {0: a_hand(51.0, 0.1)}), arms)
    assert (len(left), len(right)) == (0, 1)
    left, right = apart(({0: a_hand(60.0, 0.9)}, {0: a_hand(59.0, 0.9)}), arms)
    assert (len(left), len(right)) == (1, 0)
    left, right = apart(({0: a_hand(60.0, 0.9)}, {0: a_hand(40.0, 0.1)}), arms)
    assert (len(left), len(right)) == (1, 1)


def test_a_hand_at_the_other_wrist_is_dropped_when_its_shape_says_so() -> None:
    arms = (an_arm(LEFT, 60.0), an_arm(RIGHT, 50.0))
    assert apart(({0: a_hand(51.0, 0.05)}, {}), arms) == ({}, {})
    assert len(apart(({0: a_hand(51.0, 0.9)}, {}), arms)[LEFT]) == 1


def test_short_gaps_are_bridged_long_ones_not_and_flashes_dropped() -> None:
    points = np.zeros((30, 21, 3)) + np.arange(21)[:, None]
    belief = np.full(30, 0.9)
    belief[5:7], belief[12:20], belief[21:] = 0.0, 0.0, 0.0
    belief[4] = 0.6
    smooth, seen = following.steady(points, belief, FPS)
    assert (seen[:12] > 0).all()
    assert seen[5] == pytest.approx(0.6)
    assert not seen[12:].any()
    assert not smooth[12:].any()
    points[6:] += 200.0  # meanwhile it went far away: what lies between is not known
    assert not following.steady(points, belief, FPS)[1][5:7].any()


def test_smoothing_calms_without_lagging() -> None:
    rng = np.random.default_rng(3)
    t = np.arange(40)
    path = np.where(t < 20, 0.0, 25.0 * (t - 20))  # a hand that shoots off
    shape = rng.uniform(0, 40, (21, 3))
    points = shape + path[:, None, None] * [1, 0, 0]
    smooth, _ = following.steady(points + rng.normal(0, 1.0, points.shape), np.ones(40), FPS)
    error = np.linalg.norm((smooth - points)[..., :2], axis=-1)
    assert np.median(error[2:18]) < 0.8
    assert error.max() < 8.0


def test_lost_things_are_looked_for_and_found_backwards() -> None:
    looked: list[int] = []

    def look(t: int) -> str | None:
        looked.append(t)
        return "found" if t >= 5 else None

    found = following.follow(9, 3, look, lambda t, _, since: "again" if t != 4 or since == 3 else None)
    assert looked == [0, 3, 6]
    assert sorted(found) == [5, 6, 7, 8]


def test_judges_find_what_is_there_without_the_body(frames: np.ndarray, people: People, details: Details) -> None:
    woman = int(np.argmax(details.face_seen_PT.sum(axis=1)))
    mesh = FaceNet()
    faces = [mesh.read(frames[0], face_region(spot)) for spot in FaceDetector().find(frames[0], zoom=4)]
    good = [face for face in faces if face.presence > 0.5]
    assert any(np.linalg.norm(f.points_468x3[1, :2] - details.faces_PT468x3[woman, 0, 1, :2]) < 5 for f in good)
    t = int(np.argmax(details.hand_seen_PT2[woman].max(axis=1)))
    known = details.hands_PT2x21x3[woman, t][details.hand_seen_PT2[woman, t] > 0][:, 9, :2]
    hand = HandNet()
    hands = [hand.read(frames[t], palm_region(spot)).points_21x3[9, :2] for spot in PalmNet().find(frames[t], zoom=4)]
    assert min(np.linalg.norm(a - b) for a in hands for b in known) < 12
    silhouette = SelfieNet().mask(frames[0])
    assert silhouette.shape == frames[0].shape[:2]
    assert 0 <= silhouette.min() < silhouette.max() <= 1


def test_regions_cut_upright_and_map_back() -> None:
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[190:210, 300:420] = 255  # a bar that points right
    region = Region(np.array([300.0, 200.0]), 300.0, upwards(np.array([1.0, 0.0])))
    cut = region.cut(picture, 100)
    assert cut[15:45, 48:52].mean() > 240
    assert cut[60:].mean() < 5
    np.testing.assert_allclose(region.to_picture(np.array([[0.5, 0.1]])), [[420.0, 200.0]])
    far = Region(np.array([5000.0, -5000.0]), 50.0).cut(picture, 64)
    assert far.shape == (64, 64, 3)
