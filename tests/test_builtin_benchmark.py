"""The benchmark's own figures, on inputs whose answer is known: a figure that can't be bad says nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generators.poses.tracks import People

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from builtin_parts import combos, judging, marked

FRAMES, SIDE = 12, 64


def two_people(swapped_from: int | None = None) -> tuple[np.ndarray, People]:
    """A red and a blue torso side by side; from a frame on, the tracks follow the other one each."""
    frames = np.full((FRAMES, SIDE, SIDE, 3), 128, np.uint8)
    frames[:, 16:48, 4:28], frames[:, 16:48, 36:60] = (200, 30, 30), (30, 30, 200)
    landmarks = np.zeros((2, FRAMES, 33, 3), np.float32)
    for t in range(FRAMES):
        for person in range(2):
            side = 1 - person if swapped_from is not None and t >= swapped_from else person
            left = 6 + 32 * side
            landmarks[person, t, [11, 12, 24, 23], :2] = [(left, 18), (left + 20, 18), (left + 20, 46), (left, 46)]
    shape = (2, FRAMES, 33)
    people = People(
        landmarks, np.zeros((*shape, 3), np.float32), np.ones(shape, np.float32), np.ones((2, FRAMES), bool),
        np.zeros((2, FRAMES, SIDE, SIDE), np.uint8), 16.0,
    )  # fmt: skip
    return frames, people


@pytest.mark.parametrize(("swapped_from", "count"), [(None, 0), (8, 1), (FRAMES - 1, 1)])
def test_swaps_are_counted(swapped_from: int | None, count: int) -> None:
    assert judging.swaps(*two_people(swapped_from)) == count


def test_people_in_like_clothes_are_not_told_apart() -> None:
    frames, people = two_people(8)
    frames[:] = 128
    assert judging.swaps(frames, people) is None


def made_of(mask_PTHW: np.ndarray, alpha_THW: np.ndarray) -> Any:
    return SimpleNamespace(people=SimpleNamespace(masks_PTHW=mask_PTHW), alpha_THW=alpha_THW, confident=np.ones(len(alpha_THW), bool))


def test_leakage_is_the_share_of_the_mask_outside() -> None:
    """The mask is 40 rows high; what was drawn ends at row 20, and 3 px more are forgiven."""
    mask, alpha = np.zeros((1, 2, SIDE, SIDE), np.uint8), np.zeros((2, SIDE, SIDE), np.uint8)
    mask[:, :, 0:40, 10:50], alpha[:, 0:20, 10:50] = 255, 255
    found = judging._leakage(made_of(mask, alpha), [0])
    assert found["leakage"] == pytest.approx(17 / 40, abs=0.02)
    assert found["mask_missing"] == 0
    found = judging._leakage(made_of(alpha[None], mask[0]), [0])
    assert found["leakage"] == 0
    assert found["mask_missing"] == pytest.approx(17 * 34 / 40**2, abs=0.03), "3 px at the drawn edge are forgiven"


def test_marked_limbs_against_a_turned_output() -> None:
    """The whole output is turned by 30° in the picture: every limb is 30° off."""
    rng = np.random.default_rng(4)
    joints = {name: rng.uniform(0, 400, 2) for name in {n for limb in marked.LIMBS for n in limb}}
    turn = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])
    output = np.zeros((33, 2))
    for name, xy in joints.items():
        output[marked.INDEX[name]] = turn @ xy
    angles = marked._angles(joints, output)
    assert len(angles) >= 6
    assert np.allclose(angles, 30)


def test_tuned_and_reported_share_no_clip_and_enough_is_reported() -> None:
    assert not {row[1] for row in combos.TUNED} & {row[1] for row in combos.REPORTED}
    assert not {c for row in combos.TUNED for c in row[2]} & {c for row in combos.REPORTED for c in row[2]}
    assert len(combos.REPORTED) >= 12
    assert {row[0] for row in combos.REPORTED} == {"animation", "replacement"}
    assert any(len(row[2]) == 2 for row in combos.REPORTED)


def test_every_reported_combination_was_judged_by_eye() -> None:
    judged = json.loads((marked.FILE.parent / "kept_by_eye.json").read_text())["combinations"]
    assert set(judged) == {c.name for c in combos.of_samples(combos.REPORTED, Path("samples"))}
    assert all(j["keep"] in (True, False) or len(j["keep"]) == 2 for j in judged.values())
    assert all(len(j["why"]) > 10 for j in judged.values())


def test_marks_are_of_reported_clips() -> None:
    marks = marked.Marks()
    assert len({(f["clip"], f["frame"]) for f in marks.frames}) >= 60
    assert {f["clip"].removesuffix(".mp4") for f in marks.frames} <= {row[1] for row in combos.REPORTED}
    joints = [v for f in marks.frames for p in f["people"] for v in p["joints"].values() if v]
    assert all(len(v) == 3 and v[2] in ("seen", "guess") for v in joints)
