"""Inputs derived for published models: rates, segments, face crops, masks, backgrounds, pose videos, pictures."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from posing import HEIGHT, WIDTH, people_at, with_details

from generators.inputs import faces, pictures, regions, timing
from generators.inputs.poses import skeleton_video
from generators.poses.figures import FACE_68
from generators.poses.rendering import PoseOptions
from generators.poses.tracks import INDEX, People
from manifests.errors import BadInput


def test_counts_of_4n_plus_one() -> None:
    assert [timing.four_n_plus_one(n) for n in (1, 2, 4, 5, 6, 77, 78, 81)] == [1, 5, 5, 5, 9, 77, 81, 81]
    with pytest.raises(ValueError, match="at least one"):
        timing.four_n_plus_one(0)


def test_frames_at_another_rate_are_those_on_display() -> None:
    frames = np.arange(9)
    assert timing.at_rate(frames, 16, 30, 16).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8]
    assert timing.at_rate(frames, 16, 8, 5).tolist() == [0, 2, 4, 6, 8]
    assert timing.at_rate(frames, 16, 16, 10).tolist() == [*range(9), 8], "one frame too few is held"
    with pytest.raises(BadInput, match="cover 9 at 16 fps, asked are 11") as e:
        timing.at_rate(frames, 16, 16, 11)
    assert e.value.code == "too_few_frames"


@pytest.mark.parametrize(
    ("frames", "length", "overlap", "count", "padded"),
    [(77, 77, 1, 1, 77), (78, 77, 1, 2, 153), (153, 77, 1, 2, 153), (154, 77, 1, 3, 229), (151, 77, 5, 3, 221), (9, 77, 5, 1, 77)],
)
def test_segments(frames: int, length: int, overlap: int, count: int, padded: int) -> None:
    segments = timing.Segments(frames, length, overlap)
    assert (segments.count, segments.padded) == (count, padded)
    spans = segments.spans()
    assert len(spans) == count
    assert spans[0][0] == 0
    assert spans[-1][1] == padded
    assert all(stop - start == length for start, stop in spans)
    assert all(before[1] - after[0] == overlap for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize(("frames", "length", "overlap"), [(10, 12, 1), (10, 5, 5), (0, 77, 1)])
def test_impossible_segments(frames: int, length: int, overlap: int) -> None:
    with pytest.raises(ValueError):
        timing.Segments(frames, length, overlap)


def test_lengths_that_differ_are_named() -> None:
    assert timing.same_length(pose=[1, 2], face=[3, 4]) == 2
    with pytest.raises(BadInput, match="'face': 1"):
        timing.same_length(pose=[1, 2], face=[3])
    with pytest.raises(BadInput, match="same number"):
        timing.same_length(pose=[], face=[])


def blob() -> np.ndarray:
    """Two frames of 100×120: a disc-like cross, then nothing."""
    inside = np.zeros((2, 100, 120), bool)
    inside[0, 30:70, 50:60] = True
    inside[0, 45:50, 30:90] = True
    return inside


def test_the_region_is_the_grown_silhouettes_box() -> None:
    anew = regions.to_regenerate(blob())
    rows, columns = np.flatnonzero(anew[0].any(1)), np.flatnonzero(anew[0].any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (21, 78, 21, 98), "9 pixels all round: three times a kernel of 7"
    assert anew[0, 21:79, 21:99].all()
    assert not anew[1].any()


def test_blocks_follow_the_silhouette() -> None:
    anew = regions.to_regenerate(blob(), across=6, down=4)
    grown = regions.to_regenerate(blob(), across=64, down=64)
    assert (anew | grown).sum() == anew.sum()
    assert grown.sum() < anew.sum() < regions.to_regenerate(blob()).sum()
    assert not anew[0, 22, 22], "a corner of the box that the cross does not touch"


def test_other_people_are_kept() -> None:
    keep = np.zeros((2, 100, 120), bool)
    keep[0, 40:60, 40:45] = True
    anew = regions.to_regenerate(blob(), keep_THW=keep)
    assert not (anew & keep).any()
    assert anew.sum() == regions.to_regenerate(blob()).sum() - 100


def test_background_is_black_and_the_mask_white_where_the_model_paints() -> None:
    frames = np.full((2, 100, 120, 3), 200, np.uint8)
    anew = regions.to_regenerate(blob())
    behind, mask = regions.background(frames, anew), regions.as_mask_video(anew)
    assert not behind[anew].any()
    assert (behind[~anew] == 200).all()
    assert (mask[anew] == 255).all()
    assert not mask[~anew].any()
    assert (regions.first_frame_mask(blob())[blob()[0]] == 255).all()
    assert regions.first_frame_mask(blob()).sum() == 3 * 255 * blob()[0].sum()
    assert regions.silhouettes(np.array([[[[127, 128]]], [[[0, 0]]]], np.uint8)).tolist() == [[[False, True]]]


def noisy(seed: int, frames: int = 21) -> People:
    """Somebody who stands still, read with noise of a pixel and a half."""
    people = with_details(people_at((250, 160), frames=frames))
    assert people.details is not None
    people.details.faces_PT468x3[..., :2] += np.random.default_rng(seed).normal(0, 1.5, people.details.faces_PT468x3[..., :2].shape)
    return people


def test_face_boxes_are_steady_and_grow_upwards() -> None:
    people = noisy(1)
    boxes = faces.face_boxes(people, 0)
    sizes = boxes[:, 2:] - boxes[:, :2]
    raw = people.details.faces_PT468x3[0][:, list(FACE_68), :2]  # type: ignore[union-attr]
    jitter = np.ptp(raw.max(1) - raw.min(1), axis=0)
    assert (np.ptp(sizes, axis=0) < 0.35 * jitter).all(), "the crop does not breathe with the points' noise"
    low, high = raw.min(1).mean(0), raw.max(1).mean(0)
    assert sizes.prod(1).mean() == pytest.approx(1.3 * (high - low).prod(), rel=0.1)
    above, below = low[1] - boxes[:, 1].mean(), boxes[:, 3].mean() - high[1]
    assert above > 2 * below > 0


def test_faces_where_the_mesh_was_lost_or_never_read() -> None:
    people = noisy(2)
    whole = faces.face_boxes(people, 0)
    people.details.face_seen_PT[0, 8:14] = 0  # type: ignore[union-attr]
    people.details.faces_PT468x3[0, 8:14] = 0  # type: ignore[union-attr]
    assert np.abs(faces.face_boxes(people, 0) - whole).max() < 4, "the body's head stands in where the face was"
    bare = faces.face_boxes(dataclasses.replace(people, details=None), 0)
    nose = people.landmarks_PT33x3[0, :, INDEX["nose"], :2]
    assert ((bare[:, :2] < nose) & (nose < bare[:, 2:])).all()
    absent = dataclasses.replace(people, present_PT=np.zeros((1, 21), bool))
    with pytest.raises(BadInput) as e:
        faces.face_boxes(absent, 0)
    assert e.value.code == "driver_absent"


def test_face_frames_show_what_the_box_holds() -> None:
    y, x = np.mgrid[0:200, 0:300]
    frames = np.stack([np.stack([x * 0.8, y * 0.8, 0 * x], axis=-1)] * 2).astype(np.uint8)
    boxes = np.array([[100.0, 50.0, 164.0, 114.0], [-20.0, -20.0, 44.0, 44.0]])
    video = faces.face_video(frames, boxes)
    assert video.shape == (2, 512, 512, 3)
    assert np.abs(video[0, 256, :, 0].astype(float) - 0.8 * (100 + np.arange(512) / 8)).max() < 2
    assert np.abs(video[0, :, 256, 1].astype(float) - 0.8 * (50 + np.arange(512) / 8)).max() < 2
    assert (video[1, :150, :150, 0] <= 1).all(), "beyond the picture its edge is repeated"
    with pytest.raises(ValueError, match="2 boxes for 1 frames"):
        faces.face_video(frames[:1], boxes)


def test_pose_videos_have_the_models_size_and_rate() -> None:
    people = people_at((250, 160), frames=9)
    video = skeleton_video(people, 160, 256, 30.0, 16, PoseOptions(face=False))
    assert video.shape == (16, 160, 256, 3)
    assert video.any(axis=(1, 2, 3)).all()
    moved = skeleton_video(people, HEIGHT, WIDTH, 16.0, 9, PoseOptions(), reference=people_at((100, 160), frames=1))
    columns = np.flatnonzero(moved[0].any(axis=(0, 2)))
    assert abs(columns.mean() - 100) < 10, "moved onto the reference"


def test_pictures_fit() -> None:
    image = np.full((100, 50, 3), 9, np.uint8)
    boxed = pictures.letterboxed(image, 60, 80)
    assert boxed.shape == (60, 80, 3)
    assert (boxed[:, 25:55] == 9).all()
    assert not boxed[:, :25].any()
    assert not boxed[:, 55:].any()
    assert pictures.oriented((512, 896), (700, 300)) == (896, 512)
    assert pictures.oriented((896, 512), (300, 700)) == (512, 896)
    assert pictures.oriented((512, 896), (9, 9)) == (512, 896)
    assert pictures.within_area(image, 10**6) is image
    small = pictures.within_area(np.zeros((3000, 1500, 3), np.uint8), 1024 * 1024, 16)
    assert small.shape[0] * small.shape[1] <= 1024 * 1024
    assert small.shape[0] % 16 == small.shape[1] % 16 == 0
    assert small.shape[0] / small.shape[1] == pytest.approx(2, rel=0.03)
