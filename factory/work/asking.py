"""The step that asks a vision-language model. It runs at a desk in the brain's actor, where many questions are under way at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic import JsonValue

from agents.brains.base import Facts
from agents.brains.question import Eyes, Picture, Question
from factory.steps import async_step
from manifests.agency import ModelSpec
from manifests.records import Exhibit, Frozen, canonical_json
from manifests.store import Store

MIME = {".png": "image/png", ".jpg": "image/jpeg"}


class AskRequest(Frozen):
    """All that may change the answer. Where the model is served, at which price and under which limits is no part of it."""

    model: ModelSpec
    instructions: str
    """the role's prompt, as a text: editing the file asks its questions again and no others"""
    facts: Facts
    exhibits: tuple[Exhibit, ...]


class Asked(Frozen):
    answer: dict[str, JsonValue]
    """of the type that the facts name"""


@dataclass(frozen=True)
class Desk:
    """Where a question is asked."""

    eyes: Eyes
    store: Store
    key: str
    """of the step"""


@async_step(depth=4)
async def ask_model(request: AskRequest, desk: Desk) -> Asked:
    """What the model answers. Rejects with "bad_answer" when two answers in a row don't fit their schema."""
    pictures = [Picture(e.label, await asyncio.to_thread(desk.store.read, e.picture), MIME[e.picture.suffix]) for e in request.exhibits]
    question = Question(
        desk.key, request.facts.role, request.model, request.instructions, canonical_json(request.facts).decode(), tuple(pictures),
        request.facts.answer,
    )  # fmt: skip
    return Asked(answer=(await desk.eyes.ask(question)).model_dump(mode="json"))
