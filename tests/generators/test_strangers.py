"""Mistakes that a stranger makes with files and entries of their own: each is told in one line, and none is taken for a success."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from moving import GEOMETRY, image_request, stored_video_request, video_request
from typer.testing import CliRunner

from factory import steps
from factory.cli import app
from factory.work.making import generate_video
from factory.workbench import Workbench
from generators import registry, shipped, weights
from generators.base import Generator, ImageGenerator, VideoGenerator
from generators.workers import leash
from generators.workers.leash import Leashed
from generators.workers.lines import CHILD, Child
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, Transient
from manifests.recipe import Recipe, parse_recipe

HEAD = """
import os, sys
from generators.base import *
from manifests import media
"""
VIDEOS = f"""{HEAD}
class Gen(VideoGenerator):
    capabilities = Capabilities(modes=frozenset({{"animation"}}), code_licence="MIT", weights_licence="none")
"""
RUN = """
    def run(self, request, out):
        """
PICTURES = f"""{HEAD}
class Gen(ImageGenerator):
    capabilities = Capabilities(modes=frozenset({{"image"}}), roles=frozenset({{"character"}}))
    def run(self, request, out):
        picture = media.read_image(request.pictures["character"])
        media.write_png(out, picture)
        """
CLASSES = {
    "import sys; sys.exit(0)": "importing .* failed: SystemExit",
    "class Gen(:": "SyntaxError",
    f"{HEAD}import no_such_module_here": "ModuleNotFoundError",
    "Gen = 3": "has no class Gen",
    VIDEOS: "does not define run",
    f"{VIDEOS}    options_type = dict{RUN}pass": "options_type is no class derived from Options",
    f"{VIDEOS}    def __init__(self): pass{RUN}pass": "making one failed: TypeError",
    f"{VIDEOS}    def __init__(self, options):\n        raise OSError('a\\nb'){RUN}pass": "making one failed: OSError: a b$",
    f"{VIDEOS}    def __init__(self, options): pass{RUN}pass": r"super\(\).__init__\(options\)",
}


def kind_of(folder: Path, source: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "gen.py").write_text(source)
    return f"{folder}/gen.py:Gen"


def own(folder: Path, source: str) -> Generator:
    return registry.create(kind_of(folder, source), {})


def recipe_of(**generators: dict[str, Any]) -> Recipe:
    slices = {name: {"task": "animation", "generator": name, "quota": 1} for name in generators}
    made = {"recipe": "r", "seed": 1, "sources": [{"clips": "x"}], "slices": slices}
    return parse_recipe({**made, "generators": {**generators, "painter": {"kind": "collage"}}})


@pytest.mark.parametrize("source", CLASSES)
def test_a_class_that_will_not_do_is_refused_in_one_line(source: str, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=CLASSES[source]) as caught:
        own(tmp_path, source)
    assert "\n" not in caught.value.message


def test_a_file_that_ends_the_program_is_no_finished_run(tmp_path: Path) -> None:
    kind = kind_of(tmp_path, "import sys; sys.exit(0)")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(recipe_of(mine={"kind": kind}).model_dump(mode="json", include={"recipe", "seed", "sources", "slices"})
                                     | {"generators": {"mine": {"kind": kind}, "painter": {"kind": "collage"}}}))  # fmt: skip
    for command in (
        ["run", str(recipe), "--out", str(tmp_path / "out")],
        ["generators", "list", str(recipe)],
        ["generators", "check", kind],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, done.output
        assert "SystemExit" in done.output


def test_a_run_that_calls_sys_exit_leaves_its_worker_standing(tmp_path: Path) -> None:
    bench = Workbench(str(tmp_path / "store"), {})
    request = stored_video_request(bench, tmp_path / "material", kind_of(tmp_path, f"{VIDEOS}{RUN}sys.exit(3)"), {})
    reply = bench.run("generate_video", request.model_dump(mode="json"), steps.key_of(generate_video, request))
    assert (reply["type"], reply["response"], reply["message"]) == ("fault", "error", "SystemExit: 3")


def test_two_files_of_one_name_are_two_generators(tmp_path: Path) -> None:
    first, second = (kind_of(tmp_path / name, f"{VIDEOS}{RUN}return Report(reasons=({name!r},))") for name in ("a", "b"))
    bench = Workbench(str(tmp_path / "store"), {})
    request = stored_video_request(bench, tmp_path / "material", first, {})
    keys = {steps.key_of(generate_video, request.model_copy(update={"kind": kind})) for kind in (first, second)}
    assert len(keys) == 2
    assert registry.class_of(first) is not registry.class_of(second)


def test_a_folder_in_the_files_place_is_no_output_and_is_removed(tmp_path: Path) -> None:
    made, out = own(tmp_path, f"{VIDEOS}{RUN}out.mkdir(); (out / 'x').touch(); return Report()"), tmp_path / "out.mp4"
    assert isinstance(made, VideoGenerator)
    with pytest.raises(BadOutput, match="nothing was written") as caught:
        made.make(video_request(tmp_path / "material"), out)
    assert caught.value.code == "no_output"
    assert not out.exists()


SCENES = {
    "scene_beside(out).write_bytes(b'\\x89PNG half')": "half_written",
    "scene_beside(out).touch()": "no_output",
    "scene_beside(out).symlink_to(out)": "no_output",
    "media.write_png(scene_beside(out), picture[::2])": "wrong_size",
}


@pytest.mark.parametrize("line", SCENES)
def test_a_scene_that_is_not_whole_never_leaves_the_call(line: str, tmp_path: Path) -> None:
    made = own(tmp_path, f"{PICTURES}{line}; return Report()")
    assert isinstance(made, ImageGenerator)
    (tmp_path / "call").mkdir()
    with pytest.raises(BadOutput) as caught:
        made.make(image_request(tmp_path / "material"), tmp_path / "call" / "out.png")
    assert caught.value.code == SCENES[line]
    assert not list((tmp_path / "call").iterdir())


def test_a_black_scene_is_a_night(tmp_path: Path) -> None:
    made = own(tmp_path, f"{PICTURES}media.write_png(scene_beside(out), picture * 0); return Report()")
    assert isinstance(made, ImageGenerator)
    made.make(image_request(tmp_path / "material"), tmp_path / "out.png")
    assert media.read_image(tmp_path / "out.scene.png").shape[:2] == (GEOMETRY.height, GEOMETRY.width)


# --- entries


def program(*argv: str, **more: Any) -> dict[str, Any]:
    return {"argv": list(argv), "modes": ["animation"], "code_licence": "MIT", "weights_licence": "none", **more}


def test_a_file_that_a_link_leads_to_is_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    precious = tmp_path / "mine" / "precious.mp4"
    precious.write_bytes(b"mine")
    link = f"import os, sys; os.symlink({str(tmp_path / 'mine')!r}, sys.argv[1] + '/linked')"
    made = registry.create("command", program(sys.executable, "-c", link, "{folder}", output="linked/*.mp4"))
    assert isinstance(made, VideoGenerator)
    with pytest.raises(BadOutput, match="left 0 files"):
        made.make(video_request(tmp_path / "material"), tmp_path / "out.mp4")
    assert precious.read_bytes() == b"mine"


def test_what_a_program_lacks_here_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain.sh").write_text("#!/bin/sh\n")
    cases = {
        "no program no-such-program": program("no-such-program", "{out}"),
        f"no right to execute {tmp_path}/plain.sh": program(f"{tmp_path}/plain.sh", "{out}"),
        f"no folder {tmp_path}/away": program(sys.executable, "{out}", cwd=f"{tmp_path}/away"),
    }
    for words, options in cases.items():
        assert registry.create("command", options).missing(registry.create("command", options).options) == [words]
    recipe = recipe_of(**{f"g{i}": {"kind": "command", **options} for i, options in enumerate(cases.values())})
    assert registry.lacking(recipe) == [f"generators.g{i}: here is {words}" for i, words in enumerate(cases)]


def test_a_class_that_fails_when_it_is_asked_what_it_can_do_is_named(tmp_path: Path) -> None:
    asked = "    @classmethod\n    def capabilities_with(cls, options):\n        return cls.table['fps']"
    with pytest.raises(BadRecipe, match=r"^generators\.mine: asked what it can do it failed: AttributeError: type object 'Gen' has no"):
        registry.check(recipe_of(mine={"kind": kind_of(tmp_path, f"{VIDEOS}{asked}{RUN}pass")}), to_run=False)


def test_mistakes_of_all_entries_are_told_at_once_and_by_their_names() -> None:
    recipe = recipe_of(
        one={"kind": "command", "arv": ["x", "{out}"], "modes": ["animation"]}, two={"kind": "pupet"},
        three={"kind": "command", **program("x", "{outt}")},
    )  # fmt: skip
    with pytest.raises(BadRecipe) as caught:
        registry.check(recipe, to_run=False)
    lines = caught.value.message.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["generators.one", "generators.one", "generators.two", "generators.three"]
    assert "arv: unknown key. Did you mean 'argv'?" in lines[0]
    assert "Did you mean 'puppet'?" in lines[2]


@pytest.mark.parametrize(
    "address", ["localhost:8000", "http://", "http://h:x/v1", "http://me:hidden-word@h/v1", "https://h/v1?key=hidden-word"]
)
def test_an_address_of_an_image_service_is_looked_at_when_it_is_planned(address: str) -> None:
    with pytest.raises(BadRecipe, match=r"base_url: (is an address|holds a user)") as caught:
        registry.create("openai_edit", {"model": "m", "base_url": address})
    assert "hidden-word" not in caught.value.message


def test_a_workflow_without_named_licences_is_not_listed_under_ours(tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text('{"1": {"class_type": "Save", "inputs": {"image": "", "video": ""}}}')
    entry = {
        "kind": "comfyui",
        "servers": ["http://h:1"],
        "workflow": "flow.json",
        "modes": ["animation"],
        "slots": {"painted": "1.inputs.image"},
    }
    recipe = recipe_of(flow={**entry, "workflow": str(tmp_path / "flow.json")}).model_dump(
        mode="json", include={"recipe", "seed", "sources", "slices"}
    )
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"generators": {"flow": entry, "painter": {"kind": "collage"}}}))
    told = " ".join(CliRunner().invoke(app, ["generators", "list", str(tmp_path / "r.yaml")]).output.split())
    assert "not named / not named" in told[told.index("entry: comfyui") :]


# --- processes


def test_a_process_that_the_kernel_can_not_end_does_not_hide_why_it_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leashed.end, "__defaults__", (0.2,))
    assert leash.END_S > 1
    held = Leashed([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(Transient, match="too slow"):
            _given_up(held)
    finally:
        os.kill(held.process.pid, signal.SIGCONT)
        held.end(10)


def _given_up(held: Leashed) -> None:
    with held:
        os.kill(held.process.pid, signal.SIGSTOP)  # stands for one that hangs in a driver's call
        raise Transient("too slow")


def test_a_progress_bar_without_an_end_of_line_is_passed_on_and_not_gathered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "bar.py"
    script.write_text(
        "import sys\ndef handle(message):\n    for i in range(3000): sys.stderr.write('\\r' + 'x' * 99)\n    sys.stderr.flush()\n"
    )
    with Child([sys.executable, str(CHILD), str(script)]) as child:
        assert child.call({}, 30) == {}
        deadline, seen = time.monotonic() + 10, 0
        while seen < 200_000 and time.monotonic() < deadline:
            seen += len(capfd.readouterr().err)
            time.sleep(0.05)
        assert child.alive
    assert seen >= 200_000


# --- what is edited while a run is at work

FLOW = '{"1": {"class_type": "Make", "inputs": {"image": "", "steps": %d}}}'


def test_a_workflow_that_is_edited_during_a_run_counts_from_the_next_one_on(tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    file.write_text("\ufeff" + FLOW % 20, encoding="utf-8")
    slots = {"painted": "1.inputs.image"}
    options = {"servers": ["http://h:1"], "workflow": str(file), "modes": ["animation"], "slots": slots}
    recipe = recipe_of(flow={"kind": "comfyui", **options})

    def steps_and_key() -> tuple[int, dict[str, Any]]:
        made = registry.create("comfyui", options)
        return made.options.template().nodes["1"]["inputs"]["steps"], registry.keyed("comfyui", options)  # type: ignore[attr-defined]

    registry.check(recipe, to_run=False)
    steps, key = steps_and_key()
    file.write_text(FLOW % 50)
    assert steps_and_key() == (steps, key) == (20, key), "what runs and what it is remembered under say the same"
    assert registry.texts_of(recipe) == {str(file): FLOW % 20}
    registry.check(recipe, to_run=False)
    steps, other = steps_and_key()
    assert steps == 50
    assert other != key


def test_a_worker_needs_no_workflow_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_received", {})
    absent = str(tmp_path / "only on the head.json")
    options = {"servers": ["http://h:1"], "workflow": absent, "modes": ["animation"], "slots": {"painted": "1.inputs.image"}}
    with pytest.raises(BadRecipe, match="is no file"):
        registry.create("comfyui", options)
    Workbench(str(tmp_path / "store"), {}, texts={absent: FLOW % 9})
    assert registry.create("comfyui", options).can.people_max == 1


@pytest.mark.parametrize("edited", [False, True])
def test_a_script_that_is_edited_during_a_run_leaves_nothing_under_its_old_key(edited: bool, tmp_path: Path) -> None:
    """Also when it is edited while it runs."""
    script, bench = tmp_path / "gen.py", Workbench(str(tmp_path / "store"), {})
    script.write_text("import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])")
    edit = f"open({str(script)!r}, 'a').write('# other weights')"
    options = program(sys.executable, str(script), "{clip}", "{out}", *([edit] if edited else []))
    if edited:
        script.write_text(script.read_text() + "; exec(sys.argv[3])")
    request = stored_video_request(bench, tmp_path / "material", "command", options)
    key = steps.key_of(generate_video, request)
    reply = bench.run("generate_video", request.model_dump(mode="json"), key)
    if not edited:
        assert reply["status"] == "ok", reply
        script.write_text(script.read_text() + "  # other weights")
        request = request.model_copy(update={"seed": 8})
        reply = bench.run("generate_video", request.model_dump(mode="json"), key := steps.key_of(generate_video, request))
    assert (reply["type"], reply["response"]) == ("fault", "bad_recipe")
    assert reply["message"].startswith("gen.py was edited while the run was at work.")
    assert bench.store.get_outcome(key) is None


# --- other languages, other homes

LATIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
"""a locale that knows no letter beyond English"""


def test_prompts_of_any_language_reach_a_program_whatever_the_locale(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
from moving import video_request
from generators import registry
save = "import shutil, sys; shutil.copy(*sys.argv[1:3]); open(sys.argv[3], 'w', encoding='utf-8').write(sys.argv[4])"
argv = [sys.executable, "-X", "utf8", "-c", save, "{{clip}}", "{{out}}", {str(tmp_path / "told")!r}, "{{prompt}}"]
made = registry.create("command", {{"argv": argv, "modes": ["animation"]}})
made.make(video_request(Path({str(tmp_path)!r}), prompt="{chr(0x6F22)} \\xfc"), Path({str(tmp_path)!r}, "out.mp4"))
"""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    subprocess.run([sys.executable, tmp_path / "script.py"], env={**os.environ, **LATIN}, check=True, timeout=60)
    assert (tmp_path / "told").read_text(encoding="utf-8") == "漢 ü"


@pytest.mark.parametrize("prompt", ["half \ud800", "zero \0", "x" * (128 << 10)], ids=["half a character", "a zero", "endless"])
def test_a_prompt_that_can_be_no_argument_is_bad_input(prompt: str, tmp_path: Path) -> None:
    made = registry.create("command", program(sys.executable, "-c", "pass", "--prompt={prompt}", "{out}"))
    assert isinstance(made, VideoGenerator)
    with pytest.raises(BadInput) as caught:
        made.make(video_request(tmp_path / "material", prompt=prompt), tmp_path / "out.mp4")
    assert caught.value.code == "bad_prompt"


def test_the_list_is_shown_where_not_every_letter_can_be() -> None:
    command = [sys.executable, "-m", "factory.cli", "generators", "list"]
    done = subprocess.run(command, env={**os.environ, **LATIN}, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert b"openai_edit" in done.stdout
    assert b"512?896" in done.stdout


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "MOTIONPAIR_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", str)  # as for a number that /etc/passwd does not know
    with pytest.raises(BadRecipe, match="set MOTIONPAIR_CACHE"):
        weights.cache_dir()
