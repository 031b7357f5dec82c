"""Questions to a brain, and the server they are put to: what the tests of the wire share."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any, Literal

from pydantic import BaseModel, Field
from scripted_server import Act, ScriptedServer, Seen, completion

from agents.brains.openai import OpenAIBrain
from agents.brains.question import Picture, Question
from manifests.agency import EndpointSpec, ModelSpec
from manifests.records import Frozen
from manifests.store import Store

MODEL = ModelSpec(model="looker-1", max_tokens=200, seed=7)
KEY = "sk-test-4f1d9a7c2b8e6053-Zx81"


class Note(Frozen):
    code: Literal["blur", "seam"]
    words: str = Field(max_length=30)


class Opinion(Frozen):
    """What is thought of it."""

    number: int = Field(ge=0)
    words: str = Field(max_length=40)
    notes: tuple[Note, ...] = Field(default=(), max_length=3)
    other: str | None = Field(default=None, max_length=10)


class FastClock:
    """The machine's clock, many times as fast: a back-off of a second takes milliseconds."""

    def __init__(self, factor: float = 50.0) -> None:
        self._factor = factor

    def now(self) -> float:
        return time.monotonic() * self._factor

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)


def question(number: int = 0, pictures: tuple[Picture, ...] = (), **more: Any) -> Question:
    key = hashlib.sha256(str(number).encode()).hexdigest()
    fields = {"role": "weaver", "model": MODEL, "instructions": "Say what you think.", "answer": Opinion, **more}
    return Question(key=key, facts=json.dumps({"number": number}), pictures=pictures, **fields)


def spec(server: ScriptedServer, **more: Any) -> EndpointSpec:
    return EndpointSpec(**{"base_url": server.url, "timeout_s": 5.0, "price_in": 0.15, "price_out": 0.6, **more})


def good(seen: Seen, **more: Any) -> Act:
    return completion(json.dumps({"number": seen.number, "words": "fine", "notes": [], "other": None}), **more)


def ask_all(endpoint: EndpointSpec, store: Store, questions: list[Question], clock: Any = None) -> list[BaseModel | BaseException]:
    async def run() -> list[BaseModel | BaseException]:
        brain = OpenAIBrain(endpoint, store, clock or FastClock())
        try:
            return await asyncio.gather(*(brain.ask(q) for q in questions), return_exceptions=True)
        finally:
            await brain.close()

    return asyncio.run(run())


def ask(endpoint: EndpointSpec, store: Store, asked: Question | None = None) -> BaseModel:
    answer = ask_all(endpoint, store, [asked or question()])[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer
