"""`motionpair evaluate` as a user runs it: what it writes, what it refuses, and what hostile files do to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from pages import Page
from typer.testing import CliRunner, Result
from videos import blurred, scene, truth_and_two_models, write

from factory.cli import app
from factory.evaluation import metrics
from generators.images import drawn
from manifests import media
from manifests.sealing import write_release
from manifests.store import Store

PIXELS = ("--metrics", "ssim,psnr")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["--debug", "evaluate", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Truth, a good model and a bad one. Tests must not write into it."""
    return truth_and_two_models(tmp_path_factory.mktemp("material"))


def summary(out: Path, model: str = "generated") -> dict[str, dict[str, float]]:
    return dict(json.loads((out / "evaluation.json").read_text())["models"][model]["summary"])


def test_two_models_side_by_side(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, bad = material
    done = call("--model", f"good={good}", "--model", f"bad={bad}", "--truth", truth, "--out", tmp_path, "--metrics", "ssim,psnr,vmaf")
    assert done.exit_code == 0, done.output
    for name in ("ssim", "psnr", "vmaf"):
        better, worse = (summary(tmp_path, model)[name] for model in ("good", "bad"))
        assert better["mean"] > worse["mean"]
        assert better["n"] == 4
        assert better["low"] < better["mean"] < better["high"]
    between = json.loads((tmp_path / "evaluation.json").read_text())["models"]["bad"]["difference_from_the_first"]["ssim"]
    assert between["mean"] == pytest.approx(summary(tmp_path, "bad")["ssim"]["mean"] - summary(tmp_path, "good")["ssim"]["mean"], abs=1e-6)
    assert between["high"] < 0
    rows = pq.read_table(tmp_path / "per_video.parquet").to_pylist()
    assert [(row["key"], row["model"]) for row in rows] == [(f"k{i}", m) for i in range(4) for m in ("good", "bad")]
    assert np.mean([row["ssim"] for row in rows if row["model"] == "good"]) == pytest.approx(summary(tmp_path, "good")["ssim"]["mean"])
    assert (tmp_path / "per_video.csv").read_text().count("\n") == 9
    page = Page(tmp_path / "index.html")
    assert len(page.check_sources()) == 4 * 5
    first = page.all("section")[0]
    assert float(first["data-ssim-0"] or 0) > float(first["data-ssim-1"] or 0)
    assert {option["value"] for option in page.all("option") if "data-better" in option} >= {"key", "ssim-0", "psnr-1", "vmaf-1"}


def test_means_are_over_the_videos_that_all_models_have(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, bad = material
    shutil.copytree(bad, tmp_path / "bad")
    (tmp_path / "bad" / "k3.mp4").unlink()
    (tmp_path / "bad" / "k2.mp4").write_bytes(b"broken")
    done = call("--model", f"good={good}", "--model", f"bad={tmp_path / 'bad'}", "--truth", truth, "--out", tmp_path / "out", *PIXELS)
    assert done.exit_code == 3
    rows = pq.read_table(tmp_path / "out" / "per_video.parquet").to_pylist()
    for model in ("good", "bad"):
        figures = [row["ssim"] for row in rows if row["model"] == model and row["key"] in ("k0", "k1")]
        assert summary(tmp_path / "out", model)["ssim"]["n"] == 2
        assert summary(tmp_path / "out", model)["ssim"]["mean"] == pytest.approx(np.mean(figures), abs=1e-6)
    assert "bad: not generated: 1: k3" in done.output
    assert "bad: not measured: k2" in done.output


def test_the_same_videos_give_the_same_bytes(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, _ = material
    for name in ("a", "b"):
        assert call(good, "--truth", truth, "--out", tmp_path / name, *PIXELS).exit_code == 0
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_what_can_not_be_computed_says_why_in_the_table(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, _ = material
    done = call(good, "--truth", truth, "--out", tmp_path, "--no-page")
    assert done.exit_code == 0, done.output
    for words in ("skipped: no weights: give --weights fvd=WHERE", "4 without: nobody is found in the truth"):
        assert words in done.output
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(written["skipped"]) | set(written["metrics"]) == {metric.name for metric in metrics.ALL}
    assert not (tmp_path / "index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--metrics", "ssim,lpips"), "lpips: no weights: give --weights lpips_backbone=WHERE --weights lpips_linear=WHERE"),
        (("--metrics", "ssim,flow"), "flow is no metric; allowed are ssim, psnr, vmaf"),
        (("--metrics", "ssim", "--cross"), "ssim: no ground truth"),
        (("--model", "b=x"), "give either a folder"),
    ],
)
def test_what_is_asked_by_name_has_to_be_there(
    material: tuple[Path, Path, Path], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    truth, good, _ = material
    done = CliRunner().invoke(app, ["evaluate", str(good), "--truth", str(truth), "--out", str(tmp_path / "o"), *arguments])
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "o").exists()


def test_a_release_is_the_truth(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    files = tiny.parts(store, tmp_path / "parts")
    made = write_release(tmp_path / "release", tiny.pairs(files, 3), store, tiny.meta())
    assert made is not None
    generated = tmp_path / "generated"
    generated.mkdir()
    for pair, _ in tiny.pairs(files, 2):
        shutil.copy(store.local_path(pair.target, tmp_path), generated / f"{pair.key}.mp4")
    write(generated, "stranger.mp4", scene(1))
    done = call(generated, "--truth", tmp_path / "release", "--out", tmp_path / "out", *PIXELS)
    assert done.exit_code == 0, done.output
    assert summary(tmp_path / "out")["ssim"] == {"mean": 1.0, "median": 1.0, "n": 2, "low": 1.0, "high": 1.0}
    assert "no case for 1: stranger" in done.output
    assert "not generated: 1: " in done.output


def test_case_folders_as_published(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, _ = material
    for number in range(2):
        case = tmp_path / "cases" / f"k{number}"
        case.mkdir(parents=True)
        shutil.copy(truth / f"k{number}.mp4", case / "GT.mp4")
        shutil.copy(truth / f"k{number}.driving.mp4", case / "rendered_v2.mp4")
        shutil.copy(truth / f"k{number}.reference.png", case / "ref.png")
    done = call(good, "--truth", tmp_path / "cases", "--out", tmp_path / "out", *PIXELS)
    assert done.exit_code == 0, done.output
    assert len(Page(tmp_path / "out" / "index.html").check_sources()) == 2 * 4


def test_torch_is_only_loaded_for_what_needs_it(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, _ = material
    program = "import sys; from factory.cli import app; app(sys.argv[1:], standalone_mode=False); sys.exit('torch' in sys.modules)"
    asked = ("evaluate", good, "--truth", truth, "--out", tmp_path, "--metrics", "ssim,psnr,vmaf,pose_pck,identity", "--no-page")
    done = subprocess.run([sys.executable, "-c", program, *map(str, asked)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path)["vmaf"]["n"] == 4
    assert metrics.lacks_module("json", "no_such_package") == f"no_such_package is not installed: {metrics.EXTRA}"


# --- hostile input


def hostile(folder: Path) -> None:
    """Each video has something else."""
    frames = scene(0, frames=9)
    cases: dict[str, Callable[[Path], object]] = {
        "same": lambda f: write(f, "same.mp4", frames),
        "longer": lambda f: write(f, "longer.mp4", scene(0, frames=30)),
        "square": lambda f: write(f, "square.mp4", scene(0, frames=9, height=64, width=64)),
        "larger": lambda f: write(f, "larger.mp4", scene(0, frames=9, height=128, width=192)),
        "slower": lambda f: write(f, "slower.mp4", frames[::2], 8.0),
        "cut": lambda f: (f / "cut.mp4").write_bytes((f / "same.mp4").read_bytes()[:-400]),
        "empty": lambda f: (f / "empty.mp4").write_bytes(b""),
    }
    for name, make in cases.items():
        make(folder / "generated")
        write(folder / "truth", f"{name}.mp4", frames)
    write(folder / "truth", "one.mp4", frames[:1])
    write(folder / "generated", "one.mp4", blurred(frames[:1], 2))


def test_other_lengths_sizes_rates_and_damage(tmp_path: Path) -> None:
    """Compared by timestamp at the lower rate and at the truth's size; what would not be comparable is left out by name."""
    hostile(tmp_path)
    done = call(tmp_path / "generated", "--truth", tmp_path / "truth", "--out", tmp_path / "out", *PIXELS)
    assert done.exit_code == 3
    rows = {row["key"]: row for row in pq.read_table(tmp_path / "out" / "per_video.parquet").to_pylist()}
    assert {key for key, row in rows.items() if row["ssim"] is None} == {"longer", "square", "cut", "empty"}
    assert "lasts 1.875 s" in rows["longer"]["why"]
    assert "another aspect ratio" in rows["square"]["why"]
    assert "cut off" in rows["cut"]["why"]
    assert (rows["one"]["frames"], rows["slower"]["frames"], rows["slower"]["fps"]) == (1, 5, 8.0)
    assert rows["larger"]["notes"] == "resized from 192×128"
    assert rows["slower"]["psnr"] > 35
    assert "not measured: square" in done.output
    assert summary(tmp_path / "out")["ssim"]["n"] == 4
    assert "another aspect ratio" in Page(tmp_path / "out" / "index.html").text
    trimmed = call(tmp_path / "generated", "--truth", tmp_path / "truth", "--out", tmp_path / "trimmed", "--trim", *PIXELS)
    assert trimmed.exit_code == 3
    (longer,) = (r for r in pq.read_table(tmp_path / "trimmed" / "per_video.parquet").to_pylist() if r["key"] == "longer")
    assert (longer["frames"], longer["notes"]) == (9, "the first 9 frames")


def test_folders_without_anything_to_compare(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    truth, good, _ = material
    (tmp_path / "none").mkdir()
    write(tmp_path / "others", "x.mp4", scene(0))
    for folder, words in (("none", "holds no video"), ("gone", "is no folder"), ("others", "no generated video has the key of a case")):
        done = CliRunner().invoke(app, ["evaluate", str(tmp_path / folder), "--truth", str(truth), "--out", str(tmp_path / "o")])
        assert done.exit_code == 1
        assert words in done.output
    write(tmp_path / "twice", "k0.mp4", scene(0))
    write(tmp_path / "twice", "k0.target.mp4", scene(0))
    done = CliRunner().invoke(app, ["evaluate", str(good), "--truth", str(tmp_path / "twice"), "--out", str(tmp_path / "o")])
    assert "are both the truth of k0" in done.output


def test_names_are_text_on_the_page(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """A key is a file's name and may be anything."""
    truth, good, _ = material
    name = "<img src=x onerror=alert(1)>&{{rows}}\"'"
    for folder, source in (("t", truth), ("g", good)):
        (tmp_path / folder).mkdir()
        shutil.copy(source / "k0.mp4", tmp_path / folder / f"{name}.mp4")
    assert call(tmp_path / "g", "--truth", tmp_path / "t", "--out", tmp_path / "out", *PIXELS).exit_code == 0
    page = Page(tmp_path / "out" / "index.html")
    assert page.check_sources() == ["index_videos/00000.0.mp4", "index_videos/00000.truth.mp4"]
    assert name in page.text


def test_the_page_takes_nobodys_files_away(material: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """It clears its folder only of what it put there itself."""
    truth, good, _ = material
    for _ in range(2):
        assert call(good, "--truth", truth, "--out", tmp_path, *PIXELS).exit_code == 0
    copies = {path.name: path.read_bytes() for path in (tmp_path / "index_videos").iterdir()}
    (tmp_path / "index_videos" / "mine.mp4").write_bytes(b"x")
    write(tmp_path / "b" / "index_videos", "00000.0.mp4", scene(0))
    write(tmp_path / "t", "00000.0.mp4", scene(0))
    for generated, against, out, words in (
        (good, truth, tmp_path, "holds mine.mp4"),
        (tmp_path / "b" / "index_videos", tmp_path / "t", tmp_path / "b", "holds what is evaluated"),
    ):
        done = CliRunner().invoke(app, ["evaluate", str(generated), "--truth", str(against), "--out", str(out), *PIXELS])
        assert done.exit_code == 1
        assert words in done.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "index_videos").iterdir()} == copies | {"mine.mp4": b"x"}
    assert (tmp_path / "b" / "index_videos" / "00000.0.mp4").exists()


# --- people


def test_pose_of_real_people(sample_clip: Callable[[str], Path], tmp_path: Path) -> None:
    """A clip that was blurred agrees with itself, another moment of it less. With no truth the driving video counts."""
    frames = media.read_clip(sample_clip("front"), 16.0, short_side=288, start_s=0.1, count=18)
    write(tmp_path / "truth", "walk.driving.mp4", frames[:9])
    write(tmp_path / "same", "walk.mp4", blurred(frames[:9], 0.7))
    write(tmp_path / "later", "walk.mp4", frames[9:])
    asked = ("--metrics", "pose_presence,pose_pck,pose_limb_deg,pose_motion", "--truth", tmp_path / "truth", "--out", tmp_path / "out")
    done = call("--model", f"same={tmp_path / 'same'}", "--model", f"later={tmp_path / 'later'}", *asked)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["mode"] == "cross-identity"
    same, later = (summary(tmp_path / "out", model) for model in ("same", "later"))
    assert same["pose_pck"]["mean"] > 0.95 > later["pose_pck"]["mean"]
    assert same["pose_limb_deg"]["mean"] < 5 < later["pose_limb_deg"]["mean"]
    assert same["pose_motion"]["mean"] > later["pose_motion"]["mean"]
    assert same["pose_presence"]["mean"] == 1


def test_identity_against_the_reference_picture(tmp_path: Path) -> None:
    """Drawn faces: one's own is nearer than another's."""
    pictures = {number: drawn.mannequin(number, 320) for number in (6, 3)}
    write(tmp_path / "truth", "still.driving.mp4", np.stack([pictures[3]] * 2))
    media.write_png(tmp_path / "truth" / "still.reference.png", pictures[6])
    for name, number in (("own", 6), ("other", 3)):
        write(tmp_path / name, "still.mp4", np.stack([pictures[number]] * 2))
    models = ("--model", f"own={tmp_path / 'own'}", "--model", f"other={tmp_path / 'other'}")
    done = call(*models, "--truth", tmp_path / "truth", "--out", tmp_path / "out", "--metrics", "identity", "--no-page")
    assert done.exit_code == 0, done.output
    own, other = (summary(tmp_path / "out", model)["identity"]["mean"] for model in ("own", "other"))
    assert own > 0.9 > other
