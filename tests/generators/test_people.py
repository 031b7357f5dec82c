"""The tracker on real people."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from generators.images.scenes import scene
from generators.poses import blazepose, summary
from generators.poses.lookout import Lookout
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry, rounded

Clips = Callable[[str], Path]


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
        aside = list(pool.map(tracker.model.reread, pixels, straight, (f.centre for f in found), (f.tip for f in found)))
    for one, other in zip(straight, aside, strict=True):
        assert one.landmarks_33x3.tobytes() == other.landmarks_33x3.tobytes()
        assert one.world_33x3.tobytes() == other.world_33x3.tobytes()
        assert one.visibility_33.tobytes() == other.visibility_33.tobytes()
        assert one.presence == other.presence


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


def test_descriptions_are_rounded(single: People) -> None:
    (person,) = summary.describe(single)
    for value in (*person.box, person.yaw_deg, person.motion, person.confidence, person.height):
        assert value == rounded(value)


def test_analysed_people_survive_the_file(single: People) -> None:
    stream = io.BytesIO()
    single.save(stream)
    again = People.load(stream.getvalue())
    assert again.landmarks_PT33x3 == pytest.approx(single.landmarks_PT33x3, abs=0.006)
    assert (again.masks_PTHW == single.masks_PTHW).all()
    assert Geometry(frames=25, height=512, width=288).duration_s == 1.5
