"""What a pool is made of: the tasks that wait for it, and the places where they run."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from factory.steps import Charge
from manifests.store import Outcome


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
    server: asyncio.Task[None] | None = None

    @property
    def stands(self) -> bool:
        return bool(self.ready) and not self.retiring
