"""Wan-Animate as a recipe names it, through the whole loop: the real diffusers pipeline in the workers, with tiny random weights.

What it makes is noise, and the checker says so, even with its thresholds opened wide.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from running import Material, call

from factory.work.making import Synthetic
from manifests import media
from manifests.ledger import Ledger
from manifests.store import Store

pytest.importorskip("diffusers", reason="needs the extra diffusers")

import tiny_models

RECIPE = """
recipe: pipeline
seed: 3
geometry: {{frames: 9, fps: 16, sizes: [[256, 160], [160, 256]]}}
sources: [{{clips: {material}/clips/lab, spans_per_clip: 1, licence: bsd-3-clause}}]
gallery: {{characters: {material}/characters/drawn-a}}
split: {{validation_fraction: 0}}
slices:
  walk: {{task: animation,   generator: wan, quota: 1, where: {{people: 1}}}}
  swap: {{task: replacement, generator: wan, quota: 1, where: {{people: 1}}}}
budget_per_job: {{candidates: 1, image_attempts: 1, video_attempts: 1}}
generators:
  painter: {{kind: collage}}
  wan: {{kind: wan_animate, weights: "file:{weights}", device: cpu, dtype: float32, steps: 1, segment_frames: 5, fps: 15}}
pools: {{cpu: {{workers: 1, cpus: 1, timeout_s: 300}}}}
agents:
  checker: {{
    presence_min: 0, mask_joints_min: 0, coverage_min: 0, flicker_max_pct: 1000, flicker_person_max_pct: 1000, flicker_tile_max_pct: 1000,
    warp_ratio_max: 1000, scene_min: -1, scene_worst_min: -1, scene_gap_max: 1000, scene_gap_worst_max: 1000, clip_left_max: 1,
    person_left_max: 1, stranger_max: 1, still_max_s: 100, frozen_max: 1}}
"""


@pytest.fixture
def recipe(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = [str(Path(__file__).parents[1] / "beside_torch"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    weights = tiny_models.wan_animate(tmp_path / "weights")
    made = tmp_path / "pipeline.yaml"
    made.write_text(RECIPE.format(material=material.folder, weights=weights))
    return made


def test_both_modes_from_a_recipe_to_a_verified_file(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = call("run", recipe, "--out", out, code=3)
    assert "left out: person_lost 2" in told, "no pair comes out of a video in which nobody is found, whatever the thresholds"
    store = Store(out / "store")
    made = {o.request["mode"]: o for o in store.outcomes() if o.step == "generate_video"}  # type: ignore[index, call-overload]
    assert set(made) == {"animation", "replacement"}
    for outcome in made.values():
        assert outcome.status == "ok"
        answer = Synthetic.model_validate(outcome.answer)
        assert (answer.raw_frames, answer.raw_fps) == (8, 15), "two segments of 5, one frame in common, cut"
        seen = media.inspect(store.local_path(answer.video, tmp_path))
        assert (seen.frames, seen.fps, seen.width, seen.height, seen.decoder_errors) == (9, 16, 160, 256, 0)
    with Ledger(out / "ledger.sqlite") as ledger:
        assert not ledger.jobs("quarantined")
        assert {job.slice: job.reason for job in ledger.jobs("rejected")} == {"walk": "person_lost", "swap": "person_lost"}
        assert {step: ledger.counts()[step] for step in ("generate_video", "measure_video")} == {
            "generate_video": {"ok": 2}, "measure_video": {"ok": 2},
        }  # fmt: skip
