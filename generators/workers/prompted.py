"""A program of somebody else that stays loaded, asks for a line of text for each request, and asks again when the work is done.

That it asks is the only sign that it has finished: a file that is there may be half written. It stands on a leash, is started with the
first request and anew when it has ended, and is killed when it takes too long.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from generators.workers.command import FULL_DISK, LOOK_EVERY_S, OOM
from generators.workers.group import as_response
from generators.workers.leash import Leashed
from generators.workers.lines import ChildDied
from generators.workers.listening import Listener
from manifests.errors import MotionpairError, OutOfMemory, OutOfSpace, Transient

NEVER_WAITS = "PYTHONUNBUFFERED"
"""makes a Python program say what it says when it says it"""


class Prompted:
    """One program. For one thread at a time."""

    def __init__(
        self, command: Sequence[str], prompt: str, cwd: str, env: Mapping[str, str], timeout_s: float, load_timeout_s: float
    ) -> None:
        """`prompt`: a regular expression that matches once in what it writes to standard output each time it wants a line."""
        self.command, self._prompt, self._cwd = list(command), prompt, cwd
        self._env = {**os.environ, NEVER_WAITS: "1", **env}
        self._timeout_s, self._load_timeout_s = timeout_s, load_timeout_s
        self._held: Leashed | None = None
        self._listener: Listener | None = None

    @property
    def alive(self) -> bool:
        """Whether it has been started and not ended."""
        return self._held is not None and self._held.process.poll() is None

    def start(self) -> None:
        """Have a program that waits for a line. Raises as `ask`."""
        if self.alive:
            return
        self.end()
        try:
            self._held = Leashed(self.command, cwd=self._cwd, env=self._env, **Listener.streams(subprocess.PIPE))
        except OSError as e:
            raise Transient(f"{self.command[0]} can't be started in {self._cwd} on this node: {e}") from e
        self._listener = Listener(self._held.process, patterns=(OOM, FULL_DISK.pattern), prompt=self._prompt)
        self._until(1, self._load_timeout_s, "loaded")

    def ask(self, line: str) -> None:
        """Give it a line and wait until it wants the next one.

        Raises Transient when that takes too long or the program is not on this node, OutOfMemory, OutOfSpace, and MotionpairError with
        its last words when it ends; it is gone then, and the next call starts another.
        """
        self.start()
        assert self._held
        assert self._listener
        self._listener.matched.clear()
        seen = self._listener.prompts
        stdin = self._held.process.stdin
        assert stdin

        def write() -> None:
            with contextlib.suppress(OSError):  # it has ended, which is noticed elsewhere
                stdin.write(line.encode() + b"\n")

        threading.Thread(target=write, daemon=True).start()  # one that does not read must not keep us from noticing
        self._until(seen + 1, self._timeout_s, "finished")

    def end(self) -> None:
        """Kill the program and all that it started."""
        if self._held:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._held.end()
            with contextlib.suppress(OSError):
                if self._held.process.stdin:
                    self._held.process.stdin.close()
        if self._listener:
            self._listener.finish()
        self._held = self._listener = None

    def _until(self, prompts: int, timeout_s: float, what: str) -> None:
        assert self._held
        assert self._listener
        listener, process, began = self._listener, self._held.process, time.monotonic()
        while listener.prompts < prompts:
            code = process.poll()
            if code is None and time.monotonic() - began <= timeout_s:
                listener.wait(LOOK_EVERY_S)
                continue
            self.end()
            print(listener.tail(), file=sys.stderr, flush=True)  # a quarantined call shows what its worker said last
            raise self._failure(listener, code, f"had not {what} after {timeout_s:g} s and was killed")

    def _failure(self, listener: Listener, code: int | None, late: str) -> MotionpairError:
        why = late if code is None else f"ended with exit code {code}"
        said = f"{' '.join(self.command[:2])[:200]} {why}: {listener.last_words()}"
        if OOM in listener.matched:
            return OutOfMemory(said)
        if FULL_DISK.pattern in listener.matched:
            return OutOfSpace(said)
        return as_response(ChildDied(said, (), code))
