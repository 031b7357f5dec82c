"""One question to a brain with eyes, ready to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from manifests.agency import ModelSpec


@dataclass(frozen=True)
class Picture:
    """What is shown beside the facts."""

    label: str
    """said before the picture"""
    data: bytes
    mime: str
    """"image/png" or "image/jpeg" """


@dataclass(frozen=True)
class Question:
    """All that is sent, and the type that must come back."""

    key: str
    """of the step that asks: what is spent is booked on it"""
    role: str
    model: ModelSpec
    instructions: str
    """the text of the role's prompt file"""
    facts: str
    """JSON"""
    pictures: tuple[Picture, ...]
    answer: type[BaseModel]


class Eyes(Protocol):
    """A brain that is sent questions."""

    async def ask(self, question: Question) -> BaseModel:
        """The answer, of the question's type. Raises BadAnswer, Transient, BadRecipe (no key, unknown model)."""
        ...
