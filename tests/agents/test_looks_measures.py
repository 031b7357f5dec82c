"""Clothing, faces, hands and safety: on drawn characters, on real people, and on made-up arrays whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from agents.measures import clothing, hands_face
from agents.measures.identity import FaceLook, FaceReader, continuity, likeness, worst_run
from agents.measures.safety import SafetyNet
from generators.images import drawn
from generators.poses.details import DetailReader
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, Bytes, Details, People
from manifests import media
from manifests.errors import BadInput

FPS = 30.0
HEIGHT_PX = 480
Seen = tuple[Bytes, People]


@pytest.fixture(scope="module")
def figures() -> dict[str, Seen]:
    """Drawn characters as videos of one frame."""
    tracker = PeopleTracker()
    pictures = {
        "purple": drawn.mannequin(4, HEIGHT_PX), "purple, back": drawn.mannequin(4, HEIGHT_PX, "back"),
        "red": drawn.mannequin(5, HEIGHT_PX), "orange robot": drawn.robot(1, HEIGHT_PX), "blue robot": drawn.robot(2, HEIGHT_PX),
    }  # fmt: skip
    return {name: (picture[None], tracker.still(picture)) for name, picture in pictures.items()}


@pytest.fixture(scope="module")
def lab(sample_clip: Callable[[str], Path]) -> Seen:
    """A woman who faces the camera at an angle, and a man seen from behind."""
    frames = media.read_clip(sample_clip("multi3"), FPS, short_side=512, count=12)
    return frames, DetailReader().read(frames, PeopleTracker().track(frames, FPS))


@pytest.fixture(scope="module")
def woman(lab: Seen) -> int:
    assert lab[1].details is not None
    return int(np.argmax((lab[1].details.face_seen_PT > 0).mean(axis=1)))


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    reader = FaceReader()
    reader.setup()
    return reader


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(before)


def standing(count: int, seen: Seen, light: float = 1.0) -> Seen:
    """A video of somebody who does not move."""
    frames, people = seen
    lit = np.clip((frames / 255.0) ** 2.2 * light, 0, 1) ** (1 / 2.2) * 255
    return np.repeat(lit.astype(np.uint8), count, axis=0), People(
        np.repeat(people.landmarks_PT33x3, count, axis=1), np.repeat(people.world_PT33x3, count, axis=1),
        np.repeat(people.visibility_PT33, count, axis=1), np.repeat(people.present_PT, count, axis=1),
        np.repeat(people.masks_PTHW, count, axis=1), FPS,
    )  # fmt: skip


def joined(a: Seen, b: Seen) -> Seen:
    """One video after the other; one person each."""
    arrays = ("landmarks_PT33x3", "world_PT33x3", "visibility_PT33", "present_PT", "masks_PTHW")
    return np.concatenate([a[0], b[0]]), People(*(np.concatenate([getattr(s[1], n) for s in (a, b)], axis=1) for n in arrays), FPS)


# --- clothing ---------------------------------------------------------------------------------------------------------------------------


def test_another_view_in_half_the_light_is_nearer_than_another_character(figures: dict[str, Seen]) -> None:
    wanted = clothing.clothes_of(*figures["purple"])
    same = clothing.distance(wanted, clothing.clothes_of(*standing(1, figures["purple, back"], light=0.5)))
    others = [clothing.distance(wanted, clothing.clothes_of(*figures[name])) for name in ("red", "orange robot", "blue robot")]
    robots = clothing.distance(clothing.clothes_of(*figures["orange robot"]), clothing.clothes_of(*figures["blue robot"]))
    assert same is not None
    assert same < 14
    assert all(other is not None and other > 20 for other in [*others, robots])


def test_distance_is_symmetric_and_zero_to_itself(figures: dict[str, Seen]) -> None:
    a, b = (clothing.clothes_of(*figures[name]) for name in ("purple", "red"))
    assert clothing.distance(a, a) == pytest.approx(0, abs=1e-4)
    assert clothing.distance(a, b) == pytest.approx(clothing.distance(b, a), abs=1e-3)


def test_a_character_that_changes_half_way_is_seen_in_its_worst_stretch(figures: dict[str, Seen]) -> None:
    wanted = clothing.clothes_of(*figures["purple"])
    calm = clothing.worn_through(*standing(16, figures["purple"], light=0.8))
    changed = clothing.worn_through(*joined(standing(12, figures["purple"]), standing(4, figures["red"])))
    assert [clothing.worst(wanted, calm), clothing.change(calm)] == pytest.approx([0, 0], abs=4)
    assert all(gap is not None and gap > 20 for gap in (clothing.worst(wanted, changed), clothing.change(changed)))


def dressed(paint: Callable[[Bytes], None]) -> Seen:
    """An upright figure of rectangles, 200×100, on black: `paint` colours its pixels."""
    picture, landmarks = np.zeros((200, 100, 3), np.uint8), np.zeros((1, 1, 33, 3), np.float32)
    paint(picture)
    for side, x in (("left", 65), ("right", 35)):
        landmarks[0, 0, INDEX[f"{side}_shoulder"], :2] = x, 50
        landmarks[0, 0, INDEX[f"{side}_hip"], :2] = x, 110
    mask = np.zeros((1, 1, 200, 100), np.uint8)
    mask[..., 10:190, 30:70] = 255
    people = People(landmarks, np.zeros((1, 1, 33, 3), np.float32), np.ones((1, 1, 33), np.float32), np.ones((1, 1), bool), mask, FPS)
    return picture[None], people


def test_stripes_are_no_mixture_of_their_colours() -> None:
    def plain(picture: Bytes) -> None:
        picture[:] = 128

    def striped(picture: Bytes) -> None:
        picture[:] = np.where(np.arange(200) // 6 % 2, 20, 236)[:, None, None]

    a, b = clothing.clothes_of(*dressed(plain)), clothing.clothes_of(*dressed(striped))
    gap = clothing.distance(a, b)
    assert gap is not None
    assert gap > 20


def test_nobody_wears_nothing(figures: dict[str, Seen]) -> None:
    frames, people = figures["red"]
    gone = clothing.clothes_of(frames, replace(people, present_PT=np.zeros_like(people.present_PT)))
    assert clothing.distance(gone, clothing.clothes_of(frames, people)) is None
    assert clothing.worst(gone, (gone,)) is None
    assert clothing.change((gone, gone)) is None


# --- faces ------------------------------------------------------------------------------------------------------------------------------


def test_a_real_face_is_told_from_a_drawn_one_and_a_back_shows_none(
    reader: FaceReader, lab: Seen, woman: int, figures: dict[str, Seen]
) -> None:
    frames, people = lab
    early, late = (reader.read(frames[t], people.window(t.start, t.stop), woman) for t in (slice(0, 6), slice(6, 12)))
    alike = likeness(early, late)
    assert alike is not None
    assert alike.frames == 6
    assert alike.cosine > 0.5
    red = reader.read(*figures["red"])
    other = likeness(red, late)
    assert other is not None
    assert other.cosine < 0.3
    assert likeness(reader.read(*figures["purple, back"]), late) is None
    behind = reader.read(frames, people, 1 - woman)
    assert behind.looked == 12
    assert len(behind.frames_N) <= 1  # a cheek and an ear may pass for a face once


def test_a_head_that_hangs_down_is_turned_upright_first(reader: FaceReader, figures: dict[str, Seen]) -> None:
    frames, people = figures["red"]
    height, width = frames.shape[1:3]
    landmarks = people.landmarks_PT33x3.copy()
    landmarks[..., :2] = [width - 1, height - 1] - landmarks[..., :2]
    hanging = reader.read(np.ascontiguousarray(frames[:, ::-1, ::-1]), replace(people, landmarks_PT33x3=landmarks))
    alike = likeness(reader.read(frames, people), hanging)
    assert alike is not None
    assert alike.cosine > 0.95
    assert hanging.points_Nx5x2[0, 0, 1] > hanging.points_Nx5x2[0, 3, 1]  # the eyes are below the mouth in the picture


def test_the_same_bytes_on_one_thread_and_on_two(
    reader: FaceReader, threads: Callable[[int], None], figures: dict[str, Seen], lab: Seen
) -> None:
    found = []
    for count in (1, 2):
        threads(count)
        found.append((reader.read(*figures["red"]).vectors_Nx128.tobytes(), SafetyNet().score(lab[0][0])))
    assert found[0] == found[1]


def looks(*kinds: int) -> FaceLook:
    """Faces along axes of their space: other kinds are unlike (0), faces of a kind alike (0.99)."""
    vectors = np.zeros((len(kinds), 128))
    for k, kind in enumerate(kinds):
        vectors[k, [kind, 100 + k]] = np.sqrt([0.99, 0.01])
    return FaceLook(np.arange(len(kinds)), vectors, np.zeros((len(kinds), 5, 2)), len(kinds))


def test_another_face_from_half_way_on_is_seen() -> None:
    wanted, video = looks(0), looks(0, 0, 0, 0, 0, 0, 0, 1, 1, 1)
    whole = likeness(wanted, video)
    assert whole is not None
    assert whole.cosine > 0.9
    assert worst_run(wanted, video) == pytest.approx(0, abs=0.02)
    assert continuity(video) == pytest.approx(0, abs=0.02)


def test_a_head_that_turns_and_comes_back_goes_on_and_single_misreadings_do_not_count() -> None:
    assert (continuity(looks(0, 0, 0, 1, 1, 0, 0, 1, 0)) or 0) > 0.9
    assert (worst_run(looks(0), looks(0, 0, 5, 0, 0, 0)) or 0) > 0.9


def test_too_few_faces_say_nothing() -> None:
    assert worst_run(looks(0), looks(0, 0)) is None
    assert continuity(looks(0, 0, 0, 1, 1)) is None
    assert likeness(looks(), looks(0)) is None


# --- hands and face ---------------------------------------------------------------------------------------------------------------------


def test_a_video_against_itself_and_blurred(lab: Seen, woman: int) -> None:
    frames, people = lab
    blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 3) for f in frames])
    parts: tuple[hands_face.Part, ...] = ("hands", "face")
    for part in parts:
        same = hands_face.detail_scores(part, frames, people, woman, frames, people, woman)
        soft = hands_face.detail_scores(part, frames, people, woman, blurred, people, woman)
        assert same.detected == 1
        assert same.sharpness == pytest.approx(1)
        assert soft.sharpness is not None
        assert soft.sharpness < 0.2
    assert same.plausible == 1


def test_hands_that_are_not_found_are_missed_and_small_ones_are_not_judged(lab: Seen, woman: int) -> None:
    frames, people = lab
    bare = replace(people, details=Details.unseen(people.count, people.frames))
    lost = hands_face.detail_scores("hands", frames, people, woman, frames, bare, woman)
    assert (lost.detected, lost.plausible) == (0, None)
    assert hands_face.detail_scores("hands", frames, bare, woman, frames, people, woman).detected is None
    small = np.stack([cv2.resize(f, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for f in frames])
    masks = np.zeros((people.count, people.frames, *small.shape[1:3]), np.uint8)
    shrunk = replace(bare, landmarks_PT33x3=people.landmarks_PT33x3 / 4, masks_PTHW=masks)
    far = hands_face.detail_scores("hands", frames, people, woman, small, shrunk, woman)
    assert far == hands_face.DetailScores(None, None, None)


def test_impossible_hands_and_faces(lab: Seen, woman: int) -> None:
    people = lab[1]
    assert people.details is not None
    good = hands_face.hands_plausible(people, woman)
    assert good is not None
    assert good > 0.5
    hands, faces = people.details.hands_PT2x21x3.copy(), people.details.faces_PT468x3.copy()
    hands[..., 8, :] += 4 * (hands[..., 8, :] - hands[..., 7, :])  # the index finger's last bone, five times as long
    faces[..., [33, 133], :] = faces[..., [61], :] + [0, 4, 0]  # one eye below the mouth
    broken = replace(people, details=replace(people.details, hands_PT2x21x3=hands, faces_PT468x3=faces))
    assert hands_face.hands_plausible(broken, woman) == 0
    calm, torn = hands_face.face_asymmetry(people, woman), hands_face.face_asymmetry(broken, woman)
    assert calm is not None
    assert torn is not None
    assert calm < 0.06 < 0.15 < torn
    upside_down = faces.copy()
    upside_down[..., [13, 14], :], upside_down[..., [1, 1], :] = faces[..., [1, 1], :], faces[..., [13, 14], :]
    swapped = replace(people, details=replace(people.details, faces_PT468x3=upside_down))
    assert hands_face.face_plausible(swapped, woman) == 0


def test_two_networks_agree_on_a_real_face(reader: FaceReader, lab: Seen, woman: int) -> None:
    gap = hands_face.face_disagreement(reader.read(*lab, woman), lab[1], woman)
    assert gap is not None
    assert gap < 0.12


def test_details_must_have_been_read(lab: Seen, woman: int) -> None:
    frames, people = lab
    with pytest.raises(ValueError, match="were not read"):
        hands_face.hands_plausible(replace(people, details=None))
    with pytest.raises(ValueError, match="12 frames against 4"):
        hands_face.detail_scores("face", frames, people, woman, frames[:4], people.window(0, 4), woman)


# --- safety -----------------------------------------------------------------------------------------------------------------------------


def test_scores_are_probabilities_and_a_video_has_its_worst_frame(lab: Seen, figures: dict[str, Seen]) -> None:
    net = SafetyNet()
    robot = net.score(figures["blue robot"][0][0])
    assert 0 <= robot < 0.1
    frames = np.repeat(lab[0][:1], 5, axis=0)
    frames[2] = 255
    assert net.worst(frames) == max(net.score(frames[0]), net.score(frames[2]))
    assert net.worst(frames[:0]) == 0


@pytest.mark.parametrize("picture", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 0, 3), np.uint8)])
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(BadInput, match="RGB uint8"):
        SafetyNet().score(picture)
