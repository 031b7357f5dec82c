"""A ComfyUI server's websocket: when one of its jobs has ended, and how far it is. Nothing depends on it but how soon that is noticed."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from types import TracebackType
from typing import Any

ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
MESSAGE_BYTES_MAX = 64 << 20
"""previews are pictures"""
AGAIN_S = 2.0
"""between two tries to connect"""


class Watch:
    """Use as a context manager. A socket that can't be had is tried again now and then; nothing is raised."""

    def __init__(self, address: str, connect_s: float) -> None:
        self._address, self._connect_s = address, connect_s
        self._held = contextlib.ExitStack()
        self._socket: Any = None
        self._tried_at: float | None = None
        self.progress = ""
        """the last that was heard, as "step 3 of 20 at node 7" """

    def __enter__(self) -> Watch:
        self._connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hang_up()

    @property
    def open(self) -> bool:
        """Whether it hears anything."""
        return self._socket is not None

    def wait(self, job: str, seconds: float) -> None:
        """Until so much time has passed, or sooner when the job is said to have ended or the socket breaks."""
        until = time.monotonic() + seconds
        if self._socket is None:
            time.sleep(seconds)
            self._connect()
            return
        while (left := until - time.monotonic()) > 0:
            try:
                message = self._socket.recv(timeout=left)
            except TimeoutError:
                return
            except Exception:  # closed, reset, nonsense: each library version has its own names for it
                self._hang_up()
                return
            if isinstance(message, str) and self._ends(message, job):
                return

    def _ends(self, text: str, job: str) -> bool:
        try:
            told = json.loads(text)
            kind, about = told["type"], told["data"]
            ours = about.get("prompt_id") == job
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if ours and kind == "progress":
            self.progress = f"step {about.get('value')} of {about.get('max')} at node {about.get('node')}"[:80]
        return ours and (kind in ENDS or (kind == "executing" and about.get("node") is None))

    def _connect(self) -> None:
        now = time.monotonic()
        if self._tried_at is not None and now - self._tried_at < AGAIN_S:
            return
        self._tried_at = now
        with contextlib.suppress(Exception):
            # No pings: a server that loads a model answers none for minutes. Its history is asked anyway.
            made = importlib.import_module("websockets.sync.client").connect(
                self._address, open_timeout=self._connect_s, close_timeout=1, ping_interval=None, max_size=MESSAGE_BYTES_MAX
            )
            self._socket = self._held.enter_context(made)

    def _hang_up(self) -> None:
        self._socket = None
        with contextlib.suppress(Exception):
            self._held.close()
