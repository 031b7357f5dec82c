"""A real HTTP server on this machine that stands in for an OpenAI-compatible endpoint and misbehaves as told. It counts what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

STALL_S = 3600.0


@dataclass(frozen=True)
class Act:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_at: int | None = None
    """hang up after so many bytes of the body; -1: before anything is written"""
    usage: tuple[int, int] | None = None
    """that the body tells"""
    fit: bool = False
    """the body holds an answer that fits"""

    @property
    def delivered(self) -> bool:
        return self.cut_at is None and self.delay_s < STALL_S


@dataclass
class Seen:
    """One request, and what was done with it."""

    at_s: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    act: Act = field(default_factory=Act)

    @property
    def text(self) -> str:
        """All words of the request."""
        return json.dumps(self.body.get("messages"), ensure_ascii=False)

    @property
    def number(self) -> int:
        """The question's number, which tests put into the facts as `"number": 7`."""
        found = re.search(r'\\*"number\\*": ?(\d+)', self.text)
        return int(found.group(1)) if found else -1


Script = Callable[[Seen, int], Act]
"""From a request and how many came before it (over all questions) to what is done."""


def completion(
    content: str | None,
    usage: tuple[int, int] | None = (100, 20),
    fit: bool = True,
    finish: str = "stop",
    refusal: str | None = None,
    **act: Any,
) -> Act:
    """A chat completion with this content."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    envelope: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if usage:
        envelope["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Act(body=json.dumps(envelope).encode(), usage=usage, fit=fit, **act)


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any) -> Act:
    """An error in OpenAI's words."""
    return Act(status, json.dumps({"error": {"message": message, "type": "error", **more}}).encode(), headers or {})


class ScriptedServer:
    """Use as a context manager; `url` is what a recipe's base_url would be."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.seen: list[Seen] = []
        self.open = self.most_open = 0
        """requests being answered, now and at most"""
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready, self._over = threading.Event(), asyncio.Event()

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=1024, limit=1 << 26)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._over.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(time.monotonic(), head[0].split()[1], headers, json.loads(data) if data else {})
        seen.act = act = self._script(seen, len(self.seen))
        self.seen.append(seen)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(act.delay_s)
        finally:
            self.open -= 1
        if act.cut_at == -1:
            return False
        lines = [f"HTTP/1.1 {act.status} Said", f"content-length: {len(act.body)}", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in act.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + act.body[: act.cut_at])
        await writer.drain()
        return act.cut_at is None
