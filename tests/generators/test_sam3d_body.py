"""SAM 3D Body's adapter and the renderer of meshes: our serving script as it is, in a child process, on a stand-in for Meta's package
(tests/generators/standins/sam3d). No weights were used."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posing import HEIGHT, WIDTH, people_at, request_for

pytest.importorskip("torch", reason="the serving script needs torch")

from generators.masks.refine import EdgeRefiner
from generators.poses import sam3d_body as adapter
from generators.poses.camera import Camera
from generators.poses.capsules import AMBIENT, DIFFUSE
from generators.poses.mesh import Mesh, MeshOptions
from generators.poses.people import PeopleTracker
from generators.poses.sam3d_body import Sam3dBody, Sam3dBodyOptions
from generators.poses.surfaces import Sheet
from generators.poses.tracks import INDEX, Meshes, People
from generators.workers.lines import ChildFault
from manifests import media
from manifests.errors import BadInput, BadOutput, MotionpairError, OutOfMemory, Transient
from manifests.records import Geometry

STANDINS = Path(__file__).parent / "standins" / "sam3d"
sys.path.append(str(STANDINS))
import sam_3d_body as standin  # noqa: E402

FAULTS: dict[str, tuple[type[MotionpairError], str]] = {
    "nan": (BadOutput, "not_finite"),
    "shape": (BadOutput, "bad_shape"),
    "behind": (BadOutput, "bad_camera"),
    "few": (ChildFault, "child_fault"),
    "raises": (ChildFault, "child_fault"),
    "oom": (OutOfMemory, "out_of_memory"),
    "killed": (OutOfMemory, "out_of_memory"),
    "hangs": (Transient, "transient"),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sam3d")
    for name in ("model.ckpt", "mhr_model.pt"):
        (root / name).write_bytes(b"weights")
    return root


def options(installed: Path, **more: Any) -> Sam3dBodyOptions:
    given = {
        "python": sys.executable, "repo": str(STANDINS), "device": "cpu", "timeout_s": 60,
        "checkpoint": str(installed / "model.ckpt"), "mhr": str(installed / "mhr_model.pt"),
        "env": {"STANDIN_FAULT_FILE": str(installed / "fault"), "OMP_NUM_THREADS": "1"}, **more,
    }  # fmt: skip
    return Sam3dBodyOptions.model_validate(given)


@pytest.fixture(scope="module")
def standing(installed: Path) -> Iterator[Sam3dBody]:
    """One child for all."""
    made = Sam3dBody.build(options(installed), EdgeRefiner())
    yield made
    made.end()


@pytest.fixture
def extractor(standing: Sam3dBody, installed: Path) -> Sam3dBody:
    """Without a fault and with the usual options."""
    (installed / "fault").write_text("")
    standing.options = options(installed)
    return standing


def seen(*centres: tuple[float, float], frames: int = 3) -> People:
    """Tracked people with masks: rectangles around the figures."""
    people = people_at(*centres, frames=frames)
    for p in range(people.count):
        xy = people.landmarks_PT33x3[p, 0, :, :2]
        (x0, y0), (x1, y1) = xy.min(axis=0).astype(int), xy.max(axis=0).astype(int)
        people.masks_PTHW[p, :, y0:y1, x0:x1] = 255
    return people


def pictures(frames: int = 3) -> np.ndarray:
    return np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)


def test_a_clips_people_get_bodies(extractor: Sam3dBody, sample_clip: Callable[[str], Path], tracker: PeopleTracker) -> None:
    clip = media.read_clip(sample_clip("multi1"), 16.0, max_side=384, count=3)
    people, known = extractor.track(clip, 16.0), tracker.track(clip, 16.0)
    assert people.count == known.count > 0
    assert people.meshes is not None
    assert people.details is not None
    assert people.meshes.vertices_PTVx3.shape[:2] == (known.count, 3)
    for name in ("present_PT", "visibility_PT33", "masks_PTHW"):
        assert (getattr(people, name) == getattr(known, name)).all(), f"{name} stay the tracker's"
    assert (extractor.track(clip, 16.0).landmarks_PT33x3 == people.landmarks_PT33x3).all()
    still = extractor.still(clip[0])
    assert still.meshes is not None
    assert still.details is None


@pytest.mark.parametrize("how", ["masks", "boxes", "other_lens"])
def test_bodies_stand_where_they_were_told(how: str, extractor: Sam3dBody, installed: Path) -> None:
    before, camera = seen((150, 160), (360, 160)), Camera.of((HEIGHT, WIDTH))
    lens = np.array([[camera.focal_px, 0, WIDTH / 2], [0, camera.focal_px, HEIGHT / 2], [0, 0, 1]])
    extractor.options = options(installed, use_masks=how == "masks")
    (installed / "fault").write_text(how if how == "other_lens" else "")
    people = extractor._embodied(pictures(), before)
    assert people.meshes is not None
    for p in range(2):
        place = standin.place_in(np.array(adapter._box(before, p, 0)), lens)
        want = camera.project(standin.points() + place)
        for name, k in adapter.LANDMARK_OF.items():
            slack = 2.0 if how == "other_lens" else 0.02
            assert np.abs(people.landmarks_PT33x3[p, :, INDEX[name], :2] - want[k]).max() < slack, name
        if how != "other_lens":
            np.testing.assert_allclose(people.meshes.vertices_PTVx3[p, 1], standin.egg()[0] + place, atol=1e-3)
        middle = people.meshes.vertices_PTVx3[p].mean(axis=1)
        np.testing.assert_allclose(middle[:, 2], place[2], rtol=0.01, err_msg="another lens sees it at another depth, ours at the same")


def test_somebody_who_comes_later(extractor: Sam3dBody) -> None:
    before = seen((150, 160), (360, 160), frames=4)
    before.present_PT[1, :2] = False
    before.masks_PTHW[1, :2] = 0
    people = extractor._embodied(pictures(4), before)
    assert people.meshes is not None
    assert not people.meshes.vertices_PTVx3[1, :2].any()
    assert people.meshes.vertices_PTVx3[1, 2:].any()
    nobody = dataclasses.replace(before, present_PT=np.zeros((2, 4), np.bool_))
    assert extractor._embodied(pictures(4), nobody).meshes is None


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, extractor: Sam3dBody, installed: Path) -> None:
    error, code = FAULTS[fault]
    (installed / "fault").write_text(fault)
    extractor.options = options(installed, timeout_s=3 if fault == "hangs" else 60)
    with pytest.raises(MotionpairError) as e:
        extractor._embodied(pictures(), seen((150, 160)))
    assert (type(e.value), e.value.code) == (error, code)
    assert "\n" not in e.value.message


def test_what_is_not_installed(installed: Path, tmp_path: Path) -> None:
    for more, code in (({"checkpoint": str(tmp_path / "none.ckpt")}, "no_weights"), ({"repo": str(tmp_path)}, "no_library")):
        with pytest.raises(Transient) as e:
            Sam3dBody.build(options(installed, **more), EdgeRefiner()).setup()
        assert e.value.code == code
    with pytest.raises(MotionpairError):
        Sam3dBody.build(options(installed, python=str(tmp_path / "python")), EdgeRefiner()).setup()
    assert "no SAM 3D Body" in Sam3dBody.missing()[-1]
    with pytest.raises(ValueError, match="absolute"):
        Sam3dBodyOptions(python="python", checkpoint="/a", mhr="/b")


def test_what_counts_in_keys(installed: Path) -> None:
    key = Sam3dBody.keyed(options(installed))
    assert Sam3dBody.keyed(options(installed, device="cuda", timeout_s=5.0)) == key, "where and how long it runs"
    assert Sam3dBody.keyed(options(installed, use_masks=False)) != key
    (installed / "other.ckpt").write_bytes(b"other weights")
    assert Sam3dBody.keyed(options(installed, checkpoint=str(installed / "other.ckpt"))) != key


def test_meshes_are_saved_to_a_tenth_of_a_millimetre() -> None:
    vertices, faces = standin.egg()
    people = seen((150, 160), (360, 160))
    places = np.random.default_rng(0).normal([0, 0, 5], 0.5, (2, 3, 1, 3))
    people = dataclasses.replace(people, meshes=Meshes((vertices + places).astype(np.float32), faces.astype(np.int32)))
    stream = io.BytesIO()
    people.save(stream)
    loaded = People.load(stream.getvalue())
    assert loaded.meshes is not None
    assert people.meshes is not None
    assert np.abs(loaded.meshes.vertices_PTVx3 - people.meshes.vertices_PTVx3).max() < 1.5e-4
    again = io.BytesIO()
    people.save(again)
    assert again.getvalue() == stream.getvalue()
    assert loaded.only([1]).window(1, 3).meshes.vertices_PTVx3.shape[:2] == (1, 2)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="triangles"):
        Meshes(people.meshes.vertices_PTVx3, faces.astype(np.int32) + 100)


# --- the renderer


def ball(radius: float, place: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = standin.egg(80, 120)
    return vertices / [0.25, standin.TALL_M / 2, 0.15] * radius + np.array(place), faces.astype(np.int32)


def test_a_ball_is_a_disc_of_the_right_size_and_depth() -> None:
    camera = Camera.of((HEIGHT, WIDTH))
    sheet = Sheet.empty((HEIGHT, WIDTH), camera)
    sheet.add(*ball(0.5, (0, 0, 4.0)), (1.0, 1.0, 1.0))
    inside = np.isfinite(sheet.depth_HW)
    radius = camera.focal_px * 0.5 / np.sqrt(16 - 0.25)
    assert inside.sum() == pytest.approx(np.pi * radius**2, rel=0.01)
    assert sheet.depth_HW[HEIGHT // 2, WIDTH // 2] == pytest.approx(3.5, abs=0.002)
    assert (sheet.canvas_HWC[~inside] == 0).all()
    shade = sheet.canvas_HWC[HEIGHT // 2, WIDTH // 2, 0] / 255
    assert shade == pytest.approx(AMBIENT + DIFFUSE, abs=0.01)
    rim = sheet.canvas_HWC[HEIGHT // 2, round(WIDTH / 2 + radius) - 3, 0] / 255
    assert rim < 0.6


def test_what_is_nearer_hides_what_is_farther_whatever_comes_first() -> None:
    camera = Camera.of((HEIGHT, WIDTH))
    drawn = []
    for order in ((0, 1), (1, 0)):
        sheet = Sheet.empty((HEIGHT, WIDTH), camera)
        for k in order:
            sheet.add(*ball(0.4, ((-0.2, 0, 4.0), (0.2, 0, 3.9))[k]), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))[k])
        drawn.append(sheet)
    assert (drawn[0].canvas_HWC == drawn[1].canvas_HWC).all()
    left, right = (round(WIDTH / 2 + camera.focal_px * x / 4) for x in (-0.4, 0.4))
    assert drawn[0].canvas_HWC[HEIGHT // 2, left].argmax() == 0
    assert drawn[0].canvas_HWC[HEIGHT // 2, right].argmax() == 1


def test_triangles_that_can_not_be_seen_are_left_out() -> None:
    sheet = Sheet.empty((HEIGHT, WIDTH), Camera.of((HEIGHT, WIDTH)))
    faces = np.array([[0, 1, 2]], np.int32)
    for corners in ([[0, 0, -1], [1, 0, 4], [0, 1, 4]], [[9, 9, 4], [9.1, 9, 4], [9, 9.1, 4]], [[0, 0, 4], [1, 0, 4], [2, 0, 4]]):
        sheet.add(np.array(corners, float), faces, (1.0, 1.0, 1.0))
    assert not sheet.canvas_HWC.any()
    sheet.add(np.array([[-50, -50, 4], [50, -50, 4], [0, 90, 4]], float), faces, (1.0, 1.0, 1.0))
    assert sheet.canvas_HWC.all(), "one that is larger than the picture fills it"


def test_the_generator_draws_the_clips_people(extractor: Sam3dBody, tmp_path: Path) -> None:
    people = extractor._embodied(pictures(9), seen((150, 160), (360, 160), frames=9))
    request = request_for(people)
    out = tmp_path / "mesh.mp4"
    report = Mesh(MeshOptions()).make(request, out)
    assert (report.confidence, report.reasons) == (1.0, ())
    frames, fps = media.read_frames(out)
    assert (frames.shape, fps) == ((9, HEIGHT, WIDTH, 3), 16.0)
    x, y = people.landmarks_PT33x3[0, 0, [INDEX["left_hip"], INDEX["right_hip"]], :2].mean(axis=0).astype(int)
    assert frames[0, y, x, 2] > frames[0, y, x, 0] > 60, "light blue"
    assert frames[0, 5, 5].max() < 20
    half = Geometry(frames=5, fps=8.0, height=HEIGHT // 2, width=WIDTH // 2)
    small = dataclasses.replace(request, geometry=half)
    again = tmp_path / "small.mp4"
    Mesh().make(small, again)
    assert media.read_frames(again)[0].shape == (5, HEIGHT // 2, WIDTH // 2, 3)
    Mesh().make(request, tmp_path / "twice.mp4")
    assert (tmp_path / "twice.mp4").read_bytes() == out.read_bytes()
    with pytest.raises(BadInput) as e:
        Mesh().make(request_for(seen((150, 160), frames=9)), tmp_path / "none.mp4")
    assert e.value.code == "no_meshes"
