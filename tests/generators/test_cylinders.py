"""Pose renderings in space: where the limbs are, which are in front, and that they lie over the people of real clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from posing import (
    FRAMES,
    HEIGHT,
    WIDTH,
    at,
    body,
    people_at,
    people_of,
    request_for,
    turned,
    with_details,
)

from generators import registry
from generators.poses import cylinders, drawing, skeleton
from generators.poses.alignment import aligned
from generators.poses.camera import BEHIND_M, Camera, distances, placed
from generators.poses.capsules import Scene, intersect
from generators.poses.cylinders import CylinderOptions, Cylinders
from generators.poses.figures import Figures, figures
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.errors import BadInput
from manifests.recipe import GeneratorSpec, load_recipe
from manifests.records import Geometry

CAMERA = Camera.of((HEIGHT, WIDTH))
LIMB = {(a, b): colour for a, b, colour in cylinders.LIMBS}


def fig_of(people: People) -> Figures:
    return figures(people, HEIGHT, WIDTH)


def draw(people: People, **options: object) -> list[np.ndarray]:
    return list(cylinders.render(fig_of(people), CylinderOptions(**options)))  # type: ignore[arg-type]


def limb_at(picture: np.ndarray, row: float, column: float) -> tuple[int, int] | None:
    """The limb whose paint the pixel's hue is closest to; None for black."""
    pixel = picture[round(row), round(column)].astype(float)
    if pixel.max() < 20:
        return None
    # White light adds the same to all channels: without the smallest and scaled, a pixel has its limb's hue.
    hue = (pixel - pixel.min()) / max(np.ptp(pixel), 1)

    def off(colour: tuple[int, int, int]) -> float:
        paint = np.array(colour, float)
        return float(np.abs((paint - paint.min()) / max(np.ptp(paint), 1) - hue).sum())

    return min(LIMB, key=lambda limb: off(LIMB[limb]))


def test_the_lens_is_55_degrees_over_the_longer_side() -> None:
    edge = np.array([np.tan(np.radians(27.5)), 0.0, 1.0])
    assert Camera.of((HEIGHT, WIDTH)).project(edge).tolist() == pytest.approx([WIDTH, HEIGHT / 2])
    assert Camera.of((WIDTH, HEIGHT)).focal_px == Camera.of((HEIGHT, WIDTH)).focal_px


@pytest.mark.parametrize("yaw_deg", [0, 50, 180])
@pytest.mark.parametrize("place", [(0.0, 0.0, 4.0), (1.2, -0.4, 6.0), (-0.3, 0.6, 2.2)])
def test_distance_is_recovered_from_world_and_picture(yaw_deg: float, place: tuple[float, float, float]) -> None:
    people = people_of((turned(body(), yaw_deg), place))
    assert distances(fig_of(people), CAMERA) == pytest.approx(place[2], rel=1e-3)
    points = placed(fig_of(people), CAMERA).points_PT19x3[0, 0]
    assert points[4] == pytest.approx(turned(body(), yaw_deg)[INDEX["right_wrist"]] + np.array(place), abs=0.01)


def test_a_jittering_size_does_not_make_the_distance_jitter() -> None:
    people = people_of((body(), (0.0, 0.0, 5.0)), frames=33)
    noise = 1 + 0.03 * np.random.default_rng(0).standard_normal(33)
    people.world_PT33x3[:] *= noise[None, :, None, None].astype(np.float32)
    fig = fig_of(people)
    raw, smooth = distances(fig, CAMERA)[0], placed(fig, CAMERA).points_PT19x3[0, :, 1, 2]
    assert np.abs(np.diff(smooth)).mean() < 0.4 * np.abs(np.diff(raw)).mean()


def test_a_capsule_is_exact() -> None:
    """Against a march along each ray by the distance to the capsule, which is another way to the same surface."""
    rng = np.random.default_rng(3)
    for _ in range(6):
        a, b = rng.uniform([-0.5, -0.5, 2], [0.5, 0.5, 3.5], (2, 3))
        radius = float(rng.uniform(0.02, 0.3))
        x, y = rng.uniform(-0.3, 0.3, (2, 400)).astype(np.float32)
        ray = np.stack([x, y, np.ones(400)], axis=1).astype(float)
        depth = np.full(400, 0.5)
        for _ in range(400):
            point = ray * depth[:, None]
            share = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            gap = np.linalg.norm(point - a - share[:, None] * (b - a), axis=1) - radius
            depth += gap / np.linalg.norm(ray, axis=1)
        hit = np.abs(gap) < 1e-6
        found, normal_z, _ = intersect(x, y, a, b, radius)
        clear = np.abs(gap) > 1e-3
        assert np.isfinite(found[hit]).mean() > 0.98
        assert not np.isfinite(found[clear]).any()
        both = hit & np.isfinite(found)
        assert both.sum() > 5
        assert found[both] == pytest.approx(depth[both], abs=2e-3)
        assert (normal_z[both] <= 1e-3).all()


def test_a_capsule_that_points_at_the_camera_is_a_disc() -> None:
    scene = Scene.empty((200, 200), 1.0, 4.0)
    scene.add(np.array([0.0, 0.0, 2.0]), np.array([0.0, 0.0, 3.0]), 0.2, (1.0, 0.5, 0.2))
    drawn = scene.canvas_HWC.any(axis=-1)
    radius = scene.camera.focal_px * 0.2 / np.sqrt(2.0**2 - 0.2**2)
    assert drawn.sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    assert scene.depth_HW[100, 100] == pytest.approx(1.8, abs=1e-3)


def test_a_limb_is_bright_in_the_middle_dark_at_its_rim_and_darker_far_away() -> None:
    def across(depth_m: float) -> np.ndarray:
        scene = Scene.empty((200, 200), 2.0, 5.0)
        scene.add(np.array([0.0, -1.0, depth_m]), np.array([0.0, 1.0, depth_m]), 0.1 * depth_m, (0.5, 0.4, 0.2))
        return scene.canvas_HWC[100, scene.canvas_HWC[100].any(axis=-1), 0].astype(int)

    near, far = across(2.0), across(5.0)
    middle = len(near) // 2
    assert (np.diff(near[: middle - 1]) >= 0).all()
    assert near[0] < 0.6 * near[middle // 2] < near[middle]
    assert len(near) == pytest.approx(len(far), abs=2)
    assert far[middle] == pytest.approx(near[middle] * (1 - 3 / 9), rel=0.1)


@pytest.mark.parametrize(("depth", "in_front"), [(-0.35, True), (0.35, False)])
def test_a_forearm_hides_the_torso_only_when_it_is_before_it(depth: float, in_front: bool) -> None:
    joints = body(left_elbow=(0.3, -0.2, depth), left_wrist=(-0.3, -0.2, depth))
    people = people_of((joints, (0.0, 0.0, 3.5)))
    picture = draw(people, radius_m=0.04, hands=False)[0]
    x, y = CAMERA.project(np.array([-0.07, -0.2, depth + 3.5]))
    arm = {(5, 6), (6, 7)}
    # At this height the lines from the neck to the hips are 0.07 m to either side of the middle.
    assert all((limb_at(picture, y, CAMERA.project(np.array([dx, -0.2, 3.5]))[0]) in arm) is in_front for dx in (-0.07, 0.07))
    assert limb_at(picture, y, x - 20) in arm


def test_of_two_people_the_nearer_one_is_in_front() -> None:
    near, far = (body(), (0.0, 0.0, 3.0)), (body(), (0.02, -0.05, 4.5))
    for order in ((near, far), (far, near)):
        both, alone = draw(people_of(*order), hands=False)[0], draw(people_of(near), hands=False)[0]
        drawn = alone.any(axis=-1)
        changed = np.abs(both[drawn].astype(int) - alone[drawn]).max(axis=-1) > 60
        assert changed.mean() < 0.02
        assert (both.any(axis=-1) & ~drawn).sum() > 200


def test_whose_feet_stand_behind_is_put_behind_without_moving_in_the_picture() -> None:
    """A tall woman and a short man: by their size alone he would seem far and she near."""
    people = people_of((body() * 1.3, (0.0, 0.0, 5.0)), (body(), (0.1, 0.2, 5.2)))
    people.landmarks_PT33x3[0, ..., 1] -= 60
    people.world_PT33x3[0] /= 1.3
    fig = fig_of(people)
    raw, where = distances(fig, CAMERA), placed(fig, CAMERA)
    assert raw[0, 0] < raw[1, 0]
    assert where.near_first_T[0] == [1, 0]
    hips = where.points_PT19x3[:, 0, [8, 11], 2].mean(axis=1)
    assert hips[0] - hips[1] == pytest.approx(BEHIND_M, abs=0.05)
    flat = CAMERA.project(where.points_PT19x3)
    assert flat[0, 0, 4] == pytest.approx(people.landmarks_PT33x3[0, 0, INDEX["right_wrist"], :2], abs=1e-3)


def test_from_behind_there_is_a_head_but_no_face() -> None:
    front, back = draw(people_at((150, 150)))[0], draw(people_at((150, 150), yaw_deg=180))[0]
    eye = np.array(drawing.COLOURS[15])
    assert (front == eye).all(axis=-1).any()
    assert not (back == eye).all(axis=-1).any()
    row, _ = at(people_at((150, 150)), "left_ear")
    assert back[row - 2 : row + 6, 145:155].any()


def test_hands_and_face_lie_over_the_limbs_and_under_nearer_people() -> None:
    people = with_details(people_at((150, 150)))
    picture = draw(people)[0]
    knuckle = (picture == np.array(drawing.KNUCKLE)).all(axis=-1)
    assert knuckle.sum() > 20
    assert (picture == np.array(drawing.FACE)).all(axis=-1).sum() > 20
    assert np.array_equal(draw(people, hands=False, face=False)[0], draw(people_at((150, 150)))[0])
    far, near = (body(), (0.0, 0.0, 6.0)), (body(), (0.0, 0.12, 2.0))
    pair, alone = with_details(people_of(far, near)), with_details(people_of(far))
    assert pair.details is not None
    pair.details.hand_seen_PT2[1] = pair.details.face_seen_PT[1] = 0
    covered, free = draw(pair, radius_m=0.12)[0], draw(alone, radius_m=0.12)[0]
    fingers = (free == np.array(drawing.KNUCKLE)).all(axis=-1)
    before = draw(people_of(near), radius_m=0.12)[0].any(axis=-1)
    assert (fingers & before).any(), "the nearer person must cover some of the hand for this to test anything"
    assert not (covered[fingers & before] == np.array(drawing.KNUCKLE)).all(axis=-1).any()


def test_a_rendering_has_the_asked_size_and_rate_and_repeats_to_the_byte(tmp_path: Path) -> None:
    people = people_at((150, 150), (350, 150), frames=17)
    for t in range(17):
        people.landmarks_PT33x3[:, t, :, 0] += 4 * t
    people = with_details(people)
    request = request_for(people, geometry=Geometry(frames=29, fps=30, height=HEIGHT, width=WIDTH))
    for name in ("a.mp4", "b.mp4"):
        generator = Cylinders()
        generator.setup()
        report = generator.run(request, tmp_path / name)
        generator.verify(request, tmp_path / name)
    seen = media.inspect(tmp_path / "a.mp4")
    assert (seen.frames, seen.height, seen.width, seen.fps) == (29, HEIGHT, WIDTH, 30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert len(report.per_frame) == 29
    frames, _ = media.read_frames(tmp_path / "a.mp4")
    centres = np.array([np.nonzero(frame.max(axis=-1) > 60)[1].mean() for frame in frames])
    assert np.abs(centres - centres[0] - 4 * 16 * np.arange(29) / 30).max() < 2, "half of what a clip's frame travels"


def test_hostile_people() -> None:
    one = people_at((150, 150), frames=1)
    assert draw(one)[0].any()
    assert not np.any(draw(one.only([])))
    leaving = people_at((150, 150), (350, 150), frames=33)
    leaving.present_PT[1, 10:] = False
    pictures = draw(leaving)
    assert pictures[5][:, 280:].any()
    assert not pictures[20][:, 280:].any()
    assert pictures[20][:, :280].any()
    wild = people_at((150, 150), (350, 150))
    wild.landmarks_PT33x3[0] = np.nan
    wild.world_PT33x3[1, 2] = np.inf
    wild.landmarks_PT33x3[1, :, INDEX["left_wrist"]] = 1e12
    pictures = draw(wild)
    assert not pictures[0][:, :280].any()
    assert pictures[0][:, 280:].any()
    flat = people_at((150, 150))
    flat.world_PT33x3[:] = 0
    flat.landmarks_PT33x3[..., :2] = 100
    assert len(draw(flat)) == FRAMES


def test_a_face_close_up_and_a_limb_at_the_lens_do_not_break_the_picture() -> None:
    close = people_of((body(left_wrist=(0.1, -0.5, -0.55), left_elbow=(0.3, -0.3, -0.3)), (0.0, 0.55, 0.65)))
    picture = draw(close)[0]
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.any()


def test_aligned_cylinders_are_the_references_size_and_place() -> None:
    people = people_at((150, 150))
    reference = people_of((body(), (0.5, 0.1, 2.5)), frames=1)
    fig = aligned(fig_of(people), reference)
    assert distances(fig, CAMERA) == pytest.approx(2.5, rel=0.03)
    picture, wanted = (next(iter(cylinders.render(f, CylinderOptions()))).any(axis=-1) for f in (fig, fig_of(reference)))
    assert (picture & wanted).sum() / (picture | wanted).sum() > 0.8


def test_heads_and_hands_that_alignment_moves_out_of_the_picture_are_cut() -> None:
    people = with_details(people_at((150, 150)))
    for y in (-1.2, 1.2):
        fig = aligned(fig_of(people), people_of((body(), (0.0, y, 2.2)), frames=1))
        assert len(list(cylinders.render(fig, CylinderOptions()))) == FRAMES


def test_masks_are_read_from_cylinders_as_from_sticks(tmp_path: Path) -> None:
    people = people_at((150, 150), (350, 150))
    Cylinders().run(request_for(people), tmp_path / "pose.mp4")
    frames, _ = media.read_frames(tmp_path / "pose.mp4")
    masks = skeleton.masks_from_rendering(frames, people)
    assert (masks.sum(axis=0) <= 1).all()
    for p in range(2):
        assert masks[p][:, at(people, "left_hip", p)[0], at(people, "left_hip", p)[1]].all()
    drawn = draw(people)[0].any(axis=-1)
    assert masks.any(axis=0)[0][drawn].mean() > 0.99


@pytest.mark.parametrize("name", ["single", "multi3"])
def test_cylinders_lie_over_the_people_of_real_clips(name: str, sample_clip: Callable[[str], Path]) -> None:
    frames = media.read_clip(sample_clip(name), 16, short_side=320, count=9)
    people = PeopleTracker().track(frames, 16)
    height, width = frames.shape[1:3]
    fig, camera = figures(people, height, width), Camera.of((height, width))
    where, picture = placed(fig, camera), list(cylinders.render(fig, CylinderOptions(face=False, hands=False)))
    torso = np.linalg.norm(
        fig.landmarks_PT33x3[..., [11, 12], :2].mean(axis=2) - fig.landmarks_PT33x3[..., [23, 24], :2].mean(axis=2), axis=-1
    )
    raw = distances(fig, camera)
    assert np.isfinite(raw).all()
    assert ((raw > 1) & (raw < 10)).all()
    covered, off = [], []
    for p in range(people.count):
        world = fig.world_PT33x3[p, :, 11:29]
        flat = fig.landmarks_PT33x3[p, :, 11:29, :2]
        rigid = camera.lifted(flat, world[..., 2] + raw[p][:, None])
        rigid = world + np.median(rigid - world, axis=1, keepdims=True)
        off += (np.linalg.norm(camera.project(rigid) - flat, axis=-1) / torso[p][:, None]).ravel().tolist()
        for t in range(people.frames):
            axis = camera.project(where.points_PT19x3[p, t])
            assert axis == pytest.approx(fig.points_19x3(p, t)[:, :2], abs=1e-6)
            for a, b, _ in cylinders.LIMBS:
                if fig.drawn_PT19[p, t, [a, b]].all():
                    x, y = np.round((fig.points_19x3(p, t)[a] + fig.points_19x3(p, t)[b])[:2] / 2).astype(int)
                    covered.append(bool(0 <= x < width and 0 <= y < height and picture[t][y, x].any()))
    assert np.mean(covered) > 0.97
    assert np.median(off) < 0.1, "the world landmarks, moved as one body, miss the picture's by less than a tenth of the torso"
    assert max(int(order != where.near_first_T[0]) for order in where.near_first_T) == 0


def test_a_recipe_may_ask_for_cylinders_wherever_it_may_ask_for_a_skeleton() -> None:
    recipe = load_recipe("motionpair-60k")
    names = [name for name, spec in recipe.generators.items() if spec.kind == "skeleton"]
    assert names
    specs = recipe.generators | {name: GeneratorSpec.model_validate({"kind": "cylinders", "radius_m": 0.028}) for name in names}
    registry.check(recipe.model_copy(update={"generators": specs}), to_run=False)
    assert isinstance(registry.create("cylinders", {"stick_per_body": 0.03}), Cylinders)
    with pytest.raises(Exception, match="radius"):
        registry.create("cylinders", {"radius": 1})
    with pytest.raises(BadInput, match="not animation"):
        Cylinders().validate(request_for(people_at((150, 150)), "animation"))
