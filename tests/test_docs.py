"""What the documents say is there is there: commands, options, recipes, links, and the README's own generator, which has to run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from factory.cli import app
from factory.evaluation import metrics as evaluation_metrics
from factory.evaluation.results import ARROWS
from generators import registry
from generators.base import VideoGenerator, VideoRequest
from generators.poses.tracks import People
from manifests import costs, media
from manifests.recipe import PoolSpec, load_recipe, parse_recipe
from manifests.records import Geometry

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
README = DOCUMENTS[0].read_text(encoding="utf-8")
RECIPES = sorted((ROOT / "manifests" / "recipes").glob("*.yaml"))
GROUP = typer.main.get_command(app)
ENGINE = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
SOURCE_PATH = re.compile(r"(?:manifests|generators|agents|factory|benchmarks|docs|docker|tests)/[\w./-]*(?:/|\.\w+)$")
MACHINE_PATH = re.compile(r"(?<![\w.…-])/(?:tmp|work|home|root|usr|var|opt|mnt|Users)/")


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_of(text: str) -> Iterator[str]:
    """Lines of fenced and indented blocks, and spans in backticks."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            yield from re.findall(r"`([^`]+)`", line)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def used_commands(text: str) -> list[tuple[str, list[str]]]:
    """(command, its options) of everything that is typed as `motionpair COMMAND …`."""
    found = []
    for line in code_of(text):
        if match := re.match(r"motionpair (?:--debug )?([a-z]+)\b(.*)", line):
            found.append((match[1], re.findall(r"(?<= )--[a-z-]+", match[2])))
    return found


def options_of(command: str) -> set[str]:
    return _options(GROUP.get_command(None, command))  # type: ignore[attr-defined]


def _options(asked: Any) -> set[str]:
    """Of a command and all that are below it."""
    own = {name for parameter in asked.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(_options(below) for below in getattr(asked, "commands", {}).values()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_command_and_option_named_exists(document: Path) -> None:
    known = set(GROUP.list_commands(None))  # type: ignore[attr-defined]
    for command, options in used_commands(document.read_text(encoding="utf-8")):
        assert command in known
        assert set(options) <= options_of(command), command


def test_the_readme_names_every_command() -> None:
    named = {command for command, _ in used_commands(README)}
    assert named == set(GROUP.list_commands(None))  # type: ignore[attr-defined]
    assert "python -m factory.trainer.stream" in README


def test_make_targets_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match[1] for line in code_of(README) if (match := re.match(r"make ([a-z]+)\b", line))}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("recipe", RECIPES, ids=ids)
def test_every_bundled_recipe_loads_by_path_and_by_name(recipe: Path) -> None:
    assert load_recipe(recipe) == load_recipe(recipe.stem)


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_files_of_ours_that_are_named_exist(document: Path) -> None:
    named = {span for span in re.findall(r"`([^`\s]+)`", document.read_text(encoding="utf-8")) if SOURCE_PATH.match(span)}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_module_of_the_factory_stands_in_the_table() -> None:
    """Files of one folder share a cell, the first with its folder: `factory/run.py`, `workplace.py`."""
    named: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        folder, _, own = first.rpartition("/") if not first.endswith("/") else (first.rpartition("/")[0].rpartition("/")[0], "", first[:-1])
        named |= {f"{folder}/{name}".rstrip("/") for name in (own.rpartition("/")[2], *others)}
    there = {ids(path) for path in (ROOT / "factory").glob("*.py")} - {"factory/__init__.py"}
    assert there - named == set()


def test_everything_that_a_pool_may_ask_is_documented() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", ENGINE.partition("## Which job")[0], re.MULTILINE)
    assert documented == list(PoolSpec.model_fields)
    for block in blocks(ENGINE, "yaml"):
        for pool in yaml.safe_load(block)["pools"].values():
            PoolSpec.model_validate(pool)


def test_every_column_of_the_costs_is_documented_in_order() -> None:
    table = ENGINE.partition("## What it cost")[2].partition("## Metrics")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == costs._schema().names


def test_every_metric_is_documented() -> None:
    source = (ROOT / "factory" / "metrics.py").read_text(encoding="utf-8")
    told = set(re.findall(r'"(motionpair_\w+)"', source))
    assert told
    assert told == set(re.findall(r"`(motionpair_\w+)`", ENGINE))


def test_every_metric_of_an_evaluation_is_documented_in_order() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| ([↑↓]) \|", text, re.MULTILINE) == [(m.name, ARROWS[m.better]) for m in evaluation_metrics.ALL]


def test_decisions_have_numbers_of_their_own() -> None:
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("document", [*DOCUMENTS, *RECIPES, *sorted((ROOT / "benchmarks").glob("*.py"))], ids=ids)
def test_no_machine_path_is_named(document: Path) -> None:
    assert MACHINE_PATH.findall(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=ids)
def test_a_decision_has_its_number_and_its_four_parts(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text.startswith(f"# {document.name[:4]} ")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Why", "Cost"]


# --- the README's generator


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a user would stand in after copying the README's example."""
    (code,) = (block for block in blocks(README, "python") if "class Silhouettes" in block)
    (tmp_path / "silhouettes.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def standing(geometry: Geometry) -> People:
    """One person, a block that walks to the right."""
    masks_PTHW = np.zeros((1, geometry.frames, geometry.height, geometry.width), np.uint8)
    for t in range(geometry.frames):
        masks_PTHW[0, t, 16:80, 8 + 2 * t : 40 + 2 * t] = 255
    landmarks = np.zeros((1, geometry.frames, 33, 3), np.float32)
    present_PT = np.ones((1, geometry.frames), bool)
    return People(landmarks, landmarks, np.ones((1, geometry.frames, 33), np.float32), present_PT, masks_PTHW, geometry.fps)


def test_the_readme_generator_runs(written: Path) -> None:
    geometry = Geometry(frames=5, height=96, width=128)
    generator = registry.create("silhouettes.py:Silhouettes", {})
    assert isinstance(generator, VideoGenerator)
    people, out = standing(geometry), written / "out.mp4"
    request = VideoRequest(
        mode="pose", clip=written / "unused.mp4", clip_people=people, painted=(), prompt="", geometry=geometry, seed=0
    )  # fmt: skip
    generator.setup()
    generator.validate(request)
    assert generator.run(request, out).confidence == 1
    generator.verify(request, out)
    frames_THWC, fps = media.read_frames(out)
    assert (frames_THWC.shape, fps) == ((5, 96, 128, 3), geometry.fps)
    assert np.array_equal(frames_THWC.min(-1) > 127, people.masks_PTHW[0] > 127)


def test_the_readme_recipe_fits_the_readme_generator(written: Path) -> None:
    (recipe,) = (parse_recipe(yaml.safe_load(block), "README") for block in blocks(README, "yaml"))
    registry.check(recipe, to_run=True)


def test_options_as_documented_are_taken_and_others_refused(written: Path) -> None:
    text = (ROOT / "docs" / "generators.md").read_text(encoding="utf-8")
    (options,) = (block for block in blocks(text, "python") if "class SilhouetteOptions" in block)
    source = (written / "silhouettes.py").read_text(encoding="utf-8")
    source = source.replace("    capabilities =", "    options_type = SilhouetteOptions\n    capabilities =")
    (written / "grown.py").write_text(f"{options}\n{source}", encoding="utf-8")
    assert registry.create("grown.py:Silhouettes", {"grow_px": 4}).options.model_dump() == {"grow_px": 4}
    with pytest.raises(Exception, match="grow_px"):
        registry.create("grown.py:Silhouettes", {"grow": 4})


def test_every_published_kind_is_documented() -> None:
    text = (ROOT / "docs" / "generators.md").read_text(encoding="utf-8")
    for kind in registry.BUILTIN:
        assert f"| `{kind}` |" in text


def test_the_stream_benchmark_says_how_it_is_called() -> None:
    done = subprocess.run([sys.executable, "benchmarks/stream.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
