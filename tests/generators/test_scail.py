"""SCAIL by both branches of its repository, against stand-ins (tests/generators/standins) that honour its arguments, lines and files.

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
from posing import people_at
from test_leash import group_of, wait_for

from factory import steps
from factory.work.making import AnimateRequest, generate_video
from factory.workbench import Workbench
from generators import conformance, registry
from generators.base import VideoRequest
from generators.conformance import Sample
from generators.videos.scail import Scail
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient
from manifests.records import Geometry

STANDINS = Path(__file__).parent / "standins"
SIZE = (64, 112)
GEOMETRY = Geometry(frames=9, height=64, width=96)
FAULTS: dict[str, tuple[type[MotionpairError], str]] = {
    # the file
    "too_few_frames": (BadOutput, "wrong_frames"),
    "too_many_frames": (BadOutput, "wrong_frames"),
    "wrong_size": (BadOutput, "wrong_size"),
    "turned": (BadOutput, "wrong_size"),
    "wrong_fps": (BadOutput, "wrong_fps"),
    "nan": (BadOutput, "black"),
    "black_end": (BadOutput, "black"),
    "frozen": (BadOutput, "frozen"),
    "nothing": (BadOutput, "no_output"),
    "empty": (BadOutput, "no_output"),
    "elsewhere": (BadOutput, "no_output"),
    "link": (BadOutput, "no_output"),
    "half": (BadOutput, "half_written"),
    "damaged": (BadOutput, "half_written"),
    "text": (BadOutput, "half_written"),
    # the process
    "hangs_at_once": (Transient, "transient"),
    "hangs_with_result": (Transient, "transient"),
    "terminated": (Transient, "transient"),
    "cuda_oom": (OutOfMemory, "out_of_memory"),
    "killed": (OutOfMemory, "out_of_memory"),
    "disk_full": (OutOfSpace, "out_of_space"),
    "crash": (MotionpairError, "error"),
    "segfault": (MotionpairError, "error"),
}
WORKERS = ("sat", "wan")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with both scripts, and weights of a kind."""
    shutil.copytree(STANDINS, tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "repo" / "configs").mkdir()
    for name in ("model.yaml", "sampling.yaml"):
        (tmp_path / "repo" / "configs" / name).write_text("input_type: cli\n")
    (tmp_path / "weights").mkdir()
    (tmp_path / "scail.safetensors").write_bytes(b"weights")
    return tmp_path / "repo"


def entry(repo: Path, worker: str, fault: str = "", **more: Any) -> dict[str, Any]:
    """The options of a recipe's entry."""
    where = {"base": ["configs/model.yaml", "configs/sampling.yaml"]}
    if worker == "wan":
        where = {"weights": str(repo.parent / "weights"), "scail_path": str(repo.parent / "scail.safetensors")}
    limit = 3 if fault.startswith("hangs") else 60
    return {
        "worker": worker, "python": sys.executable, "repo": str(repo), "env": {"STANDIN_FAULT": fault}, "size": SIZE,
        "frame_counts": [9, 13], "retarget": False, "timeout_s": limit, "load_timeout_s": 60, **where, **more,
    }  # fmt: skip


def scail(repo: Path, worker: str, fault: str = "", **more: Any) -> Scail:
    made = registry.create("scail", entry(repo, worker, fault, **more))
    assert isinstance(made, Scail)
    return made


def asked(folder: Path, **more: Any) -> VideoRequest:
    geometry = more.pop("geometry", GEOMETRY)
    return video_request(folder, clip_people=walkers(geometry=geometry), geometry=geometry, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "call").mkdir()
    return tmp_path / "call"


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_apart_and_the_next_request_is_served(fault: str, worker: str, repo: Path, tmp_path: Path, folder: Path) -> None:
    error, code = FAULTS[fault]
    once = {"STANDIN_FAULT": fault, "STANDIN_FAULT_ONCE": str(tmp_path / "once"), f"SCAIL_{os.getpid()}": fault}
    made = scail(repo, worker, fault, env=once)
    request = asked(tmp_path)
    began = time.monotonic()
    try:
        with pytest.raises(MotionpairError) as caught:
            made.make(request, folder / "raw.mp4")
        assert (type(caught.value), caught.value.code) == (error, code), str(caught.value)
        assert "\n" not in str(caught.value)
        assert {name for name in left(folder) if not name.startswith("inputs")} == set(), "nothing partial is left"
        assert not list((repo / "samples").glob("*"))
        assert time.monotonic() - began < 20
        if worker == "sat":  # the other is started for each request anyway
            made.make(request, folder / "raw.mp4")
            assert media.probe(folder / "raw.mp4").frames == 9
    finally:
        made.end()
    wait_for(0, f"SCAIL_{os.getpid()}", 5)


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("fault", ["", "floods", "leaves_a_child"])
def test_what_harms_nothing_is_no_fault(fault: str, worker: str, repo: Path, tmp_path: Path, folder: Path) -> None:
    made, request = scail(repo, worker, fault), asked(tmp_path)
    inputs = {path: path.read_bytes() for path in (request.clip, *request.painted)}
    try:
        for out in (folder / "one.mp4", folder / "two.mp4"):
            made.make(request, out)
    finally:
        made.end()
    assert {path: path.read_bytes() for path in inputs} == inputs
    assert left(folder) == ["inputs", "inputs/ref.png", "inputs/rendered.mp4", "one.mp4", "two.mp4"]
    assert not list((repo / "samples").glob("*"))
    seen = media.probe(folder / "one.mp4")
    assert (seen.frames, seen.fps, seen.height, seen.width) == (9, 16, *SIZE)


TAKEN = {"half": "rejected", "hangs_with_result": "transient", "killed": "out_of_memory", "disk_full": "out_of_space", "crash": "error"}


@pytest.mark.parametrize("worker", WORKERS)
def test_the_engine_takes_each_sort_as_its_rules_say_and_keeps_nothing_of_it(worker: str, repo: Path, tmp_path: Path) -> None:
    bench, source = Workbench(str(tmp_path / "store"), {}), asked(tmp_path)
    buffer = io.BytesIO()
    source.clip_people.save(buffer)
    put = bench.store.put
    request = AnimateRequest(
        kind="scail", options={}, mode="animation", clip_video=put(source.clip, ".mp4"), clip=put(buffer.getvalue(), ".npz"), driven=(0,),
        painted=(put(source.painted[0], ".png"),), prompt=source.prompt, geometry=GEOMETRY, seed=7,
    )  # fmt: skip
    before = artifacts(tmp_path / "store")
    for fault, taken in TAKEN.items():
        made = request.model_copy(update={"options": json.loads(json.dumps(entry(repo, worker, fault)))})
        key = steps.key_of(generate_video, made)
        reply = bench.run("generate_video", made.model_dump(mode="json"), key)
        assert (reply["status"] if reply["type"] == "outcome" else reply["response"]) == taken, fault
        known = bench.store.get_outcome(key)
        remembered = known is not None and known.cost is not None and known.cost.seconds > 0 and not known.artifacts
        assert remembered == (taken == "rejected"), "only what the work is to blame for is remembered, with its cost"
    assert artifacts(tmp_path / "store") == before


def artifacts(store: Path) -> dict[str, bytes]:
    return {name: (store / name).read_bytes() for name in left(store) if (store / name).is_file() and not name.startswith("outcomes/")}


# --- sat: the program stays


def test_one_start_serves_many_requests_and_seeds_unless_they_are_wanted(repo: Path, tmp_path: Path, folder: Path) -> None:
    request = asked(tmp_path)
    for seeds, starts in (("process", "7\n"), ("request", "7\n8\n7\n")):
        made = scail(repo, "sat", seeds=seeds)
        digests = []
        try:
            for seed in (7, 7, 8, 7):
                made.make(dataclasses.replace(request, seed=seed), folder / "raw.mp4")
                digests.append((folder / "raw.mp4").read_bytes())
        finally:
            made.end()
        assert (repo / "starts.txt").read_text() == starts
        assert (digests[0] == digests[3]) == (seeds == "request"), "only an own start makes a seed mean one video"
        assert digests[0] != digests[1], "a retry never gets the same noise"
        (repo / "starts.txt").unlink()


def test_one_that_dies_between_requests_is_started_anew(repo: Path, tmp_path: Path, folder: Path) -> None:
    made, request = scail(repo, "sat", "dies_between"), asked(tmp_path)
    try:
        made.make(request, folder / "one.mp4")
        assert made._program is not None
        assert made._program._held is not None
        made._program._held.process.stdin.write(b"go\n")  # type: ignore[union-attr]
        began = time.monotonic()
        while made._program.alive:
            assert time.monotonic() - began < 10
            time.sleep(0.05)
        made.make(request, folder / "two.mp4")
    finally:
        made.end()
    assert (repo / "starts.txt").read_text() == "7\n7\n"


def test_one_that_does_not_load_or_is_not_here_may_be_elsewhere(repo: Path, tmp_path: Path, folder: Path) -> None:
    request = asked(tmp_path)
    slow = scail(repo, "sat", "never_loads", load_timeout_s=1.5)
    with pytest.raises(Transient, match=r"had not loaded after 1\.5 s"):
        slow.make(request, folder / "raw.mp4")
    for worker in WORKERS:
        with pytest.raises(Transient, match="exit code 127"):
            scail(repo, worker, python="/no/such/python").make(request, folder / "raw.mp4")
        with pytest.raises(Transient, match="can't be started"):
            scail(tmp_path / "nowhere", worker).make(request, folder / "raw.mp4")


def test_the_program_ends_with_its_owner(repo: Path, tmp_path: Path, folder: Path) -> None:
    marker = f"SCAIL_{os.getpid()}_owner"
    made = scail(repo, "sat", env={marker: "1"})
    made.make(asked(tmp_path), folder / "raw.mp4")
    assert group_of(marker)
    made.end()
    wait_for(0, marker, 5)


# --- wan: a start for each request


def test_arguments_of_the_wan_branch(repo: Path, tmp_path: Path, folder: Path) -> None:
    request = asked(tmp_path, prompt="--seed 1; $(rm -rf /) {seed}\n'\"", seed=2**40 + 5)
    scail(repo, "wan", steps=8, shift=1.5).make(request, folder / "raw.mp4")
    got = json.loads((repo / "asked.json").read_text())
    assert got["prompt"] == "--seed 1; $(rm -rf /) {seed} '\""
    names = ("target_h", "target_w", "base_seed", "model", "sample_steps", "sample_shift", "sample_guide_scale")
    assert [got[name] for name in names] == [*SIZE, 5, "SCAIL-14B", 8, 1.5, 5.0]


def test_several_gpus_are_one_torchrun(repo: Path, tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    made = scail(repo, "wan", gpus=2)
    assert made.can.gpus == 2
    made.make(asked(tmp_path), folder / "raw.mp4")
    assert json.loads((repo / "asked.json").read_text())["ulysses_size"] == 2


# --- what it is given


def test_inputs_are_turned_like_the_reference_and_nothing_is_stretched(repo: Path, tmp_path: Path) -> None:
    for geometry, size in ((GEOMETRY, SIZE), (Geometry(frames=9, height=96, width=64), SIZE[::-1])):
        made = scail(repo, "wan").prepare(asked(tmp_path, geometry=geometry), tmp_path / "inputs")
        reference, (pose, fps) = media.read_image(made.inputs["reference"]), media.read_frames(made.inputs["pose"])
        assert (reference.shape[:2], pose.shape, fps) == (size, (9, *size, 3), 16.0)
        picture = media.read_image(made.painted[0])
        height, width = geometry.height, geometry.width
        h, w = (64, 96) if size == SIZE else (96, 64)
        top, start = (size[0] - h) // 2, (size[1] - w) // 2
        assert (h, w) == (height, width)
        assert np.array_equal(reference[top : top + h, start : start + w], picture)
        assert np.array_equal(reference[0, 0], picture[0, 0]), "beyond the picture its edge"


def test_a_longer_pair_holds_the_last_pose_and_a_shorter_one_is_refused(repo: Path, tmp_path: Path, folder: Path) -> None:
    made = scail(repo, "wan", frame_counts=[9, 17])
    longer = asked(tmp_path, geometry=Geometry(frames=13, height=64, width=96))
    made.make(longer, folder / "raw.mp4")
    pose, _ = media.read_frames(folder / "inputs" / "rendered.mp4")
    assert len(pose) == 17
    assert np.abs(pose[16].astype(int) - pose[12]).mean() < 0.5 < np.abs(pose[12].astype(int) - pose[0]).mean()
    assert media.probe(folder / "raw.mp4").frames == 17
    with pytest.raises(BadInput, match="takes no clip below 9 frames") as refused:
        made.make(asked(tmp_path, geometry=Geometry(frames=5, height=64, width=96)), folder / "raw.mp4")
    assert refused.value.code == "geometry_unsupported"


@pytest.mark.parametrize(("frames", "made"), [(61, None), (65, 65), (69, 81), (77, 81), (81, 81), (85, None)])
def test_the_published_frame_rule(frames: int, made: int | None) -> None:
    geometry = Geometry(frames=frames, height=512, width=896)
    assert Scail.capabilities.frames_for(geometry) == made
    assert bool(Scail.capabilities.misfits(geometry)) == (made is None)
    assert conformance.sample_geometry(Scail.capabilities) == Geometry(frames=65, height=512, width=288), "the kit asks what it can make"


def test_poses_are_moved_onto_the_painted_character(repo: Path, tmp_path: Path) -> None:
    people = people_at((100, 160), frames=9)
    here = people_at((400, 160), frames=1)
    g = Geometry(frames=9, height=people.size_hw[0], width=people.size_hw[1])
    media.write_video(tmp_path / "clip.mp4", np.full((9, g.height, g.width, 3), 99, np.uint8), 16.0)
    media.write_png(tmp_path / "painted.png", np.full((g.height, g.width, 3), 99, np.uint8))
    request = VideoRequest("animation", tmp_path / "clip.mp4", people, (tmp_path / "painted.png",), "", g, 1)
    size = (g.height // 16 * 16, g.width // 16 * 16 + 64)

    def middle(**more: Any) -> tuple[str, float]:
        made = scail(repo, "wan", size=size, frame_counts=[9]).prepare(dataclasses.replace(request, **more), tmp_path / "inputs")
        drawn = media.read_frames(made.inputs["pose"])[0][0].max(axis=(0, 2)) > 60
        return made.inputs["pose"].name, float(np.flatnonzero(drawn).mean())

    assert middle() == ("rendered.mp4", pytest.approx(100 + 32, abs=15))
    assert middle(reference_people=here) == ("rendered_aligned.mp4", pytest.approx(400 + 32, abs=15))


def test_prompts_that_the_program_would_misread_are_refused(repo: Path, tmp_path: Path, folder: Path) -> None:
    for prompt in ("a@@b", "a\0b", "x (Ctrl-D quit): "):
        with pytest.raises(BadInput) as refused:
            scail(repo, "sat").make(asked(tmp_path, prompt=prompt), folder / "raw.mp4")
        assert refused.value.code == "bad_prompt"


# --- the entry


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"worker": "sta"}, "worker"),
        ({"python": "python3"}, "absolute path"),
        ({"frame_counts": [64]}, "4n\\+1"),
        ({"size": [896, 512]}, "lying video"),
        ({"worker": "wan", "gpus": 3}, "divide the model's 40"),
        ({"worker": "sat", "gpus": 2}, "one GPU"),
        ({"seed": 1}, "unknown key"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(changed: dict[str, Any], told: str, repo: Path) -> None:
    with pytest.raises(BadRecipe, match=told):
        registry.create("scail", {**entry(repo, "wan"), **changed})


def test_what_it_needs_to_run_is_said(repo: Path) -> None:
    assert registry.create("scail", {}).unsaid() == ["python", "repo", "weights", "scail_path"]
    assert registry.create("scail", {"worker": "sat"}).unsaid() == ["python", "repo", "base"]
    here = scail(repo, "sat")
    assert here.unsaid() == []
    assert [line for line in here.missing(here.options) if line != "no GPU"] == []
    absent = scail(repo, "wan", scail_path="/no/such.safetensors")
    assert "no /no/such.safetensors" in absent.missing(absent.options)
    assert "no SCAIL: its options say where it is installed" in Scail.missing()


def test_the_key_knows_the_program_and_the_weights_by_content(repo: Path, tmp_path: Path) -> None:
    def keyed(place: Path, **more: Any) -> dict[str, Any]:
        return Scail.keyed(entry(place, "wan", **more))

    first = keyed(repo)
    assert keyed(repo, timeout_s=9, python="/other/python", gpus=8) == first
    assert keyed(repo, steps=9) != first
    (tmp_path / "b").mkdir()
    moved = Path(shutil.copytree(repo, tmp_path / "b" / "moved"))
    for name in ("weights", "scail.safetensors"):
        (shutil.copytree if name == "weights" else shutil.copy)(tmp_path / name, moved.parent / name)
    (moved / "samples").mkdir()
    (moved / "samples" / "old.json").write_text("{}")
    assert keyed(moved) == first, "where they lie, and what it has written"
    for i, change in enumerate((moved / "generate.py", moved / "configs" / "model.yaml", moved.parent / "scail.safetensors")):
        other = tmp_path / f"c{i}"
        shutil.copytree(moved.parent, other)
        (other / change.relative_to(moved.parent)).write_text("changed")
        assert keyed(other / "moved") != first, change


@pytest.mark.parametrize("worker", WORKERS)
def test_it_keeps_the_contract(worker: str, repo: Path, tmp_path: Path) -> None:
    people = walkers(geometry=GEOMETRY)
    media.write_video(tmp_path / "clip.mp4", frames_of(people), 16.0)
    media.write_png(tmp_path / "painted.png", frames_of(people)[0])
    sample = Sample(tmp_path / "clip.mp4", people, (tmp_path / "painted.png",), GEOMETRY)
    found = conformance.examine(lambda: scail(repo, worker), sample, tmp_path / "kit")
    assert [(one.rule, one.words) for one in found if one.state == "broken"] == []
    assert {one.rule for one in found if one.state == "not asked"} == {"people", "deterministic"}
