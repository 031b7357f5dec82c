"""The whole run on real clips: what comes out, what a second run repeats, what a killed one leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from running import Finished, Material, call, motionpair, tree

from factory.progress import Progress
from factory.run import run_recipe
from manifests.errors import Damaged
from manifests.ledger import Ledger, unpack_pair
from manifests.recipe import load_recipe
from manifests.release import Release
from manifests.store import Cost, Store
from manifests.verify import verify


def outcomes(out: Path) -> dict[str, float]:
    """Outcome file → when it was written."""
    return {p.name: p.stat().st_mtime for p in (out / "store" / "outcomes").rglob("*.json")}


def test_all_three_tasks_come_out_and_verify(finished: Finished) -> None:
    info = Release.open(finished.out / "release").info
    assert info.complete
    assert info.pairs == 6
    assert {task for tasks in info.counts.values() for task in tasks} == {"animation", "replacement", "pose"}
    assert verify(finished.out / "release") == []
    assert "release sealed" in finished.printed


def test_plain_webdataset_reads_every_sample(finished: Finished) -> None:
    release = Release.open(finished.out / "release")
    shards = sorted(str(p) for p in (release.folder / "shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert {s["__key__"] for s in samples} == {row.key for row in release.rows()}
    wanted = {"driving.mp4", "target.mp4", "driving_mask.mp4", "reference.png", "reference_mask.png", "json"}
    assert all(wanted <= set(s) for s in samples)


def test_reading_the_manifest_starts_no_threads(finished: Finished) -> None:
    """A thread of pyarrow that was still busy when the interpreter ended has aborted the command after all its work was done."""
    code = (
        "import os, sys; from manifests.release import Release; import pyarrow.parquet;"
        "before = len(os.listdir('/proc/self/task')); rows = Release.open(sys.argv[1]).rows();"
        "print(len(rows), len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, finished.out / "release"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["6", "0"]


def test_no_group_and_no_character_stands_on_both_sides(finished: Finished) -> None:
    rows = Release.open(finished.out / "release").rows()
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row.group, set()).add(row.split)
        for character in json.loads(row.lineage)["characters"]:
            sides.setdefault(character, set()).add(row.split)
    assert sides["lab"] == {"train"}
    assert sides["other"] == {"validation"}
    assert len(sides) > 3, "no character was used"
    assert all(len(side) == 1 for side in sides.values())


def test_asking_again_does_no_work_and_starts_no_worker(
    finished: Finished, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, release = outcomes(finished.out), tree(finished.out / "release")
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null/none")  # a run that asks for a worker fails now
    printed = call("run", material.recipe, "--out", finished.out)
    assert "steps: 0 run (0 by generators)" in printed
    assert "no generator work was needed" in printed
    assert "release unchanged" in printed
    assert outcomes(finished.out) == before
    assert tree(finished.out / "release") == release


def test_renamed_files_change_nothing_and_a_new_clip_repeats_nothing(
    finished: Finished, material: Material, sample_clip: Callable[[str], Path], tmp_path: Path
) -> None:
    mine, out = material.copy_to(tmp_path / "material"), tmp_path / "out"
    shutil.copytree(finished.out, out)
    for i, clip in enumerate(sorted(mine.clips.rglob("*.mp4"))):
        clip.rename(clip.with_name(f"-zzz {i}..mp4"))
    before = outcomes(out)
    printed = call("run", mine.recipe, "--out", out)
    assert "steps: 0 run (0 by generators)" in printed
    assert "release unchanged" in printed

    shutil.copy(os.path.realpath(sample_clip("multi2")), mine.clips / "lab" / "added.mp4")
    call("run", mine.recipe, "--out", out)
    after = outcomes(out)
    assert {name: after[name] for name in before} == before
    with Ledger(out / "ledger.sqlite", Store(out / "store")) as ledger:
        assert sum(ledger.counts()["index_clip"].values()) == 3


def run_until(command: list[str], ready: Callable[[], bool], sign: int, patience_s: float = 240.0) -> tuple[int, str]:
    """Start a command in its own session, wait for `ready`, signal it; its exit code and what it printed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    end = time.monotonic() + patience_s
    while not ready() and process.poll() is None:
        assert time.monotonic() < end, "never got there"
        time.sleep(0.02)
    assert process.poll() is None, f"ended before it could be disturbed: {process.communicate()[0]}"
    process.send_signal(sign) if sign == signal.SIGKILL else os.killpg(process.pid, sign)
    printed = process.communicate(timeout=60)[0]
    return process.returncode, printed


def test_killed_three_times_the_release_has_the_same_bytes(finished: Finished, material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = motionpair("run", material.recipe, "--out", out)
    moments: list[Callable[[], bool]] = [
        lambda: len(outcomes(out)) >= 3,
        lambda: any((out / "store" / "outcomes").rglob("*.json")) and len(outcomes(out)) >= 16,
        lambda: (out / "release").exists(),
    ]
    for moment in moments:
        code, _ = run_until(command, moment, signal.SIGKILL)
        assert code == -signal.SIGKILL
    call("run", material.recipe, "--out", out)
    assert tree(out / "release") == tree(finished.out / "release")


def test_without_its_ledger_a_run_is_rebuilt_from_the_store(finished: Finished, material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    for file in out.glob("ledger.sqlite*"):
        file.unlink()
    assert "steps: 0 run (0 by generators)" in call("run", material.recipe, "--out", out)
    assert "accepted" in call("status", out)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed = run_until(motionpair("run", material.recipe, "--out", out), lambda: len(outcomes(out)) >= 2, signal.SIGINT)
    assert code == 130, printed
    assert "Run the same command again to resume" in printed
    assert "Traceback" not in printed


def test_a_second_run_in_the_same_folder_is_refused(material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = motionpair("run", material.recipe, "--out", out)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not (out / "ledger.sqlite").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "another run is working" in call("run", material.recipe, "--out", out, code=2)
    finally:
        process.kill()
        process.wait()


def test_a_finished_job_is_taken_from_its_row_and_never_replayed(material: Material, finished: Finished, tmp_path: Path) -> None:
    """Nothing is left of its steps' outcomes, in the store and in the ledger; the decision stands on the row alone."""
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    kept = ("index_clip", "index_picture")
    with Ledger(out / "ledger.sqlite") as ledger:
        keys = [row[0] for row in ledger.execute(f"SELECT key FROM outcomes WHERE step NOT IN {kept}")]
        ledger.execute(f"DELETE FROM outcomes WHERE step NOT IN {kept}")
    for key in keys:
        (out / "store" / "outcomes" / key[:2] / f"{key}.json").unlink()
    shutil.rmtree(out / "release")
    assert "no generator work was needed" in call("run", material.recipe, "--out", out)
    assert tree(out / "release") == tree(finished.out / "release")


def test_pairs_whose_files_are_gone_are_made_again_in_the_same_run(material: Material, finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    jobs = [row.job for row in Release.open(out / "release").rows() if row.task == "animation"]
    shutil.rmtree(out / "release")
    with Ledger(out / "ledger.sqlite") as ledger:
        driving = {unpack_pair(ledger.pair_of(job) or b"").driving.digest for job in jobs}
    for digest in driving:
        next((out / "store").rglob(f"{digest}*")).unlink()
    assert f"files of {len(jobs)} finished pairs are gone" in call("run", material.recipe, "--out", out)
    assert tree(out / "release") == tree(finished.out / "release")


class Losing(Progress):
    """Whenever all pairs are made, the driving videos of the animations disappear; so many times."""

    def __init__(self, out: Path, times: int) -> None:
        super().__init__()
        self._out, self._left = out, times

    def changed(self) -> None:
        if sum(self.accepted.values()) == 6 and self._left:
            with Ledger(self._out / "ledger.sqlite") as ledger:
                pairs = [unpack_pair(ledger.pair_of(job.job) or b"") for job in ledger.jobs("accepted")]
            driving = {pair.driving.digest for pair in pairs if pair.task == "animation"}
            files = [file for digest in driving for file in (self._out / "store" / "objects").rglob(f"{digest}*")]
            if len(files) == 2:  # not when the next round begins
                self._left -= 1
                for file in files:
                    file.unlink()


@pytest.mark.parametrize("times", [1, 2])
def test_files_that_go_while_their_run_works_are_made_again_once(
    times: int, material: Material, finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    shutil.rmtree(out / "release")
    with Ledger(out / "ledger.sqlite") as ledger:
        ledger.remake(*(job.job for job in ledger.jobs()))  # so that all their steps are seen in this run
    going = run_recipe(load_recipe(material.recipe), out, Losing(out, times))
    if times == 1:
        assert asyncio.run(going).complete
        assert tree(out / "release") == tree(finished.out / "release")
    else:
        with pytest.raises(Damaged, match=r"files of 2 pairs, that of job [0-9a-f]+ first, are gone again"):
            asyncio.run(going)
        assert not (out / "release").exists()


def test_what_is_finished_is_released_also_when_the_budget_is_spent(material: Material, finished: Finished, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    shutil.copytree(finished.out, out)
    shutil.rmtree(out / "release")
    with Ledger(out / "ledger.sqlite") as ledger:
        ledger.lose("f" * 64, "paint", Cost(seconds=1.0, gpu_seconds=3600.0))
    recipe.write_text(f"{material.recipe.read_text()}\nbudget: {{gpu_hours: 0.5}}\n")
    call("run", recipe, "--out", out)
    assert tree(out / "release") == tree(finished.out / "release")
