"""Wan-Animate through the real diffusers pipeline, saved with tiny random weights and loaded from its folder. What it makes is noise."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("diffusers", reason="needs the extra diffusers")
pytest.importorskip("torch", reason="needs the extra diffusers")

import tiny_models
from posing import HEIGHT, WIDTH, people_at, with_details

from generators.base import Mode, VideoRequest
from generators.images import drawn
from generators.poses.tracks import People
from generators.videos.wan_animate import WanAnimate, WanAnimateOptions
from manifests import media
from manifests.errors import BadInput, BadOutput, Transient
from manifests.records import Geometry

FRAMES, H, W = 9, 64, 96
GEOMETRY = Geometry(frames=FRAMES, fps=16, height=H, width=W)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file:{tiny_models.wan_animate(tmp_path_factory.mktemp('wan') / 'tiny')}"


@pytest.fixture(scope="module")
def tiny(weights: str) -> WanAnimate:
    """9 frames a segment: 16 frames take two of them."""
    made = WanAnimate(WanAnimateOptions(weights=weights, device="cpu", dtype="float32", steps=2, segment_frames=9))
    made.setup()
    return made


def small_people(*centres: tuple[float, float]) -> People:
    """Figures of `posing`, seen at the geometry's size, as blocks of mask."""
    people = with_details(people_at(*centres, frames=FRAMES))
    scale = np.array([W / WIDTH, H / HEIGHT, W / WIDTH], np.float32)
    assert people.details is not None
    faces = dataclasses.replace(people.details, faces_PT468x3=people.details.faces_PT468x3 * scale)
    masks = np.zeros((people.count, FRAMES, H, W), np.uint8)
    for p, (x, _) in enumerate(centres):
        masks[p, :, 10:50, int(x * scale[0]) - 8 : int(x * scale[0]) + 8] = 255
    return dataclasses.replace(people, landmarks_PT33x3=people.landmarks_PT33x3 * scale, masks_PTHW=masks, details=faces)


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> VideoRequest:
    """Animation; `dataclasses.replace` makes the others."""
    folder = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (FRAMES, 8, 12, 3), dtype=np.uint8)
    media.write_video(folder / "clip.mp4", np.stack([cv2.resize(f, (W, H)) for f in coarse]).astype(np.uint8), 16.0)
    media.write_png(folder / "painted.png", cv2.resize(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8), (W, H)).astype(np.uint8))
    people = small_people((250, 160))
    return VideoRequest("animation", folder / "clip.mp4", people, (folder / "painted.png",), "a man walks", GEOMETRY, 7)


@pytest.mark.parametrize("mode", ["animation", "replacement"])
def test_a_video_of_several_segments(mode: Mode, tiny: WanAnimate, request_of: VideoRequest, tmp_path: Path) -> None:
    asked = dataclasses.replace(request_of, mode=mode)
    segments = tiny.segments(asked)
    assert (segments.frames, segments.count, segments.padded) == (16, 2, 17)
    tiny.make(asked, tmp_path / "a.mp4")
    seen = media.inspect(tmp_path / "a.mp4")
    assert (seen.frames, seen.fps, seen.width, seen.height, seen.decoder_errors) == (16, 30, W, H, 0)
    assert {p.stem for p in (tmp_path / "inputs").iterdir()} == {"pose", "face", *(("background", "mask") if mode == "replacement" else ())}
    media.conform(tmp_path / "a.mp4", tmp_path / "pair.mp4", GEOMETRY)
    assert media.probe(tmp_path / "pair.mp4").frames == FRAMES


def test_the_overlap_can_be_five(weights: str, request_of: VideoRequest, tmp_path: Path) -> None:
    generator = WanAnimate(WanAnimateOptions(weights=weights, device="cpu", dtype="float32", steps=1, segment_frames=13, overlap=5, fps=30))
    assert (generator.segments(request_of).count, generator.can.gpus, generator.can.frames_max) == (2, 0, 13)
    generator.make(request_of, tmp_path / "a.mp4")
    assert media.probe(tmp_path / "a.mp4").frames == 16


def test_everything_given_matters_and_the_seed_fixes_the_rest(weights: str, request_of: VideoRequest, tmp_path: Path) -> None:
    """Each input that is changed on its own changes the video; the same request gives the same bytes."""
    generator = WanAnimate(WanAnimateOptions(weights=weights, device="cpu", dtype="float32", steps=1, segment_frames=9, fps=16))
    whole = generator.prepare(dataclasses.replace(request_of, mode="replacement"), tmp_path / "inputs")

    def digest(**changed: object) -> str:
        generator.run(dataclasses.replace(whole, **changed), tmp_path / "a.mp4")  # type: ignore[arg-type]
        return hashlib.sha256((tmp_path / "a.mp4").read_bytes()).hexdigest()

    def inverted(name: str) -> dict[str, Path]:
        other = tmp_path / f"{name}.mp4"
        media.write_lossless(other, 255 - media.read_frames(whole.inputs[name])[0], 16.0)
        return {**whole.inputs, name: other}

    media.write_png(tmp_path / "other.png", 255 - media.read_image(whole.painted[0]))
    digests = {name: digest(inputs=inverted(name)) for name in whole.inputs}
    assert set(digests) == {"pose", "face", "background", "mask"}
    digests |= {"seed": digest(seed=8), "prompt": digest(prompt="zzz"), "reference": digest(painted=(tmp_path / "other.png",))}
    digests["as it is"] = digest()
    assert len(set(digests.values())) == 8, digests
    assert digest() == digests["as it is"]


def test_inputs_of_a_replacement(tiny: WanAnimate, request_of: VideoRequest, tmp_path: Path) -> None:
    two = small_people((150, 160), (350, 160))
    asked = dataclasses.replace(request_of, mode="replacement", clip_people=two.only([0]), others=two.only([1]))
    given = {name: media.read_frames(path) for name, path in tiny.prepare(asked, tmp_path).inputs.items()}
    assert {name: (*frames.shape, fps) for name, (frames, fps) in given.items()} == {
        "face": (16, 512, 512, 3, 30), "pose": (16, H, W, 3, 30), "background": (16, H, W, 3, 30), "mask": (16, H, W, 3, 30),
    }  # fmt: skip
    mask, behind = given["mask"][0], given["background"][0]
    assert set(np.unique(mask)) == {0, 255}
    white = mask[..., 0] == 255
    assert white[:, 1:59, 28 - 17 : 28 + 17].all(), "16 wide, 9 more on each side"
    assert not white[:, :, 60:].any(), "the other person"
    assert not behind[white].any()
    clip = media.read_frames(request_of.clip)[0]
    assert (behind[0][~white[0]] == clip[0][~white[0]]).all()
    assert (behind[15][~white[15]] == clip[8][~white[15]]).all(), "0.5 s: the ninth frame at 16 fps"


def test_animation_moves_the_poses_onto_the_painted_character(request_of: VideoRequest, tmp_path: Path) -> None:
    figure = drawn.mannequin(6, 256)
    small = cv2.resize(figure, (256 * figure.shape[1] // figure.shape[0], 256))[..., :3]
    left = 512 - small.shape[1]
    g = Geometry(frames=FRAMES, height=256, width=512)
    scene = np.full((256, 512, 3), small[0, 0], np.uint8)
    scene[:, left:] = small
    media.write_png(tmp_path / "painted.png", scene)
    media.write_video(tmp_path / "clip.mp4", np.full((FRAMES, 256, 512, 3), 99, np.uint8), 16.0)
    people = people_at((100, 140), frames=FRAMES)
    people = dataclasses.replace(people, masks_PTHW=np.zeros((1, FRAMES, 256, 512), np.uint8))
    asked = dataclasses.replace(request_of, clip=tmp_path / "clip.mp4", painted=(tmp_path / "painted.png",), clip_people=people, geometry=g)

    def middle(retarget: bool) -> float:
        given = WanAnimate(WanAnimateOptions(retarget=retarget)).prepare(asked, tmp_path / "inputs").inputs
        return float(np.flatnonzero(media.read_frames(given["pose"])[0][0].any(axis=(0, 2))).mean())

    assert middle(retarget=False) == pytest.approx(100, abs=15)
    assert middle(retarget=True) == pytest.approx(left + small.shape[1] / 2, abs=25)


def test_weights_that_give_no_numbers_are_told(tiny: WanAnimate, request_of: VideoRequest, tmp_path: Path) -> None:
    import torch

    parameter = next(tiny._pipe.transformer.parameters())
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(float("nan"))
    try:
        with pytest.raises(BadOutput, match="no numbers") as e:
            tiny.make(request_of, tmp_path / "a.mp4")
    finally:
        with torch.no_grad():
            parameter.copy_(before)
    assert e.value.code == "not_finite"
    assert not (tmp_path / "a.mp4").exists()


def test_inputs_of_other_lengths_never_reach_the_pipeline(tiny: WanAnimate, request_of: VideoRequest, tmp_path: Path) -> None:
    asked = tiny.prepare(request_of, tmp_path)
    media.write_lossless(tmp_path / "short.mp4", media.read_frames(asked.inputs["face"])[0][:15], 30.0)
    short = {"face": tmp_path / "short.mp4"}
    cases = {
        "'face': 15": {**asked.inputs, **short},
        "have 15 frames, needed are 16": {"pose": tmp_path / "short.mp4", **short},
        "face are missing": {"pose": asked.inputs["pose"]},
    }
    for words, inputs in cases.items():
        with pytest.raises(BadInput, match=words):
            tiny.run(dataclasses.replace(asked, inputs=inputs), tmp_path / "a.mp4")


def test_what_it_can_not_do(tiny: WanAnimate, request_of: VideoRequest, tmp_path: Path) -> None:
    two = small_people((150, 160), (350, 160))
    absent = dataclasses.replace(request_of.clip_people, present_PT=np.zeros((1, FRAMES), bool))
    cases = {
        "too_many_people": dataclasses.replace(request_of, clip_people=two, painted=request_of.painted * 2),
        "driver_absent": dataclasses.replace(request_of, clip_people=absent),
        "people_mismatch": dataclasses.replace(request_of, clip_people=request_of.clip_people.window(0, 5)),
        "mode_unsupported": dataclasses.replace(request_of, mode="pose"),
    }
    for code, asked in cases.items():
        with pytest.raises(BadInput) as e:
            tiny.make(asked, tmp_path / "a.mp4")
        assert e.value.code == code
    for wrong in (
        {"segment_frames": 76},
        {"overlap": 2},
        {"segment_frames": 9, "overlap": 5},
        {"mask_blocks": (0, 1)},
        {"device": "gpu"},
        {"frames": 77},
    ):
        with pytest.raises(ValueError):
            WanAnimateOptions.model_validate(wrong)


def test_weights_that_are_not_here_leave_the_job_for_another_time(tmp_path: Path) -> None:
    generator = WanAnimate(WanAnimateOptions(weights=f"file:{tmp_path}/none", device="cpu"))
    with pytest.raises(Transient, match=r"model_index\.json") as e:
        generator.setup()
    assert e.value.code == "no_weights"


def test_tiny_means_tiny(tiny: WanAnimate) -> None:
    assert tiny_models.parameters(tiny._pipe) < 100_000
