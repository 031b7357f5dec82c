"""`kind: comfyui` against a stand-in server that fails in every way that a real one can. No real ComfyUI was there.

The table below is the fault matrix: each fault, the error that it has to become, its code, and how the engine takes it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moving import GEOMETRY, image_request, video_request, walkers
from standin_comfyui import IMAGE, IMAGE_SLOTS, VIDEO, VIDEO_SLOTS, StandinComfyUI, written

from factory import steps
from factory.work.making import AnimateRequest, generate_video
from factory.workbench import Workbench
from generators import conformance, registry
from generators.base import ImageGenerator, VideoGenerator
from generators.conformance import Sample
from generators.images import comfyui as images
from generators.images.openai_edit import OpenAIEditOptions
from generators.videos import comfyui as videos
from generators.videos.material import DERIVED
from generators.workers import queueing
from generators.workers.declared import Declared
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient
from manifests.recipe import load_recipe

FAULTS: dict[str, tuple[type[MotionpairError], str, str]] = {
    # the server
    "nobody": (Transient, "no_server", "transient"),
    "locked": (BadRecipe, "bad_recipe", "bad_recipe"),
    "no_comfyui": (Transient, "no_server", "transient"),
    "no_json": (Transient, "no_server", "transient"),
    "trouble": (Transient, "no_server", "transient"),
    "upload_too_large": (BadRecipe, "bad_recipe", "bad_recipe"),
    "upload_refused": (BadInput, "refused", "rejected"),
    # the workflow
    "node_errors": (BadRecipe, "bad_recipe", "bad_recipe"),
    "missing_node": (BadRecipe, "bad_recipe", "bad_recipe"),
    "partial": (BadRecipe, "bad_recipe", "bad_recipe"),
    "oom": (OutOfMemory, "out_of_memory", "out_of_memory"),
    "oom_of_ram": (OutOfMemory, "out_of_memory", "out_of_memory"),
    "disk_full": (OutOfSpace, "out_of_space", "out_of_space"),
    "crash": (MotionpairError, "error", "error"),
    "fails_silently": (MotionpairError, "error", "error"),
    # the job
    "answer_lost": (Transient, "no_server", "transient"),
    "forgets": (Transient, "forgotten", "transient"),
    "restarts": (Transient, "forgotten", "transient"),
    "dies": (Transient, "no_server", "transient"),
    "hangs": (Transient, "timeout", "transient"),
    "interrupted": (Transient, "interrupted", "transient"),
    # the file
    "no_output": (BadOutput, "no_output", "rejected"),
    "text_output": (BadOutput, "wrong_kind", "rejected"),
    "two_outputs": (BadOutput, "several_outputs", "rejected"),
    "lost_file": (BadOutput, "no_output", "rejected"),
    "empty": (BadOutput, "no_output", "rejected"),
    "half": (BadOutput, "half_written", "rejected"),
    "transfer_cut": (Transient, "no_server", "transient"),
    "transfer_drips": (Transient, "timeout", "transient"),
    "wrong_frames": (BadOutput, "wrong_frames", "rejected"),
    "wrong_size": (BadOutput, "wrong_size", "rejected"),
    "wrong_fps": (BadOutput, "wrong_fps", "rejected"),
    "black": (BadOutput, "black", "rejected"),
    "frozen": (BadOutput, "frozen", "rejected"),
}
HARMLESS = ("", "older", "socket_refused", "socket_breaks", "socket_nonsense", "transfer_cut_once", "blinks")
ENDLESS = ("hangs", "partial", "answer_lost")
"""jobs that would hold the GPU for ever"""
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server() -> Iterator[StandinComfyUI]:
    with StandinComfyUI() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "call").mkdir()
    return tmp_path / "call"


def entry(folder: Path, *servers: str, **more: Any) -> dict[str, Any]:
    """The options of a recipe's entry."""
    can = {"modes": ["animation"], "code_licence": "Apache-2.0", "weights_licence": "Apache-2.0"}
    made = {"servers": list(servers) or [NOWHERE], "workflow": written(folder, VIDEO), "slots": VIDEO_SLOTS, "lost_s": 0.8, "timeout_s": 20}
    return {**made, **can, **more}


def faulty(fault: str, folder: Path, **more: Any) -> tuple[StandinComfyUI, dict[str, Any]]:
    """A server with this fault, not started yet, and limits that make it show soon."""
    return StandinComfyUI(fault), {"timeout_s": 1.2 if fault in ("hangs", "transfer_drips") else 20, **more}


def generator(options: dict[str, Any]) -> VideoGenerator:
    made = registry.create("comfyui", options)
    assert isinstance(made, VideoGenerator)
    return made


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_apart(fault: str, tmp_path: Path, folder: Path) -> None:
    error, code, _ = FAULTS[fault]
    standin, limits = faulty(fault, tmp_path)
    began = time.monotonic()
    with standin:
        made = generator(entry(tmp_path, NOWHERE if fault == "nobody" else standin.url, **limits))
        with pytest.raises(MotionpairError) as caught:
            made.make(video_request(tmp_path), folder / "raw.mp4")
        took_s = time.monotonic() - began
        if fault in ENDLESS:
            deadline = time.monotonic() + 5
            while standin.running and time.monotonic() < deadline:
                time.sleep(0.01)
            assert [call for call, _ in standin.calls] == ["interrupt"]
        assert not standin.running
        assert not standin.pending, "the GPU is free"
    assert isinstance(caught.value, error), repr(caught.value)
    assert caught.value.code == code, str(caught.value)
    assert "\n" not in str(caught.value)
    assert [name for name in left(folder) if not name.startswith("inputs/")] == [], "nothing partial is left"
    assert took_s < 15


def test_the_engine_takes_each_fault_as_its_rules_say_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    bench, source = Workbench(str(tmp_path / "store"), {}), video_request(tmp_path / "material")
    buffer = io.BytesIO()
    source.clip_people.save(buffer)
    put = bench.store.put
    asked = AnimateRequest(
        kind="comfyui", options=entry(tmp_path), mode="animation", clip_video=put(source.clip, ".mp4"), clip=put(buffer.getvalue(), ".npz"),
        driven=(0,), painted=(put(source.painted[0], ".png"),), prompt=source.prompt, geometry=GEOMETRY, seed=7,
    )  # fmt: skip
    store = Path(bench.store.url)
    before = {name: (store / name).read_bytes() for name in left(store)}
    wrong = {}
    for seed, (fault, (_, code, taken)) in enumerate(FAULTS.items()):
        standin, limits = faulty(fault, tmp_path)
        with standin:
            options = entry(tmp_path, NOWHERE if fault == "nobody" else standin.url, **limits)
            request = asked.model_copy(update={"options": options, "seed": seed})
            key = steps.key_of(generate_video, request)
            reply = bench.run("generate_video", request.model_dump(mode="json"), key)
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
    with StandinComfyUI(fault) as standin:
        made = generator(entry(tmp_path, standin.url, lost_s=5))
        made.make(request, folder / "one.mp4")
        made.make(request, folder / "two.mp4")
        assert [call for call in standin.calls if call[0] != "cut"] == []
        names = [prompt["prompt"]["5"]["inputs"]["filename_prefix"] for prompt in standin.prompts]
    assert (folder / "one.mp4").read_bytes() == (folder / "two.mp4").read_bytes()
    assert len(set(names)) == 2, "no two requests save under the same name"
    assert left(folder) == ["inputs/clip.mp4", "one.mp4", "two.mp4"]


def test_a_workflow_goes_out_filled_with_the_request(server: StandinComfyUI, tmp_path: Path, folder: Path) -> None:
    request = video_request(tmp_path, prompt='"quoted" {seed} ünd\nmore')
    generator(entry(tmp_path, server.url, fps=32, frame_step=4)).make(request, folder / "raw.mp4")
    nodes = server.prompts[-1]["prompt"]
    assert nodes["3"]["inputs"] == {"text": request.prompt, "clip": ["9", 0]}
    assert {name: nodes["4"]["inputs"][name] for name in ("seed", "width", "height", "length")} == {
        "seed": 7, "width": 128, "height": 96, "length": 17,
    }  # fmt: skip
    assert nodes["5"]["inputs"]["fps"] == 32
    assert nodes["1"]["inputs"]["file"].startswith("motionpair-")
    assert nodes["9"] == VIDEO["9"]
    probe = media.probe(folder / "raw.mp4")
    assert (probe.frames, probe.fps) == (17, 32.0)


def test_a_job_that_waits_behind_others_is_taken_out_and_theirs_goes_on(tmp_path: Path, folder: Path) -> None:
    with StandinComfyUI() as standin:
        standin.busy_with(2)
        with pytest.raises(Transient, match="last progress: none") as caught:
            generator(entry(tmp_path, standin.url, timeout_s=0.5)).make(video_request(tmp_path), folder / "raw.mp4")
        assert caught.value.code == "timeout"
        assert [call for call, _ in standin.calls] == ["delete"]
        assert [entry[1] for entry in (*standin.running, *standin.pending)] == ["other-0", "other-1"]


def test_how_far_it_came_is_told(tmp_path: Path, folder: Path) -> None:
    with StandinComfyUI("hangs") as standin, pytest.raises(Transient, match="last progress: step 2 of 5 at node 4"):
        generator(entry(tmp_path, standin.url, timeout_s=0.5)).make(video_request(tmp_path), folder / "raw.mp4")


def test_each_worker_takes_a_server_that_has_nothing_to_do_and_keeps_it(tmp_path: Path) -> None:
    request = video_request(tmp_path)
    with StandinComfyUI() as one, StandinComfyUI() as two:
        options = entry(tmp_path, NOWHERE, one.url, two.url)
        first, second = generator(options), generator(options)
        one.busy_with(1)
        first.make(request, tmp_path / "a.mp4")
        one.busy_with(0)
        two.busy_with(1)
        second.make(request, tmp_path / "b.mp4")
        two.busy_with(0)
        assert (len(one.worked), len(two.worked)) == (1, 1)
        threads = [
            threading.Thread(target=made.make, args=(request, tmp_path / name))
            for made, name in ((first, "c.mp4"), (second, "d.mp4"))
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(one.worked), len(two.worked)) == (2, 2)
    assert (tmp_path / "c.mp4").is_file()
    assert (tmp_path / "d.mp4").is_file()


# --- the entry


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"servers": []}, "at least 1 item"),
        ({"servers": ["ftp://a"]}, "addresses like"),
        ({"servers": ["http://me:pw@a:1"]}, "without user, password"),
        ({"servers": ["http://a:1", "http://a:1/"]}, "stands there twice"),
        ({"workflow": "/no/such.json"}, "is no file"),
        ({"slots": {"painted": "7.inputs.image"}}, "no one node '7'; numbers are 1, 2"),
        ({"slots": {"painted": "2.inputs.picture"}}, "has no input 'picture'; it has image"),
        ({"slots": {"painted": "2.image"}}, "is no place"),
        ({"slots": {"painted": "2.inputs.image", "clip": "2.inputs.image"}}, "slots clip and painted fill the same input"),
        ({"slots": {"painted": "2.inputs.image", "negative": "3.inputs.text"}}, "nothing fills 'negative'"),
        ({"slots": {"clip": "1.inputs.file"}}, "painted is needed"),
        ({"slots": {"painted": "2.inputs.image", "painted3": "1.inputs.file"}}, "without a gap"),
        ({"output": "Save it"}, "output: the workflow has no one node 'Save it'"),
        ({"people_max": 2}, "people_max is 2; the slots take 1 pictures"),
        ({"deterministic": True}, "leave it out"),
        ({"modes": ["image", "pose"]}, "either images or some of"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(changed: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=told):
        registry.create("comfyui", entry(tmp_path, **changed))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "no workflow in API format"),
        ("{}", "no workflow in API format"),
        ('{"nodes": [], "links": []}', "editor's own format; save it with"),
        ('{"1": {"inputs": {}}}', "no workflow in API format"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused_in_words(text: str, told: str, tmp_path: Path) -> None:
    options = entry(tmp_path)
    Path(options["workflow"]).write_text(text)
    with pytest.raises(BadRecipe, match=told):
        registry.create("comfyui", options)


def test_what_changes_no_pixel_changes_no_key_and_what_does_does(tmp_path: Path) -> None:
    def key(workflow: dict[str, Any] = VIDEO, **more: Any) -> dict[str, Any]:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        return registry.keyed("comfyui", {**entry(place, **more), "workflow": written(place, workflow)})

    def changed(node: str, **inputs: Any) -> dict[str, Any]:
        return {**VIDEO, node: {**VIDEO[node], "inputs": {**VIDEO[node]["inputs"], **inputs}}}

    first = key()
    assert key(servers=["http://elsewhere:8188"], timeout_s=5, lost_s=9, code_licence="MIT") == first, "nor where the file lies"
    assert key(changed("3", text="another example")) == first, "what a slot fills anyway"
    assert key(changed("5", filename_prefix="mine")) == first
    assert key({**VIDEO, "2": {**VIDEO["2"], "_meta": {"title": "Hero"}}}) == first
    assert key(slots={**VIDEO_SLOTS, "painted": ["Character.inputs.image"]}) == first, "the same node by its title"
    assert key(changed("9", clip_name="umt5.safetensors")) != first
    assert key(slots={name: place for name, place in VIDEO_SLOTS.items() if name != "prompt"}) != first
    assert key(fps=30) != first
    assert key(dilate_px=4) != first
    assert NOWHERE not in json.dumps(first)


def test_as_many_characters_as_there_are_slots(server: StandinComfyUI, tmp_path: Path) -> None:
    two = {**VIDEO, "6": VIDEO["2"]}
    slots = {**VIDEO_SLOTS, "painted": "2.inputs.image", "painted2": "6.inputs.image"}
    options = {**entry(tmp_path, server.url, slots=slots), "workflow": written(tmp_path, two)}
    made = generator(options)
    assert made.can.people_max == 2
    made.make(video_request(tmp_path, clip_people=walkers(2)), tmp_path / "a.mp4")
    with pytest.raises(BadInput, match="takes 2 characters, the request has 1"):
        made.make(video_request(tmp_path), tmp_path / "b.mp4")


RECIPE = """
recipe: own
seed: 1
geometry: {{frames: 9, fps: 16, sizes: [[96, 128]]}}
sources: [{{clips: clips, licence: cc0}}]
slices: {{a: {{task: animation, generator: mine, quota: 1, where: {{people: 1}}}}}}
pools: {{comfy: {{workers: {workers}}}}}
generators:
  painter: {{kind: collage}}
  mine: {{kind: comfyui, pool: comfy, modes: [animation], servers: ["http://a:8188", "http://b:8188"], workflow: workflow.json,
          slots: {{painted: 2.inputs.image}}{more}}}
"""


def test_files_beside_the_recipe_are_meant_and_misfits_told_when_planned(tmp_path: Path) -> None:
    written(tmp_path, VIDEO)
    path = tmp_path / "own.yaml"

    def checked(more: str, workers: str = "1..2") -> None:
        path.write_text(RECIPE.format(more=more, workers=workers))
        made = load_recipe(path)
        assert made.generators["mine"].options["workflow"] == str(tmp_path / "workflow.json")
        registry.check(made, to_run=True)

    checked(", code_licence: MIT, weights_licence: CC-BY-4.0")
    for more, workers, told in (
        ("", "1", "its code's licence is not named"),
        (", accept_licence: true", "1..3", "2 servers and up to 3 workers in its pool"),
        (", accept_licence: true, timeout_s: 1800", "1", "timeout_s is 1800, its pool's 1800"),
        (", accept_licence: true, frames_max: 5", "1", "makes at most 5 frames"),
    ):
        with pytest.raises(BadRecipe, match=told):
            checked(more, workers)


# --- images


def image_entry(folder: Path, *servers: str, **more: Any) -> dict[str, Any]:
    own = {"slots": IMAGE_SLOTS, "modes": ["image"], "pixels": None}
    return {**entry(folder, *servers), "workflow": written(folder, IMAGE), **own, **more}


def test_a_workflow_paints_pictures_too(server: StandinComfyUI, tmp_path: Path, folder: Path) -> None:
    made = registry.create("comfyui", image_entry(tmp_path, server.url, pixels=16384, multiple=32))
    assert isinstance(made, ImageGenerator)
    assert made.can.roles == {"character", "scene"}
    request = image_request(tmp_path)
    made.make(request, folder / "one.png")
    assert media.read_image(folder / "one.png").shape == (96, 128, 3)
    nodes = server.prompts[-1]["prompt"]
    assert (nodes["3"]["inputs"]["height"], nodes["3"]["inputs"]["width"]) == (96, 160)
    assert nodes["3"]["inputs"]["prompt"].startswith("Picture 1 is the character.")
    assert "2" not in nodes, "a scene that there is not takes its loader along"
    assert "image2" not in nodes["3"]["inputs"]
    both = dict.fromkeys(("character", "scene"), request.pictures["character"])
    made.make(dataclasses.replace(request, pictures=both), folder / "two.png")
    assert server.prompts[-1]["prompt"]["3"]["inputs"]["image2"] == ["2", 0]


@pytest.mark.parametrize("fault", ["no_output", "lost_file", "empty", "half", "black", "two_outputs", "oom", "forgets", "node_errors"])
def test_faults_of_painting_are_told_apart_too(fault: str, tmp_path: Path, folder: Path) -> None:
    with StandinComfyUI(fault) as standin:
        made = registry.create("comfyui", image_entry(tmp_path, standin.url))
        assert isinstance(made, ImageGenerator)
        with pytest.raises(MotionpairError) as caught:
            made.make(image_request(tmp_path), folder / "one.png")
    assert isinstance(caught.value, FAULTS[fault][0])
    assert caught.value.code == FAULTS[fault][1]
    assert left(folder) == []


@pytest.mark.parametrize("sort", ["video", "image"])
def test_it_keeps_the_contract(sort: str, server: StandinComfyUI, tmp_path: Path) -> None:
    request = video_request(tmp_path / "material")
    sample = Sample(request.clip, request.clip_people, request.painted, GEOMETRY)
    options = entry(tmp_path, server.url) if sort == "video" else image_entry(tmp_path, server.url)
    found = conformance.examine(lambda: registry.create("comfyui", options), sample, tmp_path)  # type: ignore[arg-type,return-value]
    assert [one for one in found if one.state == "broken"] == []
    assert {one.rule for one in found if one.state == "held"} >= {"runs", "refuses", "names_errors", "nothing_partial", "verify_rejects"}


def test_every_slot_and_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "generators.md").read_text(encoding="utf-8")
    text = page.partition("## A ComfyUI workflow")[2].partition("\n## ")[0]
    slots = videos.PLAIN | set(DERIVED) | images.PLAIN | {"character", "clothing"}
    between = {f"painted{i}" for i in range(3, 6)}
    own = {*queueing.ComfyOptions.model_fields, *images.ImageComfyOptions.model_fields} - set(Declared.model_fields)
    assert [name for name in sorted(slots - between | own) if f"`{name}`" not in text] == []
    service = page.partition("## An image service")[2].partition("\n## ")[0]
    assert [name for name in OpenAIEditOptions.model_fields if f"`{name}`" not in service] == []
