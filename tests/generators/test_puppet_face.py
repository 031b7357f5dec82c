"""The puppet's face: made-up drivers whose mouth, eyes and head turn are known, on a character drawn by code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from generators.images import drawn
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, Details, People
from generators.videos.puppet.cutout import Figure, figure_of, matte_of, rescaled
from generators.videos.puppet.deform import posed, rolled
from generators.videos.puppet.face import Rig, expressed, expressive, with_face
from generators.videos.puppet.layers import MOUTH, Layer, layers_of
from generators.videos.puppet.motion import motion_of
from generators.videos.puppet.parts import parts_of
from generators.videos.puppet.portrait import read_portrait
from generators.videos.puppet.render import Character, draw
from generators.videos.puppet.retarget import Placement, retarget
from generators.videos.puppet.skeleton import JOINT

FRAMES = 24
Change = Callable[[np.ndarray, int], np.ndarray]
NOSE, CHIN, BROW = 1, 152, 10


@pytest.fixture(scope="module")
def picture() -> tuple[np.ndarray, People]:
    image = drawn.draw_mannequin(3, 640).image_HWC
    people = read_portrait(PeopleTracker(), DetailReader(), image)
    assert people.details is not None
    assert people.details.face_seen_PT[0, 0] > 0.9
    return image, people


@pytest.fixture(scope="module")
def figure(picture: tuple[np.ndarray, People]) -> Figure:
    return figure_of(*picture, 0)


@pytest.fixture(scope="module")
def plain(figure: Figure) -> dict[str, Layer]:
    matte = matte_of(figure)
    return layers_of(figure, matte, parts_of(figure, matte.solid_HW))


@pytest.fixture(scope="module")
def rigged(figure: Figure, plain: dict[str, Layer]) -> tuple[dict[str, Layer], Rig]:
    layers, rig = with_face(figure, plain)
    assert rig is not None
    return layers, rig


def driver(people: People, change: Change, seen: Callable[[int], bool] = lambda t: True) -> People:
    """The picture's person for FRAMES frames; its mesh in frame t is `change(mesh, t)`."""
    many = {name: np.repeat(getattr(people, name), FRAMES, 1) for name in
            ("landmarks_PT33x3", "world_PT33x3", "visibility_PT33", "present_PT", "masks_PTHW")}  # fmt: skip
    details = Details.unseen(1, FRAMES)
    assert people.details is not None
    for t in range(FRAMES):
        if seen(t):
            details.faces_PT468x3[0, t] = change(people.details.faces_PT468x3[0, 0].astype(float), t)
            details.face_seen_PT[0, t] = 0.9
    return People(**many, fps=24.0, details=details)


def tall(figure: Figure) -> float:
    assert figure.face_468x3 is not None
    return float(np.linalg.norm(figure.face_468x3[BROW, :2] - figure.face_468x3[CHIN, :2]))


def at(figure: Figure, layers: dict[str, Layer], mesh_point: int) -> int:
    """The head's vertex at a point of the mesh."""
    assert figure.face_468x3 is not None
    away = np.linalg.norm(layers["head"].vertices_Vx2 - figure.face_468x3[mesh_point, :2], axis=1)
    assert away.min() < 1e-3
    return int(np.argmin(away))


def talking(mesh: np.ndarray, t: int) -> np.ndarray:
    """From frame 12 the lower lip and the chin are an eighth of the face lower."""
    down = 0.125 * np.linalg.norm(mesh[BROW] - mesh[CHIN]) * (t >= 12)
    lower = [14, 402, 178, 17, 405, 181, CHIN, 377, 148, 18, 200]
    mesh[lower, 1] += down
    return mesh


def blinking(mesh: np.ndarray, t: int) -> np.ndarray:
    if t >= 12:
        for upper, lower in ((160, 144), (159, 145), (158, 153), (387, 373), (386, 374), (385, 380)):
            mesh[upper] = mesh[lower]
    return mesh


def turning(mesh: np.ndarray, t: int) -> np.ndarray:
    """From frame 12 turned by 12° to the picture's left."""
    turn = cv2.Rodrigues(np.array([0.0, np.radians(12.0) * (t >= 12), 0.0]))[0]
    middle = mesh.mean(0)
    return np.asarray((mesh - middle) @ turn.T + middle)


def moving(mesh: np.ndarray, t: int) -> np.ndarray:
    """Elsewhere, larger and rolled: nothing of it is the face's business."""
    roll = cv2.Rodrigues(np.array([0.0, 0.0, 0.02 * t]))[0]
    return np.asarray(mesh @ roll.T * (1 + 0.03 * t) + [5.0 * t, -2.0 * t, 0.0])


def test_the_mouth_opens_as_far_as_the_drivers(
    figure: Figure, picture: tuple[np.ndarray, People], rigged: tuple[dict[str, Layer], Rig]
) -> None:
    layers, rig = rigged
    shifts, share = expressed(figure, rig, driver(picture[1], talking), 0)
    assert share.min() > 0.99
    assert np.abs(shifts[:8]).max() < 0.01 * tall(figure)
    lip, still = shifts[-1, at(figure, layers, 14)], shifts[-1, at(figure, layers, 13)]
    assert (lip - still)[1] == pytest.approx(0.125 * tall(figure), rel=0.1)
    assert np.linalg.norm(shifts[-1, at(figure, layers, 334)]) < 0.01 * tall(figure)


def test_an_open_mouth_is_dark_inside(figure: Figure, picture: tuple[np.ndarray, People], plain: dict[str, Layer],
                                      rigged: tuple[dict[str, Layer], Rig]) -> None:  # fmt: skip
    layers, rig = rigged
    assert MOUTH in layers
    people = driver(picture[1], talking)
    pose = retarget(figure, motion_of(people, 0), Placement(like_driver=False), figure)
    spoken = expressive(pose, figure, rig, people, 0)
    alpha = matte_of(figure).alpha_HW
    canvases = []
    for t in (0, FRAMES - 1):
        canvas = np.zeros((*picture[0].shape[:2], 4), np.float32)
        draw(canvas, Character(figure, layers, alpha, rig), spoken, t)
        canvases.append(canvas)
    before = np.zeros_like(canvases[0])
    draw(before, Character(figure, plain, alpha), pose, 0)
    drawn_at = posed(figure, spoken, FRAMES - 1, "head", layers["head"])
    x, y = np.round((drawn_at[at(figure, layers, 13)] + drawn_at[at(figure, layers, 14)]) / 2).astype(int)
    inside = (slice(y - 1, y + 2), slice(x - 2, x + 3))
    assert canvases[1][inside][..., :3].mean() < 0.5 * canvases[0][inside][..., :3].mean()
    assert (canvases[1][inside][..., 3] > 250).all()
    assert np.abs(canvases[0] - before).mean() < 0.5  # at rest the face's own mesh changes nothing


def test_shut_eyes_are_shut_whatever_the_size(
    figure: Figure, picture: tuple[np.ndarray, People], rigged: tuple[dict[str, Layer], Rig]
) -> None:
    layers, rig = rigged

    def smaller_eyes(mesh: np.ndarray, t: int) -> np.ndarray:
        for upper, lower in ((160, 144), (159, 145), (158, 153), (387, 373), (386, 374), (385, 380)):
            mesh[upper] = 0.7 * mesh[upper] + 0.3 * mesh[lower]
        return blinking(mesh, t)

    for change in (blinking, smaller_eyes):
        shifts, _ = expressed(figure, rig, driver(picture[1], change), 0)
        for upper, lower in ((159, 145), (386, 374)):
            u, w = at(figure, layers, upper), at(figure, layers, lower)
            gap = layers["head"].vertices_Vx2[w] - layers["head"].vertices_Vx2[u]
            left = gap + shifts[-1, w] - shifts[-1, u]
            assert -0.01 * tall(figure) < left[1] < 0.3 * gap[1]


def test_a_turned_head_carries_the_nose_and_not_the_skull(figure: Figure, picture: tuple[np.ndarray, People],
                                                          rigged: tuple[dict[str, Layer], Rig]) -> None:  # fmt: skip
    layers, rig = rigged
    people = driver(picture[1], turning)
    shifts, _ = expressed(figure, rig, people, 0)
    nose, cheeks = shifts[-1, at(figure, layers, 4)], shifts[-1, [at(figure, layers, p) for p in (234, 454)]]
    assert nose[0] < -0.05 * tall(figure)
    assert np.abs(cheeks[:, 0]).max() < 0.4 * abs(nose[0])
    far = np.linalg.norm(layers["head"].vertices_Vx2 - figure.face_468x3[NOSE, :2], axis=1) > 1.6 * tall(figure)  # type: ignore[index]
    assert not shifts[:, far].any()
    pose = retarget(figure, motion_of(people, 0), Placement(like_driver=False), figure)
    assert np.abs(expressive(pose, figure, rig, people, 0).nose_Tx2).max() < 1e-6


def test_place_size_and_roll_of_the_driver_change_nothing(figure: Figure, picture: tuple[np.ndarray, People],
                                                          rigged: tuple[dict[str, Layer], Rig]) -> None:  # fmt: skip
    shifts, _ = expressed(figure, rigged[1], driver(picture[1], moving), 0)
    assert np.abs(shifts).max() < 0.01 * tall(figure)


def test_a_face_that_folds_turns_less(figure: Figure, picture: tuple[np.ndarray, People], rigged: tuple[dict[str, Layer], Rig]) -> None:
    _, rig = rigged

    def crushed(mesh: np.ndarray, t: int) -> np.ndarray:
        if t >= 12:
            mesh[[50, 205, 117]] += [0.8 * np.ptp(mesh[:, 0]), 0, 0]
        return mesh

    shifts, _ = expressed(figure, rig, driver(picture[1], crushed), 0)
    moved = (rig.points_Kx2 + shifts[-1, : len(rig.points_Kx2)])[rig.triangles_Fx3]
    a, b = moved[:, 1] - moved[:, 0], moved[:, 2] - moved[:, 0]
    areas = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    assert -areas[areas < 0].sum() < 0.02 * areas[areas > 0].sum()


def test_unseen_faces_fade_to_the_picture(figure: Figure, picture: tuple[np.ndarray, People], rigged: tuple[dict[str, Layer], Rig]) -> None:
    _, rig = rigged
    people = driver(picture[1], turning, seen=lambda t: t >= 8)
    shifts, share = expressed(figure, rig, people, 0)
    assert not shifts[:8].any()
    assert share[8] < share[10] <= share[-1]
    assert np.abs(np.diff(shifts, axis=0)).max() < 0.12 * tall(figure)
    for nothing in (replace(people, details=None), replace(people, details=Details.unseen(1, FRAMES))):
        shifts, share = expressed(figure, rig, nothing, 0)
        assert not shifts.any()
        assert not share.any()


def test_without_a_face_in_the_picture_nothing_changes(figure: Figure, picture: tuple[np.ndarray, People], plain: dict[str, Layer]) -> None:
    blind = figure_of(picture[0], replace(picture[1], details=None), 0)
    assert blind.face_468x3 is None
    layers, rig = with_face(blind, plain)
    assert rig is None
    assert layers is plain
    pose = retarget(figure, motion_of(driver(picture[1], talking), 0), Placement(like_driver=False), figure)
    assert expressive(pose, blind, None, driver(picture[1], talking), 0) is pose


def test_a_rescaled_picture_keeps_its_face(picture: tuple[np.ndarray, People], figure: Figure) -> None:
    small = figure_of(*rescaled(*picture, 0.5), 0)
    assert small.face_468x3 is not None
    assert figure.face_468x3 is not None
    np.testing.assert_allclose(small.face_468x3[:, :2], figure.face_468x3[:, :2] / 2, atol=0.5)


def test_hands_point_where_their_knuckles_are_seen(picture: tuple[np.ndarray, People]) -> None:
    people = driver(picture[1], moving)
    assert people.details is not None
    wrist = people.landmarks_PT33x3[0, 0, INDEX["left_wrist"], :2]
    points = people.details.hands_PT2x21x3
    points[0, 6:, 0, 0, :2] = wrist + np.array([3, 1])  # the hand's own wrist is a little off
    points[0, 6:, 0, 5, :2], points[0, 6:, 0, 17, :2] = wrist + np.array([33, -3]), wrist + np.array([33, 5])
    people.details.hand_seen_PT2[0, 6:, 0] = 0.9
    body = replace(people, details=None)
    hand, blind = (motion_of(p, 0).joints_T19x2[:, JOINT["left_hand"]] for p in (people, body))
    np.testing.assert_allclose(hand[-1] - wrist, [30, 0], atol=0.1)
    np.testing.assert_array_equal(hand[:6], blind[:6])
    assert np.linalg.norm(hand[6] - blind[6]) < np.linalg.norm(hand[-1] - blind[-1])
    other = JOINT["right_hand"]
    np.testing.assert_array_equal(motion_of(people, 0).joints_T19x2[:, other], motion_of(body, 0).joints_T19x2[:, other])


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, 0.0), (-0.3, 0.5), (0.0, 2.0)])
def test_a_rolled_face_moves_in_the_middle_and_folds_nowhere(shift: tuple[float, float]) -> None:
    y, x = np.mgrid[-1.2:1.2:49j, -1.2:1.2:49j]
    points = np.stack([x, y], -1)
    out = rolled(points.reshape(-1, 2), np.array(shift), 1.0).reshape(points.shape)
    outside = (points**2).sum(-1) >= 1
    np.testing.assert_array_equal(out[outside], points[outside])
    assert ((out**2).sum(-1)[~outside] <= 1 + 1e-9).all()
    middle = out[24, 24]
    if np.hypot(*shift) < 0.68:  # sin of 0.75
        np.testing.assert_allclose(middle, shift, atol=1e-6)
    right, down = np.diff(out, axis=1)[:-1], np.diff(out, axis=0)[:, :-1]
    assert (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] > 0).all()
