"""Characters in somebody else's clip: who stands before whom, where shadows lie, and what happens at cuts, fades and the picture's edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from generators.base import VideoRequest
from generators.images import drawn
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from generators.videos.puppet.generator import Performance, Puppet
from generators.videos.puppet.grading import Grain, Look, graded, look_of
from generators.videos.puppet.ground import planted
from generators.videos.puppet.motion import motion_of
from generators.videos.puppet.skeleton import ANKLES
from generators.videos.puppet.staging import compose, depth_order, driven_masks, erase, shade
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

H, W, T, FPS = 256, 320, 13, 16.0
GEOMETRY = Geometry(frames=T, fps=FPS, height=H, width=W)
Frames = npt.NDArray[np.uint8]
Alphas = npt.NDArray[np.float32]


def placed(drawing: drawn.Drawing, x: float, foot: float, size: float) -> tuple[Frames, Alphas]:
    """A drawn figure at a size (share of the height) with its middle at `x` and its lower edge at `foot`: the picture and its alpha."""
    h, w = drawing.alpha_HW.shape
    s = size * H / h
    move = np.array([[s, 0, x - s * w / 2], [0, s, foot - s * h]])
    alpha = cv2.warpAffine(drawing.alpha_HW, move, (W, H), flags=cv2.INTER_AREA)
    image = cv2.warpAffine(drawing.image_HWC, move, (W, H), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return image.astype(np.uint8), alpha.astype(np.float32)


class Cast:
    """Drawn people before a known scene; `walk` gives every one's x in every frame, later ones stand in front of earlier ones."""

    def __init__(self, tracker: PeopleTracker) -> None:
        self.scene = drawn.scene(4, H, W)
        self.figures = [drawn.draw_mannequin(7, 384), drawn.draw_mannequin(3, 384)]
        self.stills = []
        for figure in self.figures:
            found = tracker.still(placed(figure, W / 2, H - 8, 0.8)[0])
            assert found.count == 1
            self.stills.append(found)

    def clip(self, walk: list[npt.NDArray[np.float64]], feet: list[float]) -> tuple[Frames, People]:
        frames = np.repeat(self.scene[None], T, 0).astype(float)
        masks = np.zeros((len(walk), T, H, W), np.uint8)
        landmarks = []
        for i, (xs, foot) in enumerate(zip(walk, feet, strict=True)):
            for t, x in enumerate(xs):
                image, alpha = placed(self.figures[i], x, foot, 0.8)
                frames[t] = image * alpha[..., None] + frames[t] * (1 - alpha[..., None])
                masks[:i, t] = (masks[:i, t] * (1 - alpha)).astype(np.uint8)
                masks[i, t] = (255 * alpha).astype(np.uint8)
            moved = np.repeat(self.stills[i].landmarks_PT33x3, T, 1)
            moved[..., 0] += (xs - W / 2)[:, None]
            moved[..., 1] += foot - (H - 8)
            landmarks.append(moved)
        world = np.concatenate([np.repeat(s.world_PT33x3, T, 1) for s in self.stills[: len(walk)]])
        seen = np.concatenate([np.repeat(s.visibility_PT33, T, 1) for s in self.stills[: len(walk)]])
        present = (masks > 127).sum((2, 3)) > 300
        return np.round(frames).astype(np.uint8), People(np.concatenate(landmarks), world, seen, present, masks, FPS)


@pytest.fixture(scope="module")
def cast(tracker: PeopleTracker) -> Cast:
    return Cast(tracker)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = []
    for seed in (12, 5):
        paths.append(tmp_path_factory.mktemp("painted") / f"{seed}.png")
        media.write_png(paths[-1], placed(drawn.draw_mannequin(seed, 384), W / 2, H - 8, 0.8)[0])
    return paths


def performed(folder: Path, frames: Frames, people: People, pictures: list[Path], others: People | None = None) -> Performance:
    media.write_video(folder / "clip.mp4", frames, FPS, crf=4)
    return Puppet().perform(VideoRequest("replacement", folder / "clip.mp4", people, tuple(pictures), "", GEOMETRY, 1, others=others))


STILL = np.full(T, 120.0)
CROSSING = np.linspace(230, 60, T)


def test_the_order_follows_the_silhouettes_where_they_meet_and_the_feet_elsewhere(cast: Cast) -> None:
    _, behind = cast.clip([CROSSING, STILL], [H - 2.0, H - 14.0])  # the one who crosses has the lower feet and yet is hidden
    order = depth_order(behind)
    meeting = int(np.argmin(np.abs(CROSSING - 120)))
    assert order[meeting].tolist() == [0, 1]
    _, apart = cast.clip([STILL, STILL + 130], [H - 2.0, H - 30.0])
    assert (depth_order(apart) == [1, 0]).all()
    assert (depth_order(apart.only([0]), apart.only([1])) == [1, 0]).all()
    assert depth_order(apart.only([0])).tolist() == [[0]] * T


def test_characters_hide_each_other_as_their_drivers_do(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([CROSSING, STILL], [H - 14.0, H - 8.0])
    both = performed(tmp_path, frames, people, pictures)
    front = performed(tmp_path, frames, people.only([1]), pictures[1:])
    t = int(np.argmin(np.abs(CROSSING - 120)))
    solid = cv2.erode((front.alpha_NHW[t] > 250).astype(np.uint8), np.ones((5, 5))) > 0
    assert solid.sum() > 1000
    assert np.abs(both.frames_NHWC[t].astype(int) - front.frames_NHWC[t])[solid].mean() < 2, "the nearer character is whole"
    swapped = performed(tmp_path, frames, people, pictures[::-1])
    assert np.abs(both.frames_NHWC[t].astype(int) - swapped.frames_NHWC[t])[solid].mean() > 8, "everyone gets the own picture"


def test_somebody_who_stays_hides_the_character(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([CROSSING, STILL], [H - 14.0, H - 8.0])
    done = performed(tmp_path, frames, people.only([0]), pictures[:1], others=people.only([1]))
    core = np.stack([cv2.erode((m > 200).astype(np.uint8), np.ones((5, 5))) > 0 for m in people.masks_PTHW[1]])
    change = np.abs(done.frames_NHWC.astype(int) - frames).mean(3)
    assert change[core].mean() < 3
    assert done.alpha_NHW[core].max() < 10
    t = int(np.argmin(np.abs(CROSSING - 120)))
    alone = performed(tmp_path, frames, people.only([0]), pictures[:1])
    assert (alone.alpha_NHW[t][core[t]] > 200).mean() > 0.3, "without that knowledge the character would cover them"


def test_one_who_leaves_is_gone(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    xs = np.linspace(150, 430, T)
    frames, people = cast.clip([xs], [H - 8.0])
    assert not people.present_PT[0, -1]
    done = performed(tmp_path, frames, people, pictures[:1])
    away = xs > W + 60
    assert away.sum() >= 2
    assert np.abs(done.frames_NHWC[away].astype(int) - cast.scene).mean() < 2
    assert not done.alpha_NHW[away].any()
    assert max(done.report.per_frame[i] for i in np.flatnonzero(~people.present_PT[0])) == 0
    old = (people.masks_PTHW[0] > 200) & (np.abs(frames.astype(int) - cast.scene).max(3) > 40)
    left = old & (np.abs(done.frames_NHWC.astype(int) - frames).max(3) < 8) & (done.alpha_NHW < 20)
    assert left.sum() / frames[..., 0].size < 0.01


def test_a_cut_is_a_reason(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([STILL + 40], [H - 8.0])
    other = np.ascontiguousarray(drawn.scene(2, H, W))
    alpha = people.masks_PTHW[0, :, :, :, None] / 255
    frames[7:] = np.round(frames[7:] * alpha[7:] + other * (1 - alpha[7:]))
    done = performed(tmp_path, frames, people, pictures[:1])
    assert "cut" in done.report.reasons
    assert done.report.per_frame[6] == done.report.per_frame[7] == 0
    assert done.report.per_frame[2] > 0.2
    corner = np.s_[:, :40, :40]
    assert np.abs(done.frames_NHWC[corner].astype(int) - frames[corner]).mean() < 3, "each side of the cut keeps its own scene"


def test_a_fade_to_black_is_a_reason_and_the_character_fades_too(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([np.linspace(100, 200, T)], [H - 8.0])
    light = np.clip(1 - (np.arange(T) - 6) / 4, 0, 1)
    done = performed(tmp_path, np.round(frames * light[:, None, None, None]).astype(np.uint8), people, pictures[:1])
    assert "dark" in done.report.reasons
    assert max(done.report.per_frame[-3:]) == 0
    assert done.report.per_frame[2] > 0.2
    assert done.frames_NHWC[-1].max() < 30


def test_a_clip_of_another_size_or_other_people_of_another_clip_are_refused(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([STILL, STILL + 100], [H - 8.0, H - 8.0])
    with pytest.raises(BadInput) as caught:
        performed(tmp_path, frames[:5], people.only([0]), pictures[:1])
    assert caught.value.code == "people_mismatch"
    with pytest.raises(BadInput) as caught:
        performed(tmp_path, frames, people.only([0]), pictures[:1], others=people.only([1]).window(0, 5))
    assert caught.value.code == "people_mismatch"


def test_silhouettes_bridge_gaps_and_wear_caps(cast: Cast) -> None:
    _, people = cast.clip([np.linspace(100, 124, T)], [H - 8.0])
    present = people.present_PT.copy()
    present[0, 5:8] = False
    lost = replace(people, present_PT=present, masks_PTHW=people.masks_PTHW * present[..., None, None])
    union = driven_masks(lost)
    for t in range(T):
        assert (union[t][people.masks_PTHW[0, t] > 200] > 60).mean() > 0.97
    head = people.landmarks_PT33x3[0, 0, [INDEX["left_ear"], INDEX["right_ear"]], :2].mean(0)
    shoulders = people.landmarks_PT33x3[0, 0, [INDEX["left_shoulder"], INDEX["right_shoulder"]], :2].mean(0)
    above = head + 0.75 * (head - shoulders)
    assert union[0][round(float(above[1])), round(float(above[0]))] == 255


def test_feet_in_the_air_cast_no_contact_shadow(cast: Cast) -> None:
    _, people = cast.clip([STILL], [H - 30.0])
    standing = motion_of(people, 0)
    assert planted(standing, FPS).min() > 0.9
    feet = [INDEX[f"{side}_{part}"] for side in ("left", "right") for part in ("ankle", "heel", "foot_index")]
    jump = people.landmarks_PT33x3.copy()
    up = 90 * np.sin(np.clip((np.arange(T) - 3) / 6, 0, 1) * np.pi)
    jump[0, :, :, 1] -= up[:, None]
    flying = planted(motion_of(replace(people, landmarks_PT33x3=jump), 0), FPS)
    assert flying[5:8].max() < 0.35
    assert flying[0].min() > 0.9
    lifted = people.landmarks_PT33x3.copy()
    lifted[0, :, feet[:3], 1] -= 60
    one = planted(motion_of(replace(people, landmarks_PT33x3=lifted), 0), FPS)
    assert one[:, 0].max() < 0.1
    assert one[:, 1].min() > 0.9


def test_a_contact_shadow_darkens_the_ground_only(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([STILL], [H - 30.0])
    pose = _pose(frames, people, pictures, tmp_path)
    ground = np.full((H, W, 3), 180, np.uint8)
    shade(ground, replace(pose, standing_T2=np.ones((T, 2))), 0, None)
    ys, xs = np.nonzero(ground[..., 0] < 175)
    assert len(ys) > 50
    feet = people.landmarks_PT33x3[0, 0, [INDEX["left_ankle"], INDEX["right_ankle"]], :2]
    assert ys.min() > feet[:, 1].min() - 15
    assert abs(xs.mean() - feet[:, 0].mean()) < 12
    aloft = np.full((H, W, 3), 180, np.uint8)
    shade(aloft, replace(pose, standing_T2=np.zeros((T, 2))), 0, None)
    assert (aloft == 180).all()
    person = np.full((H, W), 255, np.uint8)
    shade(aloft, replace(pose, standing_T2=np.ones((T, 2))), 0, person)
    assert (aloft == 180).all(), "nobody is darkened by a shadow on the ground"


def _pose(frames: Frames, people: People, pictures: list[Path], folder: Path):  # type: ignore[no-untyped-def]
    media.write_video(folder / "clip.mp4", frames, FPS)
    puppet = Puppet()
    stage = puppet.staged(VideoRequest("replacement", folder / "clip.mp4", people, tuple(pictures[:1]), "", GEOMETRY, 1))
    return stage.actors[0].shown(0).pose


def test_planted_feet_stay_where_the_drivers_are(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([STILL], [H - 30.0])
    pose = _pose(frames, people, pictures, tmp_path)
    driver = people.landmarks_PT33x3[0, :, [INDEX["left_ankle"], INDEX["right_ankle"]], 1].max(0)
    ours = pose.joints_T19x2[:, list(ANKLES), 1].max(1)
    assert np.abs(ours - driver).max() < 4
    assert np.ptp(pose.joints_T19x2[:, list(ANKLES)], axis=0).max() < 1


def test_colours_follow_the_scene_within_limits(cast: Cast, pictures: list[Path], tmp_path: Path) -> None:
    frames, people = cast.clip([STILL], [H - 30.0])
    media.write_video(tmp_path / "clip.mp4", frames, FPS)
    request = VideoRequest("replacement", tmp_path / "clip.mp4", people, tuple(pictures[:1]), "", GEOMETRY, 1)
    character = Puppet().staged(request).actors[0].takes[0].character

    def lightness(of) -> float:  # type: ignore[no-untyped-def]
        layer = of.layers["torso"].texture_HWx4
        return float(layer[..., :3][layer[..., 3] > 250].mean())

    dark, bright = Look(np.array([40.0, 128, 128]), 2, 90), Look(np.array([230.0, 128, 128]), 40, 255)
    before = lightness(character)
    assert lightness(graded(character, dark, 1.0)) < before - 5
    assert lightness(graded(character, bright, 1.0)) > before + 5
    assert graded(character, dark, 0.0) is character
    assert graded(character, None, 1.0) is character
    for name, layer in graded(character, dark, 1.0).layers.items():
        assert np.array_equal(layer.texture_HWx4[..., 3], character.layers[name].texture_HWx4[..., 3])
    assert look_of(frames[0], np.zeros((H, W), bool)) is None


def test_grain_and_composition() -> None:
    assert Grain(0.2, H, W).at(3) is None
    noise = Grain(2.5, H, W)
    first, second = noise.at(0), noise.at(1)
    assert first is not None
    assert second is not None
    assert first.shape == (H, W)
    assert 2 < first.std() < 3
    assert (first != second).any()
    again = Grain(2.5, H, W).at(1)
    assert again is not None
    assert np.array_equal(again, second)
    scene, canvas = np.full((H, W, 3), 100, np.uint8), np.zeros((H, W, 4), np.float32)
    canvas[50:90, 60:100] = [200, 100, 50, 255]
    erase(canvas, np.pad(np.full((40, 20), 255, np.uint8), ((50, H - 90), (60, W - 80))))
    compose(scene, canvas, np.array([0.5, 0.5, 0.5]), None)
    assert (scene[60, 70] == 100).all(), "taken away again"
    assert scene[60, 90].tolist() == [100, 50, 25]
    assert (scene[:50] == 100).all()
