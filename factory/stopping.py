"""SIGTERM, as clusters and service managers send it before they kill: begin nothing more, let what is under way come to its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from manifests.errors import MotionpairError

T = TypeVar("T")

GRACE_S = 20.0
"""Kubernetes kills 30 s after the signal, and Ray's processes need up to ten to end"""


class Stopped(MotionpairError):
    """Somebody asked the run to end. Everything finished is kept; the same command goes on."""

    code = "stopped"


class Stop:
    """Whether a run was asked to end, and how long it may take."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.asked, self._grace_s = False, grace_s
        self._heard = asyncio.Event()

    def ask(self) -> None:
        """What the signal does."""
        self.asked = True
        self._heard.set()

    def listen(self) -> None:
        """Hear the signal from now on. Once more after Ray was started: it puts a handler of its own in the place of ours, and aborts."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.ask)

    async def over(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. After the signal it has the grace to end by itself, then it is cancelled. Raises Stopped when it was."""
        self.listen()
        doing, waiting = asyncio.create_task(work), asyncio.create_task(self._heard.wait())
        try:
            await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                await asyncio.wait({doing}, timeout=self._grace_s)
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
                raise Stopped(f"stopped; what was under way for {self._grace_s:g} s more was given up")
            return doing.result()
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            for task in (doing, waiting):
                task.cancel()
            await asyncio.gather(doing, waiting, return_exceptions=True)
