"""SIGTERM in the middle of a run: exit 0, the command to go on, and the same release in the end."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from running import Finished, Material, call, motionpair, tree

from factory.progress import Progress
from factory.run import run_recipe
from manifests.ledger import Ledger
from manifests.recipe import load_recipe


@pytest.fixture(scope="module")
def poses(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny recipe's pose slice with more jobs than one worker begins at once, in `out.parent`, and its undisturbed run."""
    folder = tmp_path_factory.mktemp("poses")
    lines = [line for line in material.recipe.read_text().splitlines() if not re.match(r"  (walk|swap):", line)]
    text = "\n".join(lines).replace("spans_per_clip: 1", "spans_per_clip: 2").replace("workers: 2", "workers: 1")
    (folder / "poses.yaml").write_text(text.replace("generator: skeleton, quota: 2", "generator: skeleton, quota: 4") + "\n")
    return Finished(folder / "out", call("run", folder / "poses.yaml", "--out", folder / "out"))


@pytest.mark.parametrize("grace_s", [0, 600])
def test_a_run_that_is_asked_to_end_says_how_to_go_on_and_does(grace_s: int, poses: Finished, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", poses.out.parent / "poses.yaml"
    command = motionpair("run", recipe, "--out", out, "--grace", grace_s)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not list((out / "store" / "outcomes").glob("*/*.json")) or not _making(out):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    if "release sealed" in printed:
        pytest.fail("everything was finished before the signal came; the test shows nothing")
    assert "stopped" in printed
    assert f"run {recipe} --out {out}" in " ".join(printed.split())
    assert not (out / "release").exists()
    assert not _left_of(process.pid)
    call("run", recipe, "--out", out)
    assert tree(out / "release") == tree(poses.out / "release")


class SignalledWhileSealing(Progress):
    """The signal comes when the sealing has begun, which then takes longer than the grace."""

    def enter(self, phase: str) -> None:
        super().enter(phase)
        if phase.startswith("sealing"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)


def test_a_sealing_that_has_begun_comes_to_its_end(material: Material, finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    shutil.rmtree(out / "release")
    result = asyncio.run(run_recipe(load_recipe(material.recipe), out, SignalledWhileSealing(), grace_s=0.1))
    assert result.release == out / "release" / "0001"
    assert tree(out / "release") == tree(finished.out / "release")


def _making(out: Path) -> bool:
    """A clip has been cut for a pair."""
    with Ledger(out / "ledger.sqlite") as ledger:
        return bool(ledger.counts().get("cut"))


def _left_of(pid: int) -> list[str]:
    """Children of the run that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if f"PPid:\t{pid}\n" in (entry / "status").read_text() and int(entry.name) != os.getpid():
                    found.append(entry.name)
            except OSError:
                continue
    return found
