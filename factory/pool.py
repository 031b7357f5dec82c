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
import socket
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from factory.brain_pool import BRAIN, BrainPool
from factory.steps import Step
from manifests.errors import BadRecipe, MotionpairError, OutOfSpace, Transient
from manifests.ledger import Ledger
from manifests.recipe import PoolSpec, Recipe
from manifests.records import Frozen
from manifests.store import Outcome, Store

SLOTS = 2
"""tasks an actor holds: one running, one waiting"""
STRIKES = 2
"""failures of a task until it is quarantined; the last try runs alone on its actor"""
START_TIMEOUT_S = 600.0
"""for a worker to stand, on a cluster that may have to make room first"""
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

    def __init__(self, recipe: Recipe, store: Store, ledger: Ledger, files: dict[str, str], address: str | None = None) -> None:
        self._recipe, self._store, self._ledger, self._files, self._address = recipe, store, ledger, files, address
        self._brain: BrainPool | None = None
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
        if self._brain:
            self._brain.close()
        if self._ours:
            import ray

            await asyncio.to_thread(ray.shutdown)

    async def run(self, step: Step[Any, Any], request: Frozen, key: str, rank: str, pool: str) -> Outcome:
        """Run a step on a pool's worker. Raises Quarantined, Transient or OutOfSpace; a rejection is an Outcome."""
        if pool == BRAIN:
            return await (await self._eyes()).ask(step, request, key)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        priority = (-step.depth, rank, next(self._numbers))
        (await self._pool(pool)).put(_Task(priority, step.name, request.model_dump(mode="json"), key, answer))
        return await answer

    def load(self) -> dict[str, tuple[int, int]]:
        """Pool → (busy workers, workers)."""
        brain = {BRAIN: (self._brain.busy, self._brain.size)} if self._brain else {}
        return {name: (pool.busy, pool.size) for name, pool in self._pools.items()} | brain

    async def _eyes(self) -> BrainPool:
        endpoint = self._recipe.agents.brain.endpoint
        assert endpoint is not None, "nothing is asked without an endpoint"
        async with self._lock:
            await asyncio.to_thread(self._start_ray)
            self._brain = self._brain or BrainPool(endpoint, self._store, self._ledger)
        return self._brain

    async def _pool(self, name: str) -> Pool:
        async with self._lock:
            await asyncio.to_thread(self._start_ray)
            if name not in self._pools:
                spec = self._recipe.pools.get(name, PoolSpec())
                self._pools[name] = Pool(name, spec, (str(self._store.url), self._files, name))
        return self._pools[name]

    def _start_ray(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not self._address:
            _check_machine(self._recipe.pools)
        try:
            if self._address:
                _knock(self._address)
                ray.init(address=self._address, runtime_env={"env_vars": _environment()}, **quiet)
            else:
                wanted = sum(p.cpus * p.workers[0] for p in self._recipe.pools.values()) + 1
                cpus = max(os.cpu_count() or 1, int(wanted + 0.999))  # pools share the cores; Ray's count only places actors
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        except Exception as e:
            what = f"--address {self._address}: no Ray cluster lets us in there" if self._address else "Ray could not be started here"
            hint = " If it asks for a token, set RAY_AUTH_MODE=token and bring its ~/.ray/auth_token here." if self._address else ""
            raise BadRecipe(f"{what}: {str(e).splitlines()[0] if str(e) else type(e).__name__}.{hint}") from e
        self._ours = True
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        _check_places(self._recipe.pools, nodes)


def _knock(address: str) -> None:
    """Raise OSError at once where nothing listens: Ray itself would wait for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _check_machine(pools: dict[str, PoolSpec]) -> None:
    """Raise BadRecipe for a pool of more workers than one machine can be asked for."""
    cores = os.cpu_count() or 1
    most = max(16, 8 * cores)
    for name, spec in pools.items():
        if spec.workers[0] > most:
            raise BadRecipe(f"pools.{name}: {spec.workers[0]:g} workers; this machine has {cores} cores, at most {most} are started on it.")


def _check_places(pools: dict[str, PoolSpec], nodes: list[dict[str, float]]) -> None:
    """Raise BadRecipe for a pool whose worker fits on no node."""
    for name, spec in pools.items():
        asked = {"CPU": spec.cpus, "GPU": spec.gpus} | ({f"accelerator_type:{spec.accelerator}": 0.001} if spec.accelerator else {})
        if any(all(node.get(kind, 0) >= count for kind, count in asked.items()) for node in nodes):
            continue
        kinds = sorted({kind.partition(":")[2] for node in nodes for kind in node if kind.startswith("accelerator_type:")})
        largest = ", ".join(f"{max(node.get(kind, 0) for node in nodes):g} {kind}s" for kind in ("CPU", "GPU"))
        wish = f"{spec.cpus:g} CPUs, {spec.gpus:g} GPUs" + (f" of type {spec.accelerator}" if spec.accelerator else "")
        have = f"the largest node has {largest}; accelerators there are: {', '.join(kinds) or 'none'}"
        raise BadRecipe(f"pools.{name}: a worker asks {wish}; {have}. Lower pools.{name} or give --address of a larger cluster.")


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("MOTIONPAIR_CACHE",) if name in os.environ}


class Worker:
    """The Ray actor: a workbench behind a remote call."""

    def __init__(self, store_url: str, files: dict[str, str], pool: str) -> None:
        import cv2

        cv2.setNumThreads(1)  # a worker is one core; the pool is the parallelism
        from factory.workbench import Workbench

        self._bench = Workbench(store_url, files, pool)

    def ready(self) -> bool:
        """Answers when the worker stands."""
        return True

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
        pending = set(self._servers)
        while pending:  # wait_for may swallow a cancellation that comes together with its answer (Python 3.11), so ask again
            for server in pending:
                server.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.2)

    async def _serve(self) -> None:
        """One actor's life after the other: keep it filled, hand answers back, replace it when it fails."""
        import ray

        actor: Any = None
        flight: deque[tuple[_Task, Any]] = deque()
        while True:
            await self._fill(flight)
            self.busy += 1
            try:
                actor = actor or await self._started()
                self._submit(actor, flight)
                self._settle(flight[0][0], await asyncio.wait_for(flight[0][1], self._spec.timeout_s))
                flight.popleft()
            except Exception as e:  # whatever it is, somebody waits for an answer and the pool goes on
                if actor is not None:
                    with contextlib.suppress(Exception):
                        ray.kill(actor)
                actor = None
                task = flight.popleft()[0]
                for other, _ in flight:  # they only waited: nobody blames them
                    self.put(other)
                flight.clear()
                self._strike(task, self._told(e), "".join(traceback.format_exception(e))[-4000:])
            finally:
                self.busy -= 1

    async def _started(self) -> Any:
        """A new actor that has answered once, so that its start is not counted as a task's time."""
        actor: Any = self._remote.remote(*self._arguments)
        try:
            await asyncio.wait_for(actor.ready.remote(), START_TIMEOUT_S)
        except TimeoutError:
            raise Transient(f"no worker of pool {self.name} could be started in {START_TIMEOUT_S:g} s") from None
        return actor

    def _submit(self, actor: Any, flight: deque[tuple[_Task, Any]]) -> None:
        for i, (task, ref) in enumerate(flight):
            if ref is None:
                flight[i] = (task, actor.run.remote(task.name, task.request, task.key))

    def _told(self, error: Exception) -> str:
        import ray

        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, TimeoutError):
            return f"no answer in {self._spec.timeout_s:g} s"
        if isinstance(error, ray.exceptions.RayActorError):
            return f"its worker died: {lines[0] if lines else 'no reason given'}"
        return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"

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
