"""One simulated run: the plan's slices, the loop, the admission and the scaling of a real one, on workers that only take time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from factory.admission import Admission, PoolLoad, route_of
from factory.brain_pool import BRAIN
from factory.choice import Decision
from factory.plan import Job, Plan, SlicePlan, make_plan
from factory.scaling import GPU, Forecast, asks_of, targets
from factory.simulate.clock import Timeline, run_virtually
from factory.simulate.stages import Scene, SimulatedJobs, SimulatedStages, Tally, Visits, simulated, visits_of
from factory.simulate.times import Times
from factory.simulate.workers import Cluster, SimulatedPool, Spent
from manifests.errors import BadRecipe
from manifests.recipe import PoolSpec, Recipe

LOOK_EVERY_S = 10.0
"""between two looks at the sizes"""
LOOKS_MAX = 5000
"""in one simulation: a long one looks less often"""
JOBS_PER_ATTEMPT = 4
"""planned jobs for every attempt that the quotas need, where the user names no number"""


@dataclass(frozen=True)
class Result:
    """What came of it. Times are seconds of the simulated run, or of one worker."""

    seconds: float
    accepted: dict[str, int]
    quotas: dict[str, int]
    decided: int
    """jobs"""
    from_s: float
    """from here on the pools were watched"""
    rate: float
    """accepted pairs a second since then"""
    spent: dict[str, Spent]
    """pool → since then"""
    sizes: dict[str, int]
    """pool → target size at the end"""
    pair_s: dict[str, dict[str, float]]
    """slice → pool → worker-seconds for one accepted pair, those of rejected attempts included"""
    budget: dict[str, float]
    """kind → how much there was"""

    @property
    def complete(self) -> bool:
        return all(self.accepted[name] >= quota for name, quota in self.quotas.items())


def budget_for(recipe: Recipe, gpus: Mapping[str, int], cpus: int | None) -> dict[str, float]:
    """The room that the user names; what they do not name is limited by the pools' largest sizes alone.

    Raises BadRecipe for a type of GPU that no pool asks, and when the workers that are kept warm do not fit.
    """
    pools = _pools_of(recipe)
    types = {spec.accelerator or GPU for spec in pools.values() if spec.gpus}
    if unknown := sorted(set(gpus) - types - {GPU} if GPU not in types else set()):
        raise BadRecipe(f"--gpus {unknown[0]}: no pool of the recipe asks for it; they ask for {', '.join(sorted(types)) or 'no GPUs'}.")
    budget = {kind: float("inf") for spec in pools.values() for kind in asks_of(spec)}
    budget |= {kind: float(count) for kind, count in gpus.items()} | ({} if cpus is None else {"CPU": float(cpus)})
    others = sum(s.workers[1] * s.gpus for s in pools.values() if s.gpus and s.accelerator and s.accelerator not in gpus)
    if gpus and GPU not in gpus:
        budget[GPU] = sum(gpus.values()) + others
    for kind, there in sorted(budget.items(), key=lambda entry: entry[0] == GPU):  # a type says more than GPUs of any
        warm = sum(asks_of(spec).get(kind, 0.0) * spec.workers[0] for spec in pools.values())
        if warm > there:
            names = ", ".join(f"pools.{name}" for name, spec in pools.items() if asks_of(spec).get(kind))
            raise BadRecipe(f"{warm:g} {kind} are needed for the workers that are kept warm, {there:g} given. Lower workers of {names}.")
    return budget


def simulate(recipe: Recipe, budget: Mapping[str, float], times: Times, hours: float | None, jobs: int | None, seed: int = 0) -> Result:
    """Run the recipe in virtual time: until its quotas are met, or for so many hours, or for so many jobs."""
    usual = gc.get_threshold()
    gc.set_threshold(100 * usual[0], *usual[1:])  # there are few cycles, and looking for them among so many jobs takes half the time
    try:
        return run_virtually(lambda timeline: Simulation(recipe, budget, times, timeline, seed).run(hours, jobs))
    finally:
        gc.set_threshold(*usual)


class Simulation:
    """The run on a timeline."""

    def __init__(self, recipe: Recipe, budget: Mapping[str, float], times: Times, timeline: Timeline, seed: int) -> None:
        self._recipe, self._timeline, self._seed = recipe, timeline, seed
        visits = visits_of(recipe, times.step_s, times.generator_s)
        self._pools = {
            name: SimulatedPool(name, spec, timeline, _expected_s(name, visits)) for name, spec in sorted(_pools_of(recipe).items())
        }
        self._cluster = Cluster(dict(self._pools), budget)
        if endpoint := recipe.agents.brain.endpoint:
            self._pools[BRAIN] = SimulatedPool(BRAIN, PoolSpec(workers=(endpoint.in_flight,) * 2), timeline, _expected_s(BRAIN, visits))
            Cluster({BRAIN: self._pools[BRAIN]}, {"CPU": float("inf")}).resize({BRAIN: endpoint.in_flight})
        self._scene = Scene(recipe, self._pools, visits, times.spread, seed)
        self._forecast = Forecast(recipe)
        self._spent_s: dict[str, Counter[str]] = {name: Counter() for name in recipe.slices}
        self._decided = 0
        self._watched_from: tuple[float, dict[str, Spent], int] = (0.0, {name: Spent() for name in self._pools}, 0)

    async def run(self, hours: float | None, jobs: int | None) -> Result:
        """To the end, or to the hour."""
        plan = self._plan(jobs)
        self._choices = [Tally(part, 1.0, self._recipe.duplicates) for part in plan.slices]
        routes = {part.name: route_of(self._recipe, part.name) for part in plan.slices}
        self._admission = Admission(self._choices, routes, self._make, lambda: True, self._loads)
        running = asyncio.create_task(self._admission.run())
        end_s = hours * 3600 if hours else None
        self._look_every_s = LOOK_EVERY_S
        self._look()
        self._look_every_s = max(LOOK_EVERY_S, (end_s or self._guess_s()) / LOOKS_MAX)
        if end_s:
            self._timeline.at(end_s / 2, self._watch)
            self._timeline.at(end_s, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return self._result()

    def _plan(self, jobs: int | None) -> Plan:
        """The recipe's plan, with as many jobs as are wanted."""
        plan = make_plan(self._recipe, [], [])
        attempts = sum(part.attempts for part in plan.slices)
        return Plan(tuple(self._filled(part, attempts, jobs) for part in plan.slices))

    def _filled(self, part: SlicePlan, attempts: int, jobs: int | None) -> SlicePlan:
        count = JOBS_PER_ATTEMPT * part.attempts + 1000 if jobs is None else max(1, round(jobs * part.attempts / attempts))
        made = SimulatedJobs(self._recipe, part, count, self._seed)
        return replace(part, jobs=cast("tuple[Job, ...]", made))

    async def _make(self, job: Job) -> Decision:
        stages = SimulatedStages(self._scene, job)
        decision = await simulated(job, stages)
        self._decided += 1
        self._spent_s[job.slice].update(stages.spent_s)
        for pool, calls in stages.calls.items():
            self._forecast.called(job.rank, pool, calls)
        self._forecast.decided(job.rank, job.slice, decision.pair is not None)
        return decision

    def _loads(self) -> dict[str, PoolLoad]:
        return {name: pool.load() for name, pool in self._pools.items()}

    def _look(self) -> None:
        """Size the pools, and look again later."""
        coming = self._forecast.coming(self._admission.to_come)
        views = [pool.view(coming.get(name, 0.0)) for name, pool in self._cluster.pools.items()]
        self._cluster.resize(targets(views, self._cluster.budget))
        self._admission.look_again()
        self._timeline.at(self._timeline.now_s + self._look_every_s, self._look)

    def _guess_s(self) -> float:
        """How long the whole may take: for choosing how often to look."""
        coming = self._forecast.coming(self._admission.to_come)
        return max((pool.view(coming.get(name, 0.0)).time_s(pool.target) for name, pool in self._pools.items() if pool.target), default=0.0)

    def _watch(self) -> None:
        """From here on pools are watched: they are filled and sized."""
        spent = {name: pool.spent() for name, pool in self._pools.items()}
        self._watched_from = (self._timeline.now_s, spent, sum(c.likely for c in self._choices))

    def _result(self) -> Result:
        from_s, before, pairs = self._watched_from
        accepted = {c.part.name: c.likely for c in self._choices}
        now_s = self._timeline.now_s
        return Result(
            seconds=now_s, accepted=accepted, quotas={c.part.name: c.part.spec.quota for c in self._choices}, decided=self._decided,
            from_s=from_s, rate=(sum(accepted.values()) - pairs) / (now_s - from_s) if now_s > from_s else 0.0,
            spent={name: pool.spent().since(before[name]) for name, pool in self._pools.items()},
            sizes={name: pool.target for name, pool in self._pools.items()},
            pair_s={name: self._pair_s(name, accepted[name]) for name in accepted}, budget=dict(self._cluster.budget),
        )  # fmt: skip

    def _pair_s(self, name: str, accepted: int) -> dict[str, float]:
        if accepted:
            return {pool: seconds / accepted for pool, seconds in sorted(self._spent_s[name].items())}
        return {pool: calls * self._pools[pool].view(0).service_s for pool, calls in self._forecast.per_pair(name).items()}


def _pools_of(recipe: Recipe) -> dict[str, PoolSpec]:
    """The pools that jobs pass through, but the brain, which takes no room."""
    names = sorted(set().union(*(route_of(recipe, name) for name in recipe.slices)) - {BRAIN})
    return {name: recipe.pools.get(name, PoolSpec()) for name in names}


def _expected_s(pool: str, visits: Visits) -> float:
    """Mean time of a call, before any was made."""
    found = [visit.mean_s for stages in visits.values() for found in stages.values() for visit in found if visit.pool == pool]
    return sum(found) / len(found) if found else 0.0
