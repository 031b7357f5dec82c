"""Pools of identical Ray actors that run steps: dispatch, retries, blame.

Ray is started with the first call that needs a worker, so a run with nothing left to do never starts it. An actor holds one running
and one waiting task; later steps go before earlier ones, then plan order. When an actor dies, only the task it was running is blamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from factory.steps import Step
from manifests.errors import MotionpairError, OutOfSpace
from manifests.recipe import PoolSpec, Recipe
from manifests.records import Frozen
from manifests.store import Outcome

SLOTS = 2
"""tasks an actor holds: one running, one waiting"""
STRIKES = 2
"""failures of a task until it is quarantined; the last try runs alone on its actor"""
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""messages carry digests, never frames"""


class Quarantined(MotionpairError):
    """A task failed twice for no reason of its input that we know; the run goes on without it."""

    code = "quarantined"

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
        """the last try's traceback, for the ledger"""


@dataclass(order=True)
class _Task:
    priority: tuple[int, str, int]
    name: str = field(compare=False)
    request: dict[str, Any] = field(compare=False)
    key: str = field(compare=False)
    answer: asyncio.Future[Outcome] = field(compare=False)
    strikes: list[str] = field(compare=False, default_factory=list)


class Engine:
    """All pools of a run. Use as an async context manager."""

    def __init__(self, recipe: Recipe, store_url: str, files: dict[str, str], address: str | None = None) -> None:
        self._recipe, self._store_url, self._files, self._address = recipe, store_url, files, address
        self._pools: dict[str, Pool] = {}
        self._lock = asyncio.Lock()
        self._numbers = itertools.count()
        self._ours = False
        """whether we started Ray and so have to stop it"""

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools.values():
            await pool.close()
        if self._ours:
            import ray

            await asyncio.to_thread(ray.shutdown)

    async def run(self, step: Step[Any, Any], request: Frozen, key: str, rank: str, pool: str) -> Outcome:
        """Run a step on a pool's worker. Raises Quarantined, Transient or OutOfSpace; a rejection is an Outcome."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        priority = (-step.depth, rank, next(self._numbers))
        (await self._pool(pool)).put(_Task(priority, step.name, request.model_dump(mode="json"), key, answer))
        return await answer

    def load(self) -> dict[str, tuple[int, int]]:
        """Pool → (busy workers, workers)."""
        return {name: (pool.busy, pool.size) for name, pool in self._pools.items()}

    async def _pool(self, name: str) -> Pool:
        async with self._lock:
            if not self._pools:
                await asyncio.to_thread(self._start_ray)
            if name not in self._pools:
                spec = self._recipe.pools.get(name, PoolSpec())
                self._pools[name] = Pool(name, spec, (self._store_url, self._files, name))
        return self._pools[name]

    def _start_ray(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._address:
            ray.init(address=self._address, runtime_env={"env_vars": _environment()}, **quiet)
        else:
            wanted = sum(p.cpus * p.workers[0] for p in self._recipe.pools.values()) + 1
            cpus = max(os.cpu_count() or 1, int(wanted + 0.999))  # pools share the cores; Ray's count only places actors
            ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        self._ours = True


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("MOTIONPAIR_CACHE",) if name in os.environ}


class Worker:
    """The Ray actor: a workbench behind a remote call."""

    def __init__(self, store_url: str, files: dict[str, str], pool: str) -> None:
        import cv2

        cv2.setNumThreads(1)  # a worker is one core; the pool is the parallelism
        from factory.workbench import Workbench

        self._bench = Workbench(store_url, files, pool)

    def run(self, name: str, request: dict[str, Any], key: str) -> dict[str, Any]:
        """See Workbench.run."""
        return self._bench.run(name, request, key)


class Pool:
    """N actors and the queue before them."""

    def __init__(self, name: str, spec: PoolSpec, arguments: tuple[Any, ...]) -> None:
        import ray

        self.name, self.size, self.busy = name, max(1, int(spec.workers[0])), 0
        self._spec, self._arguments = spec, arguments
        self._queue: asyncio.PriorityQueue[_Task] = asyncio.PriorityQueue()
        options: dict[str, Any] = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "max_restarts": 0}
        if spec.accelerator:
            options["accelerator_type"] = spec.accelerator
        self._remote = ray.remote(Worker).options(**options)
        self._servers = [asyncio.create_task(self._serve()) for _ in range(self.size)]

    def put(self, task: _Task) -> None:
        """Queue a task."""
        self._queue.put_nowait(task)

    async def close(self) -> None:
        """Stop the servers; their actors end with Ray."""
        for server in self._servers:
            server.cancel()
        await asyncio.gather(*self._servers, return_exceptions=True)

    async def _serve(self) -> None:
        """One actor's life after the other: keep it filled, hand answers back, replace it when it dies."""
        import ray

        actor: Any = None
        flight: deque[tuple[_Task, Any]] = deque()
        while True:
            await self._fill(flight)
            if actor is None:
                actor = self._remote.remote(*self._arguments)
            while (waiting := next((i for i, (_, ref) in enumerate(flight) if ref is None), None)) is not None:
                task = flight[waiting][0]
                flight[waiting] = (task, actor.run.remote(task.name, task.request, task.key))
            task, ref = flight.popleft()
            self.busy += 1
            try:
                self._settle(task, await asyncio.wait_for(ref, self._spec.timeout_s))
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, TimeoutError) as e:
                why = f"no answer in {self._spec.timeout_s:g} s" if isinstance(e, TimeoutError) else "its worker died"
                with contextlib.suppress(Exception):
                    ray.kill(actor)
                actor = None
                for other, _ in flight:  # they only waited: nobody blames them
                    self.put(other)
                flight.clear()
                self._strike(task, why, "")
            except ray.exceptions.RayError as e:
                self._strike(task, f"{type(e).__name__}: {str(e).splitlines()[-1]}", str(e))
            finally:
                self.busy -= 1

    async def _fill(self, flight: deque[tuple[_Task, Any]]) -> None:
        """At least one task; a second one when no other actor stands idle. A task with a strike travels alone."""
        while not flight:
            task = await self._queue.get()
            if not task.answer.done():  # nobody waits for it any more
                flight.append((task, None))
        while len(flight) < SLOTS and not any(t.strikes for t, _ in flight) and self._queue.qsize() > self.size - self.busy - 1:
            task = self._queue.get_nowait()
            if task.strikes:
                self.put(task)
                break
            if not task.answer.done():
                flight.append((task, None))

    def _settle(self, task: _Task, reply: dict[str, Any]) -> None:
        kind = reply.pop("type")
        if task.answer.done():
            return
        if kind == "outcome":
            task.answer.set_result(Outcome.model_validate(reply))
        elif reply["response"] == "out_of_space":
            task.answer.set_exception(OutOfSpace(reply["message"]))
        else:
            self._strike(task, reply["message"], reply["details"])

    def _strike(self, task: _Task, why: str, details: str) -> None:
        task.strikes.append(why)
        if task.answer.done():
            return
        if len(task.strikes) < STRIKES:
            self.put(task)
        else:
            causes = "; then: ".join(dict.fromkeys(task.strikes))
            task.answer.set_exception(Quarantined(f"step {task.name} failed {len(task.strikes)} times: {causes}", details))
