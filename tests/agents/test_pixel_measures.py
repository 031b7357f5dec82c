"""The checker's measures of pixels: flicker, scene, stillness; on drawn videos, encoded as the factory does, and on a real clip."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from agents.measures.background import clip_left, person_left, scene_kept, scene_shown
from agents.measures.frames import Bools, Bytes
from agents.measures.stability import stability
from agents.measures.technical import clarity, darkness, still_steps, stillness
from manifests import media

FRAMES, HEIGHT, WIDTH = 21, 192, 288
RNG_SEED = 7


def encoded(frames: Bytes, crf: int = 10) -> Bytes:
    with tempfile.TemporaryDirectory() as folder:
        media.write_video(Path(folder) / "v.mp4", frames, 16.0, crf)
        return media.read_frames(Path(folder) / "v.mp4")[0]


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Bytes:
    """Patches of colour at several scales, as scenes have."""
    rng, out = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for cells, strength in ((4, 60), (12, 35), (40, 18)):
        patches = rng.normal(0, strength, (cells * height // width + 1, cells, 3)).astype(np.float32)
        out += cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(out + 120, 12, 243).astype(np.uint8)


@dataclass(frozen=True)
class Footage:
    """Somebody walks through a scene; the camera stands and is noisy."""

    frames: Bytes
    person: Bools


def footage(scene_seed: int, person_seed: int, width_px: int = 26, moves: bool = True) -> Footage:
    scene, cloth, rng = texture(scene_seed), texture(person_seed, 2 * HEIGHT, 2 * WIDTH), np.random.default_rng(scene_seed)
    frames, masks = [], []
    for t in range(FRAMES):
        x, y = (70 + 6 * t if moves else 140), 100
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(mask, (x, y), (width_px, 62), 0, 0, 360, 1, -1)
        worn = cloth[60 : 60 + HEIGHT, 150 - x + 70 : 150 - x + 70 + WIDTH]
        alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[..., None]
        frames.append(np.clip(scene * (1 - alpha) + worn * alpha + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8))
        masks.append(mask > 0)
    return Footage(encoded(np.stack(frames)), np.stack(masks))


@pytest.fixture(scope="module")
def clip() -> Footage:
    return footage(1, 11)


@pytest.fixture(scope="module")
def animation() -> Footage:
    return footage(2, 12, 30)


@pytest.fixture(scope="module")
def replacement() -> Footage:
    """The same scene as the clip's, another and wider person."""
    return footage(1, 12, 30)


def lit(frames: Bytes, gain: np.ndarray, where: Bools | None = None) -> Bytes:
    """Every frame brighter by its gain, (T,) or (T, 3), everywhere or in a mask."""
    changed = np.clip(np.round(frames * gain.reshape(len(frames), 1, 1, -1)), 0, 255).astype(np.uint8)
    return encoded(changed if where is None else np.where(where[..., None], changed, frames))


def jumps(least: float = 0.08) -> np.ndarray:
    rng = np.random.default_rng(RNG_SEED)
    return 1 + rng.choice([-1, 1], FRAMES) * rng.uniform(least, least + 0.04, FRAMES)


# ------------------------------------------------------------------------------------------------------------ stability


def test_a_steady_video_does_not_flicker(clip: Footage, animation: Footage) -> None:
    found = stability(animation.frames, animation.person, clip.frames, clip.person)
    for region in (found.whole, found.person, found.scene):
        assert max(region.brightness_pct, region.colour_pct) < 1
        assert region.contrast_pct < 5
    assert found.tile_pct < 3
    assert found.warp_ratio < 1.6


def test_flicker_of_the_whole_picture(clip: Footage, animation: Footage) -> None:
    found = stability(lit(animation.frames, jumps()), animation.person, clip.frames, clip.person)
    assert min(found.whole.brightness_pct, found.person.brightness_pct, found.scene.brightness_pct) > 7


def test_flicker_of_the_person_alone(clip: Footage, animation: Footage) -> None:
    found = stability(lit(animation.frames, jumps(), animation.person), animation.person, clip.frames, clip.person)
    assert found.person.brightness_pct > 7
    assert found.scene.brightness_pct < 1


def test_a_flash_in_every_fifth_frame(clip: Footage, animation: Footage) -> None:
    gain = np.where(np.arange(FRAMES) % 5 == 2, 1.1, 1.0)
    assert stability(lit(animation.frames, gain), animation.person, clip.frames, clip.person).whole.brightness_pct > 5


def test_flicker_of_a_corner_and_of_colour(clip: Footage, animation: Footage) -> None:
    corner = np.zeros_like(animation.person)
    corner[:, :60, -90:] = True
    found = stability(lit(animation.frames, jumps(), corner), animation.person, clip.frames, clip.person)
    assert found.tile_pct > 7
    assert found.whole.brightness_pct < 1
    tint = np.stack([jumps(), np.ones(FRAMES), 2 - jumps()], 1)
    assert stability(lit(animation.frames, tint), animation.person, clip.frames, clip.person).whole.colour_pct > 7


def test_contrast_that_jumps(clip: Footage, animation: Footage) -> None:
    frames = np.clip((animation.frames - 120.0) * jumps().reshape(-1, 1, 1, 1) + 120, 0, 255).astype(np.uint8)
    assert stability(encoded(frames), animation.person, clip.frames, clip.person).scene.contrast_pct > 7


@pytest.mark.parametrize("gain", [np.linspace(0.8, 1.2, FRAMES), np.where(np.arange(FRAMES) > 9, 1.25, 1.0)], ids=["fade", "lamp"])
def test_light_that_changes_once_is_no_flicker(clip: Footage, animation: Footage, gain: np.ndarray) -> None:
    found = stability(lit(animation.frames, gain), animation.person, clip.frames, clip.person)
    assert max(found.whole.brightness_pct, found.person.brightness_pct, found.tile_pct) < 3.5


def test_flicker_that_the_clip_has_too_is_its_own(clip: Footage, replacement: Footage) -> None:
    gain = jumps()
    found = stability(lit(replacement.frames, gain), replacement.person, lit(clip.frames, gain), clip.person)
    assert max(found.whole.brightness_pct, found.person.brightness_pct) < 2


def test_boiling_textures(clip: Footage, replacement: Footage) -> None:
    rng = np.random.default_rng(3)
    cells = [
        cv2.resize(rng.normal(1, 0.08, (5, 7)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for _ in range(FRAMES)
    ]
    boiling = encoded(np.clip(replacement.frames * np.stack(cells)[..., None], 0, 255).astype(np.uint8))
    found = stability(boiling, replacement.person, clip.frames, clip.person)
    assert found.warp_ratio > 1.8
    assert found.tile_pct > 5


def test_stability_does_not_depend_on_threads(clip: Footage, animation: Footage) -> None:
    before, found = cv2.getNumThreads(), []
    try:
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            found.append(stability(animation.frames, animation.person, clip.frames, clip.person))
    finally:
        cv2.setNumThreads(before)
    assert found[0] == found[1] == found[2]


def test_a_video_without_people_and_unequal_videos(clip: Footage, animation: Footage) -> None:
    nobody = np.zeros_like(animation.person)
    found = stability(animation.frames, nobody, clip.frames, clip.person)
    assert np.isnan(found.person.brightness_pct)
    assert found.scene.brightness_pct < 1
    with pytest.raises(ValueError, match="geometry"):
        stability(animation.frames[:-1], animation.person, clip.frames, clip.person)


# ----------------------------------------------------------------------------------------------------------- background


def test_the_clips_scene_is_kept(clip: Footage, replacement: Footage) -> None:
    hidden = clip.person | replacement.person
    for good in (replacement.frames, encoded(replacement.frames, crf=26), lit(replacement.frames, np.full(FRAMES, 1.06))):
        kept = scene_kept(good, hidden, clip.frames)
        assert kept.alike > 0.93
        assert kept.alike_worst > 0.8
        assert kept.gap_worst < 12


def test_another_scene_or_a_part_of_it(clip: Footage, replacement: Footage, animation: Footage) -> None:
    hidden = clip.person | replacement.person
    assert scene_kept(animation.frames, hidden, clip.frames).alike < 0.4
    part = replacement.frames.copy()
    part[:, :40, :48] = animation.frames[:, :40, :48]
    kept = scene_kept(encoded(part), hidden, clip.frames)
    assert kept.alike > 0.85
    assert kept.alike_worst < 0.4
    assert kept.gap_worst > 30


def test_an_object_that_is_there_for_a_while(clip: Footage, replacement: Footage) -> None:
    frames = replacement.frames.copy()
    frames[12:, 8:40, 8:40] = (210, 40, 60)
    assert scene_kept(encoded(frames), clip.person | replacement.person, clip.frames).gap_worst > 40


def test_what_is_left_of_the_real_person(clip: Footage, replacement: Footage) -> None:
    thin = footage(1, 12, 12)
    clean = person_left(thin.frames, thin.person, clip.frames, clip.person)
    assert abs(clean.mean) < 0.1
    assert clean.worst < 0.25
    assert clean.bare > 0.2
    ghost = np.where((clip.person & ~thin.person)[..., None], clip.frames, thin.frames)
    assert person_left(encoded(ghost), thin.person, clip.frames, clip.person).mean > 0.8
    half = encoded(np.round(0.5 * ghost + 0.5 * thin.frames).astype(np.uint8))
    assert 0.35 < person_left(half, thin.person, clip.frames, clip.person).mean < 0.6
    legs = thin.frames.copy()
    legs[:, 130:] = ghost[:, 130:]
    assert person_left(encoded(legs), thin.person, clip.frames, clip.person).worst > 0.7
    covered = person_left(replacement.frames, replacement.person, clip.frames, clip.person)
    assert np.isnan(covered.mean)
    assert covered.bare < 0.05


def test_a_ghost_where_the_scene_was_never_seen() -> None:
    still, thin = footage(1, 11, moves=False), footage(1, 12, 12, moves=False)
    clean = person_left(thin.frames, thin.person, still.frames, still.person)
    ghost = encoded(np.where((still.person & ~thin.person)[..., None], still.frames, thin.frames))
    left = person_left(ghost, thin.person, still.frames, still.person)
    assert clean.mean < 0.3
    assert left.mean > 0.7


def reference(footage_: Footage) -> tuple[Bytes, Bools]:
    """The animation's empty scene, known everywhere."""
    return texture(2), np.ones(footage_.person.shape[1:], bool)


def test_the_references_scene_is_shown(clip: Footage, animation: Footage) -> None:
    scene, known = reference(animation)
    shown = scene_shown(animation.frames, animation.person, scene, known)
    assert shown.alike > 0.95
    assert shown.alike_worst > 0.9
    left = clip_left(animation.frames, animation.person, clip.frames, scene, known)
    assert max(left.mean, left.worst, left.near) < 0.15
    assert left.told > 0.8
    painted, outside = animation.frames[0], ~animation.person[0]
    assert scene_shown(animation.frames, animation.person, painted, outside).alike > 0.95


def test_the_driving_background_is_left(clip: Footage, animation: Footage) -> None:
    scene, known = reference(animation)

    def left_in(where_THW: Bools) -> tuple[float, float, float]:
        frames = encoded(np.where((where_THW & ~animation.person)[..., None], clip.frames, animation.frames))
        left = clip_left(frames, animation.person, clip.frames, scene, known)
        return left.mean, left.worst, left.near

    everywhere, half = np.ones_like(animation.person), np.zeros_like(animation.person)
    half[:, :, : WIDTH // 2] = True
    assert min(left_in(everywhere)) > 0.95
    assert 0.35 < left_in(half)[0] < 0.65
    assert left_in(half)[1] > 0.9
    halo = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((49, 49), np.uint8)) > 0 for m in animation.person])
    mean, _, near = left_in(halo)
    assert near > 0.8
    assert mean < 0.6


def test_a_third_scene_is_not_the_clips(clip: Footage, animation: Footage) -> None:
    scene, known = reference(animation)
    third = footage(5, 12, 30)
    assert scene_shown(third.frames, third.person, scene, known).alike < 0.5
    assert clip_left(third.frames, third.person, clip.frames, scene, known).mean < 0.4


def test_scenes_that_look_alike_tell_nothing(clip: Footage, replacement: Footage) -> None:
    left = clip_left(replacement.frames, replacement.person, clip.frames, texture(1), np.ones((HEIGHT, WIDTH), bool))
    assert left.told < 0.25  # where the clip's person stands


# ------------------------------------------------------------------------------------------------------------ technical


def test_frozen_frames_count_while_the_clip_moves(clip: Footage, animation: Footage) -> None:
    good = stillness(animation.frames, clip.frames)
    assert (good.share, good.run, good.held_run) == (0, 0, 0)
    order = np.arange(FRAMES)
    order[8:15] = 8
    for frozen in (encoded(animation.frames[order]), encoded(animation.frames[order], crf=28)):
        found = stillness(frozen, clip.frames)
        assert (found.run, found.held_run) == (6, 6)
        assert found.held_share == pytest.approx(0.3)
    rest = encoded(clip.frames[np.zeros(FRAMES, int)])
    assert stillness(rest, rest).held_share == 0
    assert stillness(rest, rest).share == 1


def test_grain_is_no_motion_and_does_not_hide_it(animation: Footage) -> None:
    rng = np.random.default_rng(0)

    def grained(frames: Bytes) -> Bytes:
        return encoded(np.clip(frames + rng.normal(0, 3, frames.shape), 0, 255).astype(np.uint8))

    assert still_steps(grained(animation.frames[np.zeros(FRAMES, int)])).all()
    assert not still_steps(grained(animation.frames)).any()


def test_black_frames(clip: Footage, animation: Footage) -> None:
    frames = animation.frames.copy()
    frames[3:6], frames[9] = 0, 0
    found = darkness(encoded(frames), clip.frames)
    assert found.share == pytest.approx(4 / FRAMES)
    assert (found.run, found.clip_share) == (3, 0)


def test_soft_and_pale_pictures(clip: Footage, replacement: Footage) -> None:
    def judged(frames: Bytes) -> tuple[float, float]:
        found = clarity(encoded(frames), replacement.person, clip.frames, clip.person)
        return found.sharpness_ratio, found.contrast_ratio

    sharp, full = judged(replacement.frames)
    soft, _ = judged(np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in replacement.frames]))
    _, pale = judged((replacement.frames * 0.35 + 80).astype(np.uint8))
    assert soft < 0.6 * sharp
    assert pale < 0.5 * full
    assert np.isnan(clarity(clip.frames, np.zeros_like(clip.person), clip.frames, clip.person).sharpness)


# --------------------------------------------------------------------------------------------------------- a real clip


def test_a_real_clip_passes_for_itself(sample_clip: Callable[[str], Path]) -> None:
    frames = media.read_clip(sample_clip("single"), 16, short_side=288, count=17)
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    real = Footage(encoded(np.ascontiguousarray(frames[:, :height, :width])), np.zeros((len(frames), height, width), bool))
    real.person[:, height // 5 : height * 3 // 4, width // 4 : width * 3 // 4] = True
    again = replace(real, frames=encoded(real.frames, crf=20))
    found = stability(again.frames, again.person, real.frames, real.person)
    assert max(found.whole.brightness_pct, found.person.brightness_pct, found.scene.brightness_pct, found.tile_pct) < 1
    assert scene_kept(again.frames, real.person, real.frames).alike > 0.95
    assert stillness(again.frames, real.frames).share == 0
    flickering = encoded(np.clip(real.frames * jumps()[: len(frames)].reshape(-1, 1, 1, 1), 0, 255).astype(np.uint8))
    assert stability(flickering, real.person, real.frames, real.person).whole.brightness_pct > 7
