"""Process groups end with their owner. Real processes, killed for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from generators.workers.leash import Leashed

FAMILY = "sleep 600 & sleep 600 & echo $! ; wait"
"""a shell with two children"""
APART = "setsid bash -c 'sleep 600 & setsid sleep 600 & wait' & wait"
"""a shell whose child, like torchrun's, is in a session of its own, and so is one of this one's two children"""
OWNER = """
import sys, time
from generators.workers.leash import Leashed
held = Leashed(["bash", "-c", sys.argv[1]])
time.sleep(600)
"""


def group_of(marker: str) -> list[int]:
    """Processes, other than defunct ones, with this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if marker.encode() in (entry / "environ").read_bytes() and "State:\tZ" not in (entry / "status").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # has gone meanwhile
        return ""


def wait_for(count: int, marker: str, seconds: float) -> float:
    """Seconds until so many processes are there."""
    began = time.monotonic()
    while len(group_of(marker)) != count:
        assert time.monotonic() - began < seconds, group_of(marker)
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_killed_owner_takes_the_whole_family_along() -> None:
    marker = f"FAMILY_{os.getpid()}_A"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, FAMILY], env={**os.environ, marker: "1"}, stdout=subprocess.DEVNULL)
    wait_for(6, marker, 30)  # owner, who waits, guard, shell, two sleepers
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert wait_for(0, marker, 5) < 5


def test_who_went_into_a_session_of_its_own_is_ended_too() -> None:
    marker = f"FAMILY_{os.getpid()}_D"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, APART], env={**os.environ, marker: "1"}, stdout=subprocess.DEVNULL)
    wait_for(7, marker, 30)  # owner, who waits, guard, two shells, two sleepers
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert wait_for(0, marker, 5) < 5


def test_whose_parent_has_gone_is_ended_too_and_leaves_no_defunct_process(tmp_path: Path) -> None:
    marker, brief = f"FAMILY_{os.getpid()}_E", tmp_path / f"brief{os.getpid()}"
    shutil.copy("/bin/true", brief)
    family = f"(setsid sleep 600 &) ; (setsid {brief} &) ; (setsid {brief} &) ; sleep 1 ; echo said ; sleep 600 ; true"
    with Leashed(["bash", "-c", family], env={**os.environ, marker: "1"}, stdout=subprocess.PIPE) as held:
        assert held.process.stdout is not None
        assert held.process.stdout.readline() == b"said\n"
        wait_for(5, marker, 10)  # who waits, guard, shell, two sleepers
        assert not [stat for stat in Path("/proc").glob("[0-9]*/stat") if f"({brief.name})" in read(stat)]
    wait_for(0, marker, 5)


def test_status_and_output_are_the_commands() -> None:
    with Leashed(["bash", "-c", "echo said; exit 7"], stdout=subprocess.PIPE) as held:
        assert held.process.stdout is not None
        assert held.process.stdout.read() == b"said\n"
        assert held.process.wait(10) == 7
    with Leashed(["/no/such/command"], stderr=subprocess.PIPE) as held:
        assert held.process.wait(10) == 127


def test_what_a_command_leaves_behind_is_ended_with_it() -> None:
    marker = f"FAMILY_{os.getpid()}_B"
    with Leashed(["bash", "-c", "sleep 600 & exit 0"], env={**os.environ, marker: "1"}) as held:
        assert held.process.wait(10) == 0
    wait_for(0, marker, 5)


def test_what_left_the_group_is_ended_too() -> None:
    """As torchrun's processes do; also what has lost its parent."""
    for letter, family in (
        ("D", "setsid sleep 600 & wait"),
        ("E", "(setsid setsid sleep 600 &) ; sleep 600"),
        ("F", "(setsid sleep 600 &) ; exit 0"),
    ):
        marker = f"FAMILY_{os.getpid()}_{letter}"
        with Leashed(["bash", "-c", family], env={**os.environ, marker: "1"}) as held:
            if letter != "F":
                wait_for(4, marker, 10)
        assert held.process.returncode is not None
        wait_for(0, marker, 5)


def test_who_ends_without_a_parent_leaves_nothing_defunct() -> None:
    marker = f"FAMILY_{os.getpid()}_G"
    family = "for i in 1 2 3; do (setsid true &) ; done; sleep 600; :"

    def defunct_beside(pid: int) -> int:
        stats = {path.parent.name: stat_of(path) for path in Path("/proc").glob("[0-9]*/stat")}
        guard = stats[str(pid)][1]
        return sum(state == "Z" and parent == guard for state, parent in stats.values())

    with Leashed(["bash", "-c", family], env={**os.environ, marker: "1"}):
        wait_for(4, marker, 10)
        time.sleep(0.3)
        (shell,) = (pid for pid in group_of(marker) if Path(f"/proc/{pid}/comm").read_text() == "bash\n")
        assert defunct_beside(shell) == 0
    wait_for(0, marker, 5)


def stat_of(path: Path) -> tuple[str, str]:
    """State and parent of a process that may have ended."""
    try:
        state, parent, *_ = path.read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return state, parent


def test_gpus_of_a_killed_worker_are_free_again_and_its_group_is_gone() -> None:
    marker = f"FAMILY_{os.getpid()}_C"

    class Torchrunner:
        """A worker with two GPUs that has started its group."""

        def __init__(self, marker: str) -> None:
            self.held = Leashed(["bash", "-c", FAMILY], env={**os.environ, marker: "1"}, stdout=subprocess.DEVNULL)

        def pid(self) -> int:
            return os.getpid()

    ray.init(address="local", num_cpus=1, num_gpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        for end in (lambda actor, pid: os.kill(pid, signal.SIGKILL), lambda actor, pid: ray.kill(actor)):  # Ray kills its children first
            actor = ray.remote(Torchrunner).options(num_gpus=2, num_cpus=0).remote(marker)
            pid = ray.get(actor.pid.remote())
            wait_for(5, marker, 30)
            assert ray.available_resources().get("GPU", 0) == 0
            end(actor, pid)
            began = time.monotonic()
            assert wait_for(0, marker, 5) < 5
            while ray.available_resources().get("GPU", 0) < 2:
                assert time.monotonic() - began < 5
                time.sleep(0.05)
    finally:
        ray.shutdown()


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGKILL"])
def test_a_command_that_is_signalled_tells_it(signal_name: str) -> None:
    with Leashed(["bash", "-c", f"kill -{signal_name} $$"]) as held:
        assert held.process.wait(10) == 128 + signal.Signals[signal_name]


def test_nothing_in_the_folder_or_the_environment_stands_in_for_the_guard(tmp_path: Path) -> None:
    for name in ("contextlib.py", "signal.py", "generators.py"):
        (tmp_path / name).write_text("raise SystemExit('not ours')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with Leashed(["bash", "-c", "echo $PYTHONPATH; exit 7"], cwd=tmp_path, env=env, stdout=subprocess.PIPE) as held:
        assert held.process.stdout is not None
        assert held.process.stdout.read().decode().strip() == str(tmp_path)
        assert held.process.wait(10) == 7
