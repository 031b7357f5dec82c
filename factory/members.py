"""What a pool is made of: the tasks that wait for it, and the places where they run."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from factory.steps import Charge
from manifests.store import Outcome

SLOTS = 2
"""tasks that a member holds: one runs, one waits, so that it need not wait itself"""


@dataclass(order=True)
class Task:
    """A step that waits for, or is at, a worker."""

    priority: tuple[int, str, int]
    charge: Charge = field(compare=False)
    name: str = field(compare=False)
    request: dict[str, Any] = field(compare=False)
    key: str = field(compare=False)
    answer: asyncio.Future[Outcome] = field(compare=False)
    strikes: list[str] = field(compare=False, default_factory=list)
    stumbles: int = field(compare=False, default=0)
    moves: int = field(compare=False, default=0)

    def end(self, error: Exception) -> None:
        """Tell whoever still waits that no answer will come."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False)
class Member:
    """One place in the pool: its actor, which may be replaced, and what that holds: the first task runs, the others wait."""

    actor: Any = None
    ready: dict[str, str] = field(default_factory=dict)
    flight: deque[tuple[Task, Any]] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """it shall start an actor"""
    retiring: bool = False
    began_s: float = 0.0
    """when its first task was first waited for"""
    server: asyncio.Task[None] | None = None

    @property
    def stands(self) -> bool:
        return bool(self.ready) and not self.retiring


@dataclass(frozen=True)
class Service:
    """What recent calls took, in seconds."""

    calls: int
    mean_s: float
    deviation_s: float
    load_s: float
    """mean time until a new actor stood; 0 before the first"""
