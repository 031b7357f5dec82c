"""Which jobs are begun: every pool is fed, what is in flight is bounded by the pools, and the choice does not depend on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import tiny
from test_choice import decision, job

from factory.admission import Admission, Line, PoolLoad, empty_loads, route_of
from factory.choice import Choice, Decision
from factory.members import SLOTS
from factory.plan import Job, SlicePlan
from manifests.recipe import DuplicateSpec, Recipe, Slice, load_recipe

ROUTES = {"a": frozenset({"cpu", "gpu_a"}), "b": frozenset({"cpu", "gpu_b"}), "b2": frozenset({"cpu", "gpu_b"})}


def choice(name: str, jobs: int, quota: int, acceptance: float = 1.0) -> Choice:
    """Of a slice whose jobs are told apart by their rank."""
    spec = Slice.model_validate({"task": "animation", "generator": "g", "quota": quota, "acceptance": acceptance})
    made = tuple(replace(job(n), slice=name, repeat=n, rank=tiny.sha((name, n))) for n in range(jobs))
    return Choice(SlicePlan(name, spec, made, quota, 0.0, 0), 1.0, DuplicateSpec())


class Pools:
    """Two pools one after the other, workers that take one turn of the event loop a job; counts what is at each."""

    def __init__(self, workers: dict[str, int], verdict: Callable[[Job], str] = lambda _: "good") -> None:
        self.workers, self.verdict = workers, verdict
        self.calls: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.turns: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.doors = {name: asyncio.Semaphore(count) for name, count in workers.items()}

    async def make(self, wanted: Job) -> Decision:
        """A job through `cpu` and its slice's own pool."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for pool in ("cpu", "gpu_a" if wanted.slice == "a" else "gpu_b"):
                await self._visit(pool)
        finally:
            self.in_flight -= 1
        return decision(wanted.repeat, self.verdict(wanted))

    async def _visit(self, pool: str) -> None:
        self.calls[pool] += 1
        self.most[pool] = max(self.most[pool], self.calls[pool])
        try:
            async with self.doors[pool]:
                for _ in range(20 if pool == "gpu_a" else 1):
                    await asyncio.sleep(0)
                self.turns[pool] += 1
        finally:
            self.calls[pool] -= 1

    def loads(self) -> dict[str, PoolLoad]:
        return {name: PoolLoad(SLOTS * count, self.calls[name]) for name, count in self.workers.items()}


def admitted(choices: list[Choice], pools: Pools, may_begin: Callable[[], bool] = lambda: True, seen: list[Line] | None = None) -> None:
    changed = seen.append if seen is not None else lambda _: None
    routes = {c.part.name: ROUTES[c.part.name] for c in choices}
    asyncio.run(Admission(choices, routes, pools.make, may_begin, pools.loads, changed).run())


def test_what_is_in_flight_depends_on_the_pools_not_on_the_plan() -> None:
    for planned in (50, 500):
        pools = Pools({"cpu": 2, "gpu_a": 3, "gpu_b": 1})
        choices = [choice("a", planned, planned), choice("b", planned, planned)]
        admitted(choices, pools)
        assert [len(c.pairs) for c in choices] == [planned, planned]
        assert pools.most_in_flight <= SLOTS * (2 + 3) + SLOTS * (2 + 1)
        assert pools.most["gpu_a"] >= SLOTS * 3, "the slow pool is never without a waiting job"


def test_a_full_pool_does_not_keep_others_idle() -> None:
    """`a` takes twenty times as long; while its queue is full, `b` runs through."""
    pools = Pools({"cpu": 1, "gpu_a": 1, "gpu_b": 1})
    slow, quick = choice("a", 200, 200), choice("b", 200, 200)
    order: list[tuple[int, int]] = []

    async def make(wanted: Job) -> Decision:
        answer = await pools.make(wanted)
        order.append((pools.turns["gpu_a"], pools.turns["gpu_b"]))
        return answer

    admission = Admission([slow, quick], ROUTES, make, lambda: True, pools.loads)
    asyncio.run(admission.run())
    at_the_end_of_b = next(a for a, b in order if b == 200)
    assert at_the_end_of_b < 40


def test_slices_of_one_route_share_its_room_evenly() -> None:
    pools = Pools({"cpu": 2, "gpu_a": 1, "gpu_b": 2})
    one, other = choice("b", 300, 300), choice("b2", 100, 100)
    seen: list[tuple[float, float]] = []

    def note(_: Line) -> None:
        seen.append((one.likely / 300, other.likely / 100))

    admission = Admission([one, other], ROUTES, pools.make, lambda: True, pools.loads, note)
    asyncio.run(admission.run())
    assert pools.most_in_flight <= SLOTS * (2 + 2)
    assert max(abs(a - b) for a, b in seen) < 0.1


def test_a_crowded_pool_closes_the_routes_through_it_but_never_for_good() -> None:
    """The load of a pool may be told wrong or late: a route with nothing in flight is always open."""
    chosen, pools, most = choice("b", 20, 20), Pools({"cpu": 1, "gpu_a": 1, "gpu_b": 1}), []

    def crowded() -> dict[str, PoolLoad]:
        most.append(pools.in_flight)
        return pools.loads() | {"gpu_b": PoolLoad(2, 99)}

    asyncio.run(Admission([chosen], {"b": ROUTES["b"]}, pools.make, lambda: True, crowded).run())
    assert len(chosen.pairs) == 20
    assert pools.most_in_flight == 1


def test_a_larger_pool_that_has_work_now_and_then_is_in_nobodys_way() -> None:
    chosen, pools = choice("a", 20, 20), Pools({"cpu": 1, "gpu_a": 1})

    def loads() -> dict[str, PoolLoad]:
        return pools.loads() | {"larger": PoolLoad(2, 50)}

    asyncio.run(Admission([chosen], {"a": ROUTES["a"]}, pools.make, lambda: True, loads).run())
    assert len(chosen.pairs) == 20
    assert pools.most_in_flight == SLOTS * 2


def test_a_pool_that_lost_all_its_workers_holds_up_its_own_route_only() -> None:
    async def scenario() -> int:
        pools, lost = Pools({"cpu": 1, "gpu_a": 1, "gpu_b": 1}), asyncio.Event()

        async def make(wanted: Job) -> Decision:
            await (lost.wait() if wanted.slice == "a" else asyncio.sleep(0))
            return await pools.make(wanted)

        other = choice("b", 50, 50)

        def note(_: Line) -> None:
            if other.full:
                lost.set()

        loads = lambda: pools.loads() | {"gpu_a": PoolLoad(0, 2)}  # noqa: E731
        admission = Admission([choice("a", 5, 5), other], ROUTES, make, lambda: True, loads, note)
        await asyncio.wait_for(admission.run(), 20)
        return len(other.pairs)

    assert asyncio.run(scenario()) == 50


def test_no_more_is_begun_than_the_quota_can_need() -> None:
    pools = Pools({"cpu": 50, "gpu_a": 50, "gpu_b": 50})
    chosen = choice("a", 500, 10, acceptance=0.5)
    admitted([chosen], pools)
    assert pools.most_in_flight == 20
    assert len(chosen.pairs) == 10
    assert pools.in_flight == 0, "what a full slice no longer needs is stopped"


def test_jobs_that_pass_more_often_than_assumed_are_not_begun_in_vain() -> None:
    lines: list[Line] = []
    admitted([choice("a", 1000, 400, acceptance=0.2)], Pools({"cpu": 10, "gpu_a": 10, "gpu_b": 1}), seen=lines)
    assert lines[-1].choice.full
    assert lines[-1].following <= 404


def test_jobs_before_those_that_an_earlier_run_has_finished_are_made_first() -> None:
    """A run was killed, or files of its first pairs are gone: as many later jobs as the quota wants are accepted, the first are not."""
    one = choice("a", 40, 10)
    for place in range(4, 20):
        one.decide(place, decision(place, "good"))
    begun: list[int] = []

    async def make(wanted: Job) -> Decision:
        begun.append(wanted.repeat)
        return await pools.make(wanted)

    pools = Pools({"cpu": 2, "gpu_a": 1, "gpu_b": 1}, lambda wanted: "rejected" if wanted.repeat == 2 else "good")
    asyncio.run(Admission([one], ROUTES, make, lambda: True, pools.loads).run())
    assert sorted(begun) == [0, 1, 2, 3]
    assert [kept.repeat for kept in one.pairs] == [0, 1, 3, *range(4, 11)]


def test_the_choice_is_the_same_whatever_the_pools() -> None:
    def verdict(wanted: Job) -> str:
        return "rejected" if wanted.repeat % 3 == 0 else "good"

    found = []
    for workers in (1, 4, 30):
        chosen = choice("a", 200, 60, acceptance=0.9)
        admitted([chosen], Pools({"cpu": workers, "gpu_a": workers, "gpu_b": 1}, verdict))
        found.append(([j.id for j in chosen.pairs], chosen.left_out))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 60


def test_nothing_is_begun_when_nothing_may_be_and_what_runs_is_finished() -> None:
    pools, left = Pools({"cpu": 2, "gpu_a": 2, "gpu_b": 2}), [5]

    def may_begin() -> bool:
        left[0] -= 1
        return left[0] >= 0

    chosen = choice("a", 100, 100)
    admitted([chosen], pools, may_begin)
    assert len(chosen.pairs) == 5
    assert [entry.state for entry in chosen.left_out] == ["undecided"] * 95


def test_an_error_that_ends_the_run_ends_all_jobs() -> None:
    pools = Pools({"cpu": 4, "gpu_a": 4, "gpu_b": 4})

    async def make(wanted: Job) -> Decision:
        if wanted.repeat == 7:
            raise OSError("the disk is full")
        return await pools.make(wanted)

    with pytest.raises(OSError, match="the disk is full"):
        asyncio.run(Admission([choice("a", 100, 100)], ROUTES, make, lambda: True, pools.loads).run())
    assert pools.in_flight == 0


def test_more_workers_are_used_as_soon_as_they_are_told_of() -> None:
    async def scenario() -> int:
        pools, door = Pools({"cpu": 1, "gpu_a": 1, "gpu_b": 1}), asyncio.Event()

        async def make(wanted: Job) -> Decision:
            await door.wait()
            return await pools.make(wanted)

        admission = Admission([choice("a", 100, 100)], ROUTES, make, lambda: True, pools.loads)
        running = asyncio.create_task(admission.run())
        await asyncio.sleep(0.01)
        assert admission.in_flight == SLOTS * 2
        pools.workers = {"cpu": 1, "gpu_a": 10, "gpu_b": 1}
        admission.look_again()
        await asyncio.sleep(0.01)
        grown = admission.in_flight
        door.set()
        await running
        return grown

    assert asyncio.run(scenario()) == SLOTS * 11


def test_routes_of_a_recipe() -> None:
    recipe: Recipe = load_recipe("motionpair-60k")
    assert route_of(recipe, "scail_animation") == {"cpu", "painter", "scail"}
    assert route_of(recipe, "mocha_multi") == route_of(recipe, "mocha_single")
    assert route_of(recipe, "pose_extraction") == {"cpu"}
    loads = empty_loads(recipe)
    assert loads["scail"] == PoolLoad(SLOTS * 4)
    assert set(loads) == {"cpu", "painter", "scail", "wan_animate", "mocha"}
