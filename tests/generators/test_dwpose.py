"""DWPose through the real onnxruntime: ONNX files made by hand, whose answers are known, so that decoding is checked to the pixel.

The published weights were not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posing import HEIGHT, WIDTH, people_at

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxruntime", reason="needs the extra dwpose")

import onnx_graphs

from generators.masks.refine import EdgeRefiner
from generators.poses import wholebody
from generators.poses.dwpose import DWPose, DWPoseOptions
from generators.poses.figures import FACE_68
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.errors import BadInput, BadOutput, Damaged, Transient

SCALE = onnx_graphs.SIDE / WIDTH
"""pixels of the detector's square per pixel of the tests' pictures"""
SURE = np.full(wholebody.COUNT, 0.9)


def made(detector: Path, pose: Path, **more: Any) -> DWPose:
    options = {"detector": f"file:{detector}", "pose": f"file:{pose}", "device": "cpu", **more}
    return DWPose.build(DWPoseOptions.model_validate(options), EdgeRefiner())


def noise(frames: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def figure(x: float, y: float) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """133 points of somebody with the hips at a place, and the box around the body, in pixels of the picture."""
    xy = people_at((x, y)).landmarks_PT33x3[0, 0, :, :2].astype(float)
    points = np.tile(xy[INDEX["nose"]], (wholebody.COUNT, 1))
    points[wholebody.FACE] += np.stack([np.linspace(-6, 6, 68), np.linspace(-8, 8, 68)], axis=1)
    for side, part in zip(("left", "right"), wholebody.HANDS, strict=True):
        points[part] = xy[INDEX[f"{side}_wrist"]] + np.stack([np.linspace(0, 6, 21), np.linspace(0, 12, 21)], axis=1)
    for name, k in wholebody.LANDMARK_OF.items():
        if k < 23:
            points[k] = xy[INDEX[name]]
    low, high = points.min(axis=0), points.max(axis=0)
    return points, (low[0], low[1], high[0], high[1])


def in_crop(points: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Where the published preprocessing puts points: 1.25 times the box, widened to 3:4, onto 288×384."""
    centre, size = np.array([box[0] + box[2], box[1] + box[3]]) / 2, np.array([box[2] - box[0], box[3] - box[1]]) * 1.25
    wide, tall = max(size[0], size[1] * 0.75), max(size[1], size[0] / 0.75)
    return np.asarray((points - centre + [wide / 2, tall / 2]) / [wide, tall] * [288, 384])


def boxed(*boxes: tuple[float, ...], score: float = 0.9, kind: int = 0) -> list[tuple[float, ...]]:
    return [(*(v * SCALE for v in box), score, kind) for box in boxes]


def people_of(tmp_path: Path, *centres: tuple[float, float], **more: Any) -> DWPose:
    """Sees figures at these places, all in the pose of the first: the network can't tell its crops apart."""
    points, box = figure(*centres[0])
    boxes = [figure(*centre)[1] for centre in centres]
    pose = onnx_graphs.pose(tmp_path / "pose.onnx", in_crop(points, box), SURE)
    return made(onnx_graphs.detector(tmp_path / "det.onnx", boxed(*boxes)), pose, **more)


def test_boxes_are_decoded_to_the_pixel(tmp_path: Path) -> None:
    first, second = (60.0, 40.0, 141.0, 250.0), (300.0, 30.5, 420.0, 300.0)
    seen = boxed(first, score=0.8) + boxed(second, score=0.9) + boxed((64.0, 42.0, 141.0, 250.0), score=0.7)
    seen += boxed((200.0, 10.0, 250.0, 90.0), score=0.25) + boxed((10.0, 10.0, 50.0, 90.0), score=0.9, kind=2)
    extractor = made(onnx_graphs.detector(tmp_path / "d.onnx", seen), onnx_graphs.brightest(tmp_path / "p.onnx"))
    extractor.setup()
    boxes = extractor.boxes(noise()[0])
    assert boxes.shape == (2, 5), "an overlapping box, an unsure one and another class are nobody"
    np.testing.assert_allclose(boxes, [[*second, 0.9], [*first, 0.8]], atol=1e-3)


def test_the_detector_gets_blue_first(tmp_path: Path) -> None:
    detector = onnx_graphs.blue_detector(tmp_path / "d.onnx", (60.0, 40.0, 140.0, 250.0))
    extractor = made(detector, onnx_graphs.brightest(tmp_path / "p.onnx"))
    extractor.setup()
    square = np.zeros((640, 640, 3), np.uint8)
    for channel, people in ((0, 0), (1, 0), (2, 1)):
        picture = square.copy()
        picture[..., channel] = 255
        assert len(extractor.boxes(picture)) == people


@pytest.mark.parametrize("box", [(60.0, 40.0, 140.0, 250.0), (100.0, 100.0, 300.0, 200.0), (-30.0, -20.0, 90.0, 160.0)])
def test_a_point_of_the_crop_is_found_in_the_picture(box: tuple[float, float, float, float], tmp_path: Path) -> None:
    """The network answers with the brightest place of the red channel: crop, normalisation and the way back agree."""
    extractor = made(onnx_graphs.detector(tmp_path / "d.onnx", boxed(box)), onnx_graphs.brightest(tmp_path / "p.onnx"))
    extractor.setup()
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x, y in ((66, 61), (80, 120)) if box[0] < 100 else ((130, 120), (260, 180)):
        shown = picture.copy()
        shown[y, x, 0] = 255
        shown[5, 5, 1:] = 255
        points, _ = extractor.points(shown, np.array(box))
        assert np.abs(points - [x, y]).max() < 1.0


def test_everybodys_landmarks_and_hands(tmp_path: Path) -> None:
    points, box = figure(150, 160)
    extractor = people_of(tmp_path, (150, 160))
    people = extractor.still(noise()[0])
    assert people.count == 1
    grain = 1.25 * max((box[2] - box[0]) / 288, (box[3] - box[1]) / 384)
    for name, k in wholebody.LANDMARK_OF.items():
        assert np.abs(people.landmarks_PT33x3[0, 0, INDEX[name], :2] - points[k]).max() < grain, name
    assert people.visibility_PT33[0, 0] == pytest.approx(0.9, abs=1e-3)
    assert people.masks_PTHW[0, 0].any()
    video = extractor.track(noise(5), 16.0)
    assert (video.count, video.frames) == (1, 5)
    assert video.details is not None
    for side, part in enumerate(wholebody.HANDS):
        assert np.abs(video.details.hands_PT2x21x3[0, :, side, :, :2] - points[part]).max() < grain
    assert (video.details.hand_seen_PT2 > 0.8).all()
    assert not video.details.face_seen_PT.any(), "no mesh of a face that the built-in reader does not see"


def test_names_hold_and_come_from_left_to_right(tmp_path: Path) -> None:
    extractor = people_of(tmp_path, (380, 160), (130, 160))
    frames = noise(6)
    people = extractor.track(frames, 16.0)
    assert people.count == 2
    assert people.present_PT.all()
    hips = people.landmarks_PT33x3[:, :, [INDEX["left_hip"], INDEX["right_hip"]], 0].mean(axis=2)
    assert np.abs(hips - [[130], [380]]).max() < 1.5
    again = people_of(tmp_path, (380, 160), (130, 160)).track(frames, 16.0)
    for name in ("landmarks_PT33x3", "world_PT33x3", "visibility_PT33", "masks_PTHW"):
        assert (getattr(people, name) == getattr(again, name)).all(), "the same frames, the same bytes"


def test_nobody_and_ten_people(tmp_path: Path) -> None:
    nobody = made(onnx_graphs.detector(tmp_path / "none.onnx", []), onnx_graphs.brightest(tmp_path / "p.onnx"))
    assert nobody.still(noise()[0]).count == 0
    empty = nobody.track(noise(3), 16.0)
    assert (empty.count, empty.frames, empty.size_hw) == (0, 3, (HEIGHT, WIDTH))
    unsure = made(
        onnx_graphs.detector(tmp_path / "one.onnx", boxed((60, 40, 140, 250))),
        onnx_graphs.pose(tmp_path / "unsure.onnx", np.full((133, 2), 90.0), np.full(133, 0.2)),
    )
    assert unsure.still(noise()[0]).count == 0, "a box without joints is nobody"
    centres = [(48 + 46 * k, 160) for k in range(10)]
    assert people_of(tmp_path, *centres).still(noise()[0]).count == 6
    assert people_of(tmp_path, *centres, max_people=3).still(noise()[0]).count == 3


def test_depth_and_outline_are_the_built_in_models(sample_clip: Callable[[str], Path], tracker: PeopleTracker, tmp_path: Path) -> None:
    frame = media.read_clip(sample_clip("front"), 16.0, max_side=WIDTH, count=1)[0]
    known = tracker.still(frame)
    points, scores = np.zeros((133, 2)), SURE
    for name, k in wholebody.LANDMARK_OF.items():
        points[k] = known.landmarks_PT33x3[0, 0, INDEX[name], :2]
    body = points[sorted(wholebody.LANDMARK_OF.values())]
    box = (*body.min(axis=0), *body.max(axis=0))
    square = onnx_graphs.SIDE / max(frame.shape[:2])
    detector = onnx_graphs.detector(tmp_path / "d.onnx", [(*(v * square for v in box), 0.9, 0)])
    people = made(detector, onnx_graphs.pose(tmp_path / "p.onnx", in_crop(points, box), scores)).still(frame)
    assert people.count == 1
    assert np.abs(people.landmarks_PT33x3 - known.landmarks_PT33x3)[..., :2].max() < 1.5
    apart = np.linalg.norm(people.world_PT33x3 - known.world_PT33x3, axis=-1)
    assert np.median(apart) < 0.06, "metres"
    assert (people.masks_PTHW >= 128).sum() == pytest.approx((known.masks_PTHW >= 128).sum(), rel=0.1)


def test_a_mesh_is_pulled_onto_the_68_points() -> None:
    mesh = np.random.default_rng(1).normal(100, 20, (468, 3))
    face = mesh[list(FACE_68), :2] + [3.0, -2.0]
    pulled = wholebody.pulled(mesh, face)
    np.testing.assert_allclose(pulled[:, :2], mesh[:, :2] + [3.0, -2.0], atol=1e-6, err_msg="a shift moves all points alike")
    face[10] += 5.0
    assert (wholebody.pulled(mesh, face)[FACE_68[10], :2] == face[10]).all()
    assert (pulled[:, 2] == mesh[:, 2]).all()


def answers(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return onnx_graphs.simcc_answer(np.full((133, 2), 90.0), SURE) | changed


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (answers(simcc_x=np.full((1, 133, 576), np.nan)), "not_finite"),
        (answers(simcc_x=np.full((1, 133, 576), np.inf)), "not_finite"),
        (answers(simcc_y=np.zeros((1, 133, 576))), "bad_shape"),
        ({"simcc_x": np.zeros((1, 17, 576)), "simcc_y": np.zeros((1, 17, 768))}, "bad_shape"),
        ({"heatmap": np.zeros((1, 133, 96, 72))}, "bad_shape"),
    ],
)
def test_answers_that_are_no_points(said: dict[str, np.ndarray], code: str, tmp_path: Path) -> None:
    pose = onnx_graphs.constant(tmp_path / "p.onnx", said, (384, 288))
    extractor = made(onnx_graphs.detector(tmp_path / "d.onnx", boxed((60, 40, 140, 250))), pose)
    with pytest.raises(BadOutput) as e:
        extractor.still(noise()[0])
    assert e.value.code == code
    assert "\n" not in e.value.message


def test_boxes_that_are_none(tmp_path: Path) -> None:
    pose = onnx_graphs.brightest(tmp_path / "p.onnx")
    wrong = onnx_graphs.constant(tmp_path / "d.onnx", {"output": np.zeros((1, 100, 85))}, (640, 640))
    with pytest.raises(BadOutput) as e:
        made(wrong, pose).still(noise()[0])
    assert e.value.code == "bad_shape"
    nan = onnx_graphs.yolox_answer([])
    nan[0, 0, 0] = np.nan
    with pytest.raises(BadOutput) as e:
        made(onnx_graphs.constant(tmp_path / "n.onnx", {"output": nan}, (640, 640)), pose).still(noise()[0])
    assert e.value.code == "not_finite"


def test_weights_that_can_not_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, pose = onnx_graphs.detector(tmp_path / "d.onnx", []), onnx_graphs.brightest(tmp_path / "p.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    for wrong in (tmp_path / "none.onnx", tmp_path / "text.onnx"):
        with pytest.raises(Transient) as e:
            made(wrong, pose).setup()
        assert e.value.code == "no_weights"
        assert "\n" not in e.value.message
    with pytest.raises(Damaged, match="SHA-256"):
        made(detector, pose, pose_sha256="0" * 64).setup()
    made(detector, pose, pose_sha256=hashlib.sha256(pose.read_bytes()).hexdigest()).setup()
    with pytest.raises(Transient) as e:
        made(detector, pose, device="cuda").setup()
    assert e.value.code == "no_library"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MOTIONPAIR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Transient) as e:
        DWPose.build(DWPoseOptions(device="cpu"), EdgeRefiner()).setup()
    assert "\n" not in e.value.message
    for options in ({"detector": "yolox.onnx"}, {"pose": "hf:me/mine/pose.onnx"}):
        with pytest.raises(ValueError, match="weights"):
            DWPoseOptions.model_validate(options)


def test_licences_are_those_of_the_published_files_only(tmp_path: Path) -> None:
    assert not DWPose.facts_with(DWPoseOptions()).accept_licence
    own = DWPoseOptions(detector=f"file:{tmp_path}/d.onnx", device="cpu")
    assert DWPose.facts_with(own).accept_licence
    assert DWPose.facts_with(own).weights_licence == "unclear"
    copied = own.model_copy(update={"detector_sha256": "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411"})
    assert not DWPose.facts_with(copied).accept_licence


def test_what_are_no_pictures(tmp_path: Path) -> None:
    extractor = people_of(tmp_path, (150, 160))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(BadInput):
            extractor.still(wrong)


def test_people_are_saved_like_all_others(tmp_path: Path) -> None:
    people = people_of(tmp_path, (150, 160)).still(noise()[0])
    with (tmp_path / "people.npz").open("wb") as f:
        people.save(f)
    assert (People.load((tmp_path / "people.npz").read_bytes()).masks_PTHW == people.masks_PTHW).all()
