"""A pool of identical Ray actors that run steps: dispatch, retries, blame, size.

An actor holds one running and one waiting task; later steps go before earlier ones, then plan order. When an actor dies only the task that
it was running is blamed, and nobody is when its node went or the memory monitor chose it. Members on a node that was told to go take
nothing more; others take their place elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from factory.blame import message_lost, nobodys_fault, told, words_of
from factory.members import SLOTS, Member, Service, Task
from manifests.errors import BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient
from manifests.store import Outcome

STRIKES = 2
"""failures of a task until it is quarantined; the last try runs alone on its actor"""
STUMBLES = 6
"""transient faults of a task until it is left undecided"""
MOVES = 20
"""times that a task may come to nothing without anybody's fault"""
BACKOFF_S, BACKOFF_MAX_S = 0.5, 30.0
START_TIMEOUT_S = 600.0
"""for a worker to stand, on a cluster that may have to make room first"""
STARTS = 3
"""starts that fail while no worker stands, until the waiting tasks are told"""
REMEMBERED = 64
"""calls from which service times are told"""
ENDINGS = {"out_of_space": OutOfSpace, "out_of_memory": OutOfMemory, "damaged": Transient, "bad_recipe": BadRecipe}
"""what a worker says → what its task ends with at once"""


class Quarantined(MotionpairError):
    """A task failed twice for no reason of its input that we know; the run goes on without it."""

    code = "quarantined"

    def __init__(self, step: str, key: str, strikes: Sequence[str], details: str = "") -> None:
        causes = "; then: ".join(dict.fromkeys(strikes))
        super().__init__(f"step {step} failed {len(strikes)} times: {causes}")
        self.key, self.strikes, self.details = key, tuple(strikes), details
        """of the step; why each try failed; the last try's traceback and the worker's last lines"""


class Pool:
    """Members and the queue before them. `launch` makes an actor; `notice` hears of every fault, its kind and the step; `lose` of the
    seconds of every try that ended without an outcome; `find` has the outcome of a key, which a worker keeps before it answers; `keep`
    gets the outcomes that nobody waits for any more."""

    def __init__(
        self, name: str, size: int, timeout_s: float, launch: Callable[[], Awaitable[Any]], notice: Callable[[str, str], None],
        lose: Callable[[Task, float], None], find: Callable[[str], Awaitable[Outcome | None]], keep: Callable[[Outcome], None],
    ) -> None:  # fmt: skip
        self.name, self._timeout_s, self._launch, self._notice = name, timeout_s, launch, notice
        self._lose, self._find, self._keep = lose, find, keep
        self._queue: list[Task] = []
        self._members: list[Member] = []
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)
        self._loads_s: deque[float] = deque(maxlen=8)
        self._failed_starts = 0
        self._deserted_s: float | None = None
        """since when tasks have waited for a pool without members"""
        self._leaving: frozenset[str] = frozenset()
        self._later: set[asyncio.Task[None]] = set()
        self.resize(size)

    # --- what others see

    @property
    def size(self) -> int:
        """Members that are to stay."""
        return sum(not m.retiring for m in self._members)

    @property
    def busy(self) -> int:
        """Members with a task."""
        return sum(bool(m.flight) for m in self._members)

    @property
    def waiting(self) -> int:
        """Tasks that no member has taken."""
        return len(self._queue)

    @property
    def calls(self) -> int:
        """Tasks that run or wait."""
        return len(self._queue) + sum(len(m.flight) for m in self._members)

    def service(self) -> Service:
        """Recent service and load times."""
        count = len(self._took_s)
        mean = sum(self._took_s) / count if count else 0.0
        spread = math.sqrt(sum((t - mean) ** 2 for t in self._took_s) / (count - 1)) if count > 1 else 0.0
        return Service(count, mean, spread, sum(self._loads_s) / len(self._loads_s) if self._loads_s else 0.0)

    def put(self, task: Task) -> None:
        """Queue a task."""
        heapq.heappush(self._queue, task)
        self._dispatch()

    def resize(self, size: int) -> None:
        """More members, or fewer: idle ones go at once, others when what they hold is done."""
        for _ in range(size - self.size):
            member = Member()
            member.server = asyncio.create_task(self._serve(member))
            self._members.append(member)
        spare = sorted((m for m in self._members if not m.retiring), key=lambda m: (bool(m.ready), len(m.flight)))[
            : max(0, self.size - size)
        ]
        self._retire(spare)
        self._dispatch()

    def leave(self, nodes: frozenset[str]) -> None:
        """These nodes were told to go. What runs there may come to its end, what waits there goes elsewhere, no more is sent there."""
        self._leaving, size = nodes, self.size
        self._retire([m for m in self._members if m.ready.get("node") in nodes and not m.retiring])
        self.resize(size)

    def look_after(self) -> None:
        """Called now and then: nobody waits for ever where no node has room for a single member any more."""
        if not self._queue or self.size:
            self._deserted_s = None
            return
        self._deserted_s = self._deserted_s or time.monotonic()
        if time.monotonic() - self._deserted_s > START_TIMEOUT_S:
            self._give_up(f"no node has had room for a worker of pool {self.name} for {START_TIMEOUT_S:g} s")

    def _retire(self, members: Sequence[Member]) -> None:
        """They take nothing more. What waits there goes elsewhere; Ray can't take back a call that it holds for an actor: it may begin, for
        the milliseconds until the actor is ended. One that is only being started ends at once."""
        homeless: list[Task] = []
        for member in members:
            member.retiring = True
            member.filled.set()
            member.wanted.set()
            while len(member.flight) > 1 or (member.flight and member.flight[0][1] is None):
                homeless.append(member.flight.pop()[0])
            if not member.ready and member.server:
                member.server.cancel()
        for task in homeless:
            heapq.heappush(self._queue, task)

    async def close(self) -> None:
        """Stop serving; actors are killed."""
        pending = {m.server for m in self._members if m.server} | self._later
        while pending:  # wait_for may swallow a cancellation that comes together with its answer (Python 3.11), so ask again
            for server in pending:
                server.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.2)

    # --- dispatch

    def _dispatch(self) -> None:
        """Give every task that may run now to a member, the emptiest first; wake as many sleeping members as there are tasks left over."""
        while self._queue:
            if self._queue[0].answer.done():  # nobody waits for it any more
                heapq.heappop(self._queue)
                continue
            member = self._free_member(self._queue[0])
            if member is None:
                break
            member.flight.append((heapq.heappop(self._queue), None))
            member.filled.set()
        starting = sum(m.wanted.is_set() and not m.ready and not m.retiring for m in self._members)
        for member in self._members:
            if starting >= len(self._queue):
                break
            if not member.ready and not member.retiring and not member.wanted.is_set():
                member.wanted.set()
                starting += 1

    def _free_member(self, task: Task) -> Member | None:
        """An empty one; or one whose second slot is free while enough tasks are left for everybody. A task with a strike travels alone."""
        standing = [m for m in self._members if m.stands]
        empty = next((m for m in standing if not m.flight), None)
        if empty is not None or task.strikes or len(self._queue) <= len(standing):
            return empty
        return next((m for m in standing if len(m.flight) < SLOTS and not any(t.strikes for t, _ in m.flight)), None)

    async def _serve(self, member: Member) -> None:
        """A member's life. Whoever waits for what it holds is told when that ends before its time."""
        try:
            await self._live(member)
        except Exception as e:  # a mistake of ours, or no room to write what was lost
            for task, _ in member.flight:
                task.end(e)
            raise
        finally:
            if member.flight and member.flight[0][1] is not None:  # cut off: it has taken its time all the same
                self._charge(member.flight[0][0], time.monotonic() - member.began_s)
            self._kill(member)
            if member in self._members:
                self._members.remove(member)

    async def _live(self, member: Member) -> None:
        """Start an actor when there is work, keep it filled, hand answers back, replace it when it fails."""
        while not member.retiring or member.flight:
            if not member.ready:
                await member.wanted.wait()
                if member.retiring or not await self._started(member):
                    continue
                self._dispatch()
            if not member.flight:
                member.filled.clear()
                if not member.retiring:
                    await member.filled.wait()
                continue
            await self._step(member)
            self._dispatch()

    async def _step(self, member: Member) -> None:
        """Wait for the member's first task."""
        self._send(member)
        if not member.flight or member.flight[0][1] is None:
            return
        task, ref = member.flight[0]
        member.began_s = time.monotonic()
        try:
            reply = await asyncio.wait_for(ref, self._timeout_s)
        except Exception as e:  # whatever it is, somebody waits for an answer and the pool goes on
            took_s = time.monotonic() - member.began_s
            await (self._unheard(member, e, took_s) if message_lost(e) else self._lost(member, e, took_s))
            return
        member.flight.popleft()
        took_s = time.monotonic() - member.began_s
        self._took_s.append(took_s)
        self._settle(task, reply)
        if reply["type"] != "outcome":
            self._charge(task, took_s)

    def _charge(self, task: Task, took_s: float) -> None:
        """Count what a try took that ended without an outcome. Where that can't be written the run has to end, with the reason."""
        try:
            self._lose(task, took_s)
        except MotionpairError as e:
            task.end(e)

    def _send(self, member: Member) -> None:
        """Hand the member's tasks to its actor; one that can't be sent just now does so later, maybe from another member."""
        for task, ref in list(member.flight):
            if ref is None:
                member.flight.remove((task, None))
                try:
                    sent = member.actor.run.remote(task.name, task.request, task.key, task.charge.job, task.charge.slice)
                except Exception as e:
                    self._blame(task, e)
                else:
                    member.flight.append((task, sent))

    async def _started(self, member: Member) -> bool:
        """Whether the member has got an actor that answered, so that its start is not counted as a task's time."""
        began = time.monotonic()
        try:
            member.actor = await self._launch()
            member.ready = await asyncio.wait_for(member.actor.ready.remote(), START_TIMEOUT_S)
        except Exception as e:
            self._kill(member)
            self._failed_starts += 1
            self._notice("start", self.name)
            if self._failed_starts >= STARTS and not any(m.stands for m in self._members):
                self._give_up(f"no worker of pool {self.name} could be started: {told(e, START_TIMEOUT_S)}")
            await asyncio.sleep(_backoff_s(self._failed_starts))
            return False
        self._failed_starts = 0
        self._loads_s.append(time.monotonic() - began)
        if member.ready["node"] in self._leaving:  # it was placed there before the node was told to go
            self._kill(member)
            self._dispatch()
        return bool(member.ready)

    def _give_up(self, why: str) -> None:
        for task in self._queue:
            task.end(Transient(why))
        self._queue.clear()

    def _kill(self, member: Member) -> None:
        import ray

        if member.actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(member.actor)
        member.actor, member.ready = None, {}
        member.wanted.clear()

    # --- faults

    async def _lost(self, member: Member, error: Exception, took_s: float) -> None:
        """The member's actor is gone or has to go. What it had finished is found, what it was at is blamed, unless nobody is; tasks that
        only waited there go elsewhere. Where nothing explains the death the first counts as moved, so that it is not tried for ever."""
        flight, ready = [task for task, _ in member.flight], member.ready
        member.flight.clear()
        self._kill(member)
        lines, at = await words_of(ready)
        left = [task for task in flight if not await self._found(task)]
        if flight[0] in left:
            self._charge(flight[0], took_s)
        begun = [task for task in left if task.key == at] if at else left[:1]
        for place, task in enumerate(left):
            if task in begun:
                self._blame(task, error, lines)
            elif not begun and not place and len(left) == len(flight):
                self._move(task, told(error, self._timeout_s), _backoff_s(task.moves))
            else:
                self.put(task)

    async def _unheard(self, member: Member, error: Exception, took_s: float) -> None:
        """The member's first task did not reach it, or its answer not us; the actor, which may have loaded for minutes, is kept."""
        task, _ = member.flight.popleft()
        if not await self._found(task):
            self._charge(task, took_s)
            self._blame(task, error)

    async def _found(self, task: Task) -> bool:
        """Whether the worker had kept the task's outcome, which then is its answer."""
        outcome = await self._find(task.key)
        if outcome is not None:
            self._settle(task, {"type": "outcome", **outcome.model_dump(mode="json")})
        return outcome is not None

    def _blame(self, task: Task, error: Exception, lines: str = "") -> None:
        """Whose fault it is that a task came to nothing; `lines` are a dead worker's last."""
        why = told(error, self._timeout_s)
        if nobodys_fault(error):
            self._move(task, why, _backoff_s(task.moves) if message_lost(error) else 0.0)
        else:
            details = "".join(traceback.format_exception(error))[-4000:]
            self._strike(task, why, f"{details}\nthe worker's last lines:\n{lines}" if lines else details)

    def _settle(self, task: Task, reply: dict[str, Any]) -> None:
        if reply["type"] == "outcome":
            outcome = Outcome.model_validate({name: value for name, value in reply.items() if name != "type"})
            if task.answer.done():
                self._keep(outcome)
            else:
                task.answer.set_result(outcome)
            return
        response, message = reply["response"], reply["message"]
        if response in ENDINGS:
            task.end(ENDINGS[response](message))
        elif task.answer.done():
            return
        elif response == "transient":
            self._stumble(task, message)
        else:
            self._strike(task, message, reply["details"])

    def _strike(self, task: Task, why: str, details: str) -> None:
        self._notice("strike", task.name)
        task.strikes.append(why)
        if len(task.strikes) < STRIKES:
            self._again(task, 0.0)
        else:
            task.end(Quarantined(task.name, task.key, task.strikes, details))

    def _stumble(self, task: Task, why: str) -> None:
        """A fault that may pass: later again, a bounded number of times."""
        self._notice("stumble", task.name)
        task.stumbles += 1
        if task.stumbles < STUMBLES:
            self._again(task, _backoff_s(task.stumbles - 1))
        else:
            task.end(Transient(f"step {task.name} was tried {STUMBLES} times: {why}"))

    def _move(self, task: Task, why: str, after_s: float) -> None:
        self._notice("move", task.name)
        task.moves += 1
        if task.moves < MOVES:
            self._again(task, after_s)
        else:
            task.end(Transient(f"step {task.name} came to nothing {MOVES} times, by no fault of its own: {why}"))

    def _again(self, task: Task, after_s: float) -> None:
        if not after_s:
            self.put(task)
            return

        async def later() -> None:
            await asyncio.sleep(after_s)
            self.put(task)

        waiting = asyncio.create_task(later())
        self._later.add(waiting)
        waiting.add_done_callback(self._later.discard)


def _backoff_s(times: int) -> float:
    return float(min(BACKOFF_MAX_S, BACKOFF_S * 2.0**times))
