"""A recipe of preference pairs, run on a real clip: what the pair is made of, what a run repeats, what the stream gives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import call

from agents.checker import judge_loser
from factory.trainer.stream import PreferenceSample, Stream
from generators.base import Report
from generators.images import drawn
from manifests import media
from manifests.agency import CheckerSpec
from manifests.errors import BadInput, BadRecipe
from manifests.recipe import load_recipe, parse_recipe
from manifests.records import Geometry
from manifests.release import PairRow, Release
from manifests.store import Store
from manifests.verify import verify

RECIPE = """
recipe: preferences
seed: 3
geometry: {{frames: 9, fps: 16, sizes: [[512, 288]]}}
sources: [{{clips: {folder}/clips, spans_per_clip: 1}}]
gallery: {{characters: {folder}/characters}}
split: {{validation_fraction: 0, validation_groups: [other]}}
slices:
  hands: {{task: preference, generator: puppet, quota: 1, where: {{people: 1}}}}
budget_per_job: {{candidates: 1, image_attempts: 1, video_attempts: 1}}
generators:
  painter: {{kind: collage}}
  puppet:  {{kind: puppet}}
pools: {{cpu: {{workers: 1, cpus: 1, timeout_s: 300}}}}
"""


@pytest.fixture(scope="module")
def recipe(sample_clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preferences")
    (folder / "clips" / "lab").mkdir(parents=True)
    shutil.copy(os.path.realpath(sample_clip("front")), folder / "clips" / "lab" / "front.mp4")
    (folder / "characters" / "drawn").mkdir(parents=True)
    media.write_png(folder / "characters" / "drawn" / "one.png", drawn.mannequin(6, 512))
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def out(recipe: Path) -> Path:
    call("run", recipe, "--out", recipe.parent / "out")
    return recipe.parent / "out"


def only_row(out: Path) -> tuple[Release, PairRow, dict[str, Any]]:
    release = Release.open(out / "release")
    (row,) = release.rows()
    return release, row, json.loads(release.read_member(row, "json"))


def requests(out: Path, step: str) -> list[dict[str, Any]]:
    return [dict(o.request) for o in Store(out / "store").outcomes() if o.step == step]


def test_a_run_seals_a_verified_preference_pair(out: Path) -> None:
    release, row, record = only_row(out)
    assert verify(out / "release") == []
    assert (release.info.format, release.info.complete) == (2, True)
    assert release.info.counts == {"train": {"preference": {"hands": 1}}}
    assert release.info.mix == {"animation": 60, "replacement": 20, "pose": 20}
    names = ["driving.mp4", "winner.mp4", "loser.mp4", "driving_mask.mp4", "reference.png", "reference_mask.png", "json"]
    assert [m.name for m in row.members] == names
    assert len(record["boxes"]) == len(record["loser_boxes"]) == 9
    assert sum(len(frame["hands"]) + len(frame["faces"]) for frame in record["boxes"]) > 9
    assert record["lineage"]["painted"] == [row.member("reference.png").sha256]
    assert record["scores"]["loser_limb_mean_deg"] > record["scores"]["limb_mean_deg"], "the loser is no worse"


def test_the_second_round_differs_from_the_first_in_the_poses_alone(out: Path) -> None:
    _, row, _ = only_row(out)
    first, second = sorted(requests(out, "generate_video"), key=lambda r: r["clip_video"]["digest"] != row.member("driving.mp4").sha256)
    assert second["clip_video"]["digest"] == row.member("winner.mp4").sha256
    assert {name for name in first if first[name] != second[name]} <= {"clip_video", "clip", "driven"}
    assert first["clip"] != second["clip"], "the poses were not read again"


def test_masks_and_reference_are_drawn_without_winner_and_loser(out: Path) -> None:
    """Their requests name the real span and the painted picture, and what was read off these; nothing of what a model learns to make."""
    _, row, record = only_row(out)
    (masks,), (painted,) = requests(out, "draw_masks"), requests(out, "find_painted")
    assert masks["driving"]["digest"] == row.member("driving.mp4").sha256
    assert masks["reference"]["digest"] == painted["picture"]["digest"] == record["lineage"]["painted"][0]
    learnt = [row.member(name).sha256 for name in ("winner.mp4", "loser.mp4")]
    outcomes = [o.model_dump(mode="json") for o in Store(out / "store").outcomes() if o.step == "analyze"]
    read = [o["answer"]["arrays"]["digest"] for o in outcomes if o["request"]["video"]["digest"] in learnt]
    assert len(read) == 2
    assert not any(digest in json.dumps(masks) for digest in (*learnt, *read))


def test_asking_again_repeats_nothing_and_deleted_books_are_filled_again(recipe: Path, out: Path) -> None:
    sealed = Release.open(out / "release").info
    assert "no generator work was needed" in call("run", recipe, "--out", out)
    for file in out.glob("ledger.sqlite*"):
        file.unlink()
    assert "steps: 0 run" in call("run", recipe, "--out", out)
    assert Release.open(out / "release").info == sealed
    assert "hands" in call("status", out)


def test_the_stream_gives_both_videos_and_sides_with_one_region(out: Path) -> None:
    with pytest.raises(BadInput, match=r"it has: preference \(1\)"), Stream(out / "release"):
        pass
    with Stream(out / "release", tasks=["preference"], threads=0) as stream:
        sample = next(stream)
    assert isinstance(sample, PreferenceSample)
    assert sample.winner_THWC.shape == sample.loser_THWC.shape == sample.driving_THWC.shape == (9, 512, 288, 3)
    assert (sample.winner_THWC != sample.loser_THWC).any()
    winner, loser = sample.sides()
    assert (winner.target_THWC is sample.winner_THWC, loser.target_THWC is sample.loser_THWC) == (True, True)
    assert winner.meta == loser.meta
    assert winner.task == winner.meta["task"] == "animation"
    for frame, own, other in zip(winner.meta["boxes"], sample.meta["boxes"], sample.meta["loser_boxes"], strict=True):
        assert frame["hands"] == [*own["hands"], *other["hands"]]


def test_a_sheet_shows_winner_and_loser(out: Path, tmp_path: Path) -> None:
    _, row, _ = only_row(out)
    assert "preference (hands, train)" in call("show", out / "release", row.key, "--sheet", tmp_path / "sheet.png")
    height, width = media.read_image(tmp_path / "sheet.png").shape[:2]
    assert height > width, "five rows"


def test_what_a_recipe_may_not_ask(recipe: Path) -> None:
    made = load_recipe(recipe)
    text = made.model_dump(mode="json")
    text["slices"]["hands"]["where"]["people"] = "1..2"
    with pytest.raises(BadRecipe, match=r"a preference pair shows one person, got 1\.\.2; write people: 1"):
        parse_recipe(text)
    text["slices"]["hands"]["where"]["people"] = 1
    with pytest.raises(BadRecipe, match="preference pairs stand outside the mix"):
        parse_recipe(text | {"mix": {"animation": 60, "preference": 40}})


def test_a_loser_has_to_be_worse_in_its_motion_and_in_nothing_else() -> None:
    geometry, spec, report = Geometry(frames=9, height=64, width=64), CheckerSpec(), Report()
    winner = {"limb_mean_deg": 5.0, "confidence": 1.0}
    worst = {"limb_mean_deg": 90.0, "limb_error_deg": 90.0, "pck": 0.0, "follows": 0.0, "confidence": 1.0}
    assert judge_loser(worst, winner, geometry, report, spec).accepted
    assert judge_loser(winner, winner, geometry, report, spec).reason == "loser_not_worse"
    assert judge_loser(worst | {"black": 1.0}, winner, geometry, report, spec).reason == "black"
    assert judge_loser(worst | {"scene": -1.0}, winner, geometry, report, spec).reason == "wrong_scene"
