"""SIGTERM in the middle of a run: exit 0, the command to go on, and the same release in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from running import Finished, Material, call, motionpair, tree

from manifests.ledger import Ledger


@pytest.mark.parametrize("grace_s", [0, 600])
def test_a_run_that_is_asked_to_end_says_how_to_go_on_and_does(
    grace_s: int, material: Material, finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = motionpair("run", material.recipe, "--out", out, "--grace", grace_s)
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
    assert f"run {material.recipe} --out {out}" in " ".join(printed.split())
    assert not (out / "release").exists()
    assert not _left_of(process.pid)
    call("run", material.recipe, "--out", out)
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
