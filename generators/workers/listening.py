"""What a process says while it runs: its last lines, signs of life, and lines that mean something."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import IO, Any

LINES = 60
"""torchrun's report alone takes forty, and what its rank said stands before"""
LINE_CHARS, LONGEST_CHARS = 500, 1 << 16
"""what is kept of a line, and what of one that does not end"""
LINE_END = re.compile(r"[\r\n]")
RAISED = re.compile(r"[\w.]*(Error|Exception): \S")


class Listener:
    """Reads both streams of a process that was started with `streams()`, so that it never stops for a full pipe."""

    def __init__(self, process: subprocess.Popen[bytes], progress: str = "", patterns: Iterable[str] = (), prompt: str = "") -> None:
        """`progress`, `patterns` and `prompt` are regular expressions; an empty one matches nothing."""
        self.heard_at = time.monotonic()
        """when a line last matched `progress`, or the process was started"""
        self.progress = ""
        """the last line that did"""
        self.matched: set[str] = set()
        """of `patterns`, those that a line has matched"""
        self.prompts = 0
        """how often standard output has shown `prompt`, which need not end a line"""
        self._prompt = re.compile(prompt) if prompt else None
        self._progress = re.compile(progress) if progress else None
        self._patterns = [(pattern, re.compile(pattern)) for pattern in patterns if pattern]
        self._process = process
        self._last: dict[str, deque[str]] = {"stderr": deque(maxlen=LINES), "stdout": deque(maxlen=LINES)}
        self._threads = [threading.Thread(target=self._read, args=(getattr(process, name), name), daemon=True) for name in self._last]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def streams(stdin: int = subprocess.DEVNULL) -> dict[str, Any]:
        """What `subprocess.Popen` has to be given."""
        return {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}

    def wait(self, seconds: float) -> None:
        """Until the process ends, at most so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def finish(self, seconds: float = 2.0) -> None:
        """Read what is left. What a child that got away still writes is not waited for."""
        for thread in self._threads:
            thread.join(seconds)

    def last_words(self) -> str:
        """The last line on standard error, else on standard output. Where that is a rule, as under torchrun's report, what was raised."""
        lines = next((list(lines)[::-1] for lines in self._last.values() if lines), ["it said nothing"])
        if re.search(r"\w", lines[0]):
            return lines[0]
        return next((line for pattern in (RAISED, re.compile(r".*\w")) for line in lines if pattern.match(line)), lines[0])

    def tail(self) -> str:
        """The last lines on standard error, else on standard output."""
        return "\n".join(next((lines for lines in self._last.values() if lines), ()))

    def _read(self, stream: IO[bytes], name: str) -> None:
        decoder, pending, unseen = codecs.getincrementaldecoder("utf-8")("replace"), "", ""
        with stream:
            while data := os.read(stream.fileno(), 1 << 16):
                text = decoder.decode(data)
                if name == "stdout" and self._prompt:
                    unseen = self._count(self._prompt, (unseen + text)[-LONGEST_CHARS:])
                *lines, pending = LINE_END.split(pending + text)
                for line in lines:
                    self._heard(line.strip(), name)
                pending = pending[-LONGEST_CHARS:]  # a program may print megabytes without an end of line
                self._sign_of_life(pending.strip())  # a progress bar ends a line only when it begins the next
        self._heard(pending.strip(), name)

    def _count(self, prompt: re.Pattern[str], text: str) -> str:
        """Returns what may yet become one: the text after the last."""
        end = 0
        for match in prompt.finditer(text):
            self.prompts, end = self.prompts + 1, match.end()
        return text[end:]

    def _heard(self, line: str, name: str) -> None:
        if line:
            self._last[name].append(line[:LINE_CHARS])
            self._sign_of_life(line)
            self.matched.update(pattern for pattern, compiled in self._patterns if compiled.search(line))

    def _sign_of_life(self, line: str) -> None:
        if self._progress and self._progress.search(line):
            self.heard_at, self.progress = time.monotonic(), line[:LINE_CHARS]
