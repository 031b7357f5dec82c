"""The clean plate, on scenes of which every pixel is known: nothing of a person stays, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from generators.images import drawn
from generators.videos.plate import Plate, clean_plate, fill_from, inpaint
from generators.videos.plate.camera import in_light, shots
from generators.videos.plate.median import median_of_free

Frames = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.uint8]
H, W, T = 160, 192, 17


def textured(seed: int, height: int = 220, width: int = 300) -> Frames:
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3)).astype(np.uint8), (0, 0), 2)
    scene: Frames = np.clip((soft.astype(float) - 127) * 5 + 110, 30, 200).astype(np.uint8)
    return scene


class Walk:
    """A yellow body walks across a textured scene; whatever is asked for goes with it."""

    def __init__(self, camera: float = 0.0, light: Callable[[int], float] = lambda t: 1.0, noise: float = 0.0, carried: str = "") -> None:
        rng = np.random.default_rng(1)
        big = textured(0)
        frames, masks, scenes, figures = [], [], [], []
        for t in range(T):
            move = np.array([[1, 0, -20 - camera * t], [0, 1, -20 - 0.5 * camera * t]])
            scene = cv2.warpAffine(big, move, (W, H))
            body, extra, shade = (np.zeros((H, W), np.uint8) for _ in range(3))
            x = 30 + 8 * t
            cv2.ellipse(body, (x, 85), (11, 40), 0, 0, 360, 255, -1)
            if carried == "antlers":
                cv2.line(extra, (x, 50), (x - 6, 36), 255, 2)
                cv2.line(extra, (x, 50), (x + 6, 36), 255, 2)
            if carried == "shadow":
                cv2.ellipse(shade, (x + 12, 126), (22, 6), 0, 0, 360, 255, -1)
            dark = 1 - 0.4 * cv2.GaussianBlur(shade, (0, 0), 2).astype(float) / 255
            figure = cv2.GaussianBlur(cv2.max(body, extra), (0, 0), 0.8)[..., None] / 255.0
            frame = (scene * dark[..., None] * (1 - figure) + np.array([240, 220, 40]) * figure) * light(t)
            frames.append(np.clip(np.round(frame + rng.normal(0, noise, (H, W, 1))), 0, 255).astype(np.uint8))
            masks.append(cv2.GaussianBlur(body, (0, 0), 1.5))
            scenes.append(np.clip(np.round(scene * light(t)), 0, 255).astype(np.uint8))
            figures.append((figure[..., 0] > 0.02) | (dark < 0.97))
        self.frames, self.masks, self.scenes, self.figures = (np.stack(a) for a in (frames, masks, scenes, figures))

    def error(self, plate: Plate) -> npt.NDArray[np.float64]:
        """Levels by which the plate misses the scene (T, H, W)."""
        return np.asarray(np.abs(plate.frames_THWC.astype(float) - self.scenes).mean(3))


def test_nothing_of_the_person_stays_and_nothing_else_changes() -> None:
    walk = Walk(noise=1.0)
    plate = clean_plate(walk.frames, walk.masks)
    assert not plate.never_THW.any()
    assert plate.camera_px == 0
    assert walk.error(plate)[walk.figures].mean() < 2
    assert np.percentile(walk.error(plate)[plate.removed_THW], 99.5) < 6, "no haze around it either"
    far = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((9, 9))) == 0 for m in plate.removed_THW])
    assert far.mean() > 0.6
    assert (plate.frames_THWC[far] == walk.frames[far]).all()
    assert 0.4 < plate.grain < 2


@pytest.mark.parametrize("carried", ["antlers", "shadow"])
def test_what_goes_with_the_person_goes_too(carried: str) -> None:
    walk = Walk(carried=carried)
    plate = clean_plate(walk.frames, walk.masks)
    error = walk.error(plate)
    assert np.mean(error[walk.figures] > 12) < 0.01
    assert error[walk.figures].mean() < 2.5


def test_a_camera_that_moves() -> None:
    walk = Walk(camera=2.0)
    plate = clean_plate(walk.frames, walk.masks)
    assert plate.camera_px == pytest.approx(2.0 * (T - 1), rel=0.15)
    assert not plate.lost_T.any()
    seen = plate.removed_THW & ~plate.never_THW
    assert plate.never_THW.sum() < 0.1 * plate.removed_THW.sum()
    assert np.median(walk.error(plate)[seen]) < 6
    assert walk.error(plate)[seen].mean() < 9


def test_the_plate_follows_the_exposure() -> None:
    walk = Walk(light=lambda t: 1.0 - 0.4 * (t > 8))
    plate = clean_plate(walk.frames, walk.masks)
    assert np.allclose(plate.light_T3[-1] / plate.light_T3[0], 0.6, atol=0.05)
    assert walk.error(plate)[walk.figures].mean() < 4


def test_a_fade_to_black_is_said_and_does_not_spoil_the_rest() -> None:
    walk = Walk(light=lambda t: max(0.0, 1.0 - max(0, t - 8) / 5))
    masks = walk.masks * (walk.frames.mean((1, 2, 3)) > 20)[:, None, None]
    plate = clean_plate(walk.frames, masks.astype(np.uint8))
    assert plate.dark_T[-3:].all()
    assert not plate.dark_T[:9].any()
    assert not plate.cut_T.any()
    assert np.allclose(plate.light_T3[:9], 1), "the scene is as bright as most frames are"
    assert walk.error(plate)[:9][walk.figures[:9]].mean() < 4


def test_every_shot_has_its_own_scene() -> None:
    walk = Walk()
    other = textured(5)[:H, :W]
    frames = walk.frames.copy()
    frames[9:] = np.where(walk.masks[9:, ..., None] > 60, frames[9:], other)
    assert shots(frames, walk.masks > 60) == [(0, 9), (9, T)]
    plate = clean_plate(frames, walk.masks)
    assert plate.cut_T[8:10].all()
    assert plate.cut_T.sum() == 2
    assert np.abs(plate.frames_THWC[12].astype(int) - other).mean(2)[(walk.masks[12] > 128) & ~plate.never_THW[12]].mean() < 4
    assert shots(walk.frames, walk.masks > 60) == [(0, T)]
    through_black = np.abs(np.linspace(-1, 1, T)).clip(0, 1)[:, None, None, None]
    assert len(shots(np.round(frames * through_black).astype(np.uint8), walk.masks > 60)) == 2, "nor does a fade between them hide a cut"
    assert len(shots(np.round(walk.frames * through_black).astype(np.uint8), walk.masks > 60)) == 1


def test_who_is_not_removed_stays_and_is_no_part_of_the_scene() -> None:
    walk = Walk()
    others = np.zeros_like(walk.masks)
    others[:, 60:130, 100:124] = 255
    frames = np.where(others[..., None] > 0, np.array([20, 60, 230], np.uint8), walk.frames)
    masks = np.where(others > 0, 0, walk.masks).astype(np.uint8)  # the other one stands in front
    plate = clean_plate(frames, masks, others)
    assert (plate.frames_THWC[others > 0] == frames[others > 0]).all()
    removed = plate.removed_THW
    blue = (np.abs(plate.frames_THWC.astype(int) - [20, 60, 230]).max(3) < 30) & removed
    assert blue[others == 0].sum() < 40, "nor is the other one's colour copied beside"


def test_a_scene_that_moves_is_not_taken_for_belongings() -> None:
    walk = Walk()
    frames = walk.frames.copy()
    rng = np.random.default_rng(3)
    screen = np.s_[:, 20:140, 60:]
    flicker = rng.integers(0, 255, (T, 12, 14, 3)).astype(np.uint8)
    large = np.stack([cv2.resize(f, (W - 60, 120), interpolation=cv2.INTER_NEAREST) for f in flicker])
    frames[screen] = np.where(walk.masks[screen][..., None] > 20, frames[screen], large)
    plate = clean_plate(frames, walk.masks)
    far = np.stack([cv2.dilate((m > 20).astype(np.uint8), np.ones((21, 21))) == 0 for m in walk.masks])
    changed = np.abs(plate.frames_THWC.astype(int) - frames).max(3)[far] > 20
    assert changed.mean() < 0.02


def test_what_was_never_seen_counts_as_invented() -> None:
    walk = Walk()
    plate = clean_plate(walk.frames[:1].repeat(5, 0), walk.masks[:1].repeat(5, 0))
    assert plate.never_THW[2][85, 30]
    assert plate.exposed(2, np.zeros((H, W))) > 0.6
    assert plate.exposed(2, np.full((H, W), 255.0)) == 0
    filled = plate.frames_THWC[2][walk.masks[0] > 200].astype(int)
    assert (np.abs(filled - [240, 220, 40]).max(1) > 40).mean() > 0.95, "the fill does not repeat the person"


@pytest.mark.parametrize("scene", ["black", "flat", "all_person", "nobody", "tiny"])
def test_odd_clips_come_through(scene: str) -> None:
    walk = Walk()
    frames, masks = walk.frames[:5], walk.masks[:5].copy()
    if scene == "black":
        frames = np.zeros_like(frames)
    elif scene == "flat":
        frames = np.full_like(frames, 130)
    elif scene == "all_person":
        masks[:] = 255
    elif scene == "nobody":
        masks[:] = 0
    else:
        frames, masks = (np.stack([cv2.resize(a, (64, 64)) for a in x]) for x in (frames, masks))
    plate = clean_plate(frames, masks)
    assert plate.frames_THWC.shape == frames.shape
    assert plate.dark_T.all() == (scene == "black")
    if scene == "nobody":
        assert (plate.frames_THWC == frames).all()
    if scene == "all_person":
        assert plate.never_THW.all()


def test_same_clip_same_plate_whatever_the_threads() -> None:
    walk = Walk(camera=1.0, carried="shadow")
    threads = cv2.getNumThreads()
    plates = []
    try:
        for count in (1, 2):
            cv2.setNumThreads(count)
            plates.append(clean_plate(walk.frames, walk.masks))
    finally:
        cv2.setNumThreads(threads)
    for name in (f.name for f in fields(Plate)):
        assert np.array_equal(getattr(plates[0], name), getattr(plates[1], name)), name


def test_a_fill_does_not_depend_on_the_linear_algebra_threads() -> None:
    code = (
        "import hashlib, numpy as np; from generators.images import drawn; from generators.videos.plate import inpaint;"
        "image = drawn.scene(2, 256, 320); hole = np.zeros((256, 320), bool); hole[60:220, 120:190] = True;"
        "print(hashlib.sha256(inpaint(image, hole)).hexdigest())"
    )
    digests = set()
    for count in ("1", "2"):
        env = {"OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count, "PYTHONPATH": ":".join(sys.path)}
        digests.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1


def test_fills() -> None:
    y, x = np.indices((96, 120), dtype=np.float32)
    gradient = np.stack([y + x, 200 - y, 60 + x], 2).astype(np.uint8)
    hole = np.zeros((96, 120), bool)
    hole[30:70, 40:80] = True
    spoiled = np.where(hole[..., None], 0, gradient).astype(np.uint8)
    assert np.abs(inpaint(spoiled, hole).astype(int) - gradient).max() < 8
    stripes = np.where((x.astype(int) // 6 % 2 > 0)[..., None], (200, 60, 60), (40, 60, 180)).astype(np.uint8)
    filled = inpaint(np.where(hole[..., None], 128, stripes).astype(np.uint8), hole)
    assert np.abs(filled.astype(int) - stripes)[hole].mean() < 40
    assert (filled[:20] == stripes[:20]).all()
    for whole in (np.zeros_like(hole), np.ones_like(hole)):
        assert (inpaint(stripes, whole) == stripes).all()
        assert fill_from(stripes, whole).shape == stripes.shape


def test_a_fill_copies_from_outside_people_only() -> None:
    scene = drawn.scene(2, 128, 160)
    hole, person = np.zeros((128, 160), bool), np.zeros((128, 160), bool)
    hole[30:100, 60:90], person[30:100, 92:120] = True, True
    painted = np.where(person[..., None], np.array([255, 0, 200], np.uint8), scene)
    filled = inpaint(painted, hole, person)
    pink = np.abs(filled.astype(int) - [255, 0, 200]).max(2) < 60
    assert pink[hole].mean() < 0.05
    assert (filled[person] == painted[person]).mean() > 0.9


def test_median_of_free_is_the_lower_median_of_what_is_not_hidden() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, (12, 3, 500)).astype(np.uint8)
    values[rng.random(values.shape) < 0.1] = 255
    hidden = rng.random((12, 500)) < rng.random(500)
    hidden[0] &= ~hidden.all(0)
    wanted = np.stack([np.sort(values[~hidden[:, m], :, m], axis=0)[(np.count_nonzero(~hidden[:, m]) - 1) // 2] for m in range(500)], 1)
    np.testing.assert_array_equal(median_of_free(values, hidden, 12), wanted)


def test_median_of_many_is_that_of_the_first_free_ones() -> None:
    values = np.repeat(np.array([9, 200, 3, 5, 7], np.uint8)[:, None, None], 3, 1)
    hidden = np.array([[False], [True], [False], [False], [False]])
    assert (median_of_free(values, hidden, 3) == 5).all()


def test_in_light_scales_every_channel_and_saturates() -> None:
    image = np.full((4, 5, 3), 200, np.uint8)
    assert in_light(image, np.ones(3)) is image
    assert in_light(image, np.array([0.5, 1.0, 2.0]))[0, 0].tolist() == [100, 200, 255]


def test_plate_does_not_depend_on_the_timing_of_its_threads() -> None:
    walk = Walk(carried="antlers")
    first, second = (clean_plate(walk.frames, walk.masks) for _ in range(2))
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
