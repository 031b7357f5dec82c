"""The conformance kit: the built-in generators keep every rule, and one that breaks a rule on purpose is found by exactly that rule."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml
from moving import GEOMETRY, frames_of, walkers
from typer.testing import CliRunner

from factory.cli import app
from generators import conformance, registry
from generators.base import Capabilities, Generator, ImageGenerator, ImageRequest, Report, VideoGenerator, VideoRequest
from generators.conformance import Sample
from generators.images import drawn
from generators.images.collage import Collage
from generators.images.command import PLAIN as IMAGE_PLAIN
from generators.images.command import ROLES
from generators.poses.cylinders import Cylinders
from generators.poses.skeleton import Skeleton
from generators.videos.command import DERIVED, PLAIN, VideoCommandOptions
from generators.videos.puppet.generator import Puppet
from manifests import media
from manifests.errors import BadRecipe
from manifests.recipe import GeneratorSpec
from manifests.records import Geometry

# --- wrong on purpose


class Good(VideoGenerator):
    """Paints every character's silhouette in its picture's mean colour. Each class below breaks one rule and no other."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"animation"}), people_max=2, deterministic=True)

    def frames(self, request: VideoRequest) -> np.ndarray:
        colours = [media.read_image(path).mean(axis=(0, 1)) for path in request.painted]
        frames = np.full((request.geometry.frames, request.geometry.height, request.geometry.width, 3), 30, np.uint8)
        for masks, colour in zip(request.clip_people.masks_PTHW, colours, strict=True):
            frames[masks >= 128] = colour
        return frames

    def run(self, request: VideoRequest, out: Path) -> Report:
        media.probe(request.clip)
        media.write_video(out, self.frames(request), request.geometry.fps)
        return Report()


class Declares(Good):
    capabilities: ClassVar[Capabilities] = Good.capabilities.model_copy(update={"modes": frozenset({"animation", "image"})})


class Runs(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        raise RuntimeError("it never worked")


class WritesOut(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        return Report()


class Frames(Good):
    def frames(self, request: VideoRequest) -> np.ndarray:
        return super().frames(request)[:5]


class Size(Good):
    def frames(self, request: VideoRequest) -> np.ndarray:
        return super().frames(request)[:, ::2, ::2]


class Rate(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        media.probe(request.clip)
        media.write_video(out, self.frames(request), 2 * request.geometry.fps)
        return Report()

    def frames(self, request: VideoRequest) -> np.ndarray:
        return np.repeat(super().frames(request), 2, axis=0)


class Shows(Good):
    def frames(self, request: VideoRequest) -> np.ndarray:
        return np.repeat(super().frames(request)[:1], request.geometry.frames, axis=0)


class People(Good):
    def frames(self, request: VideoRequest) -> np.ndarray:
        assert len(request.painted) == 1
        return super().frames(request)


class Deterministic(Good):
    def frames(self, request: VideoRequest) -> np.ndarray:
        noise = np.frombuffer(os.urandom(request.geometry.frames), np.uint8)
        return super().frames(request) + noise[:, None, None, None] % 8


class Refuses(Good):
    def validate(self, request: VideoRequest) -> None:
        pass


class NamesErrors(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        try:
            return super().run(request, out)
        except Exception as e:
            raise KeyError("moov") from e


class NothingPartial(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        out.write_bytes(b"\0\0\0\x18ftypmp42")
        return super().run(request, out)


class VerifyRejects(Good):
    def verify(self, request: VideoRequest, out: Path) -> None:
        media.probe(out)


class StaysInPlace(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        report = super().run(request, out)
        out.with_name("debug.log").write_text("done")
        return report


class KeepsInputs(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        report = super().run(request, out)
        request.clip_people.masks_PTHW[:] = 0
        return report


class Reports(Good):
    def run(self, request: VideoRequest, out: Path) -> Report:
        super().run(request, out)
        return Report(per_frame=(1.0,))


WRONG: dict[str, type[VideoGenerator]] = {
    "declares": Declares, "runs": Runs, "writes_out": WritesOut, "frames": Frames, "size": Size, "rate": Rate, "shows": Shows,
    "people": People, "deterministic": Deterministic, "refuses": Refuses, "names_errors": NamesErrors, "nothing_partial": NothingPartial,
    "verify_rejects": VerifyRejects, "stays_in_place": StaysInPlace, "keeps_inputs": KeepsInputs, "reports": Reports,
}  # fmt: skip


class GoodPainter(ImageGenerator):
    """Noise, always the same."""

    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({"image"}), roles=frozenset({"character"}), deterministic=True)

    def run(self, request: ImageRequest, out: Path) -> Report:
        media.read_image(request.pictures["character"])
        shape = (request.geometry.height, request.geometry.width, 3)
        media.write_png(out, np.random.default_rng(request.seed).integers(0, 256, shape, np.uint8))
        return Report()


class BlackPainter(GoodPainter):
    def run(self, request: ImageRequest, out: Path) -> Report:
        super().run(request, out)
        media.write_png(out, np.zeros((request.geometry.height, request.geometry.width, 3), np.uint8))
        return Report()


class SpoilingPainter(GoodPainter):
    def run(self, request: ImageRequest, out: Path) -> Report:
        report = super().run(request, out)
        request.pictures["character"].write_bytes(out.read_bytes())
        return report


class RolelessPainter(GoodPainter):
    def validate(self, request: ImageRequest) -> None:
        pass


WRONG_PAINTERS: dict[str, type[ImageGenerator]] = {"shows": BlackPainter, "keeps_inputs": SpoilingPainter, "refuses": RolelessPainter}


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Two walkers."""
    people = walkers(2)
    media.write_video(tmp_path / "clip.mp4", frames_of(people), GEOMETRY.fps)
    pictures = (tmp_path / "one.png", tmp_path / "two.png")
    for i, path in enumerate(pictures):
        media.write_png(path, np.full((64, 64, 3), (220, 60, 90 + 90 * i), np.uint8))
    return Sample(tmp_path / "clip.mp4", people, pictures, GEOMETRY)


def states(create: Callable[[], Generator], sample: Sample, folder: Path) -> dict[str, str]:
    found = conformance.examine(create, sample, folder)  # type: ignore[arg-type]
    assert [one.rule for one in found] == list(conformance.RULES)
    assert all(one.words for one in found if one.state == "broken")
    return {one.rule: one.state for one in found}


def broken(create: Callable[[], Generator], sample: Sample, folder: Path) -> list[str]:
    return [rule for rule, state in states(create, sample, folder).items() if state == "broken"]


def test_a_good_one_keeps_all_rules(sample: Sample, tmp_path: Path) -> None:
    assert set(states(Good, sample, tmp_path / "videos").values()) == {"held"}
    got = states(GoodPainter, sample, tmp_path / "pictures")
    assert [rule for rule, state in got.items() if state != "held"] == ["people"], "pictures are of one character"


def test_there_is_a_wrong_one_for_every_rule() -> None:
    assert list(WRONG) == list(conformance.RULES)


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_one_breaks_exactly_its_rule(rule: str, sample: Sample, tmp_path: Path) -> None:
    assert broken(WRONG[rule], sample, tmp_path / "kit") == [rule]


@pytest.mark.parametrize("rule", WRONG_PAINTERS)
def test_a_wrong_painter_breaks_exactly_its_rule(rule: str, sample: Sample, tmp_path: Path) -> None:
    assert broken(WRONG_PAINTERS[rule], sample, tmp_path / "kit") == [rule]


@pytest.mark.parametrize("built_in", [Puppet, Collage, Skeleton, Cylinders])
def test_the_built_in_generators_conform(built_in: type[Generator], sample_clip: Callable[[str], Path], tmp_path: Path) -> None:
    geometry = conformance.sample_geometry(built_in.capabilities)
    pictures = [tmp_path / f"{seed}.png" for seed in (6, 8)]
    for path, draw in zip(pictures, (partial(drawn.mannequin, 6, 512), partial(drawn.mannequin, 8, 512)), strict=True):
        media.write_png(path, draw())
    real = conformance.sample_of(sample_clip("multi1"), pictures, geometry, tmp_path)
    found = conformance.examine(built_in, real, tmp_path / "kit")  # type: ignore[arg-type]
    assert [(one.rule, one.words) for one in found if one.state == "broken"] == []
    assert {one.rule for one in found if one.state == "not asked"} <= ({"people"} if built_in is Collage else set())


def test_wan_animate_conforms_with_tiny_weights(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    pytest.importorskip("torch", reason="needs the extra diffusers")
    import tiny_models

    geometry = Geometry(frames=9, height=64, width=96)
    people = walkers(1, geometry, step_px=3)
    media.write_video(tmp_path / "clip.mp4", frames_of(people), geometry.fps)
    media.write_png(tmp_path / "painted.png", frames_of(people)[0])
    weights = f"file:{tiny_models.wan_animate(tmp_path / 'tiny')}"
    options = {"weights": weights, "device": "cpu", "dtype": "float32", "steps": 2, "segment_frames": 9}
    sample = Sample(tmp_path / "clip.mp4", people, (tmp_path / "painted.png",), geometry)
    got = states(lambda: registry.create("wan_animate", options), sample, tmp_path / "kit")
    assert {rule for rule, state in got.items() if state != "held"} == {"people", "deterministic"}
    assert "broken" not in got.values()


# --- the page that says how to add one, followed to the letter

PAGE = (Path(__file__).parents[2] / "docs" / "generators.md").read_text(encoding="utf-8")


def block_of(language: str, marker: str) -> str:
    (found,) = (b for b in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if marker in b)
    return str(found)


def test_the_template_of_the_page_keeps_the_contract(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robot.py").write_text(block_of("python", "class Robot("), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "`motionpair generators check robot.py:Robot`" in PAGE
    got = states(lambda: registry.create("robot.py:Robot", {"ground": 90}), sample, tmp_path / "kit")
    assert set(got.values()) == {"held"}
    with pytest.raises(BadRecipe, match="ground: got 256"):
        registry.create("robot.py:Robot", {"ground": 256})


def test_the_command_of_the_page_is_a_valid_entry() -> None:
    spec = GeneratorSpec.model_validate(yaml.safe_load(block_of("yaml", "kind: command"))["generators"]["mine"])
    can = registry.capabilities_of(spec)
    assert (can.frame_step, can.frames_max, can.fps, can.gpus, can.inputs) == (4, 81, 16, 1, {"skeleton"})
    assert not can.accept_licence


def test_the_page_names_all_rules_capabilities_keys_and_placeholders() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`\{?(\w+)\}?`", row)}
    options = set(VideoCommandOptions.model_fields) - {"dilate_px", "mask_box"}
    assert set(conformance.RULES) | set(Capabilities.model_fields) | options | PLAIN | set(DERIVED) <= named
    for name in {"dilate_px", "mask_box"} | set(ROLES) | IMAGE_PLAIN | {"roles"}:
        assert re.search(rf"`\{{?{name}\b", PAGE), name


# --- the commands


def command(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["generators", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_list_names_every_kind_with_its_licences(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text(block_of("python", "class Robot("), encoding="utf-8")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "recipe: mine\nseed: 1\nsources: [{clips: x}]\nslices: {a: {task: pose, generator: s, quota: 1}}\n"
        "generators:\n  s: {kind: skeleton}\n  own: {kind: 'robot.py:Robot'}\n"
        "  prog: {kind: command, modes: [animation], argv: [no-such-program, '{out}']}\n"
    )
    told = " ".join(command("list", str(recipe)).split())
    for kind in registry.BUILTIN:
        assert kind in told
    assert re.search(r"own +yours +animation +up to 6 people.*Apache-2\.0 / none", told)
    assert "no: no program no-such-program" in told
    assert "to be accepted" in told


def test_check_says_which_rule_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Sample) -> None:
    monkeypatch.setattr("factory.generator_commands._sample", lambda *_: sample)
    source = block_of("python", "class Robot(")
    (tmp_path / "robot.py").write_text(source, encoding="utf-8")
    (tmp_path / "late.py").write_text(source.replace("frames_THWC, g.fps)", "frames_THWC[:5], g.fps)"), encoding="utf-8")
    assert "keeps the contract" in command("check", f"{tmp_path}/robot.py:Robot", "--options", "{ground: 9}")
    told = command("check", f"{tmp_path}/late.py:Robot", code=1)
    assert re.search(r"^BROKEN +frames +the video has 5 frames", told, re.MULTILINE)
    assert "breaks frames" in told
    command("check", "mocha", code=2)
    command("check", "no_such_kind", code=2)
    command("check", f"{tmp_path}/robot.py:Robot", "--weights", "hf:a/b", code=2)
    command("check", "command", "--options", "{modes: [pose], argv: [no-such-program, '{out}']}", code=2)
