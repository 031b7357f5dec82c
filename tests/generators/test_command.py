"""`kind: command` against a stand-in executable that fails in every way that a research repository can.

The table below is the fault matrix: each fault, the error that it has to become, its code, and how the engine takes it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moving import frames_of, image_request, stored_video_request, video_request, walkers

from factory import steps
from factory.work.making import AnimateRequest, generate_video
from factory.workbench import Workbench
from generators import registry, weights
from generators.base import VideoGenerator
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient
from manifests.recipe import GeneratorSpec, load_recipe
from manifests.records import Geometry

STANDIN = str(Path(__file__).parent / "standin_model.py")
ARGV: list[Any] = [
    sys.executable, STANDIN, "--task", "{mode}", "--clip", "{clip}", "--image", "{painted}", "--prompt={prompt}", "--seed", "{seed}",
    "--frames", "{frames}", "--fps", "{fps}", "--height", "{height}", "--width", "{width}", "--save_file", "{out}",
]  # fmt: skip
OWN_NAME: list[Any] = [*ARGV[:-2], "--save_dir", "{folder}"]

FAULTS: dict[str, tuple[type[MotionpairError], str, str]] = {
    # the file
    "too_few_frames": (BadOutput, "wrong_frames", "rejected"),
    "too_many_frames": (BadOutput, "wrong_frames", "rejected"),
    "wrong_size": (BadOutput, "wrong_size", "rejected"),
    "wrong_fps": (BadOutput, "wrong_fps", "rejected"),
    "nan": (BadOutput, "black", "rejected"),
    "black_end": (BadOutput, "black", "rejected"),
    "frozen": (BadOutput, "frozen", "rejected"),
    "nothing": (BadOutput, "no_output", "rejected"),
    "empty": (BadOutput, "no_output", "rejected"),
    "elsewhere": (BadOutput, "no_output", "rejected"),
    "link": (BadOutput, "no_output", "rejected"),
    "half": (BadOutput, "half_written", "rejected"),
    "damaged": (BadOutput, "half_written", "rejected"),
    "text": (BadOutput, "half_written", "rejected"),
    # the process
    "hangs_at_once": (Transient, "transient", "transient"),
    "hangs_with_result": (Transient, "transient", "transient"),
    "falls_silent": (Transient, "transient", "transient"),
    "busy": (Transient, "transient", "transient"),
    "terminated": (Transient, "transient", "transient"),
    "cuda_oom": (OutOfMemory, "out_of_memory", "out_of_memory"),
    "killed": (OutOfMemory, "out_of_memory", "out_of_memory"),
    "disk_full": (OutOfSpace, "out_of_space", "out_of_space"),
    "refuses": (BadInput, "refused", "rejected"),
    "crash": (MotionpairError, "error", "error"),
    "segfault": (MotionpairError, "error", "error"),
}
HARMLESS = ("", "floods", "spoils_inputs", "skips_what_exists", "leaves_a_child")


def entry(fault: str = "", **more: Any) -> dict[str, Any]:
    """The options of a recipe's entry."""
    limits = {"timeout_s": 3 if fault.startswith("hangs") else 60, "progress": r"step \d+/\d+"}
    if fault == "falls_silent":
        limits["silent_s"] = 2
    can = {"modes": ["animation", "replacement"], "deterministic": True, "code_licence": "Apache-2.0", "weights_licence": "none"}
    return {"argv": ARGV, "env": {"STANDIN_FAULT": fault}, **limits, **can, **more}


def program(fault: str = "", **more: Any) -> VideoGenerator:
    made = registry.create("command", entry(fault, **more))
    assert isinstance(made, VideoGenerator)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "call").mkdir()
    return tmp_path / "call"


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Workbench, AnimateRequest]:
    """A bench over a real store that holds the clip, its people and a painted picture."""
    bench = Workbench(str(tmp_path / "store"), {})
    return bench, stored_video_request(bench, tmp_path / "material", "command", entry())


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_apart(fault: str, tmp_path: Path, folder: Path) -> None:
    error, code, _ = FAULTS[fault]
    began = time.monotonic()
    with pytest.raises(MotionpairError) as caught:
        program(fault).make(video_request(tmp_path), folder / "raw.mp4")
    assert (type(caught.value), caught.value.code) == (error, code), str(caught.value)
    assert "\n" not in str(caught.value)
    assert [name for name in left(folder) if not name.startswith("inputs/")] == [], "nothing partial is left"
    assert time.monotonic() - began < 20


def test_the_engine_takes_each_fault_as_its_rules_say_and_keeps_nothing_of_it(stored: tuple[Workbench, AnimateRequest]) -> None:
    bench, request = stored
    store = Path(bench.store.url)
    before = {name: (store / name).read_bytes() for name in left(store)}
    assert len(before) == 3
    wrong = {}
    for fault, (_, code, taken) in FAULTS.items():
        asked = request.model_copy(update={"options": entry(fault)})
        key = steps.key_of(generate_video, asked)
        reply = bench.run("generate_video", asked.model_dump(mode="json"), key)
        got = (reply["status"], reply["reason"]) if reply["type"] == "outcome" else (reply["response"], code)
        known = bench.store.get_outcome(key)
        remembered = known is not None and known.cost is not None and known.cost.seconds > 0 and not known.artifacts
        if got != (taken, code) or remembered != (taken == "rejected"):
            wrong[fault] = (got, remembered)
    assert wrong == {}
    assert {name: (store / name).read_bytes() for name in left(store) if not name.startswith("outcomes/")} == before


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_harms_nothing_is_no_fault(fault: str, tmp_path: Path, folder: Path) -> None:
    request = video_request(tmp_path)
    inputs = {path: path.read_bytes() for path in (request.clip, *request.painted)}
    for out in (folder / "one.mp4", folder / "two.mp4"):
        program(fault, argv=OWN_NAME, output="*_result.mp4").make(request, out)
    assert (folder / "one.mp4").read_bytes() == (folder / "two.mp4").read_bytes(), "names that collide are in folders of their own"
    assert {path: path.read_bytes() for path in inputs} == inputs
    assert left(folder) == ["inputs/clip.mp4", "one.mp4", "two.mp4"]


def test_a_pattern_that_two_files_match_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadOutput, match="left 2 files"):
        program("two", argv=OWN_NAME, output="*.mp4").make(video_request(tmp_path), folder / "raw.mp4")


def test_a_program_that_is_not_here_may_be_elsewhere(tmp_path: Path, folder: Path) -> None:
    absent = program(argv=["no-such-program", "{out}"])
    assert absent.missing(absent.options) == ["no program no-such-program"]
    with pytest.raises(Transient, match="exit code 127"):
        absent.make(video_request(tmp_path), folder / "raw.mp4")
    with pytest.raises(Transient, match="can't be started"):
        program(cwd=str(tmp_path / "nowhere")).make(video_request(tmp_path), folder / "raw.mp4")


def test_how_far_it_came_is_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Transient, match=r"2 s without a sign of life; its last progress: step 2/3"):
        program("falls_silent").make(video_request(tmp_path), folder / "raw.mp4")


ECHO = "import sys, json; json.dump(sys.argv[1:], open(sys.argv[1], 'w'))"


def echoed(folder: Path, request: Any, *argv: Any, **more: Any) -> list[str]:
    """The arguments as the program got them."""
    import json

    made = registry.create("command", entry(argv=[sys.executable, "-c", ECHO, "{out}", *argv], **more))
    assert isinstance(made, VideoGenerator)
    out = folder / "echo.json"
    made.run(made.prepare(request, folder / "inputs"), out)
    return list(json.loads(out.read_text()))[1:]


def test_arguments_arrive_as_they_are_whatever_stands_in_them(tmp_path: Path, folder: Path) -> None:
    request = video_request(tmp_path, clip_people=walkers(2), prompt="--seed 1; $(rm -rf /) {seed}\n'\"")
    got = echoed(folder, request, "--prompt={prompt}", "{pictures}", ["--scene", "{scene}"], "{seed}x{frames}", people_max=2)
    assert got[0] == f"--prompt={request.prompt}"
    assert [Path(path).name for path in got[1:3]] == ["painted0.png", "painted1.png"]
    assert got[3:] == ["7x9"], "a group without its value is left out"
    with pytest.raises(BadInput, match=r"asks for \{scene\}"):
        echoed(folder, request, "{scene}", people_max=2)
    with pytest.raises(BadInput, match="zero byte"):
        echoed(folder, dataclasses.replace(request, prompt="a\0b"), "{prompt}", people_max=2)


DERIVED_COPY = "import sys, shutil; shutil.copytree(sys.argv[2].rsplit('/', 1)[0], sys.argv[3]); open(sys.argv[1], 'w').write('x')"


def test_derived_inputs_have_the_programs_own_size_rate_and_count(tmp_path: Path, folder: Path) -> None:
    names = ("clip", "skeleton", "cylinders", "mask", "background", "first_mask", "face")
    argv = [sys.executable, "-c", DERIVED_COPY, "{out}", "{clip}", str(tmp_path / "kept"), *(f"{{{name}}}" for name in names)]
    made = program(argv=argv, fps=30, frame_step=4, sizes=[[192, 256]], modes=["replacement"])
    request = video_request(tmp_path, mode="replacement")
    made.run(made.prepare(request, folder / "inputs"), folder / "x.mp4")
    for name in names[:-2]:
        frames, fps = media.read_frames(tmp_path / "kept" / f"{name}.mp4")
        assert (frames.shape, fps) == ((17, 192, 256, 3), 30.0), name
        assert frames.max() > 100, name
    mask, _ = media.read_frames(tmp_path / "kept" / "mask.mp4")
    background, _ = media.read_frames(tmp_path / "kept" / "background.mp4")
    clip, _ = media.read_frames(tmp_path / "kept" / "clip.mp4")
    assert set(np.unique(mask)) == {0, 255}
    assert background[mask[..., 0] > 0].mean() < 12
    assert np.abs(background[mask[..., 0] == 0].astype(int) - clip[mask[..., 0] == 0]).mean() < 3
    assert np.array_equal(media.read_image(tmp_path / "kept" / "first_mask.png"), mask[0])
    assert media.read_frames(tmp_path / "kept" / "face.mp4")[0].shape == (17, 512, 512, 3)
    assert made.can.inputs == set(names) - {"clip"}


def test_a_fixed_count_holds_the_last_frame(tmp_path: Path, folder: Path) -> None:
    made = program(argv=[*ARGV, "--pose", "{skeleton}"], frame_counts=[21])
    made.make(video_request(tmp_path), folder / "raw.mp4")
    pose, _ = media.read_frames(folder / "inputs" / "skeleton.mp4")
    assert len(pose) == 21
    assert np.abs(pose[20].astype(int) - pose[8]).mean() < 1 < np.abs(pose[8].astype(int) - pose[0]).mean()


# --- the entry


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"argv": []}, "at least 1 item"),
        ({"argv": ["prog", "{ou}", "{out}"]}, r"unknown placeholder \{ou\}"),
        ({"argv": ["prog", "{clip}"]}, r"argv has no \{out\}"),
        ({"argv": [["prog"], "{out}"]}, "argv begins with the program"),
        ({"output": "../x.mp4"}, "below the call's own folder"),
        ({"progress": "("}, "no regular expression"),
        ({"silent_s": 5, "progress": ""}, "give that too"),
        ({"modes": ["image", "pose"]}, "either images or some of"),
        ({"modes": []}, "at least 1 item"),
        ({"frame_counts": [81], "frame_step": 4}, "frame_counts says it all"),
        ({"sizes": [[480, 833]]}, "even and at least 16"),
        ({"env": {"A=B": "1"}}, "environment variable"),
        ({"argw": 1}, "unknown key"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRecipe, match=told):
        registry.create("command", {**entry(), **changed})


def test_what_changes_no_pixel_changes_no_key_and_what_does_does(
    stored: tuple[Workbench, AnimateRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, request = stored
    script = tmp_path / "a" / "model.py"
    script.parent.mkdir()
    script.write_text("print(1)")

    def key(**more: Any) -> str:
        options = entry(argv=["python3", str(script), "{out}"], **more.pop("options", {}))
        return steps.key_of(generate_video, request.model_copy(update={"options": {**options, **more}}))

    first = key()
    assert key(timeout_s=9, progress="", oom_pattern="x", cwd=str(tmp_path), gpus=2) == first
    assert key(env={"STANDIN_FAULT": "nan"}) != first
    assert key(fps=30) != first
    moved = tmp_path / "b" / "model.py"
    moved.parent.mkdir()
    moved.write_text("print(1)")
    assert key(argv=["/usr/bin/python3", str(moved), "{out}"]) == first, "where a program and its script lie"
    assert key(argv=["python3", "model.py", "{out}"], cwd=str(moved.parent)) == first
    assert key(argv=["python3", f"--script={moved}", "{out}"]) != first
    bare = key(argv=["python3", "model.py", "{out}"])
    monkeypatch.chdir(tmp_path / "a")
    assert key(argv=["python3", "model.py", "{out}"]) == bare, "where the command is typed"
    script.write_text("print(2)")
    os.utime(script, ns=(1, 1))
    assert key() != first, "what the script says"


RECIPE = """
recipe: own
seed: 1
geometry: {{frames: 9, fps: 16, sizes: [[96, 128]]}}
sources: [{{clips: clips, licence: cc0}}]
slices: {{a: {{task: animation, generator: mine, quota: 1, where: {{people: 1}}}}}}
generators:
  painter: {{kind: collage}}
  mine: {{kind: command, modes: [animation], argv: [bash, run.sh, "{{out}}", [--scene, "{{scene}}"]]{more}}}
"""


def test_files_beside_the_recipe_are_meant_and_misfits_told_when_planned(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("exit 0")
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE.format(more=", code_licence: MIT, weights_licence: CC-BY-4.0"))
    made = load_recipe(path)
    assert made.generators["mine"].options["argv"][:2] == ["bash", str(tmp_path / "run.sh")]
    registry.check(made, to_run=True)
    for more, told in {
        "": r"its code's licence is not named and its weights' licence is not named; write `accept_licence: true`",
        ", code_licence: MIT, weights_licence: CC-BY-NC-4.0": "its weights' licence is CC-BY-NC-4.0",
        ", accept_licence: true, frames_max: 5": r"slices\.a: mine \(command\) makes at most 5 frames at 16 fps; 9 at 16 fps need 9",
        ", accept_licence: true, fps: 30, frame_counts: [9]": "at most 9 frames at 30 fps; 9 at 16 fps need 16",
        ", accept_licence: true, size_multiple: 64": "multiples of 64, not 96×128",
        ", accept_licence: true, sizes: [[128, 96]]": "nothing of the orientation of 96×128",
        ", accept_licence: true, timeout_s: 1800": "timeout_s is 1800, its pool's 1800",
    }.items():
        path.write_text(RECIPE.format(more=more))
        with pytest.raises(BadRecipe, match=told):
            registry.check(load_recipe(path), to_run=True)
        if "licence" not in told:
            with pytest.raises(BadRecipe, match=told):
                registry.check(load_recipe(path), to_run=False)
    for more in (", accept_licence: true", ", accept_licence: true, segments: true, frames_max: 5"):
        path.write_text(RECIPE.format(more=more))
        registry.check(load_recipe(path), to_run=True)
    spec = GeneratorSpec(kind="command", accept_licence=True, argv=["x", "{out}"], modes=["animation"])
    assert "accept_licence" not in spec.options


def test_licences_of_weights_may_have_to_be_accepted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    free = registry.capabilities_of(GeneratorSpec(kind="puppet"))
    assert registry.licences_to_accept(free, ("pose_landmark",)) == []
    guarded = weights.WEIGHTS["pose_landmark"].model_copy(update={"accept": True, "licence": "of its own"})
    monkeypatch.setitem(weights.WEIGHTS, "pose_landmark", guarded)
    assert registry.licences_to_accept(free, ("pose_landmark",)) == ["the licence of its weights pose_landmark is of its own"]
    assert registry.licences_to_accept(registry.capabilities_of(GeneratorSpec(kind="mocha")))[0] == "its code's licence is none"


# --- images

PAINT = (
    "import sys, cv2, numpy as np; h, w = int(sys.argv[2]), int(sys.argv[3]);"
    "cv2.imwrite(sys.argv[1], np.random.default_rng(0).integers(0, 256, (h, w, 3)))"
)


def painter(size: tuple[str, str], **more: Any) -> Any:
    can = {"modes": ["image"], "code_licence": "MIT", "weights_licence": "none"}
    return registry.create("command", {"argv": [sys.executable, "-c", PAINT, "{out}", *size], **can, **more})


def test_a_program_paints_pictures_at_the_pairs_size_or_its_own(tmp_path: Path, folder: Path) -> None:
    painter(("{height}", "{width}")).make(image_request(tmp_path), folder / "one.png")
    painter(("256", "256"), own_size=True).make(image_request(tmp_path), folder / "two.png")
    for name in ("one.png", "two.png"):
        assert media.read_image(folder / name).shape == (96, 128, 3)
    with pytest.raises(BadOutput, match="256×256, asked was 128×96") as caught:
        painter(("256", "256")).make(image_request(tmp_path), folder / "three.png")
    assert caught.value.code == "wrong_size"
    with pytest.raises(BadInput, match="honours"):
        painter(("{height}", "{width}")).make(
            image_request(tmp_path, pictures={"character": tmp_path / "character.png", "scene": tmp_path / "character.png"}),
            folder / "x.png",
        )
    assert left(folder) == ["one.png", "two.png"]
    with pytest.raises(BadRecipe, match=r"unknown placeholder \{scene\}"):
        painter(("{scene}", "1"))


# --- how black and frozen are told


def test_a_clip_that_stands_still_makes_no_video_frozen(tmp_path: Path, folder: Path) -> None:
    standing = walkers(step_px=0)
    program("frozen").make(video_request(tmp_path, clip_people=standing), folder / "raw.mp4")
    slow = walkers(step_px=0.5)  # 4 px of 128 in all: what a tracker's noise may amount to
    program("frozen").make(video_request(tmp_path, clip_people=slow), folder / "raw.mp4")


def test_a_stop_in_the_middle_is_found_and_a_low_rate_is_none(tmp_path: Path) -> None:
    geometry = Geometry(frames=33, height=96, width=256)
    people = walkers(geometry=geometry)
    made, request = program(), video_request(tmp_path, clip_people=people, geometry=geometry)
    frames = frames_of(people)
    held = frames.copy()
    held[12:24] = held[12]
    media.write_video(tmp_path / "held.mp4", held, 16.0)
    with pytest.raises(BadOutput, match="stands from frame 12 to"):
        made.verify(request, tmp_path / "held.mp4")
    halved = frames[np.arange(33) // 4 * 4]
    media.write_video(tmp_path / "halved.mp4", halved, 16.0)
    made.verify(request, tmp_path / "halved.mp4")


def test_black_frames_are_forgiven_where_the_clip_shows_nobody(tmp_path: Path) -> None:
    people = walkers()
    gone = dataclasses.replace(people, present_PT=np.arange(9)[None] < 5)
    frames = frames_of(people)
    frames[5:] = 0
    media.write_video(tmp_path / "fade.mp4", frames, 16.0)
    made = program()
    made.verify(video_request(tmp_path, clip_people=gone), tmp_path / "fade.mp4")
    with pytest.raises(BadOutput, match="44% of the frames are black"):
        made.verify(video_request(tmp_path, clip_people=people), tmp_path / "fade.mp4")
