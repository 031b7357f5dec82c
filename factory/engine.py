"""All pools of a run on Ray: which pool a step goes to, how large each is, what is told of them.

Ray is started with the first call that needs a worker, so a run with nothing left to do never starts it. Once a second `factory.scaling` is
asked for the pools' sizes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from factory import cluster, scaling
from factory.brain_pool import BRAIN, BrainPool
from factory.members import Task
from factory.metrics import Metrics, NoMetrics
from factory.pool import Pool
from factory.steps import Charge, Step
from factory.worker import CommandWorker, Worker
from generators import registry
from manifests.errors import MotionpairError, OutOfMemory
from manifests.ledger import Ledger
from manifests.recipe import PoolSpec, Recipe
from manifests.records import Frozen
from manifests.store import Cost, Outcome, Store

SCALING_S = 1.0
"""between two looks at the pools' sizes"""


class Engine:
    """All pools of a run. Use as an async context manager."""

    def __init__(self, recipe: Recipe, store: Store, ledger: Ledger, files: dict[str, str], address: str | None = None) -> None:
        self._recipe, self._store, self._ledger, self._files, self._address = recipe, store, ledger, files, address
        self._brain: BrainPool | None = None
        self._pools: dict[str, Pool] = {}
        self._files_there: Any = None
        self._lock = asyncio.Lock()
        self._numbers = itertools.count()
        self._ours = False
        """whether we started Ray and so have to stop it"""
        self._scaler: asyncio.Task[None] | None = None
        self.forecast = scaling.Forecast(recipe)
        """of the calls to come; whoever decides jobs tells it"""
        self.wanting: Mapping[str, int] = {}
        """slice → pairs that are still wanted"""
        self.notice: Callable[[str, str], None] = lambda kind, of: None
        """hears of every fault: strike, stumble, move or start, and the step or pool"""
        self.started: Callable[[], None] = lambda: None
        """is called when Ray stands"""
        self.metrics: Metrics | NoMetrics = NoMetrics()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop all workers, and Ray where it was started here; again is harmless."""
        if self._scaler:
            self._scaler.cancel()
            await asyncio.gather(self._scaler, return_exceptions=True)
        for pool in self._pools.values():
            await pool.close()
        if self._brain:
            self._brain.close()
        if self._ours:
            import ray

            self._ours = False
            await asyncio.to_thread(ray.shutdown)

    async def run(self, step: Step[Any, Any], request: Frozen, key: str, charge: Charge, pool: str) -> Outcome:
        """Run a step on a pool's worker. Raises Quarantined, Transient, OutOfSpace or BadRecipe; a rejection is an Outcome."""
        if pool == BRAIN:
            outcome = await (await self._eyes()).ask(step, request, key, charge)
            self.metrics.called(outcome)
            return outcome
        if _is_paid(request):
            return await self._booked(step, request, key, charge, pool)
        return await self._in(pool, step, request, key, charge)

    async def _booked(self, step: Step[Any, Any], request: Frozen, key: str, charge: Charge, pool: str) -> Outcome:
        """The same for a step that pays for its requests: they are indexed however it ends."""
        self._ledger.asking(key)
        try:
            return await self._in(pool, step, request, key, charge)
        finally:
            await asyncio.to_thread(self._ledger.asked, key, list(self._store.calls(key)))

    async def _in(self, pool: str, step: Step[Any, Any], request: Frozen, key: str, charge: Charge) -> Outcome:
        """In the pool, or in its larger one where its memory is too small."""
        try:
            return await self._on(pool, step, request, key, charge)
        except OutOfMemory:
            larger = self._spec(pool).larger
            if larger is None:
                raise
        return await self._on(larger, step, request, key, charge)

    async def _on(self, pool: str, step: Step[Any, Any], request: Frozen, key: str, charge: Charge) -> Outcome:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        priority = (-step.depth, charge.rank, next(self._numbers))
        (await self._pool(pool)).put(Task(priority, charge, step.name, request.model_dump(mode="json"), key, answer))
        try:
            outcome = await answer
        finally:
            if charge.job:  # indexing is no part of what a pair takes
                self.forecast.called(charge.rank, pool)
        self.metrics.called(outcome)
        return outcome

    def load(self) -> dict[str, tuple[int, int]]:
        """Pool → (busy workers, workers)."""
        return {name: (pool.busy, pool.size) for name, pool in self._everybody().items()}

    def calls(self) -> dict[str, tuple[int, int]]:
        """Pool → (calls that run or wait, workers)."""
        return {name: (pool.calls, pool.size) for name, pool in self._everybody().items()}

    def _everybody(self) -> dict[str, Pool | BrainPool]:
        return {**self._pools, **({BRAIN: self._brain} if self._brain else {})}

    async def _eyes(self) -> BrainPool:
        endpoint = self._recipe.agents.brain.endpoint
        assert endpoint is not None, "nothing is asked without an endpoint"
        await self._start()
        self._brain = self._brain or BrainPool(endpoint, self._store, self._ledger)
        return self._brain

    async def _pool(self, name: str) -> Pool:
        if name not in self._pools:
            await self._start()
        if name not in self._pools:
            import ray

            spec = self._spec(name)
            made = ray.remote(CommandWorker if spec.command else Worker).options(**cluster.actor_options(spec))
            texts = registry.texts_of(self._recipe)
            about = (name, spec.gpus, spec.accelerator or "", texts, *((spec.command, spec.env) if spec.command else ()))
            tried: set[str] = set()
            lose = functools.partial(self._lost, name, spec)

            async def launch() -> Any:
                await asyncio.to_thread(cluster.try_python, spec, tried)
                return made.remote(str(self._store.url), self._shared_files(), *about)

            self._pools[name] = Pool(
                name, int(spec.workers[0]), spec.timeout_s, launch, self._noticed, lose, self._find, self._ledger.record
            )
        return self._pools[name]

    def _shared_files(self) -> Any:
        """Where the files lie, of which there may be a hundred thousand: once in Ray's object store, not once for every worker."""
        import ray

        self._files_there = self._files_there or ray.put(self._files)
        return self._files_there

    def _lost(self, pool: str, spec: PoolSpec, task: Task, seconds: float) -> None:
        """A try without an outcome has taken its time all the same."""
        charge, gpu_seconds = task.charge, round(seconds * spec.gpus, 4)
        accelerator = (spec.accelerator or "") if spec.gpus else ""
        cost = Cost(
            seconds=round(seconds, 4), pool=pool, gpu_seconds=gpu_seconds, accelerator=accelerator, job=charge.job, slice=charge.slice
        )
        self._ledger.lose(task.key, task.name, cost)

    async def _find(self, key: str) -> Outcome | None:
        """An outcome whose artifacts are there."""

        def look() -> Outcome | None:
            outcome = self._store.get_outcome(key)
            return outcome if outcome and all(map(self._store.has, outcome.artifacts)) else None

        with contextlib.suppress(MotionpairError):
            return await asyncio.to_thread(look)
        return None

    def _noticed(self, kind: str, of: str) -> None:
        self.metrics.fault(kind, of)
        self.notice(kind, of)

    async def _keep_sizes(self) -> None:
        """Resize the pools as their work and the cluster change."""
        while True:
            await asyncio.sleep(SCALING_S)
            with contextlib.suppress(Exception):  # Ray or the disk can't be asked just now: nothing is changed
                leaving = await asyncio.to_thread(cluster.leaving)
                for pool in self._pools.values():
                    pool.leave(leaving)
                budget = scaling.budget_of(await asyncio.to_thread(cluster.nodes, leaving))
                self._resize(scaling.targets(self._views(), budget))
                for pool in self._pools.values():
                    pool.look_after()
                self._tell()

    def _tell(self) -> None:
        for name, pool in self._everybody().items():
            self.metrics.pool(name, pool.waiting, pool.busy, pool.size)
        if self._brain:
            self.metrics.spent(self._ledger.spend())

    def _resize(self, sizes: Mapping[str, int]) -> None:
        for name, pool in self._pools.items():
            if sizes.get(name, pool.size) != pool.size:
                pool.resize(sizes[name])

    def _views(self) -> list[scaling.PoolView]:
        """The pools as they stand; those that nothing was asked of yet have their floor."""
        coming = self.forecast.coming(self.wanting)
        views = []
        for name in sorted({*self._recipe.pools, *self._pools}):
            spec, pool = self._spec(name), self._pools.get(name)
            if pool is None:
                views.append(scaling.view_of(name, spec, int(spec.workers[0])))
                continue
            seen = pool.service()
            views.append(
                scaling.view_of(
                    name, spec, pool.size, queued=pool.calls, coming=coming.get(name, 0.0), service_s=seen.mean_s,
                    spread_s=seen.deviation_s, measured=seen.calls, load_s=seen.load_s or spec.load_s,
                )
            )  # fmt: skip
        return views

    def _spec(self, name: str) -> PoolSpec:
        return self._recipe.pools.get(name, PoolSpec())

    async def _start(self) -> None:
        async with self._lock:
            self._ours = await asyncio.to_thread(cluster.start, self._recipe.pools, self._address) or self._ours
            if self._scaler is None:
                self.started()
                if self._address:
                    await asyncio.to_thread(cluster.probe, self._store)
                    await asyncio.to_thread(cluster.probe_files, self._files.values())
                self._scaler, self.metrics = asyncio.create_task(self._keep_sizes()), Metrics()


def _is_paid(request: Frozen) -> bool:
    kind, options = getattr(request, "kind", None), getattr(request, "options", None)
    return kind is not None and registry.class_of(kind, options).paid
