"""What the puppet makes of a reference: which are refused, how several views share a clip, its own scene, its feet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from generators.base import VideoRequest
from generators.images import drawn
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from generators.videos.puppet.casting import Picture, View, actor_of, chosen_views
from generators.videos.puppet.confidence import stretches_of
from generators.videos.puppet.cutout import figure_of, matte_of
from generators.videos.puppet.generator import Puppet
from generators.videos.puppet.ground import held_down, planted
from generators.videos.puppet.motion import motion_of
from generators.videos.puppet.numerics import savitzky_golay
from generators.videos.puppet.parts import parts_of
from generators.videos.puppet.portrait import glance, read_portrait, refuse_unusable
from generators.videos.puppet.render import Character
from generators.videos.puppet.retarget import Placement, retarget
from generators.videos.puppet.scene import own_scene
from generators.videos.puppet.skeleton import ANKLES, BONES, HEAD, JOINT, NECK, body_yaw, bone_vectors, joints_of
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

Image = npt.NDArray[np.uint8]
H, W, T, FPS = 384, 256, 33, 16.0
READER = DetailReader()


def code_of(tracker: PeopleTracker, image: Image) -> str:
    """The code with which a picture is refused; empty for one that can be used."""
    try:
        figure = figure_of(image, read_portrait(tracker, READER, np.ascontiguousarray(image)), 0)
        refuse_unusable(figure, parts_of(figure, matte_of(figure).solid_HW))
    except BadInput as refused:
        return refused.code
    return ""


def draw(kind: str, seed: int, view: drawn.View = "front") -> drawn.Drawing:
    return (drawn.draw_mannequin if kind == "mannequin" else drawn.draw_robot)(seed, H, view)


@pytest.mark.parametrize(("kind", "seed"), [("mannequin", 1), ("mannequin", 8), ("robot", 1), ("robot", 4)])
def test_ordinary_pictures_are_used(kind: str, seed: int, tracker: PeopleTracker) -> None:
    assert code_of(tracker, draw(kind, seed).image_HWC) == ""


@pytest.mark.parametrize("seed", [3, 4, 6])
def test_pictures_that_cut_head_or_forearms_are_refused(seed: int, tracker: PeopleTracker) -> None:
    drawing = draw("mannequin", seed)
    image, at = drawing.image_HWC, drawing.joints
    assert code_of(tracker, image[: round(at["left_hand"][1] + 0.08 * H)]) == "", "a half-length portrait with both hands"
    assert code_of(tracker, image[round(at["head"][1] - 0.04 * H) :]) == "head_cropped"
    assert code_of(tracker, image[: round((at["left_elbow"][1] + at["left_wrist"][1]) / 2)]) == "forearm_cut"


@pytest.mark.parametrize("view", ["left", "right"])
def test_profiles_are_no_occluded_chests(view: drawn.View, tracker: PeopleTracker) -> None:
    assert code_of(tracker, draw("mannequin", 9, view).image_HWC) == ""


FOLDED: dict[str, tuple[tuple[float, float, float], ...]] = {
    "crossed": ((0.03, -0.16, 0.02), (-0.15, 0.10, 0.09), (-0.04, 0.035, 0)),
    "folded": ((0.04, -0.165, 0), (-0.13, 0.02, 0.10), (-0.05, 0, 0)),
}
"""statures from shoulder to elbow, to wrist, to hand; x is outwards"""


@pytest.mark.parametrize(("pose", "codes"), [("crossed", {"arms_crossed"}), ("folded", {"chest_occluded", "arms_crossed"})])
def test_arms_before_the_body_are_refused(pose: str, codes: set[str], tracker: PeopleTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Folded(drawn.Skeleton):
        def __post_init__(self) -> None:
            super().__post_init__()
            for side, sign in (("left", 1.0), ("right", -1.0)):
                at = self.at[f"{side}_shoulder"]
                for joint, step in zip(("elbow", "wrist", "hand"), FOLDED[pose], strict=True):
                    at = self.at[f"{side}_{joint}"] = at + np.array(step) * [sign, 1, 1] * self.stature

    monkeypatch.setattr(drawn, "Skeleton", Folded)
    assert code_of(tracker, draw("mannequin", 3).image_HWC) in codes


def test_refusals_come_before_anything_is_drawn(tracker: PeopleTracker, tmp_path: Path) -> None:
    drawing = draw("mannequin", 3)
    head = round(drawing.joints["head"][1])
    image = np.ascontiguousarray(drawing.image_HWC[head : head + 288, :256])
    media.write_png(tmp_path / "cut.png", image)
    driver = turning(tracker.still(np.ascontiguousarray(drawing.image_HWC[:288, :256])), np.zeros(5))
    geometry = Geometry(frames=5, fps=FPS, height=288, width=256)
    for mode in ("animation", "replacement"):
        asked = VideoRequest(mode, tmp_path / "none.mp4", driver, (tmp_path / "cut.png",), "", geometry, 1)  # type: ignore[arg-type]
        with pytest.raises(BadInput) as refused:
            Puppet().run(asked, tmp_path / "out.mp4")
        assert refused.value.code == "head_cropped"
    assert not (tmp_path / "out.mp4").exists()


def test_hands_at_the_lower_edge_are_not_stretched(tracker: PeopleTracker) -> None:
    drawing = draw("mannequin", 4)
    image = np.ascontiguousarray(drawing.image_HWC[: round(drawing.joints["left_hand"][1] + 0.02 * H)])
    figure = figure_of(image, read_portrait(tracker, READER, image), 0)
    assert figure.cut_below
    below = parts_of(figure, matte_of(figure).solid_HW).label_HW[len(image) :]
    names = parts_of(figure, matte_of(figure).solid_HW).names
    assert not np.isin(below, [i for i, n in enumerate(names) if n.endswith(("forearm", "hand"))]).any()
    assert (below == names.index("torso")).any()


def test_the_border_between_limb_bones_lies_at_the_joint(tracker: PeopleTracker) -> None:
    drawing = draw("mannequin", 1)  # striped sleeves
    figure = figure_of(drawing.image_HWC, read_portrait(tracker, READER, drawing.image_HWC), 0)
    parts = parts_of(figure, matte_of(figure).solid_HW)
    for side in ("left", "right"):
        elbow, wrist = figure.joints_19x2[JOINT[f"{side}_elbow"]], figure.joints_19x2[JOINT[f"{side}_wrist"]]
        y, x = np.nonzero(parts.are(f"{side}_upper_arm"))
        along = (np.stack([x, y], 1) - elbow) @ (wrist - elbow) / np.linalg.norm(wrist - elbow)
        assert along.max() < 0.05 * figure.torso_px


def test_a_picture_and_its_mirror_image_read_alike(tracker: PeopleTracker) -> None:
    image = draw("robot", 1).image_HWC
    ours, theirs = (joints_of(read_portrait(tracker, READER, p).landmarks_PT33x3[0, 0, :, :2]) for p in (image, image[:, ::-1].copy()))
    for side, other in (("left", "right"), ("right", "left")):
        mirrored = [image.shape[1] - 1, 0] - theirs[JOINT[f"{other}_wrist"]] * [1, -1]
        assert np.linalg.norm(ours[JOINT[f"{side}_wrist"]] - mirrored) < 0.05 * H


def test_the_own_scene_shows_no_trace_of_the_character(tracker: PeopleTracker) -> None:
    drawing, scene = draw("robot", 1), drawn.scene(2, H, round(H * 0.72 / 2) * 2)
    alpha = drawing.alpha_HW[..., None]
    picture = np.round(drawing.image_HWC * alpha + scene * (1 - alpha)).astype(np.uint8)
    figure = figure_of(picture, read_portrait(tracker, READER, picture), 0)
    empty = own_scene(Character(figure, {}, matte_of(figure).alpha_HW), picture)
    error = np.abs(empty.astype(int) - scene).mean(2)
    assert error[drawing.alpha_HW > 0.3].mean() < 12
    before = np.abs(picture.astype(int) - scene).mean(2)[drawing.alpha_HW > 0.3].mean()
    assert before > 40, "the test would notice the character"
    away = cv2.dilate((drawing.alpha_HW > 0).astype(np.uint8), np.ones((101, 101))) == 0
    assert (empty[away] == picture[away]).all()


def turning(person: People, yaw_rad_T: npt.NDArray[np.float64]) -> People:
    """A person who faces the camera, turned about the vertical as given; the silhouette is everywhere."""
    frames = len(yaw_rad_T)
    world = np.repeat(person.world_PT33x3[:1], frames, 1)
    c, s = np.cos(yaw_rad_T)[:, None], np.sin(yaw_rad_T)[:, None]
    world = np.stack([c * world[0, ..., 0] - s * world[0, ..., 2], world[0, ..., 1], s * world[0, ..., 0] + c * world[0, ..., 2]], -1)[None]
    landmarks = np.repeat(person.landmarks_PT33x3[:1], frames, 1)
    middle = landmarks[..., [INDEX["left_hip"], INDEX["right_hip"]], :2].mean(2, keepdims=True)
    scale = np.ptp(landmarks[0, 0, :, 1]) / np.ptp(person.world_PT33x3[0, 0, :, 1])
    landmarks[..., 0] = middle[..., 0] + world[..., 0] * scale
    repeated = {name: np.repeat(getattr(person, name)[:1], frames, 1) for name in ("visibility_PT33", "present_PT")}
    masks = np.full((1, frames, *person.size_hw), 255, np.uint8)
    return People(landmarks.astype(np.float32), world.astype(np.float32), masks_PTHW=masks, fps=FPS, **repeated)


def test_further_views_play_where_the_driver_turns(tracker: PeopleTracker, tmp_path: Path) -> None:
    paths = {}
    for view in ("front", "left", "right"):
        image = draw("mannequin", 5, view).image_HWC[:, 10:266]  # type: ignore[arg-type]
        paths[view] = tmp_path / f"{view}.png"
        media.write_png(paths[view], image if view == "front" else cv2.resize(image, None, fx=1.5, fy=1.5))
    front = media.read_image(paths["front"])
    yaw = np.radians(np.interp(np.arange(T), [6, 18, 26, 32], [0, 100, 100, 80]))
    facing = tracker.still(draw("mannequin", 5, "right").image_HWC)
    side = motion_of(facing, 0).yaw_T[0]
    driver = turning(tracker.still(front), yaw * np.sign(side))
    geometry = Geometry(frames=T, fps=FPS, height=front.shape[0], width=front.shape[1])
    asked = VideoRequest("animation", tmp_path / "none.mp4", driver, (paths["front"],), "", geometry, 1)
    puppet = Puppet()
    alone = puppet.run(asked, tmp_path / "alone.mp4")
    several = puppet.run(replace(asked, views=((paths["left"], paths["right"]),)), tmp_path / "several.mp4")
    assert "turned_away" in alone.reasons
    assert "turned_away" not in several.reasons
    assert max(alone.per_frame[19:26]) == 0, "frames turned by more than 75° are worth nothing"
    assert min(several.per_frame[19:26]) > 0.3
    assert alone.stretches[0][0] == 0
    assert alone.stretches[0][1] < 17
    one, both = (media.read_frames(tmp_path / f"{name}.mp4")[0] for name in ("alone", "several"))
    assert np.abs(one[:5].astype(int) - both[:5]).mean() < 0.5, "what faces the camera shows the front view in both"
    seen = tracker.track(both, FPS)
    assert seen.count == 1
    tall = np.linalg.norm(np.diff(joints_of(seen.landmarks_PT33x3[0, :, :, :2])[:, [NECK, ANKLES[0]]], axis=1)[:, 0], axis=1)
    assert np.ptp(tall) < 0.12 * np.median(tall), "all views are as tall"
    with pytest.raises(BadInput) as refused:
        puppet.run(replace(asked, views=((), ())), tmp_path / "refused.mp4")
    assert refused.value.code == "people_mismatch"


@pytest.mark.parametrize("kind", ["mannequin", "robot"])
def test_a_glance_tells_about_how_a_picture_faces(tracker: PeopleTracker, kind: str) -> None:
    for view in ("front", "back", "left", "right"):
        image = draw(kind, 5, view).image_HWC
        yaw = body_yaw(joints_of(read_portrait(tracker, READER, image).world_PT33x3[0, 0]))
        off = [abs(np.degrees((seen - yaw + np.pi) % (2 * np.pi) - np.pi)) for seen in glance(tracker, image)]
        assert min(off) < 12, (kind, view, off)
    assert glance(tracker, np.full((H, W, 3), 90, np.uint8)) == ()


def test_only_views_that_may_be_shown_are_read(tracker: PeopleTracker) -> None:
    def picture(view: drawn.View) -> Picture:
        image = draw("mannequin", 5, view).image_HWC
        return image, read_portrait(tracker, READER, image)

    front, side = picture("front"), picture("right")
    facing = float(body_yaw(joints_of(side[1].world_PT33x3[0, 0].astype(float))))
    asked: list[str] = []

    def view(name: str, *yaws_rad: float) -> View:
        def read() -> Picture:
            asked.append(name)
            return side

        return View(yaws_rad, read)

    driver, placement, at = turning(front[1], np.full(T, 0.3)), Placement(like_driver=False), np.arange(T)
    actor = actor_of(front, [view("far", facing), view("back", np.pi)], driver, 0, placement, at)
    assert asked == [], "neither comes near the driver, who nearly faces the camera"
    assert len(actor.takes) == 1
    actor = actor_of(front, [view("unknown"), view("seen as facing", facing, 0.0), view("far", facing)], driver, 0, placement, at)
    assert asked == ["unknown", "seen as facing"], "what may face as the driver does is read to be sure"
    assert len(actor.takes) == 1, "and is not shown when it does not"
    turned = turning(front[1], np.full(T, facing))
    actor = actor_of(front, [view("near", facing)], turned, 0, placement, at)
    assert asked[2:] == ["near"]
    assert (actor.view_T == 1).all()


def test_views_do_not_flicker() -> None:
    near = np.where(np.arange(40) % 2, 30.0, 40.0)
    turned = np.stack([np.full(40, 35.0), near])
    assert len(set(chosen_views(turned, FPS))) == 1
    turned = np.stack([np.linspace(0, 90, 40), np.linspace(90, 0, 40)])
    chosen = chosen_views(turned, FPS)
    assert chosen[0] == 0
    assert chosen[-1] == 1
    assert np.count_nonzero(np.diff(chosen)) == 1


def test_stretches() -> None:
    trust = np.array([0.2, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.3])
    assert stretches_of(trust, FPS) == ((1, 8), (12, 13))
    assert stretches_of(np.zeros(4), FPS) == ()
    assert stretches_of(np.ones(4), FPS) == ((0, 4),)


def test_a_planted_foot_stays_and_a_lifted_one_moves(tracker: PeopleTracker) -> None:
    image = draw("mannequin", 6).image_HWC
    people = read_portrait(tracker, READER, image)
    driver = turning(people, np.zeros(T))
    noise = np.random.default_rng(0).normal(0, 0.8, (T, 33, 2))
    landmarks = driver.landmarks_PT33x3.copy()
    landmarks[0, ..., :2] += savitzky_golay(noise, 5, 1)
    right = [INDEX[f"right_{part}"] for part in ("knee", "ankle", "heel", "foot_index")]
    landmarks[0, :, right, 1] -= 0.2 * H * np.clip(np.sin(np.arange(T) / 3.0), 0, 1)
    motion = motion_of(replace(driver, landmarks_PT33x3=landmarks), 0)
    stands = planted(motion, FPS)
    assert stands[:, 0].min() > 0.75
    assert stands[:, 1].min() < 0.2
    figure = figure_of(image, people, 0)
    pose = retarget(figure, motion, Placement(like_driver=False), figure)
    left, lifted = pose.joints_T19x2[:, ANKLES[0]], pose.joints_T19x2[:, ANKLES[1]]
    assert np.ptp(left[2:-2], axis=0).max() < 0.8
    assert np.ptp(lifted[:, 1]) > 0.1 * H
    assert abs(np.median(left[:, 1]) - figure.joints_19x2[list(ANKLES), 1].mean()) < 0.03 * H, "it stands on the ground it was painted on"
    untouched = held_down(pose.joints_T19x2, np.zeros((T, 2)), figure.torso_px)
    assert (untouched == pose.joints_T19x2).all()


def test_the_character_keeps_its_proportions_and_takes_the_drivers_directions(tracker: PeopleTracker) -> None:
    image = draw("robot", 2).image_HWC
    figure = figure_of(image, read_portrait(tracker, READER, image), 0)
    other = draw("mannequin", 3).image_HWC
    motion = motion_of(turning(read_portrait(tracker, READER, other), np.linspace(0, 0.6, T)), 0)
    pose = retarget(figure, motion, Placement(like_driver=False), figure)
    for bone in ("left_upper_arm", "right_forearm"):
        ours, theirs = bone_vectors(pose.joints_T19x2, bone), bone_vectors(motion.joints_T19x2, bone)
        assert np.allclose(np.arctan2(ours[:, 1], ours[:, 0]), np.arctan2(theirs[:, 1], theirs[:, 0]), atol=0.01)
        longest = np.linalg.norm(ours, axis=1).max()
        assert longest < 1.1 * figure.lengths_m[bone] * pose.scale_T.max()
    assert (pose.joints_T19x2[:, HEAD, 1] < pose.joints_T19x2[:, NECK, 1]).all()
    assert set(BONES) >= set(figure.bones)
