"""NLF through the real torch.jit: TorchScript files with its method, whose bodies are known, so that places and depths are checked.

The published weights were not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posing import HEIGHT, WIDTH, body, turned

pytest.importorskip("torch", reason="needs the extra nlf")

import cpu_torchvision
import smpl_modules
import torch
from smpl_modules import smpl_of

from generators.masks.refine import EdgeRefiner
from generators.poses import cylinders
from generators.poses.camera import Camera, placed
from generators.poses.figures import figures
from generators.poses.nlf import JOINT_OF, NLF, NLFOptions
from generators.poses.tracks import INDEX
from manifests.errors import BadOutput, Damaged, Transient

cpu_torchvision.install()
torch.set_num_threads(1)

CAMERA = Camera.of((HEIGHT, WIDTH))
FOCAL = CAMERA.focal_px
NEAR, FAR = (-0.6, 0.1, 4.0), (0.9, 0.0, 7.0)


def made(path: Path, **more: Any) -> NLF:
    return NLF.build(NLFOptions.model_validate({"weights": f"file:{path}", "device": "cpu", **more}), EdgeRefiner())


def frames(count: int = 1, step: int = 0) -> np.ndarray:
    out = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    out[:, 0, 0, 0] = step * np.arange(count)
    return out


def hips(place: tuple[float, float, float]) -> np.ndarray:
    return CAMERA.project(np.array(place))


def test_bodies_stand_in_picture_and_space_as_they_were_told(tmp_path: Path) -> None:
    people = made(smpl_modules.nlf(tmp_path / "two.pt", [smpl_of(FAR), smpl_of(NEAR)], FOCAL)).still(frames()[0])
    assert people.count == 2
    for p, place in enumerate((NEAR, FAR)):
        want = CAMERA.project(body() + np.array(place))
        for name in (*JOINT_OF, "nose", "left_eye", "right_ear", "left_heel", "right_foot_index"):
            k = INDEX[name]
            assert np.abs(people.landmarks_PT33x3[p, 0, k, :2] - want[k]).max() < 0.01, name
            assert np.abs(people.world_PT33x3[p, 0, k] - body()[k]).max() < 1e-4, name
    assert (people.visibility_PT33 == 1).all()
    inside = people.masks_PTHW[0, 0] >= 128
    x, y = hips(NEAR).round().astype(int)
    assert inside[y, x]
    assert 0.01 < inside.mean() < 0.25


def test_cylinders_get_the_true_depth(tmp_path: Path) -> None:
    turned_away = smpl_of(FAR, turned(body(), 50))
    people = made(smpl_modules.nlf(tmp_path / "two.pt", [smpl_of(NEAR), turned_away], FOCAL)).track(frames(5), 16.0)
    fig = figures(people, HEIGHT, WIDTH)
    where = placed(fig, CAMERA)
    for p, (place, yaw) in enumerate(((NEAR, 0), (FAR, 50))):
        neck = turned(body(), yaw)[[INDEX["left_shoulder"], INDEX["right_shoulder"]]].mean(axis=0) + place
        wrist = turned(body(), yaw)[INDEX["right_wrist"]] + place
        np.testing.assert_allclose(where.points_PT19x3[p, :, [1, 4]], np.stack([[neck] * 5, [wrist] * 5]), atol=0.01, err_msg="metres")
    assert (where.enlarged_PT == 1).all()
    drawn = list(cylinders.render(fig, cylinders.CylinderOptions()))
    assert len(drawn) == 5
    assert drawn[0].any()


def test_motion_is_followed_and_names_hold(tmp_path: Path) -> None:
    extractor = made(smpl_modules.nlf(tmp_path / "two.pt", [smpl_of(FAR), smpl_of(NEAR)], FOCAL), batch=4)
    video = frames(9, step=25)
    people = extractor.track(video, 16.0)
    assert people.present_PT.all()
    middle = people.landmarks_PT33x3[:, :, [INDEX["left_hip"], INDEX["right_hip"]], 0].mean(axis=2)
    for p, place in enumerate((NEAR, FAR)):
        want = [hips((place[0] + 0.025 * t, *place[1:]))[0] for t in range(9)]
        assert np.abs(middle[p] - want).max() < 0.5, "25 mm a frame"
    again = made(tmp_path / "two.pt", batch=2).track(video, 16.0)
    assert (again.landmarks_PT33x3 == people.landmarks_PT33x3).all(), "whatever the batch"


def test_what_is_unsure_or_outside_is_not_seen(tmp_path: Path) -> None:
    lost = made(smpl_modules.nlf(tmp_path / "lost.pt", [smpl_of(NEAR)], FOCAL, doubt_mm=400.0)).still(frames()[0])
    assert not lost.visibility_PT33.any()
    half = made(smpl_modules.nlf(tmp_path / "half.pt", [smpl_of(NEAR)], FOCAL, doubt_mm=200.0)).still(frames()[0])
    assert half.visibility_PT33[half.visibility_PT33 > 0] == pytest.approx(0.5)
    cut = made(smpl_modules.nlf(tmp_path / "cut.pt", [smpl_of((0.0, 0.9, 4.0))], FOCAL)).still(frames()[0])
    assert not cut.visibility_PT33[0, 0, INDEX["left_ankle"]]
    assert cut.visibility_PT33[0, 0, INDEX["nose"]] == 1


def test_nobody_and_ten_people(tmp_path: Path) -> None:
    nobody = made(smpl_modules.nlf(tmp_path / "none.pt", [], FOCAL))
    assert nobody.still(frames()[0]).count == 0
    assert nobody.track(frames(3), 16.0).count == 0
    crowd = [smpl_of((-3.15 + 0.7 * k, 0.1, 7.0)) for k in range(10)]
    path = smpl_modules.nlf(tmp_path / "ten.pt", crowd, FOCAL)
    assert made(path).still(frames()[0]).count == 6
    assert made(path, max_people=10).still(frames()[0]).count == 10


@pytest.mark.parametrize(
    ("name", "shape", "fill", "code"),
    [
        ("joints3d_nonparam", (1, 24, 3), float("nan"), "not_finite"),
        ("joints3d_nonparam", (1, 17, 3), 4000.0, "bad_shape"),
        ("joints3d_nonparam", (24, 3), 4000.0, "bad_shape"),
        ("joints3d", (1, 24, 3), 4.0, "bad_shape"),
        ("poses", (1, 24, 3), 4000.0, "bad_shape"),
    ],
)
def test_answers_that_are_no_bodies(name: str, shape: tuple[int, ...], fill: float, code: str, tmp_path: Path) -> None:
    path = smpl_modules.saved(smpl_modules.Says(name, torch.full(shape, fill)), tmp_path / "wrong.pt")
    with pytest.raises(BadOutput) as e:
        made(path).still(frames()[0])
    assert e.value.code == code
    assert "\n" not in e.value.message


def test_another_lens_and_too_few_answers(tmp_path: Path) -> None:
    with pytest.raises(BadOutput) as e:
        made(smpl_modules.nlf(tmp_path / "lens.pt", [smpl_of(NEAR)], 2 * FOCAL)).still(frames()[0])
    assert e.value.code == "bad_camera"
    short = smpl_modules.saved(smpl_modules.Says("joints3d", torch.full((0, 24, 3), 0.0), short=1), tmp_path / "short.pt")
    with pytest.raises(BadOutput) as e:
        made(short).track(frames(3), 16.0)
    assert e.value.code == "bad_shape"


def test_weights_that_can_not_be_had(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no network")
    other = smpl_modules.saved(smpl_modules.Other(), tmp_path / "other.pt")
    for wrong in (tmp_path / "none.pt", tmp_path / "text.pt", other):
        with pytest.raises(Transient) as e:
            made(wrong).setup()
        assert e.value.code == "no_weights"
        assert "\n" not in e.value.message
    with pytest.raises(Damaged):
        made(other, sha256="0" * 64).setup()
    with pytest.raises(ValueError, match="sha256"):
        NLFOptions(weights="hf:somebody/nlf/model.torchscript")


def test_its_licence_has_to_be_accepted() -> None:
    assert NLF.facts.accept_licence
    assert "non-commercial" in NLF.facts.weights_licence
