"""Limbs told by their colours: drawn figures before a scene, one without a shin that its mask still claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.measures.agreement import body_of
from agents.measures.limb_colour import contrasts
from agents.measures.silhouette import PARTS, drawn
from generators.poses.tracks import INDEX, Bytes, People

FRAMES, SIZE = 8, (320, 240)
JOINTS = {
    "nose": (0, -150), "left_shoulder": (28, -100), "right_shoulder": (-28, -100), "left_hip": (18, 0), "right_hip": (-18, 0),
    "left_elbow": (65, -75), "right_elbow": (-65, -75), "left_wrist": (100, -50), "right_wrist": (-100, -50),
    "left_knee": (30, 55), "right_knee": (-30, 55), "left_ankle": (36, 110), "right_ankle": (-36, 110),
}  # fmt: skip
BLUE, GREEN = (40, 60, 170), (90, 140, 80)


def figure(frames: int = FRAMES) -> People:
    """Somebody who stands, with the mask of a whole body."""
    xy = np.zeros((1, frames, 33, 3), np.float32)
    for name, at in JOINTS.items():
        xy[0, :, INDEX[name], :2] = np.array(at) * 0.9 + [120, 180]
    people = People(
        xy, xy / 100, np.ones((1, frames, 33), np.float32), np.ones((1, frames), bool), np.zeros((1, frames, *SIZE), np.uint8), 16.0
    )
    return replace(people, masks_PTHW=np.stack([whole(people, t) for t in range(frames)])[None])


def whole(people: People, t: int, without: str = "") -> Bytes:
    body = body_of(people)
    out = np.zeros(SIZE, np.uint8)
    for name, (_, chain) in PARTS.items():
        if without not in (name, name.replace("leg", "shank")) or not without:
            out |= drawn(body, t, chain, 0.13 * body.torso_px, SIZE)
    out |= drawn(body, t, ("left_shoulder", "right_shoulder", "right_hip", "left_hip", "left_shoulder"), 0.2 * body.torso_px, SIZE)
    if without:
        out |= drawn(body, t, (f"{without[: without.index('_')]}_hip", f"{without[: without.index('_')]}_knee"), 0.13 * body.torso_px, SIZE)
    return out * np.uint8(255)


def painted(people: People, t: int, without: str = "", scene: tuple[int, int, int] = GREEN) -> Bytes:
    image = np.full((*SIZE, 3), scene, np.uint8)
    image[whole(people, t, without) > 0] = BLUE
    return image


@pytest.mark.parametrize("without", ["", "left_shank", "right_shank"])
def test_a_shin_that_only_the_mask_claims_is_found(without: str) -> None:
    people, picture = figure(), figure(1)
    frames = np.stack([painted(people, t, without) for t in range(FRAMES)])
    found = {c.name: c for c in contrasts(painted(picture, 0), picture, frames, people)}
    assert set(found) == set(PARTS)
    for name, contrast in found.items():
        assert contrast.frames == FRAMES
        if name == without:
            assert contrast.ratio < 0.1
        elif without and name == without.replace("shank", "leg"):
            assert contrast.ratio < 1.1
        else:
            assert contrast.ratio == pytest.approx(1.0, abs=0.05)


def test_nothing_is_told_of_a_limb_in_the_colour_of_the_scene() -> None:
    people, picture = figure(), figure(1)
    frames = np.stack([painted(people, t, scene=(44, 64, 172)) for t in range(FRAMES)])
    assert contrasts(painted(picture, 0), picture, frames, people) == ()


def test_what_the_picture_does_not_show_is_not_asked_for() -> None:
    people, picture = figure(), figure(1)
    hidden = picture.visibility_PT33.copy()
    hidden[:, :, INDEX["left_ankle"]] = 0
    frames = np.stack([painted(people, t) for t in range(FRAMES)])
    assert not {"left_leg", "left_shank"} & {
        c.name for c in contrasts(painted(picture, 0), replace(picture, visibility_PT33=hidden), frames, people)
    }
    assert contrasts(painted(picture, 0), picture.only([]), frames, people) == ()
