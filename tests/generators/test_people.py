"""The tracker on real people, and the figures that are read off its arrays."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from generators.images.scenes import scene
from generators.poses import association, blazepose, sides, silhouettes, smoothing, summary
from generators.poses.blazepose import Body
from generators.poses.lookout import Lookout
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry, rounded

Clips = Callable[[str], Path]


@pytest.fixture(scope="session")
def tracker() -> PeopleTracker:
    return PeopleTracker()


@pytest.fixture(scope="session")
def frames(sample_clip: Clips) -> Callable[[str], np.ndarray]:
    def read(name: str) -> np.ndarray:
        return media.read_clip(sample_clip(name), 16.0, short_side=288)

    return read


@pytest.fixture(scope="session")
def single(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> People:
    return tracker.track(frames("single"), 16.0)


@pytest.fixture(scope="session")
def crossing(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> People:
    """multi3: the man leans and throws in front of the woman."""
    return tracker.track(frames("multi3"), 16.0)


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


def test_one_person_is_found_in_every_frame_and_described(single: People) -> None:
    (person,) = summary.describe(single)
    assert single.present_PT.all()
    assert person.framing == "full"
    assert person.presence == 1.0
    assert person.confidence > 0.9
    assert abs(person.yaw_deg) < 60
    assert 0.1 < person.motion < 1.0
    assert 170 < person.height < 240
    assert {"nose", "left_wrist", "right_ankle"} <= set(person.visible_joints)


def test_masks_lie_on_the_person(single: People) -> None:
    share = (single.masks_PTHW[0] >= 128).mean(axis=(1, 2))
    assert (share > 0.03).all()
    assert (share < 0.15).all()
    for t in range(single.frames):
        for x, y in single.landmarks_PT33x3[0, t, [11, 12, 23, 24], :2]:
            assert single.masks_PTHW[0, t, round(y), round(x)] >= 128


def test_the_same_frames_give_the_same_bytes(frames: Callable[[str], np.ndarray]) -> None:
    written = []
    for _ in range(2):
        stream = io.BytesIO()
        PeopleTracker().track(frames("multi1")[:8], 16.0).save(stream)
        written.append(stream.getvalue())
    assert written[0] == written[1]


@pytest.mark.parametrize("clip", ["multi1", "multi2", "multi4"])
def test_two_people_keep_their_names(tracker: PeopleTracker, frames: Callable[[str], np.ndarray], clip: str) -> None:
    """The man wears a teal cap and no shirt, the woman a light shirt and black hair: their chests' colours tell a swap."""
    pixels = frames(clip)
    people = tracker.track(pixels, 16.0)
    assert people.count == 2
    assert people.present_PT.all()
    assert swapped_frames(pixels, people) == 0


def test_names_hold_while_one_hides_the_other(frames: Callable[[str], np.ndarray], crossing: People) -> None:
    assert crossing.count == 2
    assert crossing.present_PT.mean() > 0.9
    assert swapped_frames(frames("multi3"), crossing) == 0


def swapped_frames(pixels_THWC: np.ndarray, people: People) -> int:
    """Frames in which the hips of the two are nearer to where the other's were a frame ago, or the skin tone changed sides."""
    hips = people.landmarks_PT33x3[:, :, [23, 24], :2].mean(axis=2)
    count = 0
    for t in range(1, people.frames):
        own = np.linalg.norm(hips[:, t] - hips[:, t - 1], axis=1).sum()
        other = np.linalg.norm(hips[:, t] - hips[::-1, t - 1], axis=1).sum()
        count += bool(other < own)
    redness = np.array([[_redness(pixels_THWC[t], people.masks_PTHW[p, t]) for t in (0, -1)] for p in range(2)])
    return count + int((redness[0, 0] > redness[1, 0]) != (redness[0, 1] > redness[1, 1]))


def _redness(pixels_HWC: np.ndarray, mask_HW: np.ndarray) -> float:
    inside = pixels_HWC[mask_HW > 200].astype(float)
    return float((inside[:, 0] - inside[:, 2]).mean())


class Street:
    """The man of the single clip, cut out, twice in one picture: as he is, and mirrored in other colours."""

    def __init__(self, frames_THWC: np.ndarray, people: People) -> None:
        back_and_forth = [*range(len(frames_THWC)), *range(len(frames_THWC) - 2, 0, -1)]
        self.pixels, self.masks = frames_THWC[back_and_forth], people.masks_PTHW[0][back_and_forth]
        hsv = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2HSV) for f in self.pixels]).astype(int)
        changed = np.stack([(hsv[..., 0] + 60) % 180, np.minimum(hsv[..., 1] + 70, 255), hsv[..., 2]], axis=-1).astype(np.uint8)
        self.other = np.stack([cv2.cvtColor(f, cv2.COLOR_HSV2RGB) for f in changed])

    def frames(self, first_T: np.ndarray, second_T: np.ndarray) -> np.ndarray:
        """Frames 520 px wide with the two at these places, the first before the second."""
        height = self.pixels.shape[1]
        out = np.repeat(scene(2, height, 520)[None], len(first_T), axis=0)
        for t, (x, y) in enumerate(zip(first_T, second_T, strict=True)):
            late = (t + 9) % len(self.pixels)
            self._put(out[t], self.other[late, :, ::-1], self.masks[late, :, ::-1], y)
            self._put(out[t], self.pixels[t % len(self.pixels)], self.masks[t % len(self.pixels)], x)
        return out

    def _put(self, onto: np.ndarray, pixels: np.ndarray, mask: np.ndarray, x: float) -> None:
        move = np.array([[1, 0, x - np.flatnonzero(mask.max(axis=0) > 127).mean()], [0, 1, 0]])
        size = (onto.shape[1], onto.shape[0])
        share = cv2.warpAffine(np.ascontiguousarray(mask), move, size)[..., None] / 255
        onto[:] = cv2.warpAffine(np.ascontiguousarray(pixels), move, size) * share + onto * (1 - share)


@pytest.fixture(scope="module")
def street(frames: Callable[[str], np.ndarray], single: People) -> Street:
    return Street(frames("single"), single)


def nearest(people: People, track: int, places_2T: np.ndarray) -> np.ndarray:
    """Per frame, which of the two places the track's hips are nearest to; -1 where the track is absent or the two
    are close, because they lean and hips tell little then."""
    hips = people.landmarks_PT33x3[track][:, [23, 24], 0].mean(axis=1)
    sure = (np.abs(places_2T[0] - places_2T[1]) > 100) & people.present_PT[track]
    return np.where(sure, np.abs(places_2T - hips).argmin(axis=0), -1)


def test_two_who_walk_through_each_other_keep_their_names(tracker: PeopleTracker, street: Street) -> None:
    along = np.linspace(60, 460, 32)
    places = np.stack([along, 520 - along])
    people = tracker.track(street.frames(*places), 16.0)
    assert people.count == 2
    for track in (0, 1):
        assert people.present_PT[track].mean() > 0.8
        assert set(nearest(people, track, places)) - {-1} == {track}


def test_who_leaves_the_picture_and_returns_is_the_same_person(tracker: PeopleTracker, street: Street) -> None:
    t = np.arange(38)
    places = np.stack([200 - 32.0 * np.minimum(t, 37 - t), np.full(38, 400.0)])
    people = tracker.track(street.frames(*places), 16.0)
    assert people.count == 2
    assert people.present_PT[1].all()
    assert people.present_PT[0, :5].all()
    assert people.present_PT[0, -5:].all()
    assert not people.present_PT[0, 14:24].any()
    assert not people.masks_PTHW[0, 14:24].any()


def test_a_late_short_visit_is_not_forgotten_in_a_long_clip(frames: Callable[[str], np.ndarray], tracker: PeopleTracker) -> None:
    """One second of somebody counts, however long the rest is."""
    pixels = frames("single")[:20]
    people = tracker.track(np.concatenate([np.full((80, *pixels.shape[1:]), 90, np.uint8), pixels]), 16.0)
    assert people.count == 1
    assert people.present_PT[0, 82:].all()
    assert not people.present_PT[0, :79].any()


def test_scenery_is_nobody_however_long_it_is_taken_for_somebody(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> None:
    """Once the man is gone, the things on the floor behind him look like somebody to the detector; the joints waver with the crop."""
    pixels = frames("single")[:22, :, 48:]
    mask = cv2.dilate((tracker.track(pixels, 16.0).masks_PTHW[0, 0] > 0).astype(np.uint8), np.ones((23, 23), np.uint8)) > 0
    hall = pixels[0].copy()
    hall[mask] = np.broadcast_to(np.median(hall, axis=1, keepdims=True), hall.shape)[mask].astype(np.uint8)
    people = tracker.track(np.concatenate([pixels[:10], np.repeat(hall[None], 9, axis=0), pixels[10:]]), 16.0)
    assert people.count == 1
    assert people.present_PT[0].tolist() == [True] * 10 + [False] * 9 + [True] * 12


def test_somebody_half_hidden_most_of_the_time_is_no_scenery(tracker: PeopleTracker, sample_clip: Clips) -> None:
    """The woman stands behind the man for two thirds of the clip, and her joints waver there."""
    people = tracker.track(media.read_clip(sample_clip("multi3"), 30.0, short_side=512), 30.0)
    assert people.count == 2
    assert people.present_PT.mean(1).min() > 0.9


def test_a_look_ahead_changes_nothing(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> None:
    pixels = frames("single")[:8]
    with Lookout(tracker.model, pixels, 16.0) as lookout:
        assert [t for t in range(8) if lookout.scheduled(t)] == [0, 3, 6]
        seen = [lookout.at(t) for t in range(8)]
    for t, found in enumerate(seen):
        straight = tracker.model.detect_closely(pixels[t]) if t == 0 else tracker.model.detect(pixels[t])
        assert [d.score for d in found] == [d.score for d in straight]


def test_threads_change_no_byte_of_a_body(frames: Callable[[str], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = frames("single")[0]
    bodies = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(blazepose, "BODY_THREADS", threads)
        model = blazepose.BlazePose()
        found = model.detect(pixels)[0]
        bodies.append(model.body(pixels, found.centre, found.tip))
    for other in bodies[1:]:
        assert other.landmarks_33x3.tobytes() == bodies[0].landmarks_33x3.tobytes()
        assert other.world_33x3.tobytes() == bodies[0].world_33x3.tobytes()
        assert other.silhouette_HW.tobytes() == bodies[0].silhouette_HW.tobytes()


def test_looks_side_by_side_are_looks_one_by_one(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> None:
    pixels = frames("single")[:6]
    found = [tracker.model.detect(rgb)[0] for rgb in pixels]
    straight = [tracker.model.body(rgb, f.centre, f.tip) for rgb, f in zip(pixels, found, strict=True)]
    with ThreadPoolExecutor(3) as pool:
        aside = list(pool.map(lambda rgb, f: tracker.model.body_aside(rgb, f.centre, f.tip), pixels, found))
    for one, other in zip(straight, aside, strict=True):
        assert one.landmarks_33x3.tobytes() == other.landmarks_33x3.tobytes()
        assert one.world_33x3.tobytes() == other.world_33x3.tobytes()
        assert one.silhouette_HW.tobytes() == other.silhouette_HW.tobytes()


def test_no_pixel_belongs_to_two_people(crossing: People) -> None:
    assert ((crossing.masks_PTHW >= 64).sum(axis=0) <= 1).all()


def test_people_come_left_to_right_and_late_comers_last(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> None:
    pixels = frames("multi2")[:6]
    both = tracker.track(pixels, 16.0)
    x = both.landmarks_PT33x3[:, 0, :, 0].mean(axis=1)
    assert x[0] < x[1]
    hidden = pixels.copy()
    hidden[:3, :, : int((x[0] + x[1]) / 2)] = 90
    late = tracker.track(hidden, 16.0)
    assert late.count == 2
    assert late.landmarks_PT33x3[0, -1, :, 0].mean() > late.landmarks_PT33x3[1, -1, :, 0].mean()
    assert not late.present_PT[1, 0]
    assert not late.masks_PTHW[1, 0].any()


def test_a_missed_frame_is_interpolated_and_marked(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> None:
    pixels = frames("single")[:10].copy()
    pixels[5] = 0
    people = tracker.track(pixels, 16.0)
    assert people.count == 1
    assert people.present_PT[0].tolist() == [True] * 5 + [False] + [True] * 4
    assert not people.masks_PTHW[0, 5].any()
    before, at, after = people.landmarks_PT33x3[0, 4:7, 0, :2]
    assert np.linalg.norm(at - (before + after) / 2) < 4


def test_a_still_agrees_with_the_video(tracker: PeopleTracker, frames: Callable[[str], np.ndarray], single: People) -> None:
    still = tracker.still(frames("single")[0])
    assert (still.count, still.frames) == (1, 1)
    core = [11, 12, 23, 24, 25, 26]
    assert np.linalg.norm(still.landmarks_PT33x3[0, 0, core, :2] - single.landmarks_PT33x3[0, 0, core, :2], axis=1).mean() < 6
    (person,) = summary.describe(still)
    assert person.motion == 0.0
    assert person.yaw_spread_deg == 0.0


def test_a_still_orders_people_from_left_to_right(tracker: PeopleTracker, frames: Callable[[str], np.ndarray]) -> None:
    still = tracker.still(frames("multi1")[0])
    assert still.count == 2
    assert still.landmarks_PT33x3[0, 0, 0, 0] < still.landmarks_PT33x3[1, 0, 0, 0]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_nobody_in_an_empty_picture(tracker: PeopleTracker, value: int) -> None:
    people = tracker.track(np.full((5, 96, 128, 3), value, np.uint8), 16.0)
    assert (people.count, people.frames, people.size_hw) == (0, 5, (96, 128))
    assert summary.describe(people) == ()
    assert all(b.hands == () and b.faces == () for b in summary.boxes(people))


def test_noise_and_odd_sizes_do_not_break_it(tracker: PeopleTracker) -> None:
    rng = np.random.default_rng(0)
    for shape in ((2, 1, 1, 3), (2, 700, 3, 3), (3, 65, 97, 3)):
        people = tracker.track(rng.integers(0, 256, shape, np.uint8), 25.0)
        assert people.size_hw == shape[1:3]
        assert np.isfinite(people.landmarks_PT33x3).all()


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)],
)
def test_what_is_no_video_is_refused(tracker: PeopleTracker, bad: np.ndarray) -> None:
    with pytest.raises(BadInput, match="THWC"):
        tracker.track(bad, 16.0)


def test_a_rate_of_nonsense_is_refused(tracker: PeopleTracker) -> None:
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="fps"):
            tracker.track(np.zeros((2, 8, 8, 3), np.uint8), fps)


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


def test_descriptions_are_rounded(single: People) -> None:
    (person,) = summary.describe(single)
    for value in (*person.box, person.yaw_deg, person.motion, person.confidence, person.height):
        assert value == rounded(value)


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


def test_analysed_people_survive_the_file(single: People) -> None:
    stream = io.BytesIO()
    single.save(stream)
    again = People.load(stream.getvalue())
    assert again.landmarks_PT33x3 == pytest.approx(single.landmarks_PT33x3, abs=0.006)
    assert (again.masks_PTHW == single.masks_PTHW).all()
    assert Geometry(frames=25, height=512, width=288).duration_s == 1.5
