"""Bad input and bad places: one clear line, the right exit code, the others go on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from running import Finished, Material, call

from manifests import media
from manifests.release import Release

OWN = Path(__file__).parent / "own" / "misbehaving.py"


def test_bad_clips_are_reported_and_the_others_go_on(sample_clip: Callable[[str], Path], tmp_path: Path) -> None:
    clips = tmp_path / "my clips"
    clips.mkdir()
    good = Path(os.path.realpath(sample_clip("front"))).read_bytes()
    (clips / "-rf good..one.mp4").write_bytes(good)
    (clips / "cut off.mp4").write_bytes(good[: len(good) * 2 // 3])
    (clips / "notes.mp4").write_text("this is no video")
    (clips / "empty.mp4").touch()
    (clips / os.fsdecode(b"caf\xe9.mp4")).write_bytes(good)
    ramp = np.broadcast_to(np.linspace(40, 200, 256, dtype=np.uint8)[None, None, :, None], (40, 256, 256, 3))
    media.write_video(clips / "nobody.mp4", np.ascontiguousarray(ramp), 16)
    media.write_video(clips / "short.mp4", np.ascontiguousarray(ramp[:5]), 16)
    table = tmp_path / "index.parquet"
    printed = call("index", clips, "--frames", 9, "--out", table)
    rows = {row["file"]: row for row in pq.read_table(table).to_pylist()}
    reasons = {name: row["reason"] for name, row in rows.items() if not row["eligible"]}
    assert reasons == {
        "cut off.mp4": "truncated",
        "notes.mp4": "not_a_video",
        "empty.mp4": "not_a_video",
        "nobody.mp4": "no_person",
        "short.mp4": "too_few_frames",
        "caf\ufffd.mp4": "bad_name",
    }
    assert rows["-rf good..one.mp4"]["eligible"]
    assert "3 spans in 1 clips" in printed
    assert all(f"left out: {name}" in printed for name in reasons)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("quota: 2", "qouta: 2"), "unknown key. Did you mean 'quota'?"),
        (("kind: puppet,", "kind: pupet,"), "unknown generator kind 'pupet'. Did you mean 'puppet'?"),
        (("quota: 2", "quota: 0"), "greater than or equal to 1"),
        (("kind: skeleton", "kind: scail"), "can be planned, but to run it the entry has to say python, repo, weights, scail_path"),
        (("generator: skeleton", "generator: puppet"), "makes animation, replacement, not pose"),
        (("frames: 9", "frames: 10"), "frames must be 4n+1"),
        (("fps: 30}", "fsp: 30}"), "unknown key. Did you mean 'fps'?"),
        (("recipe: tiny", "recipe: [tiny"), "not valid YAML"),
        (("seed: 3", "seed: 3\nseed: 4"), "the key 'seed' stands there twice"),
        (("budget_per_job:", "mix: {animation: 1}\nbudget_per_job:"), "mix has no weight for replacement"),
        (("min_gap_s: 0.5", "min_gap_s: .inf"), "finite number"),
        (("workers: 2", "workers: 2.5"), "workers are whole numbers"),
        (("people: 1}", "people: 1..9}"), "people lie between 1 and 6"),
        (("slices:", "slices:\n  '[/b]': {task: pose, generator: skeleton, quota: 1}"), "should match pattern"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(material: Material, tmp_path: Path, change: tuple[str, str], told: str) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(material.recipe.read_text().replace(*change))
    printed = call("run", recipe, "--out", tmp_path / "out", code=2)
    assert told in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_and_an_empty_folder_are_usage_errors(material: Material, tmp_path: Path) -> None:
    assert "no such recipe" in call("run", "nonsense", "--out", tmp_path / "out", code=2)
    (tmp_path / "none").mkdir()
    printed = call("run", material.recipe, "--clips", tmp_path / "none", "--out", tmp_path / "out", code=2)
    assert "no files there" in printed
    assert "no files there" in call("plan", material.recipe, "--clips", tmp_path / "none", code=2)


def test_a_cluster_that_is_not_there_and_too_many_workers_are_told_at_once(material: Material, tmp_path: Path) -> None:
    printed = call("run", material.recipe, "--out", tmp_path / "out", "--address", "127.0.0.1:9", code=2)
    assert "--address 127.0.0.1:9: no Ray cluster lets us in there" in printed
    many = tmp_path / "many.yaml"
    many.write_text(material.recipe.read_text().replace("workers: 2", "workers: 20000"))
    assert "20000 workers; this machine has" in call("run", many, "--out", tmp_path / "out", code=2)


def test_a_place_that_cannot_be_written_is_told(material: Material, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    printed = call("run", material.recipe, "--out", tmp_path / "file" / "out", code=1)
    assert "can't write to" in printed
    assert "Traceback" not in printed


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(material: Material, finished: Finished, tmp_path: Path) -> None:
    """A generator that gets ENOSPC while it writes stands in for the disk; the rest is real. Everything but its videos is there already."""
    room, recipe, out = tmp_path / "room", tmp_path / "full.yaml", tmp_path / "out"
    shutil.copytree(finished.out, out)
    shutil.rmtree(out / "release")
    there = len(list((out / "store" / "outcomes").rglob("*.json")))
    own = f"{OWN}:FullDisk, mark: {room}"
    recipe.write_text(material.recipe.read_text().replace("kind: skeleton", f"kind: {own}"))
    printed = call("run", recipe, "--out", out, code=1)
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    assert not (out / "release").exists()
    before = len(list((out / "store" / "outcomes").rglob("*.json")))
    room.touch()
    call("run", recipe, "--out", out)
    assert there <= before < len(list((out / "store" / "outcomes").rglob("*.json")))
    assert Release.open(out / "release").info.complete


def test_verify_names_the_shard_and_the_pair_of_a_lost_byte(finished: Finished, tmp_path: Path) -> None:
    copy = tmp_path / "release"
    shutil.copytree(finished.out / "release", copy)
    release = Release.open(copy)
    row = next(r for r in release.rows() if r.split == "train")
    shard = release.shard_path(row.shard)
    member = row.member("target.mp4")
    data = shard.read_bytes()
    at = member.offset + member.size // 2
    shard.chmod(0o644)
    shard.write_bytes(data[:at] + data[at + 1 :])
    printed = call("verify", copy, code=1)
    assert row.shard in printed
    assert row.key in printed
    assert "unexpected" not in printed
    assert call("verify", finished.out / "release").startswith("whole: revision 0001")


def test_a_pair_is_drawn_and_an_unknown_key_is_told(finished: Finished, tmp_path: Path) -> None:
    row = Release.open(finished.out / "release").rows()[0]
    sheet = tmp_path / "sheet.png"
    assert row.caption in " ".join(call("show", finished.out / "release", row.key[:8], "--sheet", sheet).split())
    assert media.read_image(sheet).shape[1] > 500
    assert "0 pairs have a key" in call("show", finished.out / "release", "zzz", "--sheet", sheet, code=2)


def test_status_of_a_folder_without_a_run(tmp_path: Path) -> None:
    assert "no run has worked there" in call("status", tmp_path, code=2)
