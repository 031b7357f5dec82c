"""Boxes of text: in a made-up picture, in one without, and between the frames that are looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from generators.poses.lettering import TextFinder, between
from manifests import media
from manifests.errors import BadInput


@pytest.fixture(scope="module")
def finder() -> TextFinder:
    return TextFinder()


def written(*lines: tuple[str, tuple[int, int]], size_hw: tuple[int, int] = (360, 640)) -> np.ndarray:
    picture = np.full((*size_hw, 3), (60, 120, 90), np.uint8)
    for words, where in lines:
        cv2.putText(picture, words, where, cv2.FONT_HERSHEY_SIMPLEX, 1.4, (255, 255, 255), 3, cv2.LINE_AA)
    return picture


def test_lines_of_text_are_found_from_the_top_down(finder: TextFinder) -> None:
    picture = written(("EVENING NEWS", (60, 90)), ("live 12:45", (330, 300)))
    boxes = finder.find(picture)
    assert len(boxes) == 2
    for box, (line, other) in zip(boxes, ((0, 180), (180, 360)), strict=True):
        letters = np.argwhere(picture[line:other, :, 0] > 150)[:, ::-1] + [0, line]
        low, high = letters.min(axis=0), letters.max(axis=0)
        assert (np.abs(box[:2] - low) < 20).all()
        assert (np.abs(box[2:] - high) < 20).all()
        inside = (letters >= box[:2]).all(axis=1) & (letters <= box[2:]).all(axis=1)
        assert inside.mean() > 0.97


def test_boxes_are_in_pixels_of_large_and_of_odd_pictures(finder: TextFinder) -> None:
    picture = written(("EVENING NEWS", (60, 90)))
    (small,) = finder.find(picture)
    (large,) = finder.find(cv2.resize(picture, None, fx=3, fy=3))
    np.testing.assert_allclose(large / 3, small, atol=6)
    assert finder.find(np.zeros((7, 1000, 3), np.uint8)).shape == (0, 4)


def test_no_text_no_boxes(finder: TextFinder, sample_clip: Callable[[str], Path]) -> None:
    assert finder.find(written()).shape == (0, 4)
    frames = media.read_clip(sample_clip("multi3"), 1.0, short_side=512, count=1)
    assert len(finder.find(frames[0])) == 0
    with pytest.raises(BadInput, match="layout HWC"):
        finder.find(np.zeros((5, 5), np.uint8))


def test_a_video_is_looked_at_once_a_second(finder: TextFinder) -> None:
    frames = np.stack([written(("EVENING NEWS", (60 + 2 * t, 90))) for t in range(21)])
    frames[5] = 0  # between two looks: not noticed
    boxes = finder.through(frames, 10.0)
    assert [len(at) for at in boxes] == [1] * 21
    lefts = [at[0][0] for at in boxes]
    assert lefts[20] - lefts[0] == pytest.approx(40, abs=4)
    assert np.diff(lefts).min() > 0
    assert finder.through(frames[:0], 10.0) == ()
    assert len(finder.through(frames[:1], 10.0)[0]) == 1


def test_what_is_seen_once_stands_for_half_the_time() -> None:
    here, there = np.array([[0.0, 0.0, 10.0, 5.0]]), np.array([[50.0, 50.0, 60.0, 55.0]])
    frames = between([(0, here), (4, there)], 5)
    assert [at[0][0] for at in frames] == [0, 0, 0, 50, 50]
    both = between([(0, np.concatenate([here, there])), (4, there + 2)], 5)
    assert [len(at) for at in both] == [2, 2, 2, 1, 1]
    assert both[1][0] == (50.5, 50.5, 60.5, 55.5)
