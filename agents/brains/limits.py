"""The limits that all questions to one endpoint share: requests at once, requests a minute, tokens a minute.

The minutes slide: no 60 seconds, wherever they begin, hold more than was allowed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from manifests.errors import BadRecipe

MINUTE_S = 60.0
MARGIN_S = 0.5
"""added to the minute: requests need unequal times from here to the server, whose clock is the one that counts"""
LOOK_AGAIN_S = 0.1
"""how soon the first in the queue looks again when what it waits for has no time: a request not sent yet, an answer with its usage"""


class Clock(Protocol):
    """Time as limits and retries see it."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class MachineClock:
    """The real one."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(eq=False)
class Admission:
    """One request's place in the sliding minute."""

    tokens: int
    """its upper bound, until `used` says what they were"""
    sent_s: float | None = None
    """None: not sent yet; it counts all the same"""


class SlidingMinute:
    """Which requests were sent within the last minute, and with how many tokens. Limits of None don't limit."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self._requests, self._tokens = requests, tokens
        self._within: deque[Admission] = deque()
        self._sum = 0

    def wait_s(self, tokens: int, now_s: float) -> float:
        """Seconds until the next request may have room; 0: it has."""
        while self._within and self._leaves_in_s(self._within[0], now_s) <= 0:
            self._sum -= self._within.popleft().tokens
        if self._requests is not None and len(self._within) >= self._requests:
            return self._leaves_in_s(self._within[0], now_s)
        if self._tokens is not None and self._sum + tokens > self._tokens:
            return min(LOOK_AGAIN_S, self._leaves_in_s(self._within[0], now_s))
        return 0.0

    def enter(self, tokens: int) -> Admission:
        admission = Admission(tokens)
        self._within.append(admission)
        self._sum += tokens
        return admission

    def used(self, admission: Admission, tokens: int) -> None:
        """Put what the server counted in the place of the upper bound."""
        if admission in self._within:
            self._sum += tokens - admission.tokens
            admission.tokens = tokens

    def leave(self, admission: Admission) -> None:
        """It was never sent."""
        with contextlib.suppress(ValueError):
            self._within.remove(admission)
            self._sum -= admission.tokens

    def _leaves_in_s(self, admission: Admission, now_s: float) -> float:
        return LOOK_AGAIN_S if admission.sent_s is None else admission.sent_s + MINUTE_S + MARGIN_S - now_s


class Gate:
    """Lets requests through, first come, first served. Only a request that may be sent at once takes a slot."""

    def __init__(self, in_flight: int, requests_per_min: int | None, tokens_per_min: int | None, clock: Clock) -> None:
        self._tokens_per_min, self._clock = tokens_per_min, clock
        self._minute = SlidingMinute(requests_per_min, tokens_per_min)
        self._slots = asyncio.Semaphore(in_flight)
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def enter(self, tokens: int) -> AsyncIterator[Admission]:
        """Wait for a slot and for room in the minute; the slot is held until the block ends. `tokens` is the request's upper bound.

        The block calls `sent` right before it sends. Raises BadRecipe for a request that no minute has room for.
        """
        if self._tokens_per_min is not None and tokens > self._tokens_per_min:
            raise BadRecipe(
                f"agents.brain.tokens_per_min: {self._tokens_per_min} is less than one question may take ({tokens} tokens, pictures and "
                "answer included). Raise it, or lower max_tokens or tokens_per_picture."
            )
        async with self._turn:
            while True:
                while (wait_s := self._minute.wait_s(tokens, self._clock.now())) > 0:
                    await self._clock.sleep(wait_s)
                await self._slots.acquire()
                if self._minute.wait_s(tokens, self._clock.now()) <= 0:
                    break
                self._slots.release()  # an answer took more than its bound while we waited
            admission = self._minute.enter(tokens)
        try:
            yield admission
        finally:
            self._slots.release()
            if admission.sent_s is None:
                self._minute.leave(admission)

    def sent(self, admission: Admission) -> None:
        """The minute of this request begins now."""
        admission.sent_s = self._clock.now()

    def used(self, admission: Admission, tokens: int) -> None:
        """What the server counted."""
        self._minute.used(admission, tokens)
