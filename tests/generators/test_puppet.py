"""The puppet and the clean plate: characters drawn by code, a drawn driver that waves, and scenes of which every pixel is known."""

from __future__ import annotations

import hashlib
import subprocess
import sys
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
from generators.videos.puppet.generator import Puppet, PuppetOptions
from generators.videos.puppet.motion import motion_of
from generators.videos.puppet.numerics import sampled, savitzky_golay
from generators.videos.puppet.skeleton import body_yaw, joints_of
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

H, W, T, FPS = 384, 224, 17, 16.0
GEOMETRY = Geometry(frames=T, fps=FPS, height=H, width=W)
Frames = npt.NDArray[np.uint8]


def fitted(
    drawing: drawn.Drawing, scene: Frames | None = None, shift_px: int = 0, size: float = 1.0
) -> tuple[Frames, npt.NDArray[np.float32]]:
    """A drawn figure in the middle of an H×W picture, on its own backdrop or on a scene: the picture and its alpha."""
    h, w = drawing.alpha_HW.shape
    s = min(H / h, W / w) * size
    move = np.array([[s, 0, (W - s * w) / 2 + shift_px], [0, s, (H - s * h) / 2]])
    alpha = cv2.warpAffine(drawing.alpha_HW, move, (W, H), flags=cv2.INTER_AREA)
    image = cv2.warpAffine(drawing.image_HWC, move, (W, H), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    if scene is not None:
        image = np.round(image * alpha[..., None] + scene * (1 - alpha[..., None])).astype(np.uint8)
    return image.astype(np.uint8), alpha.astype(np.float32)


@pytest.fixture(scope="module")
def puppet() -> Puppet:
    made = Puppet()
    made.setup()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("puppet")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> dict[str, Path]:
    made = {
        "stranger": fitted(drawn.draw_mannequin(12, 384))[0],
        "mannequin": fitted(drawn.draw_mannequin(3, 384))[0],
        "empty": drawn.scene(1, H, W),
    }
    for name, image in made.items():
        media.write_png(folder / f"{name}.png", image)
    return {name: folder / f"{name}.png" for name in made}


class Stage:
    """A driver who walks sideways before a known scene while waving with the left arm; somebody else stands beside."""

    def __init__(self, tracker: PeopleTracker, folder: Path) -> None:
        self.scene = drawn.scene(4, H, W)
        other, self.other_alpha = fitted(drawn.draw_robot(2, 384), self.scene, shift_px=75, size=0.5)
        self.scene = other
        figure = drawn.draw_mannequin(7, 384)
        still, _ = fitted(figure, size=0.8)
        person = tracker.still(still)
        assert person.count == 1
        steps = np.round(np.linspace(-55, 10, T)).astype(int)
        moved = [fitted(figure, self.scene, int(s), 0.8) for s in steps]
        self.frames = np.stack([f for f, _ in moved])
        self.alpha = np.stack([a for _, a in moved])
        self.clip = folder / "clip.mp4"
        media.write_video(self.clip, self.frames, FPS)
        self.people = self._waving(person, steps)

    def _waving(self, person: People, steps: npt.NDArray[np.int64]) -> People:
        landmarks = np.repeat(person.landmarks_PT33x3, T, 1)
        landmarks[0, :, :, 0] += steps[:, None]
        self.hanging_wrist_T2 = landmarks[0, :, INDEX["left_wrist"], :2].copy()
        shoulder = landmarks[0, :, INDEX["left_shoulder"], :2]
        length = np.linalg.norm(landmarks[0, :, INDEX["left_elbow"], :2] - shoulder, axis=1)[:, None]
        self.wave = np.linspace(0.2, -1.0, T)  # radians above the horizontal, towards the picture's right
        along = np.stack([np.cos(self.wave), np.sin(self.wave)], 1) * length
        for name, reach in (("elbow", 1.0), ("wrist", 1.9), ("pinky", 2.2), ("index", 2.2), ("thumb", 2.1)):
            landmarks[0, :, INDEX[f"left_{name}"], :2] = shoulder + reach * along
        masks = (self.alpha[None] * 255).astype(np.uint8)
        grown = {"world_PT33x3": person.world_PT33x3, "visibility_PT33": person.visibility_PT33, "present_PT": person.present_PT}
        return People(landmarks, masks_PTHW=masks, fps=FPS, **{k: np.repeat(v, T, 1) for k, v in grown.items()})


@pytest.fixture(scope="module")
def stage(tracker: PeopleTracker, folder: Path) -> Stage:
    return Stage(tracker, folder)


def request(stage: Stage, mode: str, *painted: Path) -> VideoRequest:
    return VideoRequest(mode, stage.clip, stage.people, painted, "", GEOMETRY, 1)  # type: ignore[arg-type]


def test_animation_follows_the_driver(
    puppet: Puppet, tracker: PeopleTracker, stage: Stage, pictures: dict[str, Path], tmp_path: Path
) -> None:
    asked = request(stage, "animation", pictures["mannequin"])
    report = puppet.run(asked, tmp_path / "out.mp4")
    puppet.verify(asked, tmp_path / "out.mp4")
    frames, fps = media.read_frames(tmp_path / "out.mp4")
    assert frames.shape == (T, H, W, 3)
    assert fps == pytest.approx(FPS)
    assert report.confidence > 0.5
    assert len(report.per_frame) == T
    seen = tracker.track(frames, FPS)
    assert seen.count == 1
    assert seen.present_PT.all()
    arm = seen.landmarks_PT33x3[0, :, INDEX["left_wrist"], :2] - seen.landmarks_PT33x3[0, :, INDEX["left_shoulder"], :2]
    error = np.abs(np.arctan2(arm[:, 1], arm[:, 0]) - stage.wave)
    assert np.degrees(np.median(error)) < 12
    hips = seen.landmarks_PT33x3[0, :, INDEX["left_hip"], 0]
    assert np.corrcoef(hips, stage.people.landmarks_PT33x3[0, :, INDEX["left_hip"], 0])[0, 1] > 0.9


def test_a_known_scene_is_used_as_it_is(puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:
    asked = replace(request(stage, "animation", pictures["mannequin"]), scene=pictures["empty"])
    done = Puppet(PuppetOptions(shadow=False)).perform(asked)
    away = cv2.dilate((done.alpha_NHW[T // 2] > 8).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert away.mean() > 0.5
    empty = media.read_image(pictures["empty"])
    assert np.abs(done.frames_NHWC[T // 2].astype(int) - empty)[away].max() == 0
    media.write_png(tmp_path / "small.png", np.ascontiguousarray(empty[::2, ::2]))
    with pytest.raises(BadInput) as refused:
        puppet.run(replace(asked, scene=tmp_path / "small.png"), tmp_path / "o.mp4")
    assert refused.value.code == "picture_size"


def test_replacement_takes_the_person_out_and_leaves_the_rest(
    puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path
) -> None:
    report = puppet.run(request(stage, "replacement", pictures["stranger"]), tmp_path / "out.mp4")
    frames, _ = media.read_frames(tmp_path / "out.mp4")
    wide = np.stack([cv2.dilate((a > 0.02).astype(np.uint8), np.ones((81, 81))) > 0 for a in stage.alpha])
    error = np.abs(frames.astype(int) - stage.scene).mean(3)
    kept = np.abs(frames.astype(int) - media.read_frames(stage.clip)[0]).mean(3)
    assert kept[~wide].mean() < 3, "far from the driver every frame is the clip's own"
    beside = (stage.other_alpha > 0.9) & ~wide
    assert beside.sum() > 300
    assert kept[beside].mean() < 5, "who is not driven stays"
    old = np.abs(frames.astype(int) - stage.frames).mean(3)[stage.alpha > 0.95]
    assert np.median(old) > 15, "the old person is gone"
    assert report.confidence > 0.3
    for t in (8, 12, 16):  # the drawn driver's arm hangs, the stranger's is up
        hand = cv2.circle(np.zeros((H, W), np.uint8), tuple(map(round, stage.hanging_wrist_T2[t].tolist())), 9, 1, -1) > 0
        assert np.median(error[t][hand & (stage.alpha[t] > 0.5)]) < 8, "where the old hand was, the true scene shows"


def test_same_request_same_bytes_in_any_process(stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:
    stage.people.save((tmp_path / "people.npz").open("wb"))
    people = People.load((tmp_path / "people.npz").read_bytes())
    asked = replace(request(stage, "replacement", pictures["stranger"]), clip_people=people)
    threads = cv2.getNumThreads()
    digests = set()
    try:
        for count in (1, 2):
            cv2.setNumThreads(count)
            cv2.setRNGSeed(count)
            reports = Puppet().run(asked, tmp_path / "out.mp4")
            digests.add((hashlib.sha256((tmp_path / "out.mp4").read_bytes()).hexdigest(), reports.model_dump_json()))
    finally:
        cv2.setNumThreads(threads)
    assert len(digests) == 1
    code = (
        "import sys; from pathlib import Path; from generators.base import VideoRequest; from generators.poses.tracks import People;"
        "from generators.videos.puppet.generator import Puppet; from manifests.records import Geometry;"
        "clip, people, picture, out = map(Path, sys.argv[1:]);"
        f"g = Geometry(frames={T}, height={H}, width={W});"
        "r = Puppet().run(VideoRequest('replacement', clip, People.load(people.read_bytes()), (picture,), '', g, 1), out);"
        "print(r.model_dump_json())"
    )
    files = [stage.clip, tmp_path / "people.npz", pictures["stranger"], tmp_path / "again.mp4"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True)
    again = (hashlib.sha256((tmp_path / "again.mp4").read_bytes()).hexdigest(), done.stdout.strip())
    assert digests == {again}


def test_another_rate_covers_the_span_without_drift(puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:
    asked = request(stage, "animation", pictures["stranger"])
    fast = Puppet(PuppetOptions(fps=30))
    fast.setup()
    fast.run(asked, tmp_path / "fast.mp4")
    fast.verify(asked, tmp_path / "fast.mp4")
    puppet.run(asked, tmp_path / "slow.mp4")
    quick, quick_fps = media.read_frames(tmp_path / "fast.mp4")
    slow, _ = media.read_frames(tmp_path / "slow.mp4")
    assert (len(quick), round(quick_fps)) == (31, 30)
    for i in (0, 8, 16):  # instants that both rates hit
        assert np.abs(quick[round(i * 30 / 16)].astype(int) - slow[i]).mean() < 1.0
    assert np.abs(quick[8].astype(int) - slow[8]).mean() > 1.0


def test_two_people_stand_in_the_order_of_their_pictures(puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:
    one = stage.people
    landmarks = np.concatenate([one.landmarks_PT33x3, one.landmarks_PT33x3 + np.array([60, 0, 0], np.float32)])
    masks = np.concatenate([one.masks_PTHW, np.roll(one.masks_PTHW, 60, 3)])
    double = {k: np.repeat(getattr(one, k), 2, 0) for k in ("world_PT33x3", "visibility_PT33", "present_PT")}
    both = People(landmarks, masks_PTHW=masks, fps=FPS, **double)
    asked = replace(request(stage, "replacement", pictures["stranger"], pictures["mannequin"]), clip_people=both)
    report = puppet.run(asked, tmp_path / "out.mp4")
    frames, _ = media.read_frames(tmp_path / "out.mp4")
    swapped = replace(asked, painted=asked.painted[::-1])
    puppet.run(swapped, tmp_path / "swapped.mp4")
    assert np.abs(frames.astype(int) - media.read_frames(tmp_path / "swapped.mp4")[0]).mean() > 3
    assert len(report.per_frame) == T


def test_a_character_that_faces_another_way_is_not_trusted(puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:
    mirror = np.array([-1, 1, 1], np.float32)
    landmarks = stage.people.landmarks_PT33x3 * mirror + np.array([W, 0, 0], np.float32)
    behind = replace(
        stage.people,
        landmarks_PT33x3=landmarks,
        world_PT33x3=stage.people.world_PT33x3 * mirror,
        masks_PTHW=stage.people.masks_PTHW[..., ::-1],
    )
    report = puppet.run(replace(request(stage, "animation", pictures["stranger"]), clip_people=behind), tmp_path / "out.mp4")
    assert "turned_away" in report.reasons
    assert report.confidence < 0.3


def test_a_lost_driver_lowers_those_frames(puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:
    present = stage.people.present_PT.copy()
    present[0, 6:9] = False
    masks = stage.people.masks_PTHW * present[..., None, None]
    asked = replace(
        request(stage, "replacement", pictures["stranger"]), clip_people=replace(stage.people, present_PT=present, masks_PTHW=masks)
    )
    report = puppet.run(asked, tmp_path / "out.mp4")
    assert "person_lost" in report.reasons
    assert max(report.per_frame[6:9]) == 0
    assert report.per_frame[2] > 0.3
    old = media.read_frames(tmp_path / "out.mp4")[0][7].astype(int) - stage.frames[7]
    assert np.median(np.abs(old).mean(2)[stage.alpha[7] > 0.95]) > 15, "the neighbours' silhouettes bridge the gap"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("no_person", lambda r, p: replace(r, painted=(p["empty"],))),
        ("picture_size", lambda r, p: replace(r, painted=(p["small"],))),
        ("people_mismatch", lambda r, p: replace(r, painted=(p["stranger"], p["stranger"]))),
        ("people_mismatch", lambda r, p: replace(r, painted=(), clip_people=r.clip_people.only([]))),
        ("people_mismatch", lambda r, p: replace(r, geometry=Geometry(frames=T, height=H, width=W + 32))),
        ("mode_unsupported", lambda r, p: replace(r, mode="pose")),
        ("driver_absent", lambda r, p: replace(r, clip_people=replace(r.clip_people, present_PT=np.zeros((1, T), bool)))),
        ("people_mismatch", lambda r, p: replace(r, mode="replacement", clip=p["short"])),
    ],
)
def test_what_cannot_be_used_is_refused(code: str, change, puppet: Puppet, stage: Stage, pictures: dict[str, Path], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    media.write_png(tmp_path / "small.png", drawn.scene(1, 64, 64))
    media.write_video(tmp_path / "short.mp4", stage.frames[:5], FPS)
    files = {**pictures, "small": tmp_path / "small.png", "short": tmp_path / "short.mp4"}
    with pytest.raises(BadInput) as caught:
        puppet.run(change(request(stage, "animation", pictures["stranger"]), files), tmp_path / "out.mp4")
    assert caught.value.code == code
    assert not (tmp_path / "out.mp4").exists()


def test_numbers(stage: Stage) -> None:
    line = np.arange(20.0)[:, None] * [1.0, -2.0]
    assert np.allclose(savitzky_golay(line, 7), line)
    assert np.allclose(savitzky_golay(line[:2], 7), line[:2])
    assert np.allclose(sampled(line, np.array([0.5, 18.25, 99])), np.array([0.5, 18.25, 19])[:, None] * [1.0, -2.0])
    world = np.zeros((33, 3))
    world[INDEX["left_shoulder"]], world[INDEX["right_shoulder"]] = (0.2, 0, 0), (-0.2, 0, 0)
    assert body_yaw(joints_of(world)) == pytest.approx(0)
    assert abs(body_yaw(joints_of(world * [-1, 1, 1]))) == pytest.approx(np.pi)
    about = motion_of(stage.people, 0, about_face=True)
    straight = motion_of(stage.people, 0)
    assert np.allclose(about.joints_T19x2[:, 5], straight.joints_T19x2[:, 9])
    assert np.allclose(about.yaw_T, straight.yaw_T)
