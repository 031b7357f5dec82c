"""An asyncio event loop whose clock jumps to the next thing that happens: hours pass in seconds, and nothing depends on the machine."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

A = TypeVar("A")


class Timeline(selectors.SelectSelector):
    """What will happen when. It stands where a loop waits for files and sockets, of which a simulation has none.

    The loop's own timers (`asyncio.sleep`) run in virtual time as well; `at` is quicker and needs no task.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._coming: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def at(self, when_s: float, do: Callable[..., object], *arguments: Any) -> None:
        """Have something done at a moment; what is due at the same one is done in the order in which it was asked for."""
        heapq.heappush(self._coming, (max(when_s, self.now_s), next(self._numbers), do, arguments))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The loop has nothing to do for so long, or for ever: go to what happens next."""
        if timeout is not None and timeout <= 0:
            return []
        until_s = None if timeout is None else self.now_s + timeout
        if self._coming and (until_s is None or self._coming[0][0] <= until_s):
            self.now_s, _, do, arguments = heapq.heappop(self._coming)
            do(*arguments)
        elif until_s is None:
            raise RuntimeError("the simulation waits for something that never happens")
        else:
            self.now_s = until_s
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop over a timeline."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        super().__init__(self.timeline)
        self._clock_resolution = 1e-6  # of a timer: more than what rounding leaves of a year's seconds

    def time(self) -> float:
        return self.timeline.now_s


def run_virtually(main: Callable[[Timeline], Coroutine[Any, Any, A]]) -> A:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(main(loop.timeline))
