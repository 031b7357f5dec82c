"""Drawn characters: real enough for the pose model, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generators.images import drawn, solids
from generators.poses.people import PeopleTracker
from generators.poses.summary import describe
from generators.poses.tracks import INDEX

HEIGHT_PX = 320
JOINTS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))


def _errors(drawing: drawn.Drawing, xy_33x2: np.ndarray) -> dict[str, float]:
    """Distance of found and true joints, in heights of the picture."""
    return {name: float(np.hypot(*(xy_33x2[INDEX[name]] - drawing.joints[name]))) / drawing.image_HWC.shape[0] for name in JOINTS}


@pytest.mark.parametrize(("kind", "seed"), [("mannequin", 1), ("mannequin", 4), ("mannequin", 8), ("robot", 1), ("robot", 2)])
def test_pose_model_finds_front_figures(tracker: PeopleTracker, kind: str, seed: int) -> None:
    drawing = drawn.draw_mannequin(seed, HEIGHT_PX) if kind == "mannequin" else drawn.draw_robot(seed, HEIGHT_PX)
    people = tracker.still(drawing.image_HWC)
    assert people.count == 1
    person = describe(people)[0]
    errors = _errors(drawing, people.landmarks_PT33x3[0, 0, :, :2])
    assert max(errors.values()) < 0.035, errors
    assert person.framing == "full"
    assert abs(person.yaw_deg) < 20
    assert not person.arms_crossed
    assert people.visibility_PT33[0, 0, [INDEX[j] for j in JOINTS]].min() > 0.9
    found, true = people.masks_PTHW[0, 0] > 127, drawing.alpha_HW > 0.5
    assert (found & true).sum() / (found | true).sum() > 0.9


@pytest.mark.parametrize(("view", "sign"), [("left", -1), ("right", 1)])
def test_side_views_walk_to_their_side(tracker: PeopleTracker, view: drawn.View, sign: int) -> None:
    drawing = drawn.draw_mannequin(9, HEIGHT_PX, view)
    people = tracker.still(drawing.image_HWC)
    assert people.count == 1
    assert 50 < sign * describe(people)[0].yaw_deg < 125
    assert float(np.mean(list(_errors(drawing, people.landmarks_PT33x3[0, 0, :, :2]).values()))) < 0.03


@pytest.mark.parametrize(
    ("kind", "seed"), [("mannequin", 1), ("mannequin", 5), ("mannequin", 8), ("mannequin", 9), ("robot", 1), ("robot", 2)]
)
def test_back_views_turn_away_in_the_same_clothes(tracker: PeopleTracker, kind: str, seed: int) -> None:
    draw = drawn.draw_mannequin if kind == "mannequin" else drawn.draw_robot
    front, back = draw(seed, HEIGHT_PX), draw(seed, HEIGHT_PX, "back")
    people = tracker.still(back.image_HWC)
    assert people.count == 1
    person = describe(people)[0]
    assert abs(person.yaw_deg) > 150
    assert person.framing == "full"
    assert not person.arms_crossed
    errors = _errors(back, people.landmarks_PT33x3[0, 0, :, :2])
    assert max(errors.values()) < 0.035, errors
    assert back.joints["left_wrist"][0] < back.joints["right_wrist"][0], "from behind, the left hand is on the left"
    mirrored = front.alpha_HW[:, ::-1] > 0.5
    assert (mirrored & (back.alpha_HW > 0.5)).sum() / mirrored.sum() > 0.9, "the same body in the same pose"
    thigh = {name: _patch(d, "left_hip", "left_knee") for name, d in (("front", front), ("back", back))}
    assert np.linalg.norm(thigh["front"] - thigh["back"]) < 40, "the same colours"


def _patch(drawing: drawn.Drawing, a: str, b: str) -> np.ndarray:
    """Mean colour halfway between two joints."""
    x, y = np.round((np.array(drawing.joints[a]) + drawing.joints[b]) / 2).astype(int)
    return np.asarray(drawing.image_HWC[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0))


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_no_face_from_behind(seed: int) -> None:
    """The middle of the head is plain hair from behind; from the front it holds eyes and a mouth."""
    spread = {}
    for view in ("front", "back"):
        drawing = drawn.draw_mannequin(seed, HEIGHT_PX, view)
        x, y = np.round(drawing.joints["head"]).astype(int)
        spread[view] = float(drawing.image_HWC[y - 1 : y + 5, x - 7 : x + 8].reshape(-1, 3).std(0).max())
    assert spread["back"] < 0.5 * spread["front"]


def test_whole_body_with_margins() -> None:
    views: tuple[drawn.Drawing, ...] = (drawn.draw_mannequin(0, 200), drawn.draw_robot(1, 200), drawn.draw_mannequin(2, 200, "left"))
    for drawing in (*views, drawn.draw_mannequin(3, 200, "back")):
        ys, xs = np.nonzero(drawing.alpha_HW > 0.05)
        assert ys.min() >= 4
        assert xs.min() >= 4
        assert ys.max() < drawing.image_HWC.shape[0] - 4
        assert xs.max() < drawing.image_HWC.shape[1] - 4
        assert drawing.image_HWC.dtype == np.uint8
        assert drawing.image_HWC.shape == (*drawing.alpha_HW.shape, 3)


def test_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from generators.images import drawn as d;"
        "print(hashlib.sha256(b''.join(a.tobytes() for a in ("
        "d.mannequin(5, 96), d.robot(5, 96), d.mannequin(5, 96, 'back'), d.robot(5, 96, 'back'), d.scene(1, 64, 96)))).hexdigest())"
    )
    root = Path(drawn.__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout.strip()
    figures = (drawn.mannequin(5, 96), drawn.robot(5, 96), drawn.mannequin(5, 96, "back"), drawn.robot(5, 96, "back"))
    here = b"".join(image.tobytes() for image in (*figures, drawn.scene(1, 64, 96)))
    assert hashlib.sha256(here).hexdigest() == other


def test_seeds_differ_in_clothes_and_build() -> None:
    pictures = [drawn.mannequin(seed, 128) for seed in range(4)] + [drawn.robot(seed, 128) for seed in range(4)]
    middles = [p[40:60, p.shape[1] // 2 - 6 : p.shape[1] // 2 + 6].reshape(-1, 3).mean(0) for p in pictures]
    for i, a in enumerate(middles):
        assert all(np.linalg.norm(a - b) > 5 for b in middles[i + 1 :])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(288, 512), (512, 288), (65, 97)])
def test_scenes_have_a_floor_and_no_people(tracker: PeopleTracker, seed: int, size: tuple[int, int]) -> None:
    scene = drawn.scene(seed, *size)
    assert scene.shape == (*size, 3)
    assert scene.dtype == np.uint8
    rows = scene.astype(float).mean((1, 2))
    assert abs(rows[: size[0] // 3].mean() - rows[-size[0] // 5 :].mean()) > 8
    if min(size) > 100:
        assert tracker.still(scene).count == 0


def test_distances_and_coverage_of_a_sphere() -> None:
    at = np.array([0.1, 1.0, 0.0])
    ball = solids.ellipsoid(solids.Material((200, 200, 200)), "ball", at, (0.3, 0.3, 0.3))
    points_3N = np.array([[0.1, 1.5, 0.0], [0.1, 1.0, 0.3], [0.5, 1.0, 0.0]], np.float32).T
    assert solids.Union([ball]).distances(points_3N)[0] == pytest.approx([0.2, 0.0, 0.1], abs=1e-4)
    _, cover = solids.render([ball], 120, 120, 60.0, (60.0, 110.0))
    assert float(cover.sum()) == pytest.approx(np.pi * 18**2, rel=0.03)
    cube = solids.box(solids.Material((9, 9, 9)), "cube", np.zeros(3), (0.2, 0.2, 0.2), 0.05)
    assert solids.Union([cube]).field(np.array([[0.5, 0, 0], [0, 0, 0.2]], np.float32).T) == pytest.approx([0.3, 0.0], abs=1e-4)


def test_solids_measured_together_are_measured_alike() -> None:
    """One call for all solids, of all kinds and turned, gives the same bits as one call for each; groups melt, others meet."""
    stuff, turn = solids.Material((9, 9, 9)), solids.rotation("x", 30) @ solids.rotation("y", 50)
    mixed = [
        solids.capsule(stuff, "limb", np.array([0, 0.1, 0]), np.array([0.2, 0.4, 0.1]), 0.05, 0.03),
        solids.ellipsoid(stuff, "limb", np.array([0.2, 0.4, 0.0]), (0.1, 0.2, 0.05), solids.rotation("z", 20), blend=0.05),
        solids.box(stuff, "block", np.array([-0.1, 0.2, 0.0]), (0.1, 0.05, 0.2), 0.02),
        solids.capsule(stuff, "limb", np.array([0.2, 0.4, 0.1]), np.array([0.3, 0.2, 0.1]), 0.03),
    ]
    mixed = [solid.turned(turn) for solid in mixed]
    points_3N = np.random.default_rng(0).uniform(-0.2, 0.5, (3, 777)).astype(np.float32)
    together = solids.Union(mixed).distances(points_3N)
    for solid, row in zip(mixed, together, strict=True):
        np.testing.assert_array_equal(solids.Union([solid]).distances(points_3N)[0], row)
    few = solids.Union(mixed).distances(points_3N[:, 300:305])
    np.testing.assert_array_equal(few, together[:, 300:305])
    joined = solids.Union(mixed).field(points_3N)
    assert (joined <= together.min(0)).all()
    assert (joined < together.min(0) - 0.005).any(), "solids of one group melt"
    apart = [replace(solid, group=str(i)) for i, solid in enumerate(mixed)]
    np.testing.assert_array_equal(solids.Union(apart).field(points_3N), together.min(0))
