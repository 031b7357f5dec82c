"""Pose renderings, and the masks that are read back from their pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from generators.base import VideoRequest
from generators.poses import skeleton
from generators.poses.skeleton import Skeleton
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.errors import BadAnswer, BadInput
from manifests.records import Geometry

HEIGHT, WIDTH, FRAMES = 320, 512, 5
FIGURE = {
    "nose": (0, -60), "left_eye": (4, -64), "right_eye": (-4, -64), "left_ear": (9, -61), "right_ear": (-9, -61),
    "left_shoulder": (20, -45), "right_shoulder": (-20, -45), "left_elbow": (32, -20), "right_elbow": (-32, -20),
    "left_wrist": (36, 5), "right_wrist": (-36, 5),
    "left_hip": (11, 0), "right_hip": (-11, 0), "left_knee": (14, 40), "right_knee": (-14, 40), "left_ankle": (15, 80),
    "right_ankle": (-15, 80), "left_heel": (15, 85), "right_heel": (-15, 85), "left_foot_index": (18, 85), "right_foot_index": (-18, 85),
}  # fmt: skip


def people_at(*centres: tuple[float, float], frames: int = FRAMES) -> People:
    """Stick people who stand still with their hips at these places."""
    landmarks = np.zeros((len(centres), frames, 33, 3), np.float32)
    for p, centre in enumerate(centres):
        landmarks[p, :, :, :2] = centre
        for name, (x, y) in FIGURE.items():
            landmarks[p, :, INDEX[name], :2] = (centre[0] + x, centre[1] + y)
    shape = landmarks.shape[:2]
    return People(
        landmarks, landmarks / 100, np.ones((*shape, 33), np.float32), np.ones(shape, np.bool_),
        np.zeros((*shape, HEIGHT, WIDTH), np.uint8), 16.0,
    )  # fmt: skip


def request_for(people: People, mode: str = "pose") -> VideoRequest:
    geometry = Geometry(frames=people.frames, height=HEIGHT, width=WIDTH)
    return VideoRequest(mode, Path("unused.mp4"), people, (), "", geometry, 0)  # type: ignore[arg-type]


def rendered(people: People, tmp_path: Path) -> np.ndarray:
    out = tmp_path / "pose.mp4"
    Skeleton().run(request_for(people), out)
    return media.read_frames(out)[0]


def test_a_rendering_has_the_pairs_size_and_time_and_repeats_to_the_byte(tmp_path: Path) -> None:
    request = request_for(people_at((150, 150), (350, 150)))
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
    picture = skeleton.draw(people, 0, HEIGHT, WIDTH)
    assert picture[105, 130].tolist() == [255, 85 * 2, 0]
    assert picture[150 + 80, 150 + 15].tolist() == list(skeleton.COLOURS[13])
    limb = picture[150 - 45, 140]
    assert limb.tolist() == [int(c * skeleton.DIM) for c in skeleton.COLOURS[0]]
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert len(skeleton.LIMBS) == 17
    assert len(skeleton.POINTS) == len(skeleton.COLOURS) == 18


def test_hidden_joints_and_absent_people_are_not_drawn() -> None:
    people = people_at((150, 150))
    people.visibility_PT33[:, 0, INDEX["left_wrist"]] = 0.2
    people.present_PT[:, 1] = False
    assert skeleton.draw(people, 2, HEIGHT, WIDTH)[155, 186].any()
    assert not skeleton.draw(people, 0, HEIGHT, WIDTH)[155, 186].any()
    assert not skeleton.draw(people, 1, HEIGHT, WIDTH).any()
    assert not skeleton.coverage(people, HEIGHT, WIDTH)[0, 1].any()


def test_nearer_people_are_drawn_over_farther_ones() -> None:
    far, near = (150.0, 130.0), (150.0, 150.0)
    for order in ((far, near), (near, far)):
        people = people_at(*order)
        alone = skeleton.draw(people_at(near), 0, HEIGHT, WIDTH)
        both = skeleton.draw(people, 0, HEIGHT, WIDTH)
        drawn = alone.any(axis=-1)
        assert (both[drawn] == alone[drawn]).all()


def test_landmarks_are_scaled_to_the_pictures_size() -> None:
    small = skeleton.draw(people_at((150, 150)), 0, HEIGHT, WIDTH).any(axis=-1)
    large = skeleton.draw(people_at((150, 150)), 0, 2 * HEIGHT, 2 * WIDTH).any(axis=-1)
    ys, xs = np.nonzero(small)
    assert large[2 * ys, 2 * xs].mean() > 0.9


def test_far_landmarks_and_wild_numbers_do_not_break_the_drawing() -> None:
    people = people_at((150, 150))
    people.landmarks_PT33x3[:, 0, INDEX["left_wrist"], :2] = (1e9, -1e9)
    people.landmarks_PT33x3[:, 0, INDEX["right_wrist"], :2] = np.nan
    assert skeleton.draw(people, 0, HEIGHT, WIDTH).any()


def test_coverage_is_one_blob_with_the_torso_inside() -> None:
    blob = skeleton.coverage(people_at((150, 150)), HEIGHT, WIDTH)[0, 0]
    assert blob[110:150, 145:155].all()
    assert blob[155, 186]
    assert not blob[60, 60]
    sticks = skeleton.draw(people_at((150, 150)), 0, HEIGHT, WIDTH).any(axis=-1)
    assert (blob | ~sticks).all()
    assert sticks.sum() < blob.sum() < 8 * sticks.sum()


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


def test_masks_of_a_rendering_agree_with_what_was_drawn_and_never_overlap(tmp_path: Path) -> None:
    people = people_at((150, 150), (190, 160))
    masks = skeleton.masks_from_rendering(rendered(people, tmp_path), people)
    drawn = skeleton.coverage(people, HEIGHT, WIDTH)
    assert (masks.sum(axis=0) <= 1).all()
    for p in range(2):
        assert (masks[p] & drawn[p]).sum() / masks[p].sum() > 0.95
    assert (masks.any(axis=0) & drawn.any(axis=0)).sum() / drawn.any(axis=0).sum() > 0.95


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


def test_a_short_file_is_not_believed(tmp_path: Path) -> None:
    request = request_for(people_at((150, 150), frames=9))
    media.write_video(tmp_path / "short.mp4", np.zeros((3, HEIGHT, WIDTH, 3), np.uint8), 16.0)
    with pytest.raises(BadAnswer, match="3 frames"):
        Skeleton().verify(request, tmp_path / "short.mp4")
