"""SAM2's video predictor, built by its own package with random weights: that it is asked and read right. Its masks mean nothing then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cpu_torchvision
import numpy as np
import pytest
from posing import HEIGHT, WIDTH, at, people_at

from generators.masks.sam2 import SHARED, Sam2, Sam2Options, prompts
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, People
from manifests import media
from manifests.errors import BadInput, Transient

FRAMES = 4


def small(weights: str, **changed: object) -> Sam2Options:
    return Sam2Options.model_validate({"weights": weights, "size": "tiny", "device": "cpu", "image_size": 128, **changed})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    cpu_torchvision.install()
    pytest.importorskip("sam2", reason="needs the extra sam2")
    import torch
    from sam2.build_sam import build_sam2_video_predictor

    torch.manual_seed(0)
    torch.set_num_threads(1)
    made = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu")
    path = tmp_path_factory.mktemp("sam2") / "tiny.pt"
    torch.save({"model": made.state_dict()}, path)
    return f"file:{path}"


@pytest.fixture(scope="module")
def sam2(weights: str) -> Sam2:
    made = Sam2(small(weights))
    made.setup()
    return made


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


def two(second: float = 350) -> People:
    """The second person comes in the third frame."""
    people = people_at((150, 160), (second, 160), frames=FRAMES)
    present = people.present_PT.copy()
    present[1, :2] = False
    return dataclasses.replace(people, present_PT=present)


def test_masks_keep_the_extractors_contract(sam2: Sam2, frames: np.ndarray) -> None:
    people = two()
    soft = sam2.extract(frames, people)
    assert soft.shape == people.masks_PTHW.shape
    assert soft.dtype == np.uint8
    assert not soft[~people.present_PT].any()
    assert soft[people.present_PT].any(axis=(1, 2)).all(), "every frame in which somebody is there was segmented"
    assert (soft > SHARED).sum(axis=0).max() == 1, "no pixel belongs to two"
    assert (sam2.extract(frames, people) == soft).all(), "the same again"
    masks = sam2.segment(frames, people)
    assert [m.shape for m in masks] == [(FRAMES, HEIGHT, WIDTH)] * 2
    assert [m.dtype for m in masks] == [np.bool_] * 2


def test_what_it_is_told_matters(sam2: Sam2, frames: np.ndarray) -> None:
    soft = sam2.extract(frames, two())
    assert (sam2.extract(frames, two(second=420))[1] != soft[1]).any()
    assert (sam2.extract(255 - frames, two()) != soft).any()
    for kind in ("box", "points"):
        other = Sam2(sam2.options.model_copy(update={"prompts": kind}))
        other._predictor = sam2._predictor
        assert (other.extract(frames, two()) != soft).any()


def test_frames_before_the_best_one_are_followed_backwards(sam2: Sam2, frames: np.ndarray) -> None:
    people = people_at((150, 160), frames=FRAMES)
    people.visibility_PT33[0, :3] = 0.6
    assert [prompt.frame for prompt in prompts(people, sam2.options)] == [3]
    assert sam2.extract(frames, people).any(axis=(2, 3)).all()


def test_nobody_and_the_wrong_frames(sam2: Sam2, frames: np.ndarray) -> None:
    nobody = people_at((150, 160), frames=FRAMES)
    nobody.present_PT[:] = False
    assert not sam2.extract(frames, nobody).any()
    with pytest.raises(BadInput) as e:
        sam2.extract(frames[:2], two())
    assert e.value.code == "size_mismatch"


def test_in_the_trackers_place_of_the_refiner(sam2: Sam2, sample_clip: Callable[[str], Path]) -> None:
    clip = media.read_clip(sample_clip("front"), 16.0, max_side=256, count=FRAMES)
    tracker = PeopleTracker(extractor=sam2)
    people = tracker.track(clip, 16.0)
    assert people.count == 1
    assert people.masks_PTHW[people.present_PT].any(axis=(1, 2)).all()
    assert media.read_clip(sample_clip("front"), 16.0, max_side=256, count=1).shape[0] == 1, "decord still reads for numpy"


def test_weights_that_are_not_here_leave_the_job_for_another_time(weights: str, tmp_path: Path) -> None:
    for wrong in (small(f"file:{tmp_path}/none.pt"), small(weights, size="small"), small("hf:facebook/sam9")):
        with pytest.raises(Transient) as e:
            Sam2(wrong).setup()
        assert e.value.code == "no_weights"
        assert "\n" not in e.value.message


def test_prompts_show_everybody_about_once_a_second() -> None:
    people = people_at((150, 160), (350, 160), frames=40)
    people.present_PT[1, 16:32] = False
    people.visibility_PT33[0, 5] = 1.0
    people.visibility_PT33[0, :5] = people.visibility_PT33[0, 6:16] = 0.8
    shown = prompts(people, Sam2Options())
    assert [(prompt.person, prompt.frame // 16) for prompt in shown] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)]
    assert shown[0].frame == 5, "the frame in which most is seen"


def test_what_a_prompt_holds() -> None:
    people = people_at((200, 160), (240, 160), frames=1)
    masks = np.zeros_like(people.masks_PTHW)
    masks[0, 0, 60:260, 150:250] = 255
    people = dataclasses.replace(people, masks_PTHW=masks)
    both, box, points = (prompts(people, Sam2Options(prompts=kind))[0] for kind in ("both", "box", "points"))
    assert box.box == (150, 60, 250, 260)
    assert not len(box.points_N2)
    assert points.box is None
    assert both.box == box.box
    assert (both.points_N2 == points.points_N2).all()
    mine, others = both.points_N2[both.belongs_N == 1], both.points_N2[both.belongs_N == 0]
    assert tuple(np.round(mine[0]).astype(int)[::-1]) == at(people, "nose")
    assert len(mine) == 5
    assert len(others) == 1, "the other one's trunk lies in the box"
    trunk = people.landmarks_PT33x3[1, 0, [INDEX[n] for n in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")], :2].mean(axis=0)
    assert others[0] == pytest.approx(trunk)
    apart = prompts(people_at((100, 160), (400, 160), frames=1), Sam2Options())
    assert all((prompt.belongs_N == 1).all() for prompt in apart)
    x0, y0, x1, y1 = apart[0].box or (0, 0, 0, 0)
    assert x0 < 100 < x1
    assert y0 < 160 < y1, "without a silhouette the landmarks give the box"
