"""Process groups that end with their owner, however it ends.

A worker that owns several GPUs starts torchrun, and that starts a process a GPU. When the worker is killed nobody is left to end them, and
the GPUs stay taken. So the command runs under a guard that holds the reading end of a pipe. The writing end is the owner's alone: when the
owner is gone the pipe closes, and the guard kills the whole group. The guard is this file, started as a program: it needs the standard
library only. It is no child of its owner, but of a process that only waits for it: Ray kills the children of a worker that it ends, and
would leave the group without its guard.

Torchrun puts each of its processes into a session, and so a group, of its own. On Linux the guard is therefore the reaper of all that comes
of the command: who loses its parent becomes the guard's child, and whatever descends from the guard is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUBREAPER = 36
"""prctl's PR_SET_CHILD_SUBREAPER"""
ROUNDS = 50
"""of looking for descendants: one that is killed may have started another just before"""


class Leashed:
    """A command in a process group of its own. `process` waits for its guard: its exit status and its streams are the command's."""

    def __init__(self, command: Sequence[str], **popen: Any) -> None:
        """`popen`: what subprocess.Popen takes beside the command (cwd, env, streams). Raises OSError as it does."""
        reading, self._leash = os.pipe()
        try:
            waiting = [sys.executable, "-I", "-S", __file__, str(reading), *command]  # whatever PYTHONPATH the command is given
            self.process = subprocess.Popen(waiting, pass_fds=(reading,), start_new_session=True, **popen)
        except BaseException:
            os.close(self._leash)
            raise
        finally:
            os.close(reading)

    def end(self, timeout_s: float = 5.0) -> int:
        """Kill the group, if it still runs; returns the exit status."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        return self.process.wait(timeout_s)

    def __enter__(self) -> Leashed:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def guard(leash: int, command: Sequence[str]) -> int:
    """Run the command until it ends or the leash is let go; returns its exit status."""
    with contextlib.suppress(OSError, AttributeError):  # no Linux: what leaves the group is not found then
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    try:
        child = subprocess.Popen(command, process_group=0)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def watch() -> None:
        while os.read(leash, 1):
            pass
        _kill(child.pid)

    threading.Thread(target=watch, daemon=True).start()
    child.returncode = _ended(child.pid)
    _kill(child.pid)  # what it left behind
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _ended(command: int) -> int:
    """Wait for it, and clear away whoever ends meanwhile and has nobody else to do it."""
    while True:
        pid, status = os.wait()
        if pid == command:
            return os.waitstatus_to_exitcode(status)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(ROUNDS):
        if not (left := _descendants(os.getpid())):
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _descendants(of: int) -> list[int]:
    """Processes below this one that still run."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    found = {of}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {of})


def _apart() -> None:
    """Go on in a child, in a session of its own; this process waits for it and ends as it does."""
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    os.setsid()


if __name__ == "__main__":
    _apart()
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
