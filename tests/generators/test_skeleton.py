"""Pose renderings in the plane, and the masks that are read back from their pixels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from posing import (
    FRAMES,
    HEIGHT,
    WIDTH,
    at,
    body,
    people_at,
    people_of,
    request_for,
    with_details,
)

from generators.poses import drawing, figures, skeleton
from generators.poses.alignment import aligned
from generators.poses.people import PeopleTracker
from generators.poses.rendering import PoseOptions
from generators.poses.skeleton import Skeleton
from generators.poses.summary import yaw_deg
from generators.poses.tracks import INDEX, Details, People
from manifests import media
from manifests.errors import BadInput, BadOutput
from manifests.records import Geometry


def draw(people: People, height: int = HEIGHT, width: int = WIDTH, **options: object) -> list[np.ndarray]:
    fig = figures.figures(people, height, width)
    return list(skeleton.render(fig, PoseOptions(**options)))  # type: ignore[arg-type]


def rendered(people: People, tmp_path: Path) -> np.ndarray:
    out = tmp_path / "pose.mp4"
    Skeleton().run(request_for(people), out)
    return media.read_frames(out)[0]


def painted(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(axis=-1).sum())


def test_a_rendering_has_the_pairs_size_and_time_and_repeats_to_the_byte(tmp_path: Path) -> None:
    request = request_for(with_details(people_at((150, 150), (350, 150))))
    generator = Skeleton()
    generator.setup()
    report = generator.run(request, tmp_path / "a.mp4")
    generator.run(request, tmp_path / "b.mp4")
    generator.verify(request, tmp_path / "a.mp4")
    seen = media.inspect(tmp_path / "a.mp4")
    assert (seen.frames, seen.height, seen.width, seen.fps) == (FRAMES, HEIGHT, WIDTH, 16.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert report.confidence == 1.0
    assert len(report.per_frame) == FRAMES


def test_joints_have_openposes_colours_and_limbs_are_dimmed() -> None:
    people = people_at((150, 150))
    picture = draw(people)[0]
    assert picture[at(people, "left_ankle")].tolist() == list(drawing.COLOURS[13])
    assert picture[at(people, "nose")].tolist() == list(drawing.COLOURS[0])
    row, column = at(people, "right_shoulder")
    assert picture[row, round((column + 150) / 2)].tolist() == [int(c * drawing.DIM) for c in drawing.COLOURS[0]]
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert len(drawing.LIMBS) == 17
    assert len(drawing.COLOURS) == 18


def test_an_unsure_joint_does_not_flicker_and_a_hidden_one_is_not_drawn() -> None:
    people = people_at((150, 150), frames=33)
    wrist = INDEX["left_wrist"]
    people.visibility_PT33[0, :, wrist] = [0.35 if t % 2 else 0.45 for t in range(33)]
    people.visibility_PT33[0, 20, wrist] = 0.0
    fig = figures.figures(people, HEIGHT, WIDTH)
    assert fig.drawn_PT19[0, :, 7].all()
    people.visibility_PT33[0, 10:30, wrist] = 0.1
    fig = figures.figures(people, HEIGHT, WIDTH)
    assert np.flatnonzero(~fig.drawn_PT19[0, :, 7]).tolist() == list(range(10, 30))
    pictures = draw(people)
    assert pictures[2][at(people, "left_wrist")].any()
    assert not pictures[12][at(people, "left_wrist")].any()


def test_an_absent_person_is_not_drawn_and_neither_is_half_a_one() -> None:
    people = people_at((150, 150), frames=33)
    people.present_PT[0, 5] = False
    people.present_PT[0, 10:20] = False
    assert [t for t, picture in enumerate(draw(people)) if not picture.any()] == list(range(10, 20))
    stray = people_at((150, 150))
    stray.visibility_PT33[:] = 0
    stray.visibility_PT33[..., [INDEX["left_knee"], INDEX["left_ankle"], INDEX["nose"]]] = 1
    assert not np.any(draw(stray))


@pytest.mark.parametrize(
    ("yaw_deg", "hidden"),
    [(0, ""), (80, "left_eye left_ear"), (-80, "right_eye right_ear"), (140, "all"), (180, "all"), (-140, "all")],
)
def test_what_the_head_hides_is_not_drawn(yaw_deg: float, hidden: str) -> None:
    """Landmark models put eyes into the back of a head, and are sure of them. At +80 the head shows its right side."""
    people = people_at((150, 150), yaw_deg=yaw_deg)
    head = {"nose": 0, "right_eye": 14, "left_eye": 15, "right_ear": 16, "left_ear": 17}
    wanted = {k for name, k in head.items() if hidden == "all" or name in hidden.split()}
    fig = figures.figures(people, HEIGHT, WIDTH)
    assert set(np.flatnonzero(~fig.drawn_PT19[0, 0, :18])) == set(wanted)
    picture = draw(people)[0]
    assert all(painted(picture, drawing.COLOURS[k]) == 0 for k in wanted)


def test_of_two_real_people_the_one_seen_from_behind_has_no_face(sample_clip: Callable[[str], Path]) -> None:
    frames = media.read_clip(sample_clip("multi1"), 16, short_side=320, count=9)
    people = PeopleTracker().track(frames, 16)
    backs = [p for p in range(people.count) if np.abs(yaw_deg(people.world_PT33x3[p])).min() > 110]
    assert (people.count, len(backs)) == (2, 1)
    assert (people.visibility_PT33[backs[0], :, INDEX["nose"]] > 0.9).all(), "the landmark model is sure of a nose it can't see"
    drawn = figures.figures(people, *people.size_hw).drawn_PT19
    head = [0, 14, 15, 16, 17]
    assert not drawn[backs[0]][:, head].any()
    assert drawn[1 - backs[0]][:, [0, 14, 15]].all()


def test_nearer_people_are_drawn_over_farther_ones() -> None:
    far, near = (150.0, 130.0), (150.0, 150.0)
    for order in ((far, near), (near, far)):
        alone = draw(people_at(near))[0]
        both = draw(people_at(*order))[0]
        drawn = alone.any(axis=-1)
        assert (both[drawn] == alone[drawn]).all()


def test_without_feet_the_larger_person_is_the_nearer_one() -> None:
    people = people_of((body(), (0.0, 0.9, 3.0)), (body(), (0.2, 0.2, 6.0)))
    near_first = skeleton._near_first(figures.figures(people, HEIGHT, WIDTH))
    assert near_first == [[0, 1]] * FRAMES


def test_landmarks_are_scaled_to_the_pictures_size() -> None:
    small = draw(people_at((150, 150)))[0].any(axis=-1)
    large = draw(people_at((150, 150)), 2 * HEIGHT, 2 * WIDTH)[0].any(axis=-1)
    ys, xs = np.nonzero(small)
    assert large[2 * ys, 2 * xs].mean() > 0.9


def test_other_rates_are_reached_by_time_and_not_by_number(tmp_path: Path) -> None:
    people = people_at((150, 150), frames=17)
    for t in range(17):
        people.landmarks_PT33x3[0, t, :, 0] += 8 * t
    request = request_for(people, geometry=Geometry(frames=29, fps=30, height=HEIGHT, width=WIDTH))
    Skeleton().run(request, tmp_path / "pose.mp4")
    frames, fps = media.read_frames(tmp_path / "pose.mp4")
    assert (frames.shape[0], fps) == (29, 30)
    fig = figures.figures(people, HEIGHT, WIDTH, 30, 29)
    expected = people.landmarks_PT33x3[0, 0, 11, 0] + 8 * 16 * np.arange(29) / 30
    assert np.abs(fig.landmarks_PT33x3[0, :, 11, 0] - expected).max() < 1e-3
    centres = [np.nonzero(frame.max(axis=-1) > 100)[1].mean() for frame in frames]
    assert np.abs(np.array(centres) - centres[0] - 8 * 16 * np.arange(29) / 30).max() < 1.0


def test_presence_at_another_rate_is_that_of_the_frame_on_display() -> None:
    people = people_at((150, 150), frames=16)
    people.present_PT[0, 8:] = False
    drawn = figures.figures(people, HEIGHT, WIDTH, 30, 30).drawn_PT19[0].any(axis=-1)
    assert drawn.tolist() == [i / 30 < 0.5 for i in range(30)]


def test_hands_and_faces_are_drawn_where_they_were_read() -> None:
    people = with_details(people_at((150, 150)))
    picture, bare = draw(people)[0], draw(people, hands=False, face=False)[0]
    assert painted(bare, drawing.FACE) == 0
    assert (bare == draw(people_at((150, 150)))[0]).all()
    assert painted(picture, drawing.FACE) > 20
    assert painted(draw(people, face=False)[0], drawing.FACE) == 0
    assert all(painted(picture, colour) for colour in drawing.FINGER_COLOURS[3::4])
    assert painted(picture, drawing.KNUCKLE) > painted(bare, drawing.KNUCKLE) + 30
    assert people.details is not None
    people.details.hand_seen_PT2[:, :, 0] = 0
    people.details.face_seen_PT[:] = 0
    half = draw(people)[0]
    row, column = at(people, "left_wrist")
    assert not half[row + 10 : row + 24, column - 12 : column + 12].any()
    assert painted(half, drawing.FACE) == 0


def test_a_hand_does_not_blink() -> None:
    people = with_details(people_at((150, 150), frames=33))
    assert people.details is not None
    hands, seen = people.details.hands_PT2x21x3[0, :, 0], people.details.hand_seen_PT2[0, :, 0]
    hands[..., 0] += np.arange(33)[:, None]
    whole = hands.copy()
    for start, stop in ((6, 8), (14, 20), (21, 27)):
        seen[start:stop], hands[start:stop] = 0, 0
    fig = figures.figures(people, HEIGHT, WIDTH)
    assert np.flatnonzero(~fig.hand_drawn_PT2[0, :, 0]).tolist() == list(range(14, 27)), "two frames are bridged, a lone one is left out"
    assert np.abs(fig.hands_PT2x21x2[0, 6:8, 0] - whole[6:8, :, :2]).max() < 1e-3


def test_a_face_is_not_drawn_on_the_back_of_a_head() -> None:
    people = with_details(people_at((150, 150), yaw_deg=180))
    assert painted(draw(people)[0], drawing.FACE) == 0


def test_lines_are_thinner_on_distant_people_when_asked() -> None:
    near, far = (body(), (0.0, 0.0, 3.0)), (body(), (0.0, 0.0, 9.0))

    def thickness(person: tuple[np.ndarray, tuple[float, float, float]], share: float | None) -> float:
        picture = draw(people_of(person), 2 * HEIGHT, 2 * WIDTH, stick_per_body=share)[0]
        return painted(picture, drawing.COLOURS[4]) ** 0.5

    assert thickness(near, None) == thickness(far, None)
    assert thickness(near, 0.05) == pytest.approx(3 * thickness(far, 0.05), rel=0.35)


def test_far_landmarks_and_wild_numbers_spoil_nothing_else() -> None:
    people, calm = people_at((150, 150)), people_at((150, 150))
    for name, place in (("left_wrist", (1e9, -1e9, 0)), ("right_wrist", (np.nan, np.nan, np.nan)), ("left_ankle", (5000.0, 100.0, 0.0))):
        people.landmarks_PT33x3[:, :, INDEX[name]] = place
        calm.visibility_PT33[:, :, INDEX[name]] = 0
    people.world_PT33x3[:, :, INDEX["right_ankle"]] = np.inf
    calm.visibility_PT33[:, :, INDEX["right_ankle"]] = 0
    people.visibility_PT33[:, :, INDEX["right_knee"]] = np.nan
    calm.visibility_PT33[:, :, INDEX["right_knee"]] = 0
    wild = draw(people)
    assert np.any(wild)
    assert np.array_equal(wild, draw(calm))


def test_a_joint_that_is_lost_for_a_frame_is_bridged_and_not_drawn_in_the_corner() -> None:
    people = people_at((150, 150), frames=17)
    people.landmarks_PT33x3[0, ..., 0] += 4 * np.arange(17)[:, None]
    whole = figures.figures(people, HEIGHT, WIDTH, 30, 30)
    people.landmarks_PT33x3[0, 8, INDEX["left_wrist"]] = np.nan
    fig = figures.figures(people, HEIGHT, WIDTH, 30, 30)
    assert fig.drawn_PT19.all()
    assert np.abs(fig.landmarks_PT33x3 - whole.landmarks_PT33x3).max() < 1e-3


def test_wild_details_are_left_out() -> None:
    people = with_details(people_at((150, 150)))
    assert people.details is not None
    people.details.hands_PT2x21x3[:, 0, 0, 4] = np.nan
    people.details.faces_PT468x3[:] = np.inf
    fig = figures.figures(people, HEIGHT, WIDTH)
    assert fig.hand_drawn_PT2[0, :, 0].tolist() == [False, True, True, True, True]
    assert fig.hand_drawn_PT2[0, :, 1].all()
    assert not fig.face_drawn_PT.any()
    assert np.isfinite(fig.hands_PT2x21x2).all()


def test_who_walks_out_of_the_picture_is_cut_by_its_edge() -> None:
    people = people_at((WIDTH / 2, 150), frames=33)
    for t in range(33):
        people.landmarks_PT33x3[0, t, :, 0] += 12 * t
    pictures = draw(people)
    sums = [int(picture.any(axis=-1).sum()) for picture in pictures]
    assert sums[0] > sums[20] > 0
    assert not any(sums[28:])


def test_one_frame_and_nobody() -> None:
    one = people_at((150, 150), frames=1)
    assert draw(one)[0].any()
    nobody = one.only([])
    assert not np.any(draw(nobody))
    assert skeleton.masks_from_rendering(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), nobody).shape == (0, 1, HEIGHT, WIDTH)


def reference_like(place: tuple[float, float, float], **joints: tuple[float, float, float]) -> People:
    return people_of((body(**joints), place), frames=1)


def test_aligned_poses_stand_where_the_reference_stands() -> None:
    people = people_at((150, 150), frames=9)
    for t in range(9):
        people.landmarks_PT33x3[0, t, :, 0] += 5 * t
    reference = reference_like((0.5, 0.1, 2.5))
    fig = aligned(figures.figures(people, HEIGHT, WIDTH), reference)
    assert np.abs(fig.landmarks_PT33x3[0, 0, 11:29, :2] - reference.landmarks_PT33x3[0, 0, 11:29, :2]).max() < 1.5
    moved = fig.landmarks_PT33x3[0, 8, 23, 0] - fig.landmarks_PT33x3[0, 0, 23, 0]
    assert moved == pytest.approx(5 * 8 * 2, rel=0.02), "twice as near, twice as far moved"


def test_aligned_poses_have_the_references_proportions_and_the_drivers_directions() -> None:
    people = people_of((body(left_wrist=(0.6, -0.4, 0.0)), (0.0, 0.0, 5.0)), frames=5)
    short = {
        "left_knee": (0.15, 0.25, 0.0),
        "right_knee": (-0.15, 0.25, 0.0),
        "left_ankle": (0.16, 0.5, 0.0),
        "right_ankle": (-0.16, 0.5, 0.0),
    }
    reference = reference_like((-0.4, 0.2, 5.0), **short)
    before = figures.figures(people, HEIGHT, WIDTH)
    fig = aligned(before, reference)

    def bone(landmarks: np.ndarray, a: str, b: str) -> np.ndarray:
        return np.asarray(landmarks[INDEX[b], :2] - landmarks[INDEX[a], :2])

    now, was, wanted = fig.landmarks_PT33x3[0, 2], before.landmarks_PT33x3[0, 2], reference.landmarks_PT33x3[0, 0]
    for a, b in (("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_hip", "right_knee"), ("left_elbow", "left_wrist")):
        new, old = bone(now, a, b), bone(was, a, b)
        assert math.degrees(math.acos(np.clip(new @ old / np.linalg.norm(new) / np.linalg.norm(old), -1, 1))) < 2, (a, b)
    for a, b in (("left_hip", "left_knee"), ("right_knee", "right_ankle"), ("left_shoulder", "left_hip")):
        assert np.linalg.norm(bone(now, a, b)) == pytest.approx(np.linalg.norm(bone(wanted, a, b)), rel=0.06), (a, b)


def test_a_cropped_reference_changes_only_what_it_shows() -> None:
    people, reference = people_at((150, 150)), reference_like((0.0, 0.5, 2.0))
    reference.visibility_PT33[..., 23:] = 0
    fig = aligned(figures.figures(people, HEIGHT, WIDTH), reference)
    shoulders = fig.landmarks_PT33x3[0, 0, [11, 12], :2].mean(axis=0)
    assert np.abs(shoulders - reference.landmarks_PT33x3[0, 0, [11, 12], :2].mean(axis=0)).max() < 1e-3
    thigh = fig.landmarks_PT33x3[0, 0, 25, 1] - fig.landmarks_PT33x3[0, 0, 23, 1]
    torso = fig.landmarks_PT33x3[0, 0, 23, 1] - fig.landmarks_PT33x3[0, 0, 11, 1]
    assert thigh / torso == pytest.approx(0.42 / 0.5, rel=0.05)


def test_hands_and_faces_go_with_the_aligned_body() -> None:
    people = with_details(people_at((150, 150)))
    reference = reference_like((0.5, 0.1, 2.5))
    fig = aligned(figures.figures(people, HEIGHT, WIDTH), reference)
    assert np.abs(fig.hands_PT2x21x2[0, :, 0, 0] - fig.landmarks_PT33x3[0, :, 15, :2]).max() < 1e-3
    before = figures.figures(people, HEIGHT, WIDTH)
    span, old = np.ptp(fig.faces_PT68x2[0, 0], axis=0), np.ptp(before.faces_PT68x2[0, 0], axis=0)
    assert span == pytest.approx(2 * old, rel=0.1)


def test_masks_come_from_the_renderings_pixels(tmp_path: Path) -> None:
    """The proof that is asked of pose pairs: shift the rendering, and its masks shift; blank it, and they are gone."""
    people = people_at((150, 150), (350, 150))
    frames = rendered(people, tmp_path)
    masks = skeleton.masks_from_rendering(frames, people)
    moved = skeleton.masks_from_rendering(np.roll(frames, 20, axis=2), people)
    assert (np.roll(masks, 20, axis=3) == moved).all()
    assert not (masks == moved).all()
    assert not skeleton.masks_from_rendering(frames * 0, people).any()
    other = people_at((150, 170), (350, 170))
    assert (skeleton.masks_from_rendering(frames, other) == masks).mean() > 0.999


def test_a_mask_is_one_blob_with_the_torso_inside(tmp_path: Path) -> None:
    people = people_at((150, 150))
    frames = rendered(people, tmp_path)
    blob = skeleton.masks_from_rendering(frames, people)[0, 0]
    assert blob[105:150, 145:155].all()
    assert blob[at(people, "left_wrist")]
    assert not blob[60, 60]
    sticks = frames[0].max(axis=-1) >= skeleton.NOT_BLACK
    assert (blob | ~sticks).all()
    assert sticks.sum() < blob.sum() < 8 * sticks.sum()


def test_masks_of_two_people_never_overlap_and_each_has_its_own_sticks(tmp_path: Path) -> None:
    people = people_at((150, 150), (200, 160))
    masks = skeleton.masks_from_rendering(rendered(people, tmp_path), people)
    assert (masks.sum(axis=0) <= 1).all()
    assert masks[0][:, at(people, "right_wrist", 0)[0], at(people, "right_wrist", 0)[1]].all()
    assert masks[1][:, at(people, "left_wrist", 1)[0], at(people, "left_wrist", 1)[1]].all()


def test_what_cannot_be_rendered_is_refused(tmp_path: Path) -> None:
    generator, people = Skeleton(), people_at((150, 150))
    with pytest.raises(BadInput, match="makes"):
        generator.validate(request_for(people, "animation"))
    with pytest.raises(BadInput, match="nobody"):
        generator.validate(request_for(people.only([])))
    with pytest.raises(BadInput, match="at once"):
        generator.validate(request_for(people.only([0] * 7)))
    longer = dataclasses.replace(request_for(people), geometry=Geometry(frames=9, height=HEIGHT, width=WIDTH))
    with pytest.raises(BadInput, match="frames"):
        generator.run(longer, tmp_path / "x.mp4")
    with pytest.raises(BadInput, match="frames"):
        skeleton.masks_from_rendering(np.zeros((3, HEIGHT, WIDTH, 3), np.uint8), people)
    with pytest.raises(BadInput, match="reference shows 2 people, the clip 1"):
        generator.validate(request_for(people, reference_people=people.only([0, 0]).window(0, 1)))


def test_a_short_file_is_not_believed(tmp_path: Path) -> None:
    request = request_for(people_at((150, 150), frames=9))
    media.write_video(tmp_path / "short.mp4", np.zeros((3, HEIGHT, WIDTH, 3), np.uint8), 16.0)
    with pytest.raises(BadOutput, match="3 frames"):
        Skeleton().verify(request, tmp_path / "short.mp4")


def test_unseen_details_are_the_same_as_none() -> None:
    people = people_at((150, 150))
    unseen = dataclasses.replace(people, details=Details.unseen(1, FRAMES))
    assert np.array_equal(draw(people), draw(unseen))
