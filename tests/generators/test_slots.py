"""One identity map for all masks of a pair."""

from __future__ import annotations

import numpy as np
import pytest

from generators.masks import slots
from generators.masks.slots import ABSENT, SlotMap
from generators.poses.tracks import People
from manifests import masks
from manifests.errors import BadInput
from manifests.records import Person, Task

BLUE, RED, GREEN = masks.SLOTS[:3]


def person(height: float, track: int = 0) -> Person:
    return Person(
        track=track, box=(0, 0, 10, height), presence=1, framing="full", visible_joints=(), yaw_deg=0, yaw_spread_deg=0, height=height,
        motion=0, arms_crossed=False, confidence=1,
    )  # fmt: skip


def squares(*columns: int, frames: int = 3) -> People:
    """People who are squares of 10 px, side by side."""
    count = len(columns)
    silhouettes = np.zeros((count, frames, 40, 64), np.uint8)
    for p, x in enumerate(columns):
        silhouettes[p, :, 10:20, x : x + 10] = 255
    zeros = np.zeros((count, frames, 33, 3), np.float32)
    return People(zeros, zeros, zeros[..., 0], np.ones((count, frames), np.bool_), silhouettes, 16.0)


def test_slots_follow_the_order_of_appearance() -> None:
    given = slots.assign([person(100), person(300), person(200)])
    assert given == SlotMap((0, 1, 2))
    assert (given.identities, given.used) == (3, 3)


def test_from_seven_on_the_smallest_share_a_slot() -> None:
    given = slots.assign([person(h) for h in (50, 300, 310, 320, 40, 330, 340, 30)])
    assert given.used == 6
    shared = [i for i in range(8) if given.slots.count(given.slots[i]) > 1]
    assert shared == [0, 4, 7]
    with pytest.raises(BadInput, match="nobody"):
        slots.assign([])


@pytest.mark.parametrize(("task", "driving", "reference"), [("animation", 0, 255), ("replacement", 255, 0), ("pose", 0, 255)])
def test_the_environment_is_white_where_it_is_kept(task: Task, driving: int, reference: int) -> None:
    people, given = squares(5, 30), SlotMap((0, 1))
    frames = slots.draw_driving_masks(people, given, task)
    picture = slots.draw_reference_mask(squares(5, 30, frames=1), given, task)
    assert frames.shape == (3, 40, 64, 3)
    assert picture.shape == (40, 64, 3)
    assert frames[0, 0, 0].tolist() == [driving] * 3
    assert picture[0, 0].tolist() == [reference] * 3
    masks.validate_colours(frames)
    masks.validate_colours(picture)


def test_an_identity_keeps_its_colour_wherever_it_is_found() -> None:
    """The colour hazard: a reference that shows the second person only must not start the palette afresh."""
    given = SlotMap((0, 1))
    swapped = slots.draw_driving_masks(squares(5, 30), given, "animation", tracks=(1, 0))
    assert swapped[0, 15, 8].tolist() == list(RED)
    assert swapped[0, 15, 33].tolist() == list(BLUE)
    alone = slots.draw_reference_mask(squares(5, frames=1), given, "animation", tracks=(ABSENT, 0))
    assert alone[15, 8].tolist() == list(RED)


def test_people_without_an_identity_are_background() -> None:
    frames = slots.draw_driving_masks(squares(5, 20, 40), SlotMap((2,)), "animation", tracks=(1,))
    assert frames[0, 15, 23].tolist() == list(GREEN)
    assert not frames[0, :, :18].any()
    assert not frames[0, :, 35:].any()


def test_sharing_people_have_one_colour() -> None:
    frames = slots.draw_driving_masks(squares(5, 20), SlotMap((1, 1)), "replacement")
    assert masks.slots_present(frames) == {1}
    assert frames[0, 15, 8].tolist() == frames[0, 15, 23].tolist() == list(RED)


def test_edges_are_hard_at_one_half_and_specks_are_gone() -> None:
    people = squares(5, frames=1)
    people.masks_PTHW[0, 0, 25:35, 40:50] = 120
    people.masks_PTHW[0, 0, 2, 60] = 255
    people.masks_PTHW[0, 0, 15, 8] = 0
    (inside,) = slots.crisp(people.masks_PTHW)[0]
    assert inside[11:19, 6:14].all()
    assert inside.sum() <= 100
    assert not inside[:, 40:].any()


def test_silhouettes_of_a_rendering_or_a_segmenter_take_the_trackers_place() -> None:
    people = squares(5, 30)
    moved = np.roll(people.masks_PTHW, 20, axis=3) > 0
    frames = slots.draw_driving_masks(people, SlotMap((0, 1)), "pose", silhouettes_PTHW=moved)
    assert frames[0, 15, 28].tolist() == list(BLUE)
    assert not frames[0, 15, 8].any()
    with pytest.raises(BadInput, match="silhouettes"):
        slots.draw_driving_masks(people, SlotMap((0, 1)), "pose", silhouettes_PTHW=moved[:, :1])


@pytest.mark.parametrize("tracks", [(0, 2), (0, 0), (ABSENT, ABSENT), (0, 1, 1), (-2, 0)])
def test_maps_that_do_not_fit_are_refused(tracks: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        slots.draw_driving_masks(squares(5, 30), SlotMap((0, 1)), "animation", tracks=tracks)


def test_a_reference_is_one_picture() -> None:
    with pytest.raises(BadInput, match="one picture"):
        slots.draw_reference_mask(squares(5), SlotMap((0,)), "animation")
