"""A whole run on two services, pictures by `openai_edit` and videos by `comfyui`, down to a verified release. Both are stand-ins.

One gives back the character's own picture, the other the clip, tinted by the seed. So nothing is animated, and the checker has to be told
to let that pass: it would call it a pair whose clip is left. Everything else is as it is: Ray, HTTP and websockets, budget, seal.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import Material, call, tree

pytest.importorskip("websockets", reason="needs the extra comfyui")

from standin_comfyui import VIDEO, VIDEO_SLOTS, StandinComfyUI, written
from standin_images import StandinImages

from manifests.ledger import Ledger
from manifests.release import Release
from manifests.verify import verify

PRICE = 0.04
KEY = "sk-stand-in-0123456789abcdef"
RECIPE = """
recipe: services
seed: 3
geometry: {{frames: 9, fps: 16, sizes: [[256, 160], [160, 256]]}}
sources: [{{clips: {material}/clips/lab, spans_per_clip: 1, licence: bsd-3-clause}}]
gallery: {{characters: {material}/characters/drawn-a}}
split: {{validation_fraction: 0}}
slices:
  walk: {{task: animation, generator: comfy, quota: 1, where: {{people: 1}}}}
mix: {{animation: 1}}
budget_per_job: {{candidates: 1, image_attempts: 2, video_attempts: 1}}
generators:
  painter: {{kind: openai_edit, base_url: "{images}", model: stand-in, key_env: STANDIN_KEY, price_per_image: {price}, accept_licence: true,
            timeout_s: 60}}
  comfy: {{kind: comfyui, servers: ["{comfy}"], workflow: workflow.json, slots: {slots}, modes: [animation],
           code_licence: Apache-2.0, weights_licence: none, timeout_s: 60}}
pools: {{cpu: {{workers: 1, cpus: 1, timeout_s: 300}}}}
agents:
  checker: {{clip_left_max: 1, clothes_max: 1000, clothes_worst_max: 1000, scene_min: -1, scene_worst_min: -1, scene_gap_max: 1000,
            scene_gap_worst_max: 1000}}
"""


def test_two_services_make_a_release(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_KEY", KEY)
    recipe, out = tmp_path / "services.yaml", tmp_path / "out"
    with StandinImages(gives_back=True) as images, StandinComfyUI() as comfy:
        written(tmp_path, VIDEO)
        slots = json.dumps(VIDEO_SLOTS)
        recipe.write_text(RECIPE.format(material=material.folder, images=images.url, comfy=comfy.url, slots=slots, price=PRICE))
        told = call("run", recipe, "--out", out)
        assert "walk: 1 of 1 pairs" in told
        assert [len(sent.files) for sent in images.sent] == [1]
        assert images.sent[0].headers["authorization"] == f"Bearer {KEY}"
        assert len(comfy.prompts) == 1
    assert verify(out / "release") == []
    (row,) = Release.open(out / "release").rows()
    assert (row.slice, row.task, row.generator) == ("walk", "animation", "comfy")
    with Ledger(out / "ledger.sqlite") as ledger:
        assert [(spent.role, spent.requests, spent.money_nano) for spent in ledger.spend()] == [("painter", 1, round(PRICE * 1e9))]
    assert not [name for name, data in tree(out).items() if KEY.encode() in data], "the key is in no file"
