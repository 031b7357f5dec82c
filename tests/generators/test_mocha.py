"""MoCha's adapter: our serving script as it is, in a child process, on a stand-in for MoCha's package (tests/generators/standins/mocha).

The table is the fault matrix: each fault, the error that it has to become, and its code. No weights were used.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from moving import frames_of, video_request, walkers
from test_leash import group_of, wait_for

pytest.importorskip("torch", reason="the stand-in needs torch")

from generators import conformance, registry
from generators.base import VideoRequest
from generators.conformance import Sample
from generators.images import drawn
from generators.videos import mocha as adapter
from generators.videos.mocha import Mocha
from generators.workers.lines import ChildFault
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient
from manifests.recipe import GeneratorSpec
from manifests.records import Geometry

STANDINS = Path(__file__).parent / "standins"
MARKER = f"MOCHA_{os.getpid()}"
SIZE = (64, 112)
GEOMETRY = Geometry(frames=9, height=96, width=160)
FAULTS: dict[str, tuple[type[MotionpairError], str]] = {
    # what is made
    "too_few_frames": (BadOutput, "wrong_frames"),
    "too_many_frames": (BadOutput, "wrong_frames"),
    "wrong_size": (BadOutput, "wrong_size"),
    "turned": (BadOutput, "wrong_size"),
    "nan": (BadOutput, "black"),
    "black_end": (BadOutput, "black"),
    "frozen": (BadOutput, "frozen"),
    "nothing": (BadOutput, "no_output"),
    "empty": (BadOutput, "no_output"),
    "half": (BadOutput, "half_written"),
    # the process
    "hangs_at_once": (Transient, "transient"),
    "stops": (Transient, "transient"),
    "terminated": (Transient, "transient"),
    "raises_oom": (OutOfMemory, "out_of_memory"),
    "cublas": (OutOfMemory, "out_of_memory"),
    "cuda_oom": (OutOfMemory, "out_of_memory"),
    "killed": (OutOfMemory, "out_of_memory"),
    "full": (OutOfSpace, "out_of_space"),
    "disk_full": (OutOfSpace, "out_of_space"),
    "raises": (ChildFault, "child_fault"),
    "empty_list": (ChildFault, "child_fault"),
    "segfault": (MotionpairError, "error"),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, and weights of a kind."""
    root = tmp_path_factory.mktemp("mocha")
    (root / "wan").mkdir()
    for name in ("diffusion_pytorch_model-00001-of-00001.safetensors", "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"):
        (root / "wan" / name).write_bytes(b"weights")
    import torch

    torch.save(torch.nn.Linear(2, 2).state_dict(), root / "step.ckpt")
    return root


def entry(installed: Path, fault: str = "", **more: Any) -> dict[str, Any]:
    """The options of a recipe's entry."""
    env = {"STANDIN_FAULT": fault, "STANDIN_STARTS": str(installed / "starts.txt"), "OMP_NUM_THREADS": "1", **more.pop("env", {})}
    return {
        "python": sys.executable, "repo": str(STANDINS / "mocha"), "weights": str(installed / "wan"),
        "checkpoint": str(installed / "step.ckpt"),
        "env": env, "size": SIZE, "face": False, "timeout_s": 60, **more,
    }  # fmt: skip


def mocha(installed: Path, fault: str = "", **more: Any) -> Mocha:
    made = registry.create("mocha", entry(installed, fault, **more))
    assert isinstance(made, Mocha)
    return made


def asked(folder: Path, count: int = 1, geometry: Geometry = GEOMETRY, **more: Any) -> VideoRequest:
    return video_request(folder, mode="replacement", clip_people=walkers(count, geometry), geometry=geometry, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "call").mkdir()
    return tmp_path / "call"


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def loaded(installed: Path) -> Iterator[Mocha]:
    """One for all; `fails` says what it does next."""
    (installed / "fault.txt").touch()
    made = mocha(installed, env={"STANDIN_FAULT_FILE": str(installed / "fault.txt"), MARKER: "1"}, timeout_s=4)
    made.setup()
    yield made
    made.end()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_apart_and_the_next_request_is_served(
    fault: str, loaded: Mocha, installed: Path, tmp_path: Path, folder: Path
) -> None:
    error, code = FAULTS[fault]
    request = asked(tmp_path)
    (installed / "fault.txt").write_text(fault)
    with pytest.raises(MotionpairError) as caught:
        loaded.make(request, folder / "raw.mp4")
    assert (type(caught.value), caught.value.code) == (error, code), str(caught.value)
    assert "\n" not in str(caught.value)
    assert {name for name in left(folder) if not name.startswith("inputs")} == set(), "nothing partial is left"
    if not loaded._child.alive:
        wait_for(0, MARKER, 5)
    loaded.make(request, folder / "raw.mp4")
    assert media.probe(folder / "raw.mp4").frames == 9


def test_the_video_has_the_clips_rate_and_order_not_30_fps(loaded: Mocha, installed: Path, tmp_path: Path, folder: Path) -> None:
    for fps in (16.0, 24.0):
        geometry = GEOMETRY.model_copy(update={"fps": fps})
        loaded.make(asked(tmp_path, geometry=geometry), folder / "raw.mp4")
        seen = media.probe(folder / "raw.mp4")
        assert (seen.frames, seen.fps, seen.height, seen.width) == (9, fps, *SIZE)
    assert left(folder) == ["inputs", "inputs/first_mask0.png", "inputs/reference0.png", "raw.mp4"]
    starts = (installed / "starts.txt").read_text().splitlines()
    assert starts[-2:] == ["7 9 False ' '"] * 2


def test_each_character_is_one_pass_over_the_result_of_the_one_before(loaded: Mocha, installed: Path, tmp_path: Path, folder: Path) -> None:
    request = asked(tmp_path, count=2)
    for i, colour in enumerate(((200, 0, 0), (0, 200, 0))):
        media.write_png(tmp_path / f"p{i}.png", np.full((96, 160, 3), colour, np.uint8))
    request = dataclasses.replace(request, painted=(tmp_path / "p0.png", tmp_path / "p1.png"))
    before = len((installed / "starts.txt").read_text().splitlines())
    loaded.make(request, folder / "raw.mp4")
    assert (installed / "starts.txt").read_text().splitlines()[before:] == ["7 9 False ' '", "8 9 False ' '"]
    first = media.read_frames(folder / "raw.mp4")[0][0].astype(int)
    masks = [media.read_image(folder / "inputs" / f"first_mask{i}.png")[..., 0] > 127 for i in range(2)]
    assert not (masks[0] & masks[1]).any()
    for mask, colour in zip(masks, ((200, 0, 0), (0, 200, 0)), strict=True):
        inner = cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert inner.any()
        assert np.median(np.abs(first[inner] - colour)) < 8
    assert np.abs(first[~masks[0] & ~masks[1]] - np.array([50, 90, 120])).mean() < 30


def test_an_upright_clip_gets_the_size_turned_and_a_short_one_its_true_count(
    loaded: Mocha, installed: Path, tmp_path: Path, folder: Path
) -> None:
    geometry = Geometry(frames=5, height=160, width=96)
    loaded.make(asked(tmp_path, geometry=geometry), folder / "raw.mp4")
    seen = media.probe(folder / "raw.mp4")
    assert (seen.frames, seen.height, seen.width) == (5, *SIZE[::-1])
    assert (installed / "starts.txt").read_text().splitlines()[-1] == "7 5 False ' '"


def test_the_face_close_up_is_found_and_left_out_where_there_is_none(installed: Path, tmp_path: Path, folder: Path) -> None:
    figure = drawn.mannequin(6, 512)[..., :3]
    figure = cv2.resize(figure, (figure.shape[1] * 512 // figure.shape[0], 512))
    picture = np.full((512, 832, 3), figure[0, 0], np.uint8)
    picture[:, 300 : 300 + figure.shape[1]] = figure
    geometry = Geometry(frames=9, height=512, width=832)
    request = asked(tmp_path, geometry=geometry)
    media.write_png(tmp_path / "whole.png", picture)
    made = mocha(installed, face=True, size=(480, 832))
    given = made.prepare(dataclasses.replace(request, painted=(tmp_path / "whole.png",)), folder / "inputs").inputs
    close = media.read_image(given["face0"])
    assert close.shape == (480, 832, 3)
    smaller = [cv2.resize(close, (w, w * 480 // 832), interpolation=cv2.INTER_AREA) for w in range(100, 200, 10)]
    found = [cv2.minMaxLoc(cv2.matchTemplate(picture, small, cv2.TM_CCOEFF_NORMED)) for small in smaller]
    _, score, _, (left_px, top_px) = max(found, key=lambda one: one[1])
    assert score > 0.95, "a part of the picture, enlarged and not stretched"
    assert (top_px < 60, 380 < left_px + 75 < 600) == (True, True), "its head"
    assert "face0" not in made.prepare(request, folder / "other").inputs, "a plain block has no face"


def test_who_is_not_in_the_first_frame_can_not_be_replaced(loaded: Mocha, tmp_path: Path, folder: Path) -> None:
    people = walkers(1, GEOMETRY)
    people.masks_PTHW[:, 0] = 0
    with pytest.raises(BadInput) as refused:
        loaded.make(dataclasses.replace(asked(tmp_path), clip_people=people), folder / "raw.mp4")
    assert refused.value.code == "not_in_first_frame"


def test_what_is_not_on_this_machine_may_be_on_another(installed: Path, tmp_path: Path, folder: Path) -> None:
    for change, told in (
        ({"checkpoint": "/no/such.ckpt"}, "not on this machine: /no/such.ckpt"),
        ({"weights": str(tmp_path)}, "models_t5_umt5"),
        ({"repo": str(tmp_path)}, "MoCha can't be imported"),
        ({"python": "/no/such/python"}, "exit status 127"),
    ):
        made = mocha(installed, **change)
        with pytest.raises(Transient, match=told):
            made.make(asked(tmp_path), folder / "raw.mp4")
        made.end()


def test_one_that_does_not_load_is_given_up(installed: Path, tmp_path: Path) -> None:
    marker = f"MOCHA_{os.getpid()}_load"
    made = mocha(installed, "never_loads", load_timeout_s=6, env={marker: "1"})
    began = time.monotonic()
    with pytest.raises(Transient, match="no answer in 6 s"):
        made.setup()
    assert time.monotonic() - began < 20
    wait_for(0, marker, 5)
    assert not group_of(marker)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"frames_max": 80}, "4n\\+1"),
        ({"size": [832, 480]}, "lying video"),
        ({"repo": "here"}, "absolute path"),
        ({"fps": 30}, "unknown key"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(changed: dict[str, Any], told: str, installed: Path) -> None:
    with pytest.raises(BadRecipe, match=told):
        registry.create("mocha", {**entry(installed), **changed})


def test_what_it_needs_to_run_is_said_and_its_licence_has_to_be_accepted(installed: Path) -> None:
    assert registry.create("mocha", {}).unsaid() == ["python", "repo", "weights", "checkpoint"]
    made = mocha(installed, device="cpu")
    assert (made.unsaid(), made.missing(made.options), made.can.gpus) == ([], [], 0)
    assert "no MoCha: its options say where it is installed" in Mocha.missing()
    assert registry.licences_to_accept(registry.capabilities_of(GeneratorSpec(kind="mocha"))) == [
        "its code's licence is none", "its weights' licence is none",
    ]  # fmt: skip


def test_the_key_knows_program_serving_script_and_weights_by_content(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keyed(root: Path, repo: Path = STANDINS / "mocha", **more: Any) -> dict[str, Any]:
        return Mocha.keyed({**entry(root), "env": {}, "repo": str(repo), **more})

    first = keyed(installed)
    assert keyed(installed, python="/other", timeout_s=9, device="cpu") == first
    assert len({str(keyed(installed, **change)) for change in ({}, {"steps": 50}, {"env": {"X": "1"}})}) == 3
    moved = Path(shutil.copytree(installed, tmp_path / "moved"))
    assert keyed(moved) == first
    for i, name in enumerate(("step.ckpt", "wan/Wan2.1_VAE.pth")):
        other = Path(shutil.copytree(installed, tmp_path / f"c{i}"))
        (other / name).write_bytes(b"changed")
        assert keyed(other) != first, name
    repo = Path(shutil.copytree(STANDINS / "mocha", tmp_path / "repo"))
    (repo / "diffsynth" / "__init__.py").write_text("changed")
    assert keyed(installed, repo) != first
    script = tmp_path / "mocha_serve.py"
    script.write_text(adapter.SERVE.read_text() + "\n")
    monkeypatch.setattr(adapter, "SERVE", script)
    assert keyed(installed) != first, "our own script"


def test_it_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    people = walkers(2, GEOMETRY)
    media.write_video(tmp_path / "clip.mp4", frames_of(people), 16.0)
    for i in range(2):
        media.write_png(tmp_path / f"painted{i}.png", frames_of(people)[i])
    sample = Sample(tmp_path / "clip.mp4", people, (tmp_path / "painted0.png", tmp_path / "painted1.png"), GEOMETRY)
    found = conformance.examine(lambda: mocha(installed), sample, tmp_path / "kit")
    assert [(one.rule, one.words) for one in found if one.state == "broken"] == []
    assert {one.rule for one in found if one.state == "not asked"} == {"deterministic"}
