"""Extractors as a recipe names them: what is refused, what enters the keys, and runs with a stand-in's meshes and with SAM2."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from running import Material, call, motionpair
from typer.testing import CliRunner

from factory import steps
from factory.asked import Asked
from factory.cli import app
from factory.generator_commands import _extractors
from factory.run import recipe_digest
from factory.work.clips import AnalyzeRequest, ReferenceRequest, analyze, find_reference
from factory.workbench import Workbench
from generators import extractors, registry
from generators.extractors import Extraction
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadRecipe
from manifests.ledger import Ledger
from manifests.recipe import Recipe, load_recipe, parse_recipe
from manifests.records import Analysis, Artifact, digest_of
from manifests.store import Store

STANDIN = Path(__file__).parents[1] / "generators" / "standins" / "sam3d"
POSE = "{kind: skeleton}"
RECIPE = """
recipe: extracted
seed: 3
geometry: {{frames: 9, fps: 16, sizes: [[256, 160], [160, 256]]}}
sources: [{{clips: {clips}, spans_per_clip: 1, licence: bsd-3-clause}}]
split: {{validation_fraction: 0}}
reference: {{min_gap_s: 0.5}}
slices: {{poses: {{task: pose, generator: render, quota: 1, where: {{people: 1}}}}}}
generators: {{render: {render}}}
extractors: {extractors}
pools: {{cpu: {{workers: 1, cpus: 1, timeout_s: 300}}, looks: {{workers: 1, cpus: 1, timeout_s: 300}}}}
"""
VIDEO = Artifact(digest=digest_of(1), size=1, suffix=".mp4")
DIGEST = "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411"


def recipe_of(entry: Any, **changed: Any) -> Recipe:
    text = yaml.safe_load(RECIPE.format(clips="x", render=POSE, extractors="{}"))
    return parse_recipe({**text, "extractors": entry, **changed})


def refused(entry: Any, **changed: Any) -> str:
    """The one line that a recipe with these extractors is refused with, already when it is planned."""
    with pytest.raises(BadRecipe) as e:
        registry.check(recipe_of(entry, **changed), to_run=False)
    assert "\n" not in e.value.message
    return e.value.message


NLF: dict[str, Any] = {"kind": "nlf", "weights": "file:/models/nlf.torchscript", "device": "cpu", "accept_licence": True}


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"poses": {"kind": "dwpos"}},
            r"extractors.poses.kind: 'dwpos' is unknown. Did you mean 'dwpose'\? \(known: blazepose, dwpose, nlf",
        ),
        ({"masks": {"kind": "nlf"}}, r"extractors.masks.kind: 'nlf' is unknown \(known: guided, sam2\)"),
        ({"pose": {"kind": "nlf"}}, r"extractors.pose: unknown key. Did you mean 'poses'\?"),
        ({"poses": {"max_people": 3}}, r"extractors.poses.kind: is missing"),
        ({"poses": {**NLF, "wieghts": "x"}}, r"extractors.poses \(nlf\): wieghts: unknown key. Did you mean 'weights'\?"),
        ({"poses": {"kind": "nlf", "device": "cpu", "accept_licence": True}}, r"extractors.poses \(nlf\): weights: is missing"),
        ({"poses": {**NLF, "weights": "nlf.pt"}}, r"weights are named as file:PATH or hf:OWNER/NAME/FILE"),
        ({"poses": {**NLF, "accept_licence": False}}, r"nlf \(code MIT, weights non-commercial research\); write `accept_licence: true`"),
        ({"poses": {"kind": "dwpose", "device": "cpu", "pose": "file:/p.onnx"}}, r"weights unclear\); write `accept_licence: true`"),
        ({"masks": {"kind": "sam2", "device": "cpu", "weights": "file:/s.pt"}}, r"weights unclear\); write `accept_licence: true`"),
        ({"poses": {"kind": "dwpose"}}, r"dwpose needs a GPU, its pool 'cpu' has none; give extractors.pool, or device: cpu"),
        ({"masks": {"kind": "sam2", "sise": "tiny", "device": "cpu"}}, r"sise: unknown key. Did you mean 'size'\?"),
        ({"pool": "look"}, r"extractors.pool: 'look' stands not under pools. Did you mean 'looks'\?"),
    ],
)
def test_what_is_refused(entry: Any, line: str) -> None:
    assert re.search(line, refused(entry))


def test_meshes_need_an_extractor_that_gives_them() -> None:
    mesh = {"generators": {"render": {"kind": "mesh"}}}
    assert "render (mesh) needs the clip's meshes; extractors.poses is blazepose, which gives none" in refused({}, **mesh)
    sam = {"kind": "sam3d_body", "python": "/envs/sam/bin/python", "checkpoint": "/m.ckpt", "mhr": "/m.pt", "accept_licence": True}
    assert "sam3d_body needs a GPU" in refused({"poses": sam}, **mesh)
    gpu = {"pools": {"cpu": {}, "looks": {"gpus": 1}}}
    registry.check(recipe_of({"poses": sam, "pool": "looks"}, **mesh, **gpu), to_run=True)
    registry.check(recipe_of({"poses": {"kind": "dwpose"}, "masks": {"kind": "sam2"}, "pool": "looks"}, **gpu), to_run=True)


def test_plan_fails_with_one_line(tmp_path: Path) -> None:
    for entry in ("{poses: {kind: nlf, weights: 'file:x.pt', device: cpu}}", "{poses: {kind: nfl}}"):
        recipe = tmp_path / "r.yaml"
        recipe.write_text(RECIPE.format(clips="x", render=POSE, extractors=entry))
        done = CliRunner().invoke(app, ["plan", str(recipe)])
        assert done.exit_code == 2
        assert "extractors.poses" in done.output
        assert "Traceback" not in done.output


def test_files_of_weights_lie_beside_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(clips="x", render=POSE, extractors="{poses: {kind: dwpose, pose: 'file:w/p.onnx', device: cpu}}"))
    assert load_recipe(recipe).extractors.poses.options["pose"] == f"file:{tmp_path}/w/p.onnx"


def key(entry: Any) -> str:
    return steps.key_of(analyze, AnalyzeRequest(video=VIDEO, extraction=Extraction.of(recipe_of(entry).extractors)))


def test_kinds_and_options_enter_the_keys_and_places_do_not(tmp_path: Path) -> None:
    usual = key({})
    assert key({"poses": {"kind": "blazepose"}, "masks": {"kind": "guided"}, "pool": "looks"}) == usual
    assert key({"poses": {"kind": "blazepose", "max_people": 6}}) == usual, "a default that is written down"
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "c").write_bytes(b"others")
    nlf = {name: {**NLF, "weights": f"file:{tmp_path}/{name}"} for name in "abc"}
    keys = {
        usual, key({"poses": {"kind": "blazepose", "max_people": 2}}), key({"poses": nlf["a"]}), key({"poses": nlf["c"]}),
        key({"poses": {"kind": "dwpose"}}), key({"poses": {"kind": "dwpose", "detection_min": 0.5}}), key({"masks": {"kind": "sam2"}}),
        key({"masks": {"kind": "sam2", "prompts": "box"}}), key({"poses": nlf["a"], "masks": {"kind": "sam2"}}),
    }  # fmt: skip
    assert len(keys) == 9
    assert key({"poses": nlf["a"]}) == key({"poses": nlf["b"]}) == key({"poses": {**nlf["a"], "device": "cuda:1", "accept_licence": False}})
    copy = {"kind": "dwpose", "detector": f"file:{tmp_path}/a", "detector_sha256": DIGEST}
    assert key({"poses": copy}) == key({"poses": {"kind": "dwpose"}}), "the published file, wherever it lies"
    request = ReferenceRequest.model_construct(extraction=Extraction())
    other = ReferenceRequest.model_construct(extraction=Extraction(poses="dwpose"))
    assert steps.key_of(find_reference, request) != steps.key_of(find_reference, other)


def test_jobs_and_releases_stand_on_them() -> None:
    recipes = [recipe_of(e) for e in ({}, {"poses": {"kind": "dwpose"}}, {"masks": {"kind": "sam2"}})]
    assert len({recipe_digest(recipe) for recipe in recipes}) == 3
    assert len({Asked(recipe, "")._basis for recipe in recipes}) == 3
    assert recipe_digest(recipe_of({"pool": "looks"})) == recipe_digest(recipes[0])


def test_the_list_shows_them(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE.format(clips="x", render=POSE, extractors=f"{{poses: {NLF | {'accept_licence': False}}}}"))
    check = CliRunner().invoke(app, ["generators", "check", "mesh"])
    assert check.exit_code == 2
    assert "mesh can't run here: the sample has no meshes of people" in " ".join(check.output.split())
    assert "extractors: who finds people" in CliRunner().invoke(app, ["generators", "list", str(recipe)]).output
    page = io.StringIO()
    Console(width=300, file=page).print(_extractors(load_recipe(recipe)))
    told = " ".join(page.getvalue().split())
    for sort in extractors.SORTS:
        for kind in extractors.KINDS[sort]:
            assert re.search(rf"{kind} {sort} ", told), kind
    assert "MIT / non-commercial research (to be accepted)" in told
    assert "SAM License / SAM License (to be accepted)" in told
    assert "no SAM 3D Body: its options say where it is installed" in told
    assert "extracted: nlf poses" in told
    assert "once accept_licence is true" in told


# --- runs


def written(material: Material, folder: Path, extraction: str, render: str = POSE) -> Path:
    made = folder / "extracted.yaml"
    made.write_text(RECIPE.format(clips=material.clips / "lab", render=render, extractors=extraction))
    return made


def analysed(store: Store) -> tuple[Artifact, People]:
    """The clip that was analysed, and who was found."""
    (outcome,) = [o for o in store.outcomes() if o.step == "analyze" and o.status == "ok"][:1]
    assert outcome.request is not None
    video = AnalyzeRequest.model_validate(outcome.request).video
    return video, People.load(store.read(Analysis.model_validate(outcome.answer).arrays))


def test_meshes_from_a_recipe_to_a_verified_release(material: Material, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the serving script needs torch")
    for name in ("model.ckpt", "mhr.pt"):
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "fault").write_text("")
    poses = {
        "kind": "sam3d_body", "python": sys.executable, "repo": str(STANDIN), "checkpoint": str(tmp_path / "model.ckpt"),
        "mhr": str(tmp_path / "mhr.pt"), "device": "cpu", "accept_licence": True, "env": {"STANDIN_FAULT_FILE": str(tmp_path / "fault")},
    }  # fmt: skip
    recipe = written(material, tmp_path, yaml.safe_dump({"poses": poses, "pool": "looks"}, default_flow_style=True), "{kind: mesh}")
    out = tmp_path / "out"
    call("run", recipe, "--out", out)
    call("verify", out / "release")
    store = Store(out / "store")
    _, people = analysed(store)
    assert people.meshes is not None
    assert {o.made_for.pool for o in store.outcomes() if o.step in ("analyze", "find_reference")} == {"looks"}
    assert {o.made_for.pool for o in store.outcomes() if o.step == "index_clip"} == {"cpu"}


def test_sam2_with_random_weights_draws_a_runs_masks(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights draw random masks: whether a pair passes with them means nothing; that they are SAM2's is what is looked at."""
    import cpu_torchvision

    cpu_torchvision.install()
    pytest.importorskip("sam2", reason="needs the extra sam2")
    import torch
    from sam2.build_sam import build_sam2_video_predictor

    torch.manual_seed(0)
    torch.set_num_threads(1)
    weights = tmp_path / "tiny.pt"
    predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu")
    torch.save({"model": predictor.state_dict()}, weights)
    path = [str(Path(__file__).parents[1] / "beside_torch"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    masks = f"{{kind: sam2, weights: 'file:{weights.name}', size: tiny, device: cpu, image_size: 128, accept_licence: true}}"
    recipe = written(material, tmp_path, f"{{masks: {masks}, pool: looks}}")
    out = tmp_path / "out"
    done = subprocess.run(motionpair("run", recipe, "--out", out), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    with Ledger(out / "ledger.sqlite") as ledger:
        assert not ledger.jobs("quarantined")
    store = Store(out / "store")
    video, people = analysed(store)
    frames, fps = media.read_frames(store.local_path(video, tmp_path))
    extraction = Extraction.of(load_recipe(recipe).extractors)
    mine = extractors.create(extraction).track(frames, fps)
    assert hashlib.sha256(people.masks_PTHW).digest() == hashlib.sha256(mine.masks_PTHW).digest(), "the same masks as here"
    built_in = Workbench(str(tmp_path / "store"), {}).tracker.track(frames, fps)
    assert (built_in.landmarks_PT33x3 == mine.landmarks_PT33x3).all()
    assert (built_in.masks_PTHW != mine.masks_PTHW).any()
