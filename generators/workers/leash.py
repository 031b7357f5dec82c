"""Processes that end with their owner, however it ends.

A worker that owns several GPUs starts torchrun, and that starts a process a GPU, each in a session of its own. When the worker is killed
nobody is left to end them, and the GPUs stay taken. So the command runs under a guard that holds the reading end of a pipe. The writing
end is the owner's alone: when the owner is gone the pipe closes, and the guard kills the command's group and whatever else descends from
it. For that the guard is a child subreaper (prctl(2)): who loses its parent becomes the guard's child. Where there is no such call, on
other systems than Linux, only the group is killed.

The guard is this file, started as a program: it needs the standard library only. It is no child of its owner, but of a process that only
waits for it: Ray kills the children of a worker that it ends, and would leave the group without its guard.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
"""of <linux/prctl.h>"""


END_S = 5.0


class Leashed:
    """A command and all that it starts. `process` waits for its guard: its exit status and its streams are the command's."""

    def __init__(self, command: Sequence[str | bytes], **popen: Any) -> None:
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

    def end(self, timeout_s: float = END_S) -> int:
        """Kill all of it, if it still runs; returns the exit status. Raises subprocess.TimeoutExpired when it does not go."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        return self.process.wait(timeout_s)

    def __enter__(self) -> Leashed:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it goes when the kernel can; what it was given up for is told
            self.end()


def guard(leash: int, command: Sequence[str]) -> int:
    """Run the command until it ends or the leash is let go; returns its exit status."""
    _adopt()
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
    status = _status_of(child.pid)
    _kill(child.pid)  # what it left behind
    _end_descendants()
    return status if status >= 0 else 128 - status


def _adopt() -> None:
    """Have descendants that lose their parent become this process's children, so that they are found whatever session they are in."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _status_of(child: int) -> int:
    """Wait for a child, and for others that end before: those that were adopted are nobody else's to wait for."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _end_descendants() -> None:
    """Kill children until there is none: each that goes leaves its own children to this process."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found: list[int] = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text(errors="replace")
                if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(entry))
    return found


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _apart() -> None:
    """Go on in a child, in a session of its own; this process waits for it and ends as it does."""
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    os.setsid()


if __name__ == "__main__":
    _apart()
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
