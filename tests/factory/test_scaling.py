"""Target sizes: within the room, above the floors, settled when nothing changes, quick when something does, calm when a load is dear."""

from __future__ import annotations

import dataclasses
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.scaling import STANDING, Forecast, PoolView, asks_of, budget_of, pays, targets
from manifests.recipe import PoolSpec, load_recipe

KINDS = ("CPU", "GPU", "H100", "L40S")


def pool(name: str, work_s: float, workers: int = 1, floor: int = 1, ceiling: int = 1000, asks: str = "H100", **more: float) -> PoolView:
    """With so much to do in calls of 1 s."""
    known = PoolView(name, floor, ceiling, {asks: 1.0}, workers, coming=work_s, service_s=1.0)
    return dataclasses.replace(known, **more)  # type: ignore[arg-type]


@st.composite
def views(draw: st.DrawFn) -> list[PoolView]:
    """Up to five pools of all sorts."""
    out = []
    for n in range(draw(st.integers(1, 5))):
        floor = draw(st.integers(1, 4))
        asks = {"CPU": draw(st.sampled_from([0.5, 1.0, 2.0]))}
        if kind := draw(st.sampled_from(["", "H100", "L40S", "any"])):
            gpus = draw(st.sampled_from([0.25, 1.0, 2.0]))
            asks |= {"GPU": gpus} | ({kind: gpus} if kind != "any" else {})
        out.append(
            PoolView(
                f"p{n}", floor, floor + draw(st.integers(0, 40)), asks, draw(st.integers(0, 50)), draw(st.integers(0, 500)),
                draw(st.floats(0, 1e6)), draw(st.sampled_from([0.0, 0.3, 7.0, 720.0])), draw(st.floats(0, 100)), draw(st.integers(0, 64)),
                draw(st.sampled_from([0.0, 5.0, 300.0])),
            )
        )  # fmt: skip
    return out


def used(pools: list[PoolView], sizes: dict[str, int], kind: str) -> float:
    return sum(p.asks.get(kind, 0.0) * sizes[p.name] for p in pools)


@given(views(), st.fixed_dictionaries({kind: st.integers(0, 120).map(float) for kind in KINDS}))
@settings(max_examples=300, deadline=None)
def test_never_over_the_budget_never_under_the_floor_and_settled_at_once(pools: list[PoolView], budget: dict[str, float]) -> None:
    sizes = targets(pools, budget)
    assert all(used(pools, sizes, kind) <= budget[kind] + 1e-6 for kind in KINDS)
    assert all(sizes[p.name] <= p.ceiling for p in pools)
    floors = {p.name: p.floor for p in pools}
    if all(used(pools, floors, kind) <= budget[kind] for kind in KINDS):
        assert all(sizes[p.name] >= p.floor for p in pools)
    assert targets(list(reversed(pools)), dict(reversed(budget.items()))) == sizes, "the order in which things are told is nothing"
    reached = [dataclasses.replace(p, workers=sizes[p.name], queued=0) for p in pools]
    calm = targets(reached, budget)
    assert targets([dataclasses.replace(p, workers=calm[p.name]) for p in reached], budget) == calm


def test_room_is_shared_by_work() -> None:
    assert targets([pool("a", 900), pool("b", 300)], {"H100": 64}) == {"a": 48, "b": 16}
    sizes = targets([pool("a", 900), pool("b", 300), pool("cpu", 60, asks="CPU")], {"H100": 64, "CPU": 100})
    assert (sizes["a"], sizes["b"]) == (48, 16)
    assert 4 <= sizes["cpu"] <= 6, "as fast as the others, and some headroom"


def test_a_pool_at_its_most_leaves_the_rest_to_others() -> None:
    a, b = pool("a", 900, ceiling=10), pool("b", 300, queued=100)
    assert targets([a, b], {"H100": 64}) == {"a": 10, "b": 54}, "b has a standing queue, so it takes what is left"
    assert targets([a, dataclasses.replace(b, queued=0)], {"H100": 64}) == {"a": 10, "b": 5}, "b keeps pace with a"


def test_most_of_an_idle_pool_goes_and_some_surplus_stays() -> None:
    a = pool("a", 9000, 60, queued=60)
    budget = {"H100": 60, "CPU": 1000}
    assert targets([a, pool("cpu", 900, 40, asks="CPU", queued=3)], budget)["cpu"] == 8
    assert targets([a, pool("cpu", 900, 40, asks="CPU", queued=30)], budget)["cpu"] == 40, "it has work"
    assert targets([a, pool("cpu", 900, 14, asks="CPU", queued=3)], budget)["cpu"] == 14, "little would be gained"


def test_workers_of_any_type_take_what_the_named_leave() -> None:
    named = PoolView("named", 1, 99, {"GPU": 1.0, "H100": 1.0}, 1, coming=100, service_s=1.0)
    either = PoolView("either", 1, 99, {"GPU": 0.5}, 1, coming=100, service_s=1.0)
    sizes = targets([named, either], {"GPU": 12.0, "H100": 4.0})
    assert sizes["named"] == 4
    assert sizes["either"] <= 16


def test_floors_that_no_longer_fit_give_way() -> None:
    assert targets([pool("a", 10, 8, floor=8), pool("b", 10, 2, floor=2)], {"H100": 6}) == {"a": 4, "b": 2}
    assert targets([pool("a", 10, 8, floor=8)], {"H100": 0}) == {"a": 0}


@pytest.mark.parametrize(("work_s", "load_s", "moves"), [(64_000, 300, True), (64_000, 20, True), (3_200, 300, False), (3_200, 20, True)])
def test_a_load_is_paid_back_before_the_work_ends(work_s: float, load_s: float, moves: bool) -> None:
    pools = [pool("a", work_s * 0.75, 32, load_s=load_s), pool("b", work_s * 0.25, 32, load_s=load_s)]
    assert (targets(pools, {"H100": 64}) != {"a": 32, "b": 32}) is moves


def test_what_noise_explains_moves_nothing() -> None:
    def moved(measured: int, spread_s: float) -> bool:
        pools = [
            pool(name, work_s, 32, spread_s=spread_s, measured=measured, load_s=300) for name, work_s in (("a", 340_000), ("b", 270_000))
        ]
        return targets(pools, {"H100": 64}) != {"a": 32, "b": 32}

    assert moved(64, 0.01)
    assert not moved(64, 0.6)
    assert not moved(1, 0.0), "one call says nothing of the spread"
    assert not pays(pool("a", 1e6, 32, load_s=300), 32, 33), "less than a twentieth is not worth a dear load"
    assert pays(pool("a", 1e6, 32), 32, 33)
    assert not pays(pool("a", 1e6, 64), 64, 65), "a fiftieth is nothing"


def test_noisy_measurements_do_not_make_it_thrash() -> None:
    """An hour of looks every 5 s at two pools whose measured times scatter as means of 64 calls with a spread of a half do."""
    draw, sizes, changes = random.Random(7), {"a": 32, "b": 32}, 0
    for _ in range(720):
        seen = [
            pool(n, 1e6, sizes[n], service_s=draw.gauss(1.0, 0.5 / 8), spread_s=0.5, measured=64, load_s=300.0, queued=64) for n in sizes
        ]
        new = targets(seen, {"H100": 64})
        changes += new != sizes
        sizes = new
    assert changes <= 3


class Line:
    """Jobs that pass through pool a, then b, one call each, on 64 GPUs. Steps of a quarter of a second; workers that are let go finish
    their call first, new ones load first, on GPUs that are free."""

    STEP_S = 0.25

    def __init__(self, service_s: dict[str, float], load_s: float, spread: float, seed: int = 0) -> None:
        self.now_s, self.service_s, self.load_s, self.spread = 0.0, dict(service_s), load_s, spread
        self.draw = random.Random(seed)
        self.wanted = {"a": 1, "b": 1}
        self.ends: dict[str, list[float]] = {"a": [0.0], "b": [0.0]}
        """of every worker the moment at which its call or its load ends"""
        self.calls: dict[str, int] = {"a": 0, "b": 0}
        self.took_s: dict[str, deque[float]] = {name: deque(maxlen=64) for name in self.wanted}
        self.running: dict[str, dict[int, float]] = {"a": {}, "b": {}}
        self.done = 0

    def look(self) -> None:
        """What a run does every few seconds."""
        seen = []
        for name, took in self.took_s.items():
            mean = sum(took) / len(took) if took else self.service_s[name]
            spread = (sum((t - mean) ** 2 for t in took) / max(1, len(took) - 1)) ** 0.5
            seen.append(
                PoolView(
                    name, 1, 64, {"H100": 1.0}, self.wanted[name], self.calls[name], 1e6, mean, spread, len(took), self.load_s,
                )
            )  # fmt: skip
        self.wanted = targets(seen, {"H100": 64.0})

    def step(self) -> None:
        self.now_s += self.STEP_S
        while self.calls["a"] < STANDING * max(1, self.wanted["a"]) and self.calls["b"] < 2 * STANDING * max(1, self.wanted["b"]):
            self.calls["a"] += 1
        for name, ends in self.ends.items():
            for worker in [w for w, took in self.running[name].items() if ends[w] <= self.now_s]:
                self.took_s[name].append(self.running[name].pop(worker))
                self.calls[name] -= 1
                if name == "a":
                    self.calls["b"] += 1
                else:
                    self.done += 1
            self._change(name)
            for worker, end in enumerate(ends):
                if end <= self.now_s and worker not in self.running[name] and len(self.running[name]) < self.calls[name]:
                    took = self.service_s[name] * self.draw.uniform(1 - self.spread, 1 + self.spread)
                    self.running[name][worker], ends[worker] = took, self.now_s + took

    def _change(self, name: str) -> None:
        """Idle workers beyond the target go; new ones come where GPUs are free."""
        ends = self.ends[name]
        while len(ends) > self.wanted[name] and len(ends) - 1 not in self.running[name]:
            ends.pop()
        while len(ends) < self.wanted[name] and sum(map(len, self.ends.values())) < 64:
            ends.append(self.now_s + self.load_s)

    def run(self, seconds: float) -> float:
        """Jobs a second over a while, looked at every 5 s."""
        before, until_s = self.done, self.now_s + seconds
        while self.now_s < until_s:
            if self.now_s % 5 == 0:
                self.look()
            self.step()
        return (self.done - before) / seconds


@pytest.mark.parametrize(("load_s", "spread"), [(0.0, 0.0), (20.0, 0.3), (120.0, 0.3)])
def test_a_generator_at_half_its_speed_is_made_up_for_within_30_s_and_one_load(load_s: float, spread: float) -> None:
    line = Line({"a": 2.0, "b": 2.0}, load_s, spread)
    line.run(2 * load_s + 120)
    assert line.run(60) >= 0.9 * 64 / 4
    line.service_s["a"] = 4.0
    line.run(30 + load_s)
    assert line.run(60) >= 0.9 * 64 / 6


def test_a_forecast_learns_what_a_pair_takes() -> None:
    forecast = Forecast(load_recipe("motionpair-60k"))
    expected = forecast.per_pair("scail_animation")
    assert expected == {"painter": pytest.approx(2.0), "scail": pytest.approx(2.0)}
    for n in range(4000):  # every fourth is accepted, each takes one video and five steps on CPUs
        for name in ("painter", "scail", *["cpu"] * 5):
            forecast.called(f"job{n}", name)
        forecast.decided(f"job{n}", "scail_animation", accepted=n % 4 == 0)
    learnt = forecast.per_pair("scail_animation")
    assert learnt == {"cpu": pytest.approx(20, rel=0.03), "painter": pytest.approx(4, rel=0.03), "scail": pytest.approx(4, rel=0.03)}
    assert forecast.coming({"scail_animation": 10, "mocha_multi": 0})["scail"] == pytest.approx(40, rel=0.03)
    assert forecast.per_pair("mocha_multi")["mocha"] == pytest.approx(2.5)


def test_what_workers_ask_and_nodes_have() -> None:
    spec = PoolSpec.model_validate({"cpus": 2, "gpus": 0.5, "accelerator": "H100", "memory_gb": 40, "resources": {"slot": 1}})
    assert asks_of(spec) == {"CPU": 2, "GPU": 0.5, "H100": 0.5, "memory_gb": 40, "slot": 1}
    nodes = [
        {"CPU": 8, "GPU": 4, "accelerator_type:H100": 1.0, "node:10.0.0.1": 1, "memory": 64e9, "object_store_memory": 1e9},
        {"CPU": 8, "GPU": 2, "accelerator_type:L40S": 1.0, "slot": 3, "memory": 64e9},
        {"CPU": 4},
    ]
    assert budget_of(nodes) == {"CPU": 20, "GPU": 6, "H100": 4, "L40S": 2, "memory_gb": 128, "slot": 3}
