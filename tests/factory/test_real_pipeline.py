"""Wan-Animate and FLUX.2 as a recipe names them, through the whole loop: real diffusers pipelines in the workers, tiny random weights.

What they make is noise, and the checker says so, even with its thresholds opened wide.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from running import Material, call

from factory.work.making import Painted, Synthetic
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
gallery: {{characters: {material}/characters/drawn-a, clothing: {material}/characters/drawn-b, scenes: {folder}/scenes}}
split: {{validation_fraction: 0}}
slices:
  walk: {{task: animation,   generator: wan, quota: 1, where: {{people: 1}}}}
  swap: {{task: replacement, generator: wan, quota: 1, where: {{people: 1}}}}
  flux: {{task: animation,   generator: wan, quota: 1, where: {{people: 1}}, painter: flux}}
budget_per_job: {{candidates: 1, image_attempts: 1, video_attempts: 1}}
generators:
  painter: {{kind: collage}}
  flux: {{kind: flux2, weights: "file:{folder}/flux", device: cpu, dtype: float32, steps: 1, pixels: null, accept_licence: true}}
  wan: {{kind: wan_animate, weights: "file:{folder}/wan", device: cpu, dtype: float32, steps: 1, segment_frames: 5, fps: 15}}
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
    tiny_models.wan_animate(tmp_path / "wan")
    tiny_models.flux2_klein(tmp_path / "flux")
    (tmp_path / "scenes" / "plain").mkdir(parents=True)
    media.write_png(tmp_path / "scenes" / "plain" / "one.png", np.full((256, 256, 3), (90, 120, 150), np.uint8))
    made = tmp_path / "pipeline.yaml"
    made.write_text(RECIPE.format(material=material.folder, folder=tmp_path))
    return made


def test_both_modes_and_a_painter_from_a_recipe_to_verified_files(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = call("run", recipe, "--out", out, code=3)
    assert "quarantined" not in told
    store = Store(out / "store")
    made = {o.request["mode"]: o for o in store.outcomes() if o.step == "generate_video"}  # type: ignore[index, call-overload]
    assert set(made) == {"animation", "replacement"}
    for outcome in made.values():
        assert outcome.status == "ok"
        answer = Synthetic.model_validate(outcome.answer)
        assert (answer.raw_frames, answer.raw_fps) == (8, 15), "two segments of 5, one frame in common, cut"
        seen = media.inspect(store.local_path(answer.video, tmp_path))
        assert (seen.frames, seen.fps, seen.width, seen.height, seen.decoder_errors) == (9, 16, 160, 256, 0)
    (painted,) = [o for o in store.outcomes() if o.step == "generate_image" and o.request["kind"] == "flux2"]  # type: ignore[index, call-overload]
    assert set(painted.request["pictures"]) == {"character", "clothing", "scene"}  # type: ignore[index, call-overload]
    picture = Painted.model_validate(painted.answer).picture
    assert media.read_image(store.local_path(picture, tmp_path)).shape == (256, 160, 3)
    with Ledger(out / "ledger.sqlite") as ledger:
        assert not ledger.jobs("quarantined")
        # No pair comes out of a picture or a video in which nobody is found, whatever the thresholds.
        assert {job.slice: job.reason for job in ledger.jobs("rejected")} == {
            "walk": "person_lost", "swap": "person_lost", "flux": "no_person",
        }  # fmt: skip
        assert {step: ledger.counts()[step] for step in ("generate_video", "measure_video")} == {
            "generate_video": {"ok": 2}, "measure_video": {"ok": 2},
        }  # fmt: skip
