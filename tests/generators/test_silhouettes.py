"""Masks against exact coverage: drawn characters walk over drawn scenes, so that every pixel's truth is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from agents.measures.silhouette import mask_joints
from generators.images import drawn
from generators.images.scenes import scene
from generators.masks.guided import applied, coefficients, planes
from generators.masks.parts import Colours, bins_of, parts_of
from generators.masks.refine import EdgeRefiner
from generators.poses.blazepose import CROP_SIDE
from generators.poses.people import PeopleTracker
from generators.poses.tracks import Bytes, People
from manifests.errors import BadInput

SIDE = 384
FRAMES = 6


class Rough:
    """The tracker's own silhouettes, untouched."""

    def extract(self, frames_THWC: Bytes, people: People) -> Bytes:
        assert frames_THWC.shape[:3] == (people.frames, *people.size_hw)
        return people.masks_PTHW


def walked(figure: drawn.Drawing, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """frames_THWC and alpha_THW of a character that slides over a scene."""
    background = scene(seed, SIDE, SIDE).astype(np.float32)
    height, width = figure.alpha_HW.shape
    scale = 0.86 * SIDE / height
    frames, alphas = [], []
    for t in range(FRAMES):
        place = np.array([[scale, 0, SIDE / 2 + 3 * t - 8 - scale * width / 2], [0, scale, 0.95 * SIDE - scale * height]])
        blurred = cv2.GaussianBlur(figure.image_HWC, (0, 0), 0.4 / scale), cv2.GaussianBlur(figure.alpha_HW, (0, 0), 0.4 / scale)
        image = cv2.warpAffine(blurred[0], place, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(blurred[1].astype(np.float32), place, (SIDE, SIDE))
        frames.append((image * alpha[..., None] + background * (1 - alpha[..., None])).round().astype(np.uint8))
        alphas.append(alpha)
    return np.stack(frames), np.stack(alphas)


def overlap(masks_THW: np.ndarray, alpha_THW: np.ndarray) -> float:
    mine, true = masks_THW > 127, alpha_THW > 0.5
    return float((mine & true).sum() / (mine | true).sum())


def flicker(masks_THW: np.ndarray, alpha_THW: np.ndarray) -> float:
    """Mean change of the area from frame to frame beyond that of the truth."""
    mine, true = ((a > 0.5).sum(axis=(1, 2)).astype(float) for a in (masks_THW / 255.0, alpha_THW))
    return float(np.abs(np.diff(mine) / mine[:-1] - np.diff(true) / true[:-1]).mean())


@pytest.fixture(scope="module")
def robot() -> tuple[np.ndarray, np.ndarray, People]:
    frames, alpha = walked(drawn.draw_robot(107, 512), 5)
    return frames, alpha, PeopleTracker(extractor=Rough()).track(frames, 16.0)


def test_refined_masks_come_nearer_to_the_truth_and_flicker_less(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    frames, alpha, rough = robot
    assert rough.count == 1
    fine = EdgeRefiner().extract(frames, rough)
    before, after = overlap(rough.masks_PTHW[0], alpha), overlap(fine[0], alpha)
    assert after > 0.95
    assert 1 - after < 0.7 * (1 - before)
    assert flicker(fine[0], alpha) < max(flicker(rough.masks_PTHW[0], alpha), 0.004)


def test_a_robots_joints_lie_on_its_mask(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    """The model wavers between its front and its back view; second looks through other crops settle it."""
    frames, _, rough = robot
    assert mask_joints(replace(rough, masks_PTHW=EdgeRefiner().extract(frames, rough))) > 0.9


def test_threads_do_not_change_a_byte(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    frames, _, rough = robot
    assert (EdgeRefiner(threads=1).extract(frames, rough) == EdgeRefiner(threads=3).extract(frames, rough)).all()


def test_a_lost_arm_comes_back_by_its_bones_and_colours(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    frames, alpha, rough = robot
    cut = rough.masks_PTHW.copy()
    elbow, wrist = rough.landmarks_PT33x3[0, 2, [13, 15], :2].round().astype(int).tolist()
    hole = np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(hole, elbow, wrist, 1, 9)
    cut[0, 2][hole > 0] = np.minimum(cut[0, 2][hole > 0], 90)
    fine = EdgeRefiner().extract(frames, replace(rough, masks_PTHW=cut))
    arm = (hole > 0) & (alpha[2] > 0.5)
    assert (cut[0, 2][arm] > 127).mean() < 0.1
    assert (fine[0, 2][arm] > 127).mean() > 0.9


def test_large_pictures_are_worked_on_small_and_keep_their_edges(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    frames, alpha, rough = robot
    big = np.stack([cv2.resize(f, (SIDE * 2 - 1, SIDE * 2 - 1), interpolation=cv2.INTER_CUBIC) for f in frames[:2]])
    ratio = np.float32(big.shape[1] / SIDE)
    masks = np.stack([cv2.resize(m, big.shape[2:0:-1]) for m in rough.masks_PTHW[0, :2]])[None]
    two = rough.window(0, 2)
    people = replace(two, landmarks_PT33x3=two.landmarks_PT33x3 * ratio, masks_PTHW=masks)
    fine = EdgeRefiner().extract(big, people)[0]
    true = np.stack([cv2.resize(a, big.shape[2:0:-1]) for a in alpha[:2]])
    assert overlap(fine, true) > 0.95


def test_two_who_overlap_share_no_pixel_and_keep_their_own() -> None:
    """Two figures of one shape, the right one in front; rough masks that both hold the overlap."""
    red, blue = (200, 60, 50), (50, 70, 200)
    frames = np.full((3, 200, 220, 3), 150, np.uint8)
    frames[:, 40:180, 60:110], frames[:, 40:180, 95:145] = red, blue
    rough = np.zeros((2, 3, 200, 220), np.uint8)
    rough[0, :, 40:180, 60:120] = rough[1, :, 40:180, 85:145] = 220
    landmarks = np.zeros((2, 3, 33, 3), np.float32)
    for p, x in enumerate((80, 120)):
        landmarks[p, :, :11, :2] = x, 52
        for joints, y in (((11, 12), 70), ((13, 14), 90), ((15, 16, 17, 18, 19, 20, 21, 22), 110), ((23, 24), 115), ((25, 26), 145)):
            landmarks[p, :, joints, 0] = x + np.array([8 if j % 2 else -8 for j in joints])[:, None]
            landmarks[p, :, joints, 1] = y
        landmarks[p, :, 27:, 0], landmarks[p, :, 27:, 1] = x, 175
    ones = np.ones((2, 3), np.bool_)
    people = People(landmarks, landmarks / 100, np.ones((2, 3, 33), np.float32), ones, rough, 16.0)
    left, right = EdgeRefiner().extract(frames, people)[:, 1]
    assert not ((left >= 64) & (right >= 64)).any()
    assert (left[60:160, 65:90] > 127).mean() > 0.97
    assert (right[60:160, 98:142] > 127).mean() > 0.97
    assert (left[60:160, 100:145] > 127).mean() < 0.03


def test_frames_of_another_video_are_refused(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    with pytest.raises(BadInput, match="analyse these frames"):
        EdgeRefiner().extract(robot[0][:, ::2], robot[2])


def test_an_extractor_takes_over(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    class Boxes:
        def extract(self, frames_THWC: Bytes, people: People) -> Bytes:
            return np.where(people.masks_PTHW.max(axis=3, keepdims=True) > 127, np.uint8(255), np.uint8(0)).repeat(frames_THWC.shape[2], 3)

    people = PeopleTracker(extractor=Boxes()).track(robot[0][:2], 16.0)
    assert set(np.unique(people.masks_PTHW)) == {0, 255}
    assert (people.masks_PTHW[0, 0].min(axis=1) == people.masks_PTHW[0, 0].max(axis=1)).all()


@pytest.mark.parametrize(("radius", "width", "step"), [(3, 60, 0.45), (6, 60, 0.6), (6, 59, 0.6)])
def test_the_guided_filter_moves_a_soft_edge_onto_the_pictures(radius: int, width: int, step: float) -> None:
    picture = np.full((60, width, 3), 40, np.uint8)
    picture[:, 30:] = (200, 180, 160)
    rough = np.tile(np.clip((np.arange(width, dtype=np.float32) - 23) / 8, 0, 1), (60, 1))
    guide = planes(picture)
    fine = applied(coefficients(guide, rough, radius, 1e-4), guide)
    assert np.abs(np.diff(fine[30])).argmax() == 29
    assert fine[30, 31] - fine[30, 28] > step
    flat = applied(coefficients(guide, np.full((60, width), 0.25, np.float32), radius, 1e-4), guide)
    assert flat == pytest.approx(0.25, abs=1e-3)


def test_colours_speak_for_the_body_only_where_they_differ() -> None:
    joints = np.zeros((33, 2), np.float32)
    joints[11:13], joints[23:25] = [[60, 40], [40, 40]], [[58, 80], [42, 80]]
    parts = parts_of(joints, (np.arange(33) > 10).astype(np.float32) * np.isin(np.arange(33), [11, 12, 23, 24]), (120, 100))
    assert parts is not None
    picture, mask = np.full((120, 100, 3), 90, np.uint8), np.zeros((120, 100), np.uint8)
    mask[40:80, 40:60] = 255
    alike = Colours()
    alike.add(bins_of(picture), mask, parts, np.ones(mask.shape, np.bool_))
    assert np.abs(alike.evidence()).max() < 0.05
    picture[mask > 0] = (200, 40, 40)
    told = Colours()
    told.add(bins_of(picture), mask, parts, np.ones(mask.shape, np.bool_))
    evidence = told.evidence()[1]
    assert evidence[bins_of(picture)[60, 50]] > 2
    assert evidence[bins_of(picture)[60, 75]] < -2
    assert parts_of(joints, np.zeros(33, np.float32), (120, 100)) is None


def test_a_silhouette_is_pasted_where_it_was_seen(robot: tuple[np.ndarray, np.ndarray, People]) -> None:
    tracker = PeopleTracker()
    frame = robot[0][0]
    found = tracker.model.detect(frame)[0]
    body = tracker.model.body(frame, found.centre, found.tip)
    assert body.silhouette_HW.shape == (CROP_SIDE, CROP_SIDE)
    assert overlap(body.mask()[None], robot[1][:1]) > 0.85
    assert (body.mask(4).astype(int) - body.mask()[::4, ::4]).__abs__().max() <= 2
