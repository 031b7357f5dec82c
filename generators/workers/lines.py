"""A model in its own environment: a child process that stays, loads once, and is spoken to in lines of JSON.

The child's side is `child.py`, which any Python from 3.10 on runs by its path. The child stands on a leash: it and all that it starts end
with its owner. Its standard input and output are the pipes, so it may as well be behind `docker run -i` or `ssh`; what others print there
is passed on to standard error, like its standard error.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from generators.workers.child import MARK
from generators.workers.leash import Leashed
from manifests.errors import BadAnswer, BadInput, MotionpairError, OutOfMemory, OutOfSpace, Transient

CHILD = Path(__file__).with_name("child.py")
"""to be run by another interpreter: [python, CHILD, script]"""
SILENCE_S = 60.0
"""without a sign of life, after which a child is taken for dead; it sends one a second unless something keeps Python from running"""
LAST_LINES = 20
"""of the child's output that an error carries"""
LONGEST_BYTES = 1 << 16
"""of its standard error that are waited for without an end of line"""
DRAIN_S = 2.0
"""for the last lines of a dead child to arrive"""
TOLD = {kind.__name__: kind for kind in (BadInput, BadAnswer, Transient, OutOfMemory, OutOfSpace)} | {
    "MemoryError": OutOfMemory,
    "OutOfMemoryError": OutOfMemory,
}
"""class names in the child → what is raised here; OutOfMemoryError is torch's"""


class ChildDied(MotionpairError):
    """The child ended, hung or fell silent; its whole group is gone. `lines`: the last that it printed. `status`: its exit status, None
    where it was given up and killed."""

    code = "child_died"

    def __init__(self, message: str, lines: Sequence[str] = (), status: int | None = None) -> None:
        super().__init__(message)
        self.args = (message, tuple(lines), status)
        self.lines, self.status = tuple(lines), status
        if lines:
            self.add_note("the child's last lines:\n" + "\n".join(lines))


class ChildFault(MotionpairError):
    """The child raised something that says nothing of what to do. It lives on."""

    code = "child_fault"


class Child:
    """A child that is started with the first call, and again with the next one after it died. For one thread at a time."""

    def __init__(
        self, command: Sequence[str], load: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None,
        load_timeout_s: float | None = None, silence_s: float = SILENCE_S,
    ) -> None:  # fmt: skip
        """`load`: what the child's `load` gets; `env`: variables beside those of this process. No shell sees the command."""
        self._command, self._load, self._env = list(command), dict(load or {}), dict(env or {})
        self._load_timeout_s, self._silence_s = load_timeout_s, silence_s
        self._numbers = itertools.count(1)
        self._running: _Running | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a child that has loaded and not ended."""
        return self._running is not None and not self._running.gone

    def start(self) -> dict[str, Any]:
        """Have a child that has loaded. Returns what its `load` said; nothing if it stood already. Raises as `call` does."""
        if self.alive:
            return {}
        self.end()
        self._running = _Running(self._command, {**os.environ, **self._env})
        try:
            return self._ask({"load": self._load}, self._load_timeout_s)
        except BaseException:
            self.end()
            raise

    def call(self, message: Mapping[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """What the child's `handle` answers. `timeout_s` counts without loading.

        Raises ChildDied when the child ends, falls silent or exceeds the time; BadInput, BadAnswer, Transient, OutOfMemory and OutOfSpace
        where it raised a class of that name, MemoryError or torch's, or found the disk full; ChildFault for all else that it raised. After
        an error that it can't live on with it is ended.
        """
        self.start()
        return self._ask({"call": dict(message)}, timeout_s)

    def _ask(self, message: dict[str, Any], timeout_s: float | None) -> dict[str, Any]:
        assert self._running is not None
        number = next(self._numbers)
        try:
            said = self._running.ask({"id": number, **message}, timeout_s, self._silence_s)
        except _Over as over:
            running, self._running = self._running, None
            status = running.end()
            why = str(over) or f"ended with {_status(status)}"
            last = f"; its last line: {running.lines[-1][:300]}" if running.lines else ""
            raise ChildDied(f"{shlex.join(self._command)[:300]} {why}{last}", running.lines, None if str(over) else status) from None
        if "error" in said:
            if said["error"].get("fatal"):
                self.end()
            raise _raised(said["error"])
        return dict(said["answer"])

    def end(self) -> None:
        """Kill the child and all that it started."""
        if self._running:
            self._running.end()
            self._running = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class _Over(Exception):
    """No answer will come; why, unless the child ended by itself."""


class _Running:
    """One process, the threads that hear it, and what they heard."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        self._held = Leashed(command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        self._changed = threading.Condition()
        self._heard_s: float | None = None
        """when it last gave a sign of life; nothing before the first, for an environment may take long to start"""
        self._said: dict[int, dict[str, Any]] = {}
        self._fatal: dict[str, Any] | None = None
        self.gone = False
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        process = self._held.process
        assert process.stdout
        assert process.stderr
        self._threads = [
            threading.Thread(target=self._hear, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._pass_on_all, args=(process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, message: dict[str, Any], timeout_s: float | None, silence_s: float) -> dict[str, Any]:
        """Raises _Over."""
        due_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._write(MARK + json.dumps(message).encode() + b"\n")
        with self._changed:
            while message["id"] not in self._said:
                now_s = time.monotonic()
                silent_s = math.inf if self._heard_s is None else self._heard_s + silence_s
                if self._fatal is not None:
                    return {"error": self._fatal}
                if self.gone:
                    raise _Over
                if now_s >= silent_s:
                    raise _Over(f"gave no sign of life for {silence_s:g} s and was killed")
                if now_s >= due_s:
                    raise _Over(f"gave no answer in {timeout_s:g} s and was killed")
                self._changed.wait(min(due_s - now_s, silent_s - now_s, 60.0))
            return self._said.pop(message["id"])

    def _write(self, line: bytes) -> None:
        """On a thread: a child that does not read must not keep its owner from noticing."""
        process = self._held.process
        assert process.stdin

        def write(into: int, rest: bytes) -> None:
            with contextlib.suppress(OSError):  # it is gone, which is noticed elsewhere
                while rest:
                    rest = rest[os.write(into, rest) :]

        writer = threading.Thread(target=write, args=(process.stdin.fileno(), line), daemon=True)
        writer.start()
        self._threads = [*(t for t in self._threads if t.is_alive()), writer]

    def _hear(self, stream: IO[bytes]) -> None:
        for line in stream:
            stray, mark, text = line.rpartition(MARK)
            try:
                said = json.loads(text) if mark else None
            except ValueError:
                said = None
            if not isinstance(said, dict):
                self._pass_on(line)
                continue
            if stray:  # somebody printed before we had the pipe to ourselves, and no line feed
                self._pass_on(stray + b"\n")
            with self._changed:
                self._heard_s = time.monotonic()
                if "id" in said:
                    self._said[said["id"]] = said
                elif "fatal" in said:
                    self._fatal = {**said["fatal"], "fatal": True}
                self._changed.notify_all()
        with self._changed:
            self.gone = True
            self._changed.notify_all()

    def _pass_on_all(self, stream: IO[bytes]) -> None:
        while line := stream.readline(LONGEST_BYTES):  # a progress bar ends no line for hours
            self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self.lines.append(text)
        with contextlib.suppress(OSError):
            os.write(2, line)

    def end(self) -> int | None:
        """Kill the group; returns the exit status, nothing where the kernel can't end it."""
        status = None
        if self.gone:  # let it end by itself, for its own status
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._held.process.wait(DRAIN_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._held.end()
        for thread in self._threads:
            thread.join(DRAIN_S)
        if not any(thread.is_alive() for thread in self._threads):  # a number that is still read must not be given to another file
            process = self._held.process
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        self.gone = True
        return status


def _status(status: int | None) -> str:
    if status is None:
        return "no exit status"
    try:
        return f"exit status {status} ({signal.Signals(status - 128).name})"
    except ValueError:
        return f"exit status {status}"


def _raised(error: Mapping[str, Any]) -> MotionpairError:
    kinds, message = error["kinds"], error["message"]
    kind = next((TOLD[name] for name in kinds if name in TOLD), None)
    made: MotionpairError
    if kind is None and error["errno"] in (errno.ENOSPC, errno.EDQUOT):
        made = OutOfSpace(message)
    elif kind is None:
        made = ChildFault(f"{kinds[0]}: {message}")
    else:
        made = kind(message or kinds[0], error["code"] if re.fullmatch(r"[a-z][a-z_]{0,39}", error["code"]) else None)
    made.add_note(f"in the child:\n{error['details']}")
    return made
