"""Wan-Animate by its own repository, against a stand-in (tests/generators/standins/wan_animate) that honours its arguments and files.

The table is the fault matrix: each fault, the error that it has to become, its code, and how the engine takes it. No weights were used.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moving import frames_of, video_request, walkers
from test_leash import wait_for
from test_scail import FAULTS as OF_PROGRAMS
from test_scail import artifacts, left

from factory import steps
from factory.work.making import AnimateRequest, generate_video
from factory.workbench import Workbench
from generators import conformance, registry
from generators.base import Mode, VideoRequest
from generators.conformance import Sample
from generators.videos.wan_animate import WanAnimate
from generators.videos.wan_animate_cli import WanAnimateCLI
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, Transient
from manifests.records import Geometry

STANDINS = Path(__file__).parent / "standins"
GEOMETRY = Geometry(frames=9, height=64, width=96)
FRAMES = 16
"""at 30 fps, up to the last of 9 frames at 16 fps"""
FAULTS: dict[str, tuple[type[MotionpairError], str]] = {
    **OF_PROGRAMS,
    # its own: what goes wrong while saving is logged, and the exit code is 0
    "not_saved": (BadOutput, "no_output"),
    "partly_saved": (BadOutput, "half_written"),
}
OF_RANKS: dict[str, tuple[type[MotionpairError], str, str]] = {
    "rank_killed": (OutOfMemory, "out_of_memory", "SIGKILL"),
    "rank_crash": (MotionpairError, "error", "RuntimeError: shapes do not match"),
}
MODES: tuple[Mode, ...] = ("animation", "replacement")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with the script, and weights of a kind."""
    (tmp_path / "repo").mkdir()
    for source in (STANDINS / "faults.py", STANDINS / "wan_animate" / "generate.py"):
        shutil.copy(source, tmp_path / "repo")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "relighting_lora.ckpt").write_bytes(b"weights")
    return tmp_path / "repo"


def entry(repo: Path, fault: str = "", **more: Any) -> dict[str, Any]:
    """The options of a recipe's entry."""
    return {
        "python": sys.executable, "repo": str(repo), "weights": str(repo.parent / "weights"), "env": {"STANDIN_FAULT": fault},
        "segment_frames": 13, "retarget": False, "timeout_s": 3 if fault.startswith("hangs") else 60, **more,
    }  # fmt: skip


def wan(repo: Path, fault: str = "", **more: Any) -> WanAnimateCLI:
    made = registry.create("wan_animate_cli", entry(repo, fault, **more))
    assert isinstance(made, WanAnimateCLI)
    return made


def asked(folder: Path, **more: Any) -> VideoRequest:
    geometry = more.pop("geometry", GEOMETRY)
    return video_request(folder, clip_people=walkers(geometry=geometry), geometry=geometry, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "call").mkdir()
    return tmp_path / "call"


def refused(made: WanAnimateCLI, request: VideoRequest, folder: Path) -> MotionpairError:
    """The error of a call, after which nothing may be left."""
    began = time.monotonic()
    with pytest.raises(MotionpairError) as caught:
        made.make(request, folder / "raw.mp4")
    assert "\n" not in str(caught.value)
    assert {name for name in left(folder) if not name.startswith("inputs")} == set(), "nothing partial is left"
    assert time.monotonic() - began < 30
    return caught.value


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_apart(fault: str, repo: Path, tmp_path: Path, folder: Path) -> None:
    marker = f"WAN_{os.getpid()}"
    made = wan(repo, env={"STANDIN_FAULT": fault, marker: fault}, timeout_s=3 if fault.startswith("hangs") else 60)
    error = refused(made, asked(tmp_path), folder)
    assert (type(error), error.code) == FAULTS[fault], str(error)
    wait_for(0, marker, 5)


@pytest.mark.parametrize("fault", OF_RANKS)
def test_a_rank_that_fails_ends_the_others_and_is_told_apart(fault: str, repo: Path, tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    marker = f"WAN_{os.getpid()}_ranks"
    error = refused(wan(repo, gpus=2, env={"STANDIN_FAULT": fault, marker: "1"}), asked(tmp_path), folder)
    assert (type(error), error.code) == OF_RANKS[fault][:2], str(error)
    assert OF_RANKS[fault][2] in str(error), "torchrun's own report says nothing of it"
    wait_for(0, marker, 5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["", "floods", "leaves_a_child"])
def test_what_harms_nothing_is_no_fault(fault: str, mode: Mode, repo: Path, tmp_path: Path, folder: Path) -> None:
    made, request = wan(repo, fault), asked(tmp_path, mode=mode)
    before = {path: path.read_bytes() for path in (request.clip, *request.painted)}
    made.make(request, folder / "one.mp4")
    assert {path: path.read_bytes() for path in before} == before
    derived = ["background", "face", "mask", "pose"] if mode == "replacement" else ["face", "pose"]
    assert left(folder) == ["inputs", *(f"inputs/{name}.mp4" for name in derived), "one.mp4"]
    seen = media.probe(folder / "one.mp4")
    assert (seen.frames, seen.fps, seen.height, seen.width) == (FRAMES, 30, 64, 96)


TAKEN = {"not_saved": "rejected", "cuda_oom": "out_of_memory", "crash": "error"}


def test_the_engine_takes_each_sort_as_its_rules_say_and_keeps_nothing_of_it(repo: Path, tmp_path: Path) -> None:
    bench, source = Workbench(str(tmp_path / "store"), {}), asked(tmp_path)
    buffer = io.BytesIO()
    source.clip_people.save(buffer)
    put = bench.store.put
    request = AnimateRequest(
        kind="wan_animate_cli", options={}, mode="animation", clip_video=put(source.clip, ".mp4"), clip=put(buffer.getvalue(), ".npz"),
        driven=(0,), painted=(put(source.painted[0], ".png"),), prompt=source.prompt, geometry=GEOMETRY, seed=7,
    )  # fmt: skip
    before = artifacts(tmp_path / "store")
    for fault, taken in TAKEN.items():
        made = request.model_copy(update={"options": json.loads(json.dumps(entry(repo, fault)))})
        key = steps.key_of(generate_video, made)
        reply = bench.run("generate_video", made.model_dump(mode="json"), key)
        assert (reply["status"] if reply["type"] == "outcome" else reply["response"]) == taken, fault
        known = bench.store.get_outcome(key)
        remembered = known is not None and known.cost is not None and known.cost.seconds > 0 and not known.artifacts
        assert remembered == (taken == "rejected"), "only what the work is to blame for is remembered, with its cost"
    assert artifacts(tmp_path / "store") == before


# --- what it is given


@pytest.mark.parametrize("mode", MODES)
def test_arguments(mode: Mode, repo: Path, tmp_path: Path, folder: Path) -> None:
    made = wan(repo, overlap=5, steps=8, shift=3.5, guidance=1.5, offload=False)
    made.make(asked(tmp_path, mode=mode, seed=2**40 + 5), folder / "raw.mp4")
    got = json.loads((repo / "asked.json").read_text())
    names = ("task", "refert_num", "frame_num", "base_seed", "sample_steps", "sample_shift", "sample_guide_scale", "offload_model")
    assert [got[name] for name in names] == ["animate-14B", 5, 13, 5, 8, 3.5, 1.5, False]
    assert got["prompt"] is None, "this task takes none"
    replacing = mode == "replacement"
    assert (got["replace_flag"], got["use_relighting_lora"]) == (replacing, replacing)
    assert (got["t5_fsdp"], got["dit_fsdp"], got["ulysses_size"]) == (False, False, 1)


def test_what_is_not_said_is_left_to_the_program(repo: Path, tmp_path: Path, folder: Path) -> None:
    wan(repo, relighting=False).make(asked(tmp_path, mode="replacement"), folder / "raw.mp4")
    got = json.loads((repo / "asked.json").read_text())
    assert [got[name] for name in ("sample_shift", "offload_model", "use_relighting_lora")] == [None, None, False]
    assert (got["refert_num"], got["sample_steps"], got["sample_guide_scale"]) == (1, 20, 1.0)


def test_several_gpus_are_one_torchrun(repo: Path, tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    made = wan(repo, gpus=2)
    assert made.can.gpus == 2
    made.make(asked(tmp_path), folder / "raw.mp4")
    got = json.loads((repo / "asked.json").read_text())
    assert (got["ulysses_size"], got["t5_fsdp"], got["dit_fsdp"]) == (2, True, True)


def test_the_derived_videos_are_those_that_the_pipeline_gets(repo: Path, tmp_path: Path) -> None:
    request = asked(tmp_path, mode="replacement")
    here = wan(repo).prepare(request, tmp_path / "here").inputs
    there = WanAnimate(WanAnimate.options_type.model_validate({"retarget": False})).prepare(request, tmp_path / "there").inputs
    assert {name: path.read_bytes() for name, path in here.items()} == {name: path.read_bytes() for name, path in there.items()}
    import decord  # what its repository reads them with

    for path in here.values():
        own, fps = media.read_frames(path)
        video = decord.VideoReader(str(path))
        assert fps == 30
        assert np.array_equal(video.get_batch(range(len(video))).asnumpy(), own)


def test_inputs_of_another_length_never_reach_the_program(repo: Path, tmp_path: Path, folder: Path) -> None:
    made = wan(repo)
    prepared = made.prepare(asked(tmp_path), tmp_path / "inputs")
    media.write_lossless(tmp_path / "short.mp4", media.read_frames(prepared.inputs["face"])[0][:12], 30.0)
    for words, inputs in {
        "'face': 12": {**prepared.inputs, "face": tmp_path / "short.mp4"},
        "have 12 frames, needed are 16": dict.fromkeys(prepared.inputs, tmp_path / "short.mp4"),
        "face are missing": {"pose": prepared.inputs["pose"]},
    }.items():
        with pytest.raises(BadInput, match=words):
            made.run(dataclasses.replace(prepared, inputs=inputs), folder / "raw.mp4")
    assert not (repo / "asked.json").exists()


# --- the entry


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"python": "python3"}, "absolute path"),
        ({"gpus": 3}, "divide the model's 40"),
        ({"overlap": 2}, "overlap"),
        ({"segment_frames": 12}, "4n\\+1"),
        ({"fps": 16}, "unknown key"),
        ({"seed": 1}, "unknown key"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(changed: dict[str, Any], told: str, repo: Path) -> None:
    with pytest.raises(BadRecipe, match=told):
        registry.create("wan_animate_cli", {**entry(repo), **changed})


def test_what_it_needs_to_run_is_said(repo: Path, tmp_path: Path, folder: Path) -> None:
    assert registry.create("wan_animate_cli", {}).unsaid() == ["python", "repo", "weights"]
    here = wan(repo)
    assert here.unsaid() == []
    assert [line for line in here.missing(here.options) if line != "no GPU"] == []
    absent = wan(repo, weights="/no/such/weights")
    assert "no /no/such/weights" in absent.missing(absent.options)
    assert "no Wan2.2: its options say where it is installed" in WanAnimateCLI.missing()
    with pytest.raises(Transient, match="can't be started"):
        wan(tmp_path / "nowhere").make(asked(tmp_path), folder / "raw.mp4")


def test_the_key_knows_the_program_and_the_weights_by_content(repo: Path, tmp_path: Path) -> None:
    def keyed(place: Path, **more: Any) -> dict[str, Any]:
        return WanAnimateCLI.keyed(entry(place, **more))

    first = keyed(repo)
    assert keyed(repo, timeout_s=9, python="/other/python", gpus=8, offload=True) == first
    assert all(keyed(repo, **{name: value}) != first for name, value in {"steps": 9, "overlap": 5, "relighting": False}.items())
    moved = tmp_path / "b" / "repo"
    shutil.copytree(repo, moved)
    shutil.copytree(tmp_path / "weights", tmp_path / "b" / "weights")
    assert keyed(moved) == first, "where they lie"
    for i, change in enumerate((moved / "generate.py", moved.parent / "weights" / "relighting_lora.ckpt")):
        other = tmp_path / f"c{i}"
        shutil.copytree(moved.parent, other)
        (other / change.relative_to(moved.parent)).write_text("changed")
        assert keyed(other / "repo") != first, change


def test_it_keeps_the_contract(repo: Path, tmp_path: Path) -> None:
    people = walkers(geometry=GEOMETRY)
    media.write_video(tmp_path / "clip.mp4", frames_of(people), 16.0)
    media.write_png(tmp_path / "painted.png", frames_of(people)[0])
    sample = Sample(tmp_path / "clip.mp4", people, (tmp_path / "painted.png",), GEOMETRY)
    found = conformance.examine(lambda: wan(repo), sample, tmp_path / "kit")
    assert [(one.rule, one.words) for one in found if one.state == "broken"] == []
    assert {one.rule for one in found if one.state == "not asked"} == {"people", "deterministic"}
