"""Masks: palette, polarity, overlap, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests import masks, media
from manifests.errors import BadInput
from manifests.records import TASKS


def two_people() -> np.ndarray:
    """Person 0 left, person 1 right, both in columns 3 and 4. Shape (2, 3, 32, 8)."""
    people = np.zeros((2, 3, 32, 8), np.uint8)
    people[0, :, :, :5] = 255
    people[1, :, :, 3:] = 255
    return people


def test_palette_is_the_published_one() -> None:
    blue, red, green, magenta, cyan, yellow = masks.SLOTS
    assert (blue, red, green) == ((0, 0, 255), (255, 0, 0), (0, 255, 0))
    assert (magenta, cyan, yellow) == ((255, 0, 255), (0, 255, 255), (255, 255, 0))
    assert len({masks.BLACK, masks.WHITE, *masks.SLOTS}) == 8


@pytest.mark.parametrize("task", TASKS)
def test_polarity(task: str) -> None:
    driving, reference = masks.background(task, "driving"), masks.background(task, "reference")
    expected = (masks.WHITE, masks.BLACK) if task == "replacement" else (masks.BLACK, masks.WHITE)
    assert (driving, reference) == expected
    for which in ("driving", "reference"):
        painted = masks.paint(np.zeros((1, 1, 4, 4), bool), [0], task, which)
        assert (painted == masks.background(task, which)).all()


def test_paint_uses_the_slots_given_and_not_the_order() -> None:
    painted = masks.paint(two_people(), [4, 2], "animation", "driving")
    assert painted.shape == (3, 32, 8, 3)
    assert (painted[:, :, 0] == masks.SLOTS[4]).all()
    assert (painted[:, :, 7] == masks.SLOTS[2]).all()
    assert masks.slots_present(painted) == {2, 4}


def test_the_later_person_paints_over_unless_depth_says_otherwise() -> None:
    people = two_people()
    listed = masks.paint(people, [0, 1], "animation", "driving")
    assert (listed[:, :, 3:5] == masks.SLOTS[1]).all()
    depth = np.array([[1.0, 2.0, np.nan], [2.0, 1.0, 5.0]])
    by_depth = masks.paint(people, [0, 1], "animation", "driving", depth)
    assert (by_depth[0, :, 3:5] == masks.SLOTS[0]).all()
    assert (by_depth[1, :, 3:5] == masks.SLOTS[1]).all()
    assert (by_depth[2, :, 3:5] == masks.SLOTS[1]).all(), "an unknown distance is taken for far"
    equal = masks.paint(people, [0, 1], "animation", "driving", np.ones((2, 3)))
    assert np.array_equal(equal, listed)


def test_soft_silhouettes_are_cut_at_128() -> None:
    soft = np.array([0, 127, 128, 255], np.uint8).reshape(1, 1, 1, 4)
    painted = masks.paint(soft, [1], "replacement", "driving")
    assert masks.slot_mask(painted, 1)[0, 0].tolist() == [False, False, True, True]
    assert np.array_equal(painted, masks.paint(soft >= 128, [1], "replacement", "driving"))


@pytest.mark.parametrize(("shape", "slots"), [((2, 1, 4, 4), [0]), ((1, 1, 4, 4), [6]), ((1, 1, 4, 4), [-1]), ((1, 4, 4), [0])])
def test_paint_refuses_what_does_not_fit(shape: tuple[int, ...], slots: list[int]) -> None:
    with pytest.raises(ValueError):
        masks.paint(np.zeros(shape, bool), slots, "animation", "driving")
    with pytest.raises(ValueError):
        masks.paint(np.zeros((2, 1, 4, 4), bool), [0, 1], "animation", "driving", np.zeros((1, 2)))
    with pytest.raises(ValueError):
        masks.paint(np.zeros((1, 1, 4, 4), np.float32), [0], "animation", "driving")


def test_assign_slots_shares_only_among_the_distant() -> None:
    assert masks.assign_slots([]) == ()
    assert masks.assign_slots([10, 400, 30]) == (0, 1, 2)
    assert masks.assign_slots([5, 90, 80, 3, 70, 60, 50, 4]) == (5, 0, 1, 5, 2, 3, 4, 5)


def test_stray_colours_are_found_and_refused() -> None:
    painted = masks.paint(two_people(), [0, 1], "animation", "driving")
    assert masks.stray_colours(painted) == []
    masks.validate_colours(painted, "animation", "driving")
    painted[1, 5, 5] = (254, 0, 0)
    painted[2, 5, 5] = (0, 0, 128)
    assert masks.stray_colours(painted) == [(0, 0, 128), (254, 0, 0)]
    with pytest.raises(BadInput, match="254") as caught:
        masks.validate_colours(painted)
    assert caught.value.code == "stray_colours"
    with pytest.raises(BadInput):
        masks.slots_present(painted)


def test_the_other_tasks_background_is_refused() -> None:
    painted = masks.paint(two_people()[:1], [0], "animation", "driving")
    with pytest.raises(BadInput, match="background"):
        masks.validate_colours(painted, "replacement", "driving")
    with pytest.raises(BadInput, match="background"):
        masks.validate_colours(painted[0], "animation", "reference")


def test_matte_keeps_the_character_only() -> None:
    reference = np.random.default_rng(0).integers(1, 255, (32, 8, 3), dtype=np.uint8)
    mask = masks.paint(two_people()[:1, :1], [3], "replacement", "reference")[0]
    matted = masks.matte(reference, mask)
    assert np.array_equal(matted[:, :5], reference[:, :5])
    assert not matted[:, 5:].any()
    white = masks.paint(two_people()[:1, :1], [3], "animation", "reference")[0]
    assert np.array_equal(masks.matte(reference, white), matted), "white is background too"
    with pytest.raises(BadInput) as caught:
        masks.matte(reference[:16], mask)
    assert caught.value.code == "size_mismatch"


def test_lossless_files_keep_masks_legal_and_lossy_ones_do_not(tmp_path: Path) -> None:
    people = np.zeros((6, 5, 64, 96), bool)
    for p in range(6):
        people[p, :, 8:56, 4 + 15 * p : 17 + 15 * p] = True
    painted = masks.paint(people, range(6), "replacement", "driving")
    media.write_lossless(tmp_path / "mask.mp4", painted, 16)
    back, _ = media.read_frames(tmp_path / "mask.mp4")
    assert np.array_equal(back, painted)
    assert masks.slots_present(back) == set(range(6))
    media.write_video(tmp_path / "lossy.mp4", painted, 16)
    with pytest.raises(BadInput):
        masks.validate_colours(media.read_frames(tmp_path / "lossy.mp4")[0])
