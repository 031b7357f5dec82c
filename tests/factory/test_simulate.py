"""The simulation against cases whose answer can be written down, and what it refuses."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from running import call

from factory.plan import gpu_hours
from factory.scaling import Forecast
from factory.simulate.clock import Timeline, run_virtually
from factory.simulate.report import outlook
from factory.simulate.simulation import Result, budget_for, simulate
from factory.simulate.stages import STEPS, SimulatedStages
from factory.simulate.times import Times, times_of
from factory.stages import Stages
from factory.steps import named
from manifests.errors import BadRecipe
from manifests.ledger import Ledger
from manifests.recipe import Recipe, load_recipe, parse_recipe
from manifests.store import Cost, Outcome

VIDEO = {"task": "animation", "generator": "video"}
POSES = {"task": "pose", "generator": "skeleton"}


def recipe(slices: dict[str, Any], pools: dict[str, Any], **more: Any) -> Recipe:
    """With a painter of 10 s, two animators of 60 s and a pose renderer of 5 s, each on its own pool where there is one."""
    return parse_recipe(
        {
            "recipe": "simulated", "seed": 1, "sources": [{"clips": "nowhere"}], "slices": slices, "pools": pools,
            "generators": {
                "painter": {"kind": "qwen_edit", "seconds_per_pair": 10}, "video": {"kind": "scail", "seconds_per_pair": 60},
                "other": {"kind": "wan_animate", "seconds_per_pair": 60}, "skeleton": {"kind": "skeleton", "seconds_per_pair": 5},
            },
            **more,
        }
    )  # fmt: skip


def gpus(low: int, high: int, **more: Any) -> dict[str, Any]:
    return {"workers": f"{low}..{high}", "gpus": 1, "accelerator": "H100", **more}


def simulated(made: Recipe, count: int, hours: float | None = None, seed: int = 0) -> Result:
    return simulate(made, budget_for(made, {"H100": count}, None), times_of(made), hours, None, seed)


def test_one_pool_that_is_always_busy() -> None:
    """8 workers, 5 s a try, 0.8 of the tries pass: 1.28 pairs a second."""
    made = recipe({"poses": {**POSES, "quota": 5000, "acceptance": 0.8}}, {"skeleton": gpus(8, 8)})
    result = simulated(made, 8)
    assert result.complete
    assert result.seconds == pytest.approx(5000 / (8 * 0.8 / 5), rel=0.03)
    assert result.spent["skeleton"].busy_s / result.spent["skeleton"].there_s > 0.98
    assert result.pair_s["poses"]["skeleton"] == pytest.approx(5 / 0.8, rel=0.03)
    assert "8 workers of the 8 that pools.skeleton.workers allows" in outlook(made, result).bottleneck


def test_rejections_that_loop_back_and_two_pools_that_share_gpus() -> None:
    """A casting passes with 1 − (1 − a)², so a pair takes 10 s over that for pictures and 60 s over a for videos, on whatever GPUs."""
    made = recipe({"walk": {**VIDEO, "quota": 4000, "acceptance": 0.4}}, {"video": gpus(1, 64), "painter": gpus(1, 64)})
    result = simulated(made, 32)
    pair_s = {"painter": 10 / (1 - 0.6**2), "video": 60 / 0.4}
    assert result.complete
    assert result.pair_s["walk"] == pytest.approx(pair_s, rel=0.03)
    assert result.seconds == pytest.approx(4000 * sum(pair_s.values()) / 32, rel=0.05)
    seen = outlook(made, result)
    assert seen.gpu_hours["H100"] == pytest.approx(4000 * sum(pair_s.values()) / 3600, rel=0.03)
    assert seen.bottleneck.startswith("H100: all 32 are in use by painter, video")


def test_the_longest_of_two_pools_sets_the_rate() -> None:
    """The painter's one worker brings 0.1 castings a second, of which 0.75 pass; the animators would do 0.25."""
    made = recipe(
        {"walk": {**VIDEO, "quota": 1500, "acceptance": 0.5}},
        {"video": gpus(30, 30), "painter": {"workers": 1, "gpus": 1, "accelerator": "L40S"}},
    )
    result = simulated(made, 30)
    assert result.rate == pytest.approx(0.1 * 0.75, rel=0.05)
    assert outlook(made, result).bottleneck.startswith("painter: 1 workers of the 1 that")


def test_two_slices_end_together_on_gpus_that_they_share() -> None:
    """3:1 in work, so 3:1 in GPUs: no GPU is left over at the end of the shorter one."""
    pools = {"video": gpus(1, 64), "other": gpus(1, 64), "painter": {"workers": 40, "gpus": 1, "accelerator": "L40S"}}
    slices = {"one": {**VIDEO, "quota": 3000, "acceptance": 0.5}, "two": {**VIDEO, "generator": "other", "quota": 1000, "acceptance": 0.5}}
    result = simulated(recipe(slices, pools), 32)
    assert result.complete
    assert result.seconds == pytest.approx(4000 * 120 / 32, rel=0.05)


def test_hours_foretell_the_days() -> None:
    made = recipe({"walk": {**VIDEO, "quota": 3000, "acceptance": 0.5}}, {"video": gpus(4, 64, load_s=300), "painter": gpus(1, 64)})
    part, whole = simulated(made, 16, hours=2), simulated(made, 16)
    assert part.seconds == 2 * 3600
    assert not part.complete
    assert whole.complete
    assert outlook(made, part).days == pytest.approx(whole.seconds / 86400, rel=0.06)
    assert whole.spent["video"].loading_s >= 4 * 300


def test_so_many_jobs_as_are_asked_for() -> None:
    made = recipe({"poses": {**POSES, "quota": 5000, "acceptance": 0.5}}, {"skeleton": gpus(8, 8)})
    result = simulate(made, budget_for(made, {"H100": 8}, None), times_of(made), None, 1000)
    assert result.decided == 1000
    assert result.accepted["poses"] == pytest.approx(500, rel=0.1)
    assert result.seconds == pytest.approx(1000 * 5 / 8, rel=0.05)


def test_loads_cost_time_before_anything_is_made() -> None:
    made = recipe({"poses": {**POSES, "quota": 160, "acceptance": 1.0}}, {"skeleton": gpus(8, 8, load_s=1000)})
    assert simulated(made, 8).seconds == pytest.approx(1000 + 160 * 5 / 8, rel=0.05)


def test_a_seed_gives_one_result() -> None:
    made = recipe({"walk": {**VIDEO, "quota": 300, "acceptance": 0.5}}, {"video": gpus(1, 64), "painter": gpus(1, 64)})
    assert simulated(made, 16, seed=1) == simulated(made, 16, seed=1)
    assert simulated(made, 16, seed=1) != simulated(made, 16, seed=2)


def test_the_stages_have_the_methods_of_the_real_ones() -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        found = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in found if not name.startswith("_")}

    assert methods(SimulatedStages) == methods(Stages)
    asked = {step for steps in STEPS.values() for step in steps} - {"ask", "eye"}
    assert all(named(step).name == step for step in asked)


def test_times_come_from_a_run(tmp_path: Path) -> None:
    made = recipe({"walk": {**VIDEO, "quota": 600, "acceptance": 1.0}}, {"video": gpus(8, 8), "painter": gpus(8, 8), "cpu": {"workers": 6}})
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for n, (step, pool, seconds) in enumerate(
            [("generate_video", "video", 40.0), ("generate_video", "video", 20.0), ("cut", "cpu", 1.0), ("analyze", "cpu", 9.0)]
        ):
            cost = Cost(seconds=seconds, pool=pool)
            ledger.record(Outcome(key=tiny.sha(n), step=step, status="ok", answer={}, request={}, cost=cost))
    times = times_of(made, tmp_path)
    assert times.generator_s == {"painter": 10.0, "video": 30.0}
    assert times.step_s == {("cpu", "cut"): 1.0, ("cpu", "analyze"): 9.0}
    result = simulate(made, budget_for(made, {}, None), times, None, None)
    assert result.pair_s["walk"] == pytest.approx({"cpu": 19.0, "painter": 10.0, "video": 30.0}, rel=0.03)
    assert result.seconds == pytest.approx(600 * 30 / 8, rel=0.05)
    assert times_of(made, tmp_path, {"video": 7.0}).generator_s["video"] == 7.0


def test_the_published_dataset_on_64_gpus() -> None:
    """Videos alone: 31895 × 720 s / 0.5 and so on, 20263 GPU-hours."""
    made = load_recipe("motionpair-60k")
    times = times_of(made, None, {"painter": 20, "wan_animate": 600, "mocha": 500, "skeleton": 300})
    result = simulate(made, budget_for(made, {"H100": 64}, None), times, 8, None)
    seen = outlook(made, result)
    assert seen.gpu_hours["H100"] == pytest.approx(20263, rel=0.04)
    assert seen.days == pytest.approx(20263 / 64 / 24, rel=0.06)
    assert seen.bottleneck.startswith("H100: all 64 are in use")


def test_what_is_refused() -> None:
    made = recipe({"walk": {**VIDEO, "quota": 10}}, {"video": gpus(8, 16)})
    with pytest.raises(BadRecipe, match=r"8 H100 are needed .* 4 given\. Lower workers of pools\.video"):
        budget_for(made, {"H100": 4}, None)
    with pytest.raises(BadRecipe, match=r"--gpus A100: no pool of the recipe asks for it; they ask for H100"):
        budget_for(made, {"A100": 4}, None)
    with pytest.raises(BadRecipe, match=r"--seconds vidoe: the recipe has no such generator"):
        times_of(made, None, {"vidoe": 3.0})
    with pytest.raises(BadRecipe, match=r"nowhere: no run has worked there"):
        times_of(made, Path("nowhere"))


def test_the_command() -> None:
    told = call("simulate", "motionpair-60k", "--gpus", "H100=64", "--hours", "4", code=2)
    assert len(told.splitlines()) == 1
    for name in ("painter", "wan_animate", "mocha", "skeleton"):
        assert f"generators.{name}.seconds_per_pair" in told
    assert "generators.scail.seconds_per_pair" not in told
    seconds = [
        word
        for name, s in (("painter", 20), ("wan_animate", 600), ("mocha", 500), ("skeleton", 300))
        for word in ("--seconds", f"{name}={s}")
    ]
    told = call("simulate", "motionpair-60k", "--gpus", "H100=64", "--gpus", "L40S=8", "--hours", "2", *seconds)
    assert re.search(r"^scail +[\d.]+ +64 +(9\d|100)\.\d%", told, re.MULTILINE), told
    assert "to the quotas: 1" in told
    assert "bottleneck: H100: all 64 are in use" in told
    assert "expected NAME=NUMBER" in call("simulate", "motionpair-60k", "--gpus", "H100", code=2)


def test_virtual_time_passes_at_once_and_in_order() -> None:
    seen: list[tuple[float, str]] = []

    async def main(timeline: Timeline) -> float:
        timeline.at(7200, lambda: seen.append((timeline.now_s, "two hours")))
        timeline.at(3600, lambda: seen.append((timeline.now_s, "one hour")))
        await asyncio.sleep(5400)
        seen.append((timeline.now_s, "slept"))
        await asyncio.sleep(3 * 86400)
        return asyncio.get_running_loop().time()

    assert run_virtually(main) == pytest.approx(3 * 86400 + 5400)
    assert [what for _, what in seen] == ["one hour", "slept", "two hours"]
    assert [when for when, _ in seen] == pytest.approx([3600, 5400, 7200])


def test_waiting_for_nothing_is_an_error() -> None:
    async def main(timeline: Timeline) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="never happens"):
        run_virtually(main)


def test_spread_of_times_changes_nothing_of_the_mean() -> None:
    made = recipe({"poses": {**POSES, "quota": 3000, "acceptance": 1.0}}, {"skeleton": gpus(8, 8)})
    budget = budget_for(made, {"H100": 8}, None)
    took = [simulate(made, budget, Times({"skeleton": 5.0}, {}, spread), None, None).seconds for spread in (0.0, 0.5)]
    assert took == pytest.approx([3000 * 5 / 8] * 2, rel=0.03)


def test_a_preference_pair_takes_a_second_video_once_the_first_has_passed() -> None:
    part = {**VIDEO, "task": "preference", "where": {"people": 1}, "quota": 4000, "acceptance": 0.5}
    made = recipe({"hands": part}, {"video": gpus(1, 64), "painter": gpus(1, 64)})
    result = simulated(made, 32)
    pair_s = {"painter": 10 / (1 - 0.5**2), "video": 60 / 0.5 + 60}
    assert result.complete
    assert result.pair_s["hands"] == pytest.approx(pair_s, rel=0.03)
    assert gpu_hours(made, made.slices["hands"], 8000) == pytest.approx(4000 * pair_s["video"] / 3600)
    assert Forecast(made).per_pair("hands")["video"] == pytest.approx(1 / 0.5 + 1)
