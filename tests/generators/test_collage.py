"""Collage: the painted person stands where and as large as the clip's person does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from generators.base import ImageRequest, Mode, Report, scene_beside
from generators.images import composing, drawn, solids
from generators.images.collage import Collage, CollageOptions
from generators.images.matte import cut_out
from generators.poses.people import PeopleTracker
from generators.poses.summary import describe
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

GEOMETRY = Geometry(frames=5, height=320, width=288)
FEET = [INDEX[f"{side}_{part}"] for side in ("left", "right") for part in ("heel", "foot_index")]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures by name, drawn once."""
    folder = tmp_path_factory.mktemp("gallery")
    man, robot = drawn.draw_mannequin(4, 448), drawn.draw_robot(2, 448)
    alpha = np.round(man.alpha_HW * 255).astype(np.uint8)
    pictures = {
        "man": man.image_HWC,
        "robot": robot.image_HWC,
        "cutout": np.dstack([np.where(alpha[..., None] > 0, man.image_HWC, 0).astype(np.uint8), alpha]),
        "half": np.ascontiguousarray(man.image_HWC[:250]),
        "field": drawn.scene(1, 320, 448),
        "red": np.broadcast_to(np.array([200, 30, 40], np.uint8), (64, 64, 3)),
    }
    for name, picture in pictures.items():
        media.write_png(folder / f"{name}.png", np.ascontiguousarray(picture))
    return {name: folder / f"{name}.png" for name in pictures}


@pytest.fixture(scope="module")
def clip_people(tracker: PeopleTracker) -> People:
    """A clip in which a figure stands left of the middle, for five frames."""
    frame = drawn.scene(0, GEOMETRY.height, GEOMETRY.width)
    small = drawn.draw_mannequin(1, 256)
    y, x, (h, w) = 50, 8, small.alpha_HW.shape
    cover = small.alpha_HW[..., None]
    frame[y : y + h, x : x + w] = (frame[y : y + h, x : x + w] * (1 - cover) + small.image_HWC * cover).astype(np.uint8)
    people = tracker.track(np.repeat(frame[None], 5, 0), 16.0)
    assert people.count == 1
    return people


def _request(pictures: dict[str, Path], people: People, mode: Mode = "animation", scale: float = 1.0, seed: int = 0) -> ImageRequest:
    return ImageRequest(pictures, "ignored", "", scale, GEOMETRY, people, mode, seed)


def _paint(collage: Collage, request: ImageRequest, out: Path) -> tuple[np.ndarray, Report]:
    report = collage.run(request, out)
    collage.verify(request, out)
    return media.read_image(out), report


def test_takes_place_size_and_ground_of_the_clips_person(
    collage: Collage, tracker: PeopleTracker, gallery: dict[str, Path], clip_people: People, tmp_path: Path
) -> None:
    image, report = _paint(collage, _request({"character": gallery["man"], "scene": gallery["field"]}, clip_people), tmp_path / "o.png")
    assert report.confidence > 0.9
    assert report.reasons == ()
    painted = tracker.still(image)
    assert painted.count == 1
    ours, theirs = describe(painted)[0], describe(clip_people)[0]
    assert ours.height == pytest.approx(theirs.height, rel=0.12)
    assert (ours.box[0] + ours.box[2]) / 2 == pytest.approx((theirs.box[0] + theirs.box[2]) / 2, abs=8)
    grounds = [p.landmarks_PT33x3[0, 0, FEET, 1].max() for p in (painted, clip_people)]
    assert grounds[0] == pytest.approx(grounds[1], abs=8)


def test_scale_is_obeyed(collage: Collage, tracker: PeopleTracker, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    pictures = {"character": gallery["robot"], "scene": gallery["field"]}
    heights = []
    for scale in (1.0, 0.7):
        image, _ = _paint(collage, _request(pictures, clip_people, scale=scale), tmp_path / "o.png")
        heights.append(describe(tracker.still(image))[0].height)
    assert heights[1] / heights[0] == pytest.approx(0.7, rel=0.06)


def test_too_large_a_character_stays_whole(collage: Collage, tracker: PeopleTracker, gallery: dict[str, Path], clip_people: People,
                                           tmp_path: Path) -> None:  # fmt: skip
    for mode in ("animation", "replacement"):
        image, _ = _paint(collage, _request({"character": gallery["man"]}, clip_people, mode, scale=5.0), tmp_path / "o.png")
        person = describe(tracker.still(image))[0]
        assert person.framing == "full"
        assert person.box[1] > 0
        assert person.box[3] < GEOMETRY.height


def test_the_empty_scene_lies_beside_the_picture(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    """Away from figure and shadow it is the picture; where the figure stands it is the scene. Replacement leaves none, nor an old one."""
    out = tmp_path / "o.png"
    image, _ = _paint(collage, _request({"character": gallery["man"], "scene": gallery["field"]}, clip_people), out)
    empty = media.read_image(scene_beside(out))
    differs = np.abs(image.astype(int) - empty).max(2) > 12
    assert 0.02 < differs.mean() < 0.3
    rows, columns = np.nonzero(differs)
    feet, person = 0.2 * np.ptp(rows), describe(clip_people)[0].box
    assert person[0] - feet < columns.min()
    assert columns.max() < person[2] + feet
    _paint(collage, _request({"character": gallery["man"]}, clip_people, "replacement"), out)
    assert not scene_beside(out).exists()


def test_replacement_stands_alone_on_a_plain_ground(
    collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path
) -> None:
    pictures = {"character": gallery["robot"], "scene": gallery["field"]}
    image, report = _paint(collage, _request(pictures, clip_people, "replacement"), tmp_path / "o.png")
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert len(np.unique(rim, axis=0)) == 1
    assert len(set(rim[0].tolist())) == 1
    assert "no_scene" not in report.reasons


def test_same_request_same_bytes(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    request = _request({"character": gallery["man"], "scene": gallery["field"], "clothing": gallery["robot"]}, clip_people, seed=3)
    collage.run(request, tmp_path / "a.png")
    other = Collage()
    other.setup()
    other.run(_request({"character": gallery["robot"]}, clip_people), tmp_path / "between.png")
    other.run(request, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_own_background_is_kept_and_reported(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    image, report = _paint(collage, _request({"character": gallery["man"]}, clip_people), tmp_path / "o.png")
    assert "no_scene" in report.reasons
    assert report.confidence < 0.95
    wall = np.median(drawn.mannequin(4, 448)[:60].reshape(-1, 3), 0)
    assert np.abs(np.median(image[:20].reshape(-1, 3), 0) - wall).max() < 40


def test_alpha_channel_is_the_matte(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    pictures = {"scene": gallery["field"]}
    from_alpha, report = _paint(collage, _request({**pictures, "character": gallery["cutout"]}, clip_people), tmp_path / "a.png")
    from_matte, _ = _paint(collage, _request({**pictures, "character": gallery["man"]}, clip_people), tmp_path / "b.png")
    assert report.reasons == ()
    assert np.abs(from_alpha.astype(int) - from_matte).mean() < 4


def test_rounded_corners_are_no_matte(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    image = media.read_image(gallery["man"])
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[:24, :24] = alpha[-24:, -24:] = 0
    media.write_png(tmp_path / "rounded.png", np.dstack([image, alpha]))
    pictures = {"scene": gallery["field"]}
    rounded, _ = _paint(collage, _request({**pictures, "character": tmp_path / "rounded.png"}, clip_people), tmp_path / "a.png")
    plain, _ = _paint(collage, _request({**pictures, "character": gallery["man"]}, clip_people), tmp_path / "b.png")
    assert np.abs(rounded.astype(int) - plain).mean() < 0.5


def test_a_cut_out_trimmed_to_its_figure_is_not_cropped(
    collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path
) -> None:
    rgba = media.read_image_rgba(gallery["cutout"])
    ys, xs = np.nonzero(rgba[..., 3] > 8)
    media.write_png(tmp_path / "trim.png", np.ascontiguousarray(rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]))
    _, report = _paint(collage, _request({"character": tmp_path / "trim.png", "scene": gallery["field"]}, clip_people), tmp_path / "o.png")
    assert report.reasons == ()


def _lowered(people: People, down_px: int) -> People:
    """The clip's people moved down, out of the picture."""
    masks = np.zeros_like(people.masks_PTHW)
    masks[:, :, down_px:] = people.masks_PTHW[:, :, :-down_px]
    return replace(people, landmarks_PT33x3=people.landmarks_PT33x3 + np.array([0, down_px, 0], np.float32), masks_PTHW=masks)


def test_a_cut_body_is_cut_by_the_new_picture_too(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    pictures = {"character": gallery["half"], "scene": gallery["field"]}
    with pytest.raises(BadInput) as caught:
        collage.run(_request(pictures, clip_people), tmp_path / "o.png")
    assert caught.value.code == "cropped_inside_frame"
    image, report = _paint(collage, _request(pictures, _lowered(clip_people, 150)), tmp_path / "o.png")
    assert "reference_cropped" in report.reasons
    cloth = media.read_image(gallery["half"])[-1, 140:180].astype(int).mean(0)
    assert (np.abs(image[-1].astype(int) - cloth).max(1) < 40).sum() > 15
    alone, doubtful = _paint(collage, _request(pictures, clip_people, "replacement"), tmp_path / "o.png")
    assert doubtful.confidence < 0.6 * report.confidence
    assert (np.abs(alone[-1].astype(int) - alone[0, 0]).max(1) > 20).sum() > 15


def test_who_is_meant_must_be_clear(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    man, robot = media.read_image(gallery["man"]), media.read_image(gallery["robot"])
    media.write_png(tmp_path / "two.png", np.hstack([man, robot]))
    with pytest.raises(BadInput) as caught:
        collage.run(_request({"character": tmp_path / "two.png"}, clip_people), tmp_path / "o.png")
    assert caught.value.code == "several_people"
    assert "\n" not in str(caught.value)


def test_poor_pairs_say_so(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    image, scene = media.read_image(gallery["man"]), {"scene": gallery["field"]}
    media.write_png(tmp_path / "lying.png", np.ascontiguousarray(np.rot90(image)))
    media.write_png(tmp_path / "tiny.png", np.asarray(cv2.resize(image, (58, 80), interpolation=cv2.INTER_AREA), np.uint8))
    media.write_png(tmp_path / "side.png", drawn.mannequin(9, 320, "left"))
    for name, reason in (("lying", "not_upright"), ("tiny", "too_small_in_picture"), ("side", "turned_away")):
        request = _request({"character": tmp_path / f"{name}.png", **scene}, clip_people)
        _, report = _paint(collage, request, tmp_path / "o.png")
        assert reason in report.reasons
        assert report.confidence < 0.75


@pytest.mark.parametrize(("kind", "seed", "behind"), [("man", 1, 1), ("man", 3, 2), ("robot", 2, 1)])
def test_edges_are_those_of_the_figure(monkeypatch: pytest.MonkeyPatch, tracker: PeopleTracker, kind: str, seed: int, behind: int) -> None:
    """A drawn figure before one scene, cut out and put before another, against the same figure drawn there."""
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    render = solids.render

    def watched(*args: Any) -> tuple[np.ndarray, np.ndarray]:
        kept.append(render(*args))
        return kept[-1]

    monkeypatch.setattr(solids, "render", watched)
    drawing = drawn.draw_mannequin(seed, 384) if kind == "man" else drawn.draw_robot(seed, 384)
    (bright, alpha), (height, width) = kept[0], drawing.alpha_HW.shape
    colour = np.clip(bright, 0, 255)
    old, new = drawn.scene(behind, height, width), drawn.scene(0, height, width)
    image = np.round(old * (1 - alpha[..., None]) + colour * alpha[..., None]).astype(np.uint8)
    cut = cut_out(np.dstack([image, np.full((height, width), 255, np.uint8)]), tracker)
    got = new * (1 - cut.alpha_HW[..., None]) + cut.image_HWC * cut.alpha_HW[..., None]
    true = new * (1 - alpha[..., None]) + colour * alpha[..., None]
    solid, disc = (alpha > 0.5).astype(np.uint8), np.ones((11, 11), np.uint8)
    band = cv2.dilate(solid, disc) > cv2.erode(solid, disc)
    assert np.abs(cut.alpha_HW - alpha)[band].mean() < 0.03
    assert np.linalg.norm(got - true, axis=2)[band].mean() < 5


def test_the_shadow_lies_under_the_feet_and_away_from_the_light() -> None:
    floor = np.full((200, 240, 3), 160, np.uint8)
    cover = np.zeros((200, 240), np.float32)
    cover[40:160, 110:130] = 1
    feet = np.zeros((33, 2), np.float32)
    feet[FEET] = [[116, 156], [112, 160], [124, 156], [128, 160]]
    dark = {side: 160 - composing.shaded(floor, cover, feet, 70.0, 0.5, side)[..., 0].astype(int) for side in (-1.0, 0.0, 1.0)}
    for found in dark.values():
        assert found.argmax() // 240 == pytest.approx(160, abs=4)
        assert found[159, 112] > 40
        assert found[159, 128] > 40
        assert found[:100].max() < 4
    centre = {side: float((found.sum(0) * np.arange(240)).sum() / found.sum()) for side, found in dark.items()}
    assert centre[0.0] == pytest.approx(120, abs=1)
    assert centre[1.0] < 118
    assert centre[-1.0] > 122


def test_the_light_of_a_scene() -> None:
    ramp = np.repeat(np.linspace(60, 220, 240)[None, :, None], 200, 0).repeat(3, 2).astype(np.uint8)
    assert composing.light_of(ramp).side == 1
    assert composing.light_of(np.ascontiguousarray(ramp[:, ::-1])).side == -1
    flat = np.full((200, 240, 3), (200, 160, 110), np.uint8)
    assert composing.light_of(flat).side == 0
    cold, warm = composing.light_of(np.full_like(flat, (110, 150, 200))), composing.light_of(flat)
    skin, alpha = np.full((60, 60, 3), (190, 150, 130), np.uint8), np.ones((60, 60), np.float32)
    before = composing.to_lab(skin).mean((0, 1))
    warmed, cooled = (composing.to_lab(composing.matched(skin, alpha, a, b, 0.35)).mean((0, 1)) for a, b in ((cold, warm), (warm, cold)))
    assert before[2] + 3 < warmed[2] < before[2] + 12
    assert before[2] - 12 < cooled[2] < before[2] - 3
    assert np.abs(warmed - before).max() < 12


def test_clothing_dyes_the_shirt_only(
    collage: Collage, tracker: PeopleTracker, gallery: dict[str, Path], clip_people: People, tmp_path: Path
) -> None:
    plain, _ = _paint(collage, _request({"character": gallery["man"]}, clip_people, "replacement"), tmp_path / "a.png")
    pictures = {"character": gallery["man"], "clothing": gallery["red"]}
    dyed, report = _paint(collage, _request(pictures, clip_people, "replacement"), tmp_path / "b.png")
    assert report.reasons == ("clothing_colour_only",)
    old_cloth = np.array([121, 66, 164])
    shirt = np.abs(plain.astype(int) - old_cloth).max(2) < 50
    assert shirt.sum() > 500
    assert (np.abs(dyed.astype(int) - plain).max(2)[shirt] > 20).mean() > 0.95
    xy = tracker.still(plain).landmarks_PT33x3[0, 0, :, :2]
    chest = xy[[11, 12, 23, 24]].mean(0)
    knee, nose = xy[INDEX["left_knee"]], xy[INDEX["nose"]]

    def at(image: np.ndarray, point: np.ndarray) -> np.ndarray:
        x, y = np.round(point).astype(int)
        return np.asarray(image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).astype(float).mean(0))

    assert np.linalg.norm(at(dyed, chest) - [200, 30, 40]) < np.linalg.norm(at(plain, chest) - [200, 30, 40]) - 40
    assert np.abs(at(dyed, knee) - at(plain, knee)).max() < 3
    assert np.abs(at(dyed, nose) - at(plain, nose)).max() < 3


def test_people_of_another_size_are_scaled(collage: Collage, tracker: PeopleTracker, gallery: dict[str, Path], clip_people: People,
                                           tmp_path: Path) -> None:  # fmt: skip
    double = replace(
        clip_people,
        landmarks_PT33x3=clip_people.landmarks_PT33x3 * 2,
        masks_PTHW=np.repeat(np.repeat(clip_people.masks_PTHW, 2, 2), 2, 3),
    )
    pictures = {"character": gallery["man"], "scene": gallery["field"]}
    once, _ = _paint(collage, _request(pictures, clip_people), tmp_path / "a.png")
    twice, _ = _paint(collage, _request(pictures, double), tmp_path / "b.png")
    assert np.abs(once.astype(int) - twice).mean() < 1.0


def test_bad_requests_are_refused(collage: Collage, gallery: dict[str, Path], clip_people: People, tmp_path: Path) -> None:
    character = {"character": gallery["man"]}
    nobody = replace(clip_people, present_PT=np.zeros_like(clip_people.present_PT))
    ghost = tmp_path / "ghost.png"
    media.write_png(ghost, np.dstack([media.read_image(gallery["man"]), np.full((448, 322), 120, np.uint8)]))
    noise = tmp_path / "noise.png"
    noise.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    cases: list[tuple[ImageRequest, str]] = [
        (_request({"character": gallery["field"]}, clip_people), "no_person"),
        (_request({"scene": gallery["field"]}, clip_people), "no_character"),
        (_request({**character, "shoes": gallery["red"]}, clip_people), "role_unsupported"),
        (_request(character, clip_people, "pose"), "mode_unsupported"),
        (_request(character, clip_people.only([0, 0])), "people_mismatch"),
        (_request(character, nobody), "people_mismatch"),
        (_request(character, clip_people, scale=0.0), "bad_scale"),
        (_request(character, clip_people, scale=float("nan")), "bad_scale"),
        (_request({"character": tmp_path / "absent.png"}, clip_people), "missing"),
        (_request({"character": ghost}, clip_people), "no_matte"),
    ]
    for request, code in cases:
        with pytest.raises(BadInput) as caught:
            collage.run(request, tmp_path / "o.png")
        assert caught.value.code == code
    with pytest.raises(BadInput):
        collage.run(_request({"character": noise}, clip_people), tmp_path / "o.png")
    assert not (tmp_path / "o.png").exists()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="shadow"):
        CollageOptions(shadow=2.0)
    with pytest.raises(ValueError, match="Extra"):
        CollageOptions(glow=1.0)  # type: ignore[call-arg]
