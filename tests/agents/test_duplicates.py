"""Known again in another encoding, and told apart from what only looks similar: other moments, other cameras, other characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from agents.measures import duplicates
from agents.measures.duplicates import KnownVideos, dct_hash, picture_print, same_picture, video_print
from generators.images import drawn
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from manifests import media
from manifests.recipe import DuplicateSpec

Frames = npt.NDArray[np.uint8]
SPEC = DuplicateSpec()
FRAMES = 13


def smaller(frames_THWC: Frames) -> Frames:
    return np.stack([cv2.resize(f, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA) for f in frames_THWC])


def brighter(frames_THWC: Frames) -> Frames:
    return np.asarray(np.clip(frames_THWC * 1.15 + 15, 0, 255), np.uint8)


def coarser(frames_THWC: Frames) -> Frames:
    """As a low bit rate leaves it."""
    jpegs = [cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 25])[1] for f in smaller(frames_THWC)]
    return np.stack([cv2.imdecode(j, cv2.IMREAD_COLOR) for j in jpegs])


def trimmed(frames_THWC: Frames) -> Frames:
    """Without 2 % at every edge."""
    height, width = frames_THWC.shape[1:3]
    return frames_THWC[:, height // 50 : -height // 50, width // 50 : -width // 50]


CHANGES = [smaller, brighter, coarser, trimmed]


@pytest.fixture(scope="module")
def looked_at(sample_clip: Callable[[str], Path], tracker: PeopleTracker) -> dict[str, tuple[Frames, People]]:
    """Clips of 26 frames at 16 fps with their people: one man, the same man with a woman from two cameras, a park."""
    frames = {name: media.read_clip(sample_clip(name), 16.0, short_side=192, count=26) for name in ("single", "multi1", "multi3", "demo")}
    return {name: (f, tracker.track(f, 16.0)) for name, f in frames.items()}


def printed(looked_at: tuple[Frames, People], start: int, change: Callable[[Frames], Frames] = lambda f: f) -> bytes:
    frames, people = looked_at
    changed = change(frames[start : start + FRAMES])
    window = people.window(start, start + FRAMES)
    return video_print(changed, window).packed


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_clip_is_known_again_in_another_encoding(looked_at: dict[str, tuple[Frames, People]], change: Callable[[Frames], Frames]) -> None:
    for name, one in looked_at.items():
        for start in (0, FRAMES):
            known = KnownVideos()
            known.add(printed(one, start))
            assert known.near(printed(one, start, change), SPEC.bits_max) == [0], (name, start)


def test_a_clip_is_known_again_when_its_spans_begin_elsewhere(looked_at: dict[str, tuple[Frames, People]]) -> None:
    found = []
    for one in looked_at.values():
        known = KnownVideos()
        known.add(printed(one, 3))
        found += [known.near(printed(one, start, smaller), SPEC.bits_max) == [0] for start in (1, 2, 4, 5)]
    assert np.mean(found) >= 0.8, found


def test_other_moments_other_cameras_and_mirrored_clips_are_no_duplicates(looked_at: dict[str, tuple[Frames, People]]) -> None:
    known = KnownVideos()
    places = [(name, start) for name in looked_at for start in (0, FRAMES)]
    for name, start in places:
        known.add(printed(looked_at[name], start))
    for number, (name, start) in enumerate(places):
        assert known.near(printed(looked_at[name], start), SPEC.bits_max) == [number]
        assert known.near(printed(looked_at[name], start, lambda f: f[:, :, ::-1]), SPEC.bits_max) == []


def test_the_background_alone_makes_no_duplicate(looked_at: dict[str, tuple[Frames, People]]) -> None:
    """What a hash of whole frames gets wrong: two moments of a camera that stands still, of which the later ones are another take."""
    same_scene = []
    for one in looked_at.values():
        before, after = printed(one, 0), printed(one, FRAMES)
        same_scene.append((int.from_bytes(before[:8], "big") ^ int.from_bytes(after[:8], "big")).bit_count() <= duplicates.SCENE_BITS_MAX)
        known = KnownVideos()
        known.add(before)
        assert known.near(after, SPEC.bits_max) == []
    assert any(same_scene), "or else the hashes of the people had nothing to tell apart"


def test_many_videos_keep_their_numbers() -> None:
    rng = np.random.default_rng(0)

    def made() -> bytes:
        return rng.bytes(8 * (1 + 2 * FRAMES))

    known, prints = KnownVideos(), [made() for _ in range(100)]
    assert known.near(prints[0], SPEC.bits_max) == []
    assert [known.add(one) for one in prints] == list(range(100))
    assert known.add(prints[7]) == 100
    assert known.near(prints[7], SPEC.bits_max) == [7, 100]
    assert known.near(made(), SPEC.bits_max) == []


def test_the_hash_says_which_low_frequencies_are_above_their_median() -> None:
    low = np.random.default_rng(2).normal(0, 50, (8, 8)).astype(np.float32)
    low[0, 0] = 4000
    spectrum = np.zeros((32, 32), np.float32)
    spectrum[:8, :8] = low
    picture = cv2.idct(spectrum)
    above = (low > np.median(low.ravel()[1:])).ravel()
    above[0] = False
    assert dct_hash(picture) == int("".join("01"[int(bit)] for bit in above), 2)
    assert dct_hash(picture * 0.5 + 30) == dct_hash(picture), "neither brightness nor contrast matters"
    assert (dct_hash(cv2.resize(picture, (160, 96), interpolation=cv2.INTER_CUBIC)) ^ dct_hash(picture)).bit_count() <= 2, "nor size"


def test_painted_pictures() -> None:
    pictures = {seed: drawn.mannequin(seed, 512) for seed in range(1, 9)}
    prints = {seed: picture_print(picture).packed for seed, picture in pictures.items()}
    for seed, picture in pictures.items():
        for change in (smaller, coarser):
            again = picture_print(np.ascontiguousarray(change(picture[None])[0])).packed
            assert same_picture(prints[seed], again, SPEC.bits_max, SPEC.colour_max), (seed, change.__name__)
    alike = [(a, b) for a in prints for b in prints if a < b and same_picture(prints[a], prints[b], SPEC.bits_max, SPEC.colour_max)]
    assert not alike, "mannequins of one posture before one backdrop differ in their clothes"
    recoloured = pictures[3].copy()
    recoloured[150:400] = recoloured[150:400, :, ::-1]
    assert not same_picture(prints[3], picture_print(recoloured).packed, SPEC.bits_max, SPEC.colour_max)
