"""What can be used of a clip: confidence with reasons, stretches, and the spans that the index cuts from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from factory.work.clips import ClipIndex, IndexRequest, index_clip
from factory.work.spans import find_shots
from factory.workbench import Workbench
from generators.poses import stretches
from generators.poses.people import PeopleTracker
from generators.poses.stretches import Stretch
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadInput
from manifests.recipe import GeometrySpec

FPS = 16.0


@pytest.fixture(scope="module")
def man(sample_clip: Callable[[str], Path]) -> np.ndarray:
    # Without the left edge, where somebody stands in the background.
    return media.read_clip(sample_clip("single"), FPS, short_side=192)[:, :340, 32:]


@pytest.fixture(scope="module")
def people(man: np.ndarray) -> People:
    return PeopleTracker().track(man, FPS)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Callable[[np.ndarray], ClipIndex]:
    """Index a video of these frames with spans of 9 frames."""
    folder = tmp_path_factory.mktemp("index")

    def run(frames_THWC: np.ndarray) -> ClipIndex:
        path = folder / "clip.mp4"
        media.write_video(path, np.ascontiguousarray(frames_THWC), FPS)
        bench = Workbench(str(folder / "store"), {"0" * 64: str(path)})
        spec = GeometrySpec(frames=9, fps=FPS, sizes=((128, 64),))
        return index_clip.run(IndexRequest(source="0" * 64, geometry=spec, spans_per_clip=20), bench)

    return run


def starts(found: ClipIndex) -> list[int]:
    return [info.span.start_frame for info in found.spans]


@pytest.fixture(scope="module")
def hall(man: np.ndarray, people: People) -> np.ndarray:
    """One frame without the man: every row's median colour stands where he stood."""
    frame = man[:1].copy()
    body = cv2.dilate((people.masks_PTHW[0, 0] > 0).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    frame[0][body] = np.broadcast_to(np.median(frame[0], axis=1, keepdims=True), frame[0].shape)[body].astype(np.uint8)
    return frame


def test_a_good_clip_is_tiled_from_its_start_and_always_alike(index: Callable[[np.ndarray], ClipIndex], man: np.ndarray) -> None:
    first = index(man)
    assert starts(first) == [0, 9, 18]
    assert index(man) == first


def test_a_cut_in_the_middle_splits_the_spans(index: Callable[[np.ndarray], ClipIndex], man: np.ndarray) -> None:
    found = index(np.concatenate([man[:12], 255 - man[12:26, :, ::-1]]))
    assert found.shots == ((0, 12), (12, 26))
    assert 0 in starts(found)
    assert all(s + 9 <= 12 or s >= 12 for s in starts(found))


def test_a_fade_to_black_gives_its_lit_part(index: Callable[[np.ndarray], ClipIndex], man: np.ndarray) -> None:
    light = np.concatenate([np.ones(12), np.linspace(0.9, 0, 8), np.zeros(6)])
    found = index((man[:26] * light[:, None, None, None]).astype(np.uint8))
    assert starts(found) == [0]
    assert found.shots[0][1] <= 17


def test_a_short_flash_of_black_is_not_bridged(man: np.ndarray) -> None:
    dark = man.copy()
    dark[10:12] = 0
    assert find_shots(dark) == [(0, 10), (12, len(man))]


def test_somebody_who_leaves_and_returns_gives_both_parts(
    index: Callable[[np.ndarray], ClipIndex], man: np.ndarray, hall: np.ndarray
) -> None:
    gone = np.repeat(hall, 9, axis=0)
    found = index(np.concatenate([man[:10], gone, man[10:22]]))
    assert any(s + 9 <= 10 for s in starts(found))
    assert any(s >= 19 for s in starts(found))
    assert all(s + 9 <= 11 or s >= 18 for s in starts(found))


def test_reasons_say_what_was_wrong(index: Callable[[np.ndarray], ClipIndex], man: np.ndarray, hall: np.ndarray) -> None:
    nothing, pause = np.repeat(hall, 20, axis=0), np.repeat(hall, 7, axis=0)
    for frames, code, told in (
        (nothing, "no_person", "nobody is seen in it"),
        (np.zeros_like(nothing), "black", "every frame is black"),
        (man[:7], "too_few_frames", "longest shot has 7 frames"),
        (np.concatenate([man[:5], pause, man[10:15]]), "no_confident_stretch", "longest confident stretch has"),
    ):
        with pytest.raises(BadInput, match=told) as caught:
            index(frames)
        assert caught.value.code == code
    assert "nobody is seen in" in caught.value.message


def test_a_real_person_is_trusted_throughout(people: People) -> None:
    found = stretches.confidence(people, 0)
    assert found.per_frame_T.min() > 0.9
    assert set(found.reasons_T) == {""}
    assert stretches.stretches(people, 0) == (Stretch(0, 0, people.frames),)


def spoilt(people: People, code: str, at: slice) -> People:
    """The same person with one fault."""
    landmarks, world, masks = people.landmarks_PT33x3.copy(), people.world_PT33x3.copy(), people.masks_PTHW.copy()
    visibility, present = people.visibility_PT33.copy(), people.present_PT.copy()
    if code == "absent":
        present[:, at] = False
    elif code == "joints_hidden":
        visibility[:, at] = 0.2
    elif code == "joints_off_mask":
        masks[:, at] = 0
    elif code == "upside_down":
        landmarks[:, at, :, 1] = 2 * landmarks[:, at, 23:24, 1] - landmarks[:, at, :, 1]
        masks[:, at] = 255
    elif code == "limbs_change_length":
        world[:, at] *= 0.5
    elif code == "size_jumps":
        middle = landmarks[:, at].mean(axis=2, keepdims=True)
        landmarks[:, at] = middle + (landmarks[:, at] - middle) * 0.4
    else:
        landmarks[:, at, :, 0] += 300
        masks[:, at] = 255
    return replace(people, landmarks_PT33x3=landmarks, world_PT33x3=world, visibility_PT33=visibility, present_PT=present, masks_PTHW=masks)


@pytest.mark.parametrize(
    "code", ["absent", "joints_hidden", "joints_off_mask", "upside_down", "limbs_change_length", "size_jumps", "place_jumps"]
)
def test_every_fault_is_named_and_ends_the_stretch(people: People, code: str) -> None:
    bad = spoilt(people, code, slice(9, 15) if code != "place_jumps" else slice(9, None))
    found = stretches.confidence(bad, 0)
    assert found.reasons_T[9] == code
    assert found.reasons_T[3] == found.reasons_T[-1] == ""
    assert all(not s.start <= 9 < s.stop or code == "place_jumps" for s in stretches.stretches(bad, 0))


def test_short_dips_are_bridged_and_long_ones_are_not(people: People) -> None:
    assert stretches.stretches(spoilt(people, "absent", slice(9, 12)), 0) == (Stretch(0, 0, people.frames),)
    assert stretches.stretches(spoilt(people, "absent", slice(9, 13)), 0) == (Stretch(0, 0, 9), Stretch(0, 13, people.frames))
    assert stretches.stretches(spoilt(people, "absent", slice(0, None)), 0) == ()
