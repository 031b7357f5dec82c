"""The 28 channels against a slow implementation of their own, written from the published facts, and against examples worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from factory.trainer.masks28 import boxes_mask, halved, latent_frames, latent_side, mask_28
from manifests import masks
from manifests.errors import BadInput

WHITE, RED, GREEN, BLUE, YELLOW, MAGENTA, CYAN = range(7)
"""planes in a group of seven"""
NAMES = {
    WHITE: (255, 255, 255), RED: (255, 0, 0), GREEN: (0, 255, 0), BLUE: (0, 0, 255), YELLOW: (255, 255, 0), MAGENTA: (255, 0, 255),
    CYAN: (0, 255, 255),
}  # fmt: skip
BYTES = st.one_of(st.sampled_from([0, 255, 224, 225, 226]), st.integers(0, 255))


def slow_28(mask_THWC: np.ndarray, half: bool) -> np.ndarray:
    """Pixel by pixel, in exact whole numbers until the last division. Channel index 7 · frame in group + plane."""
    frames, height, width = mask_THWC.shape[:3]
    pixels = [[[[int(v) for v in mask_THWC[t, y, x]] for x in range(width)] for y in range(height)] for t in range(frames)]
    limit = 225
    if half:  # sums of 2×2, and so four times the limit
        pixels = [
            [
                [[sum(pixels[t][2 * y + i][2 * x + j][c] for i in (0, 1) for j in (0, 1)) for c in range(3)] for x in range(width // 2)]
                for y in range(height // 2)
            ]
            for t in range(frames)
        ]
        height, width, limit = height // 2, width // 2, 4 * limit
    h, w = height, width
    for _ in range(3):
        h, w = math.ceil(h / 2), math.ceil(w / 2)
    out = np.zeros((28, (frames - 1) // 4 + 1, h, w))
    for n in range(out.shape[1]):
        for k in range(4):
            t = 0 if n == 0 else 4 * (n - 1) + 1 + k
            for i, j in itertools.product(range(h), range(w)):
                rows = range(i * height // h, -(-(i + 1) * height // h))
                columns = range(j * width // w, -(-(j + 1) * width // w))
                for y, x in itertools.product(rows, columns):
                    on = tuple(255 if value > limit else 0 for value in pixels[t][y][x])
                    for plane, colour in NAMES.items():
                        if on == colour:
                            out[7 * k + plane, n, i, j] += 1 / (len(rows) * len(columns))
    return out


def shapes(sides: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int, int, int]]:
    return st.tuples(st.sampled_from([1, 5, 9]), sides, sides, st.just(3))


@given(hnp.arrays(np.uint8, shapes(st.integers(1, 20)), elements=BYTES))
@settings(max_examples=60, deadline=None)
def test_any_bytes_of_any_size_as_the_slow_way(mask_THWC: np.ndarray) -> None:
    assert np.allclose(mask_28(mask_THWC), slow_28(mask_THWC, half=False), atol=1e-6)


@given(hnp.arrays(np.uint8, shapes(st.sampled_from([2, 10, 16, 32])), elements=BYTES))
@example(np.full((1, 2, 2, 3), 226, np.uint8))
@example(np.full((1, 2, 2, 3), 225, np.uint8))
@example(np.array([226, 225, 226, 224], np.uint8).reshape(1, 2, 2, 1).repeat(3, 3))
@example(np.array([226, 225, 226, 225], np.uint8).reshape(1, 2, 2, 1).repeat(3, 3))
@settings(max_examples=60, deadline=None)
def test_halved_driving_masks_as_the_slow_way(mask_THWC: np.ndarray) -> None:
    assert np.allclose(mask_28(mask_THWC, half=True), slow_28(mask_THWC, half=True), atol=1e-6)


@given(
    st.integers(1, 9).flatmap(lambda people: hnp.arrays(np.bool_, st.tuples(st.just(people), st.just(5), st.just(16), st.just(24)))),
    st.sampled_from(["animation", "replacement", "pose"]),
    st.sampled_from(["driving", "reference"]),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_painted_people_land_on_the_planes_of_their_slots(
    inside_PTHW: np.ndarray, task: masks.Task, which: masks.Side, data: st.DataObject
) -> None:
    heights = data.draw(st.lists(st.floats(10, 500), min_size=len(inside_PTHW), max_size=len(inside_PTHW)))
    slots = masks.assign_slots(heights)
    painted = masks.paint(inside_PTHW, slots, task, which)
    got = mask_28(painted)
    assert np.allclose(got, slow_28(painted, half=False), atol=1e-6)
    by_plane = got.reshape(4, 7, 2, 2, 3).sum(1)
    seen = 1.0 if masks.background(task, which) == masks.WHITE else None
    if seen:  # with a white background every pixel has a plane
        assert torch.allclose(by_plane, torch.ones_like(by_plane))
    else:
        assert by_plane.max() <= 1 + 1e-6
        assert got.reshape(4, 7, -1)[:, WHITE].max() == 0
    last = len(inside_PTHW) - 1  # painted last, so all of it shows
    plane = (BLUE, RED, GREEN, MAGENTA, CYAN, YELLOW)[slots[last]]
    share = inside_PTHW[last, 0].reshape(2, 8, 3, 8).mean((1, 3))
    assert (got[plane, 0].numpy() >= share - 1e-6).all()


# --- by hand


def plain(colour: tuple[int, int, int], frames: int = 1, height: int = 16, width: int = 16) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (frames, height, width, 3)).copy()


def test_the_first_frame_fills_its_group_and_others_stand_in_fours() -> None:
    """Nine frames: red, then four of which the second is blue, then four of which the last is yellow; the rest black."""
    video = plain((0, 0, 0), frames=9)
    video[0], video[2], video[8] = (255, 0, 0), (0, 0, 255), (255, 255, 0)
    got = mask_28(video)
    assert got.shape == (28, 3, 2, 2)
    expected = torch.zeros(28, 3)
    expected[[RED, 7 + RED, 14 + RED, 21 + RED], 0] = 1  # frame 0, four times
    expected[7 * 1 + BLUE, 1] = 1  # frame 2 is the second of frames 1 to 4
    expected[7 * 3 + YELLOW, 2] = 1  # frame 8 is the last of frames 5 to 8
    assert torch.equal(got, expected[:, :, None, None].expand(28, 3, 2, 2))


@pytest.mark.parametrize(("plane", "colour"), NAMES.items())
def test_each_colour_has_its_plane(plane: int, colour: tuple[int, int, int]) -> None:
    got = mask_28(plain(colour))
    assert [int(c) for c in got[:, 0, 0, 0].nonzero().flatten()] == [plane, 7 + plane, 14 + plane, 21 + plane]


def test_black_has_no_plane_and_225_is_off() -> None:
    assert mask_28(plain((0, 0, 0))).abs().max() == 0
    assert mask_28(plain((225, 225, 225))).abs().max() == 0
    assert mask_28(plain((226, 226, 226)))[WHITE].min() == 1
    assert mask_28(plain((226, 225, 255)))[MAGENTA].min() == 1


def test_a_cell_that_is_partly_covered_has_the_share() -> None:
    """Of a cell's 64 pixels, 24 (three columns) are green and 4 (in the first row) are white."""
    video = plain((0, 0, 0), height=8, width=8)
    video[0, :, :3] = (0, 255, 0)
    video[0, 0, 3:7] = (255, 255, 255)
    got = mask_28(video)
    assert (float(got[GREEN, 0, 0, 0]), float(got[WHITE, 0, 0, 0])) == (24 / 64, 4 / 64)


def test_halving_keeps_only_whole_quads() -> None:
    """A red square from an odd pixel on: quads that it covers by half or a quarter have means of 128 and 64, which are off."""
    video = plain((0, 0, 0), height=16, width=16)
    video[0, 1:7, 1:7] = (255, 0, 0)  # 6×6; quads from 2 to 6 are whole: 2×2 of 8×8
    got = mask_28(video, half=True)
    assert got.shape == (28, 1, 1, 1)
    assert float(got[RED, 0, 0, 0]) == 4 / 64
    assert float(mask_28(video)[RED, 0, 0, 0]) == 36 / 64


def test_more_than_six_people_share_the_sixth_slot() -> None:
    """Eight people in a row; the five tallest keep blue, red, green, magenta, cyan in their order, the three others are yellow."""
    heights = [80, 10, 90, 70, 20, 60, 100, 30]
    inside = np.zeros((8, 1, 8, 64), bool)
    for p in range(8):
        inside[p, 0, :, 8 * p : 8 * p + 8] = True
    got = mask_28(masks.paint(inside, masks.assign_slots(heights), "animation", "driving"))
    planes = [int(c) for c in got[:7, 0, 0].argmax(0)]
    assert planes == [BLUE, YELLOW, RED, GREEN, YELLOW, MAGENTA, CYAN, YELLOW]
    assert got.reshape(4, 7, 8).sum(1).eq(1).all()


@pytest.mark.parametrize(("task", "side", "plane"), [
    ("animation", "driving", None), ("animation", "reference", WHITE), ("pose", "driving", None), ("pose", "reference", WHITE),
    ("replacement", "driving", WHITE), ("replacement", "reference", None),
])  # fmt: skip
def test_who_keeps_the_environment_is_white(task: masks.Task, side: masks.Side, plane: int | None) -> None:
    inside = np.zeros((1, 1, 16, 16), bool)
    inside[0, 0, :8, :8] = True
    got = mask_28(masks.paint(inside, (0,), task, side))
    assert got[BLUE, 0].tolist() == [[1, 0], [0, 0]]
    assert float(got[:7, 0, 1, 1].sum()) == (0 if plane is None else 1)
    assert plane is None or float(got[plane, 0, 1, 1]) == 1


@pytest.mark.parametrize(("frames", "height", "width", "half", "expected"), [
    (81, 512, 896, False, (28, 21, 64, 112)), (81, 512, 896, True, (28, 21, 32, 56)), (1, 704, 1280, False, (28, 1, 88, 160)),
])  # fmt: skip
def test_sizes_of_training(frames: int, height: int, width: int, half: bool, expected: tuple[int, ...]) -> None:
    assert (28, latent_frames(frames), latent_side(height // (1 + half)), latent_side(width // (1 + half))) == expected
    assert mask_28(plain((0, 0, 255), 1, height, width), half).shape == (28, 1, *expected[2:])


@pytest.mark.parametrize("bad", [
    np.zeros((4, 16, 16, 3), np.uint8), np.zeros((5, 16, 16, 4), np.uint8), np.zeros((5, 16, 16, 3), np.float32),
    np.zeros((16, 16, 3), np.uint8), np.zeros((0, 16, 16, 3), np.uint8),
])  # fmt: skip
def test_what_is_no_mask_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadInput):
        mask_28(bad)


def test_odd_sides_can_not_be_halved() -> None:
    with pytest.raises(BadInput, match="32"):
        halved(np.zeros((1, 15, 16, 3), np.uint8))


# --- boxes


def test_boxes_mark_the_cells_that_they_touch() -> None:
    """Nine frames of 32×24: a box in frame 0, one in frame 4 (second latent frame), one over the edge in frame 5 (third)."""
    boxes = [[] for _ in range(9)]
    boxes[0] = [(8.0, 0.0, 16.0, 8.0)]  # exactly one cell
    boxes[4] = [(7.9, 7.9, 8.1, 8.1)]  # four cells meet there
    boxes[5] = [(-5.0, 20.0, 3.0, 99.0), (1.0, 1.0, 1.0, 5.0)]  # cut at the edges; and one without a width
    got = boxes_mask(boxes, 9, 24, 32)
    assert got.shape == (3, 16, 3, 4)
    assert all(torch.equal(got[:, 0], got[:, c]) for c in range(16))
    assert got[:, 0].nonzero().tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1], [2, 2, 0]]
    assert boxes_mask([], 9, 24, 32).sum() == 0


@given(st.lists(st.tuples(*[st.floats(-20, 60)] * 4), max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_cell_is_marked_exactly_when_a_box_reaches_into_it(boxes: list[tuple[float, float, float, float]]) -> None:
    got = boxes_mask([boxes], 1, 32, 40)[0, 0]
    for i, j in itertools.product(range(4), range(5)):
        reached = any(x1 > x0 and y1 > y0 and x0 < 8 * j + 8 and x1 > 8 * j and y0 < 8 * i + 8 and y1 > 8 * i for x0, y0, x1, y1 in boxes)
        assert bool(got[i, j]) == reached
