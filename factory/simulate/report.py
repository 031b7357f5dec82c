"""What a simulation tells: a short table, the days and GPU-hours to the quotas, and what holds it up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.scaling import GPU, asks_of
from factory.simulate.simulation import Result
from factory.simulate.times import Times
from manifests.recipe import PoolSpec, Recipe

FULL = 0.85
"""share of the time from which a pool counts as the one that is waited for"""


@dataclass(frozen=True)
class Outlook:
    """What the whole dataset takes."""

    days: float
    """from the beginning to the last quota; where the simulation ended before, at its pace from there on"""
    gpu_hours: dict[str, float]
    """type → hours of work on it, those of rejected attempts included"""
    bottleneck: str


def outlook(recipe: Recipe, result: Result) -> Outlook:
    """From what accepted pairs took in the simulation."""
    gpu_hours: Counter[str] = Counter()
    for name, quota in result.quotas.items():
        for pool, seconds in result.pair_s[name].items():
            spec = recipe.pools.get(pool, PoolSpec())
            if spec.gpus:
                gpu_hours[spec.accelerator or GPU] += quota * seconds * spec.gpus / 3600  # type: ignore[assignment]
    return Outlook(_days(recipe, result), dict(sorted(gpu_hours.items())), bottleneck(recipe, result))


def busy(result: Result, pool: str) -> float:
    """Share of the time in which the workers that were there had work."""
    spent = result.spent[pool]
    return spent.busy_s / spent.there_s if spent.there_s else 0.0


def _days(recipe: Recipe, result: Result) -> float:
    """What is left of the work, over the room for it, as well as the busiest pool was used."""
    left_s: Counter[str] = Counter()
    for name, quota in result.quotas.items():
        for pool, seconds in result.pair_s[name].items():
            left_s[pool] += (quota - result.accepted[name]) * seconds  # type: ignore[assignment]
    if not any(left_s.values()):
        return result.seconds / 86400
    specs = {pool: recipe.pools.get(pool, PoolSpec()) for pool in left_s}
    times = [left_s[pool] / spec.workers[1] for pool, spec in specs.items() if pool in recipe.pools]
    for kind, there in result.budget.items():
        times.append(sum(left_s[pool] * asks_of(spec).get(kind, 0.0) for pool, spec in specs.items()) / there)
    used = max((busy(result, pool) for pool in result.spent), default=0.0)
    return (result.seconds + max(times) / max(used, 0.01)) / 86400


def bottleneck(recipe: Recipe, result: Result) -> str:
    """Which pools the others wait for, and what keeps them from growing."""
    share = {pool: busy(result, pool) for pool in result.spent}
    first = max(share, key=lambda pool: (share[pool], pool))
    if share[first] < FULL:
        return f"none: the busiest pool is {first}, {share[first]:.0%} of the time; more GPUs make nothing quicker, quotas end it"
    spec = recipe.pools.get(first, PoolSpec())
    asks = asks_of(spec)
    taken = {kind: sum(asks_of(recipe.pools.get(p, PoolSpec())).get(kind, 0.0) * n for p, n in result.sizes.items()) for kind in asks}
    if result.sizes[first] >= spec.workers[1]:
        return f"{first}, busy {share[first]:.0%}: it has all the workers that pools.{first}.workers allows ({spec.workers[1]:g})"
    short = [kind for kind, ask in asks.items() if taken[kind] + ask > result.budget.get(kind, 0.0)]
    if short:
        named = max(short, key=lambda kind: (kind != GPU, kind))
        others = [p for p in share if share[p] >= FULL and asks_of(recipe.pools.get(p, PoolSpec())).get(named)]
        return f"{named}: all {result.budget[named]:g} are taken; {', '.join(others)} would use more (busy {share[first]:.0%})"
    return f"{first}, busy {share[first]:.0%}: it was not made larger because that would not have paid back its load"


def tell(recipe: Recipe, times: Times, result: Result, console: Console) -> None:
    """The tables and lines of the command."""
    seen = outlook(recipe, result)
    slices = Table("slice", "accepted", "quota", *(f"{kind} h/pair" for kind in seen.gpu_hours), box=None, pad_edge=False)
    for name, quota in result.quotas.items():
        hours = [_gpu_hours(recipe, result.pair_s[name], kind) for kind in seen.gpu_hours]
        slices.add_row(Text(name), f"{result.accepted[name]:,}", f"{quota:,}", *(f"{h:.3f}" for h in hours))
    console.print(slices)
    pools = Table("pool", "workers", "most", "busy", "loading", "idle", box=None, pad_edge=False)
    for name, spent in result.spent.items():
        there = spent.there_s or 1.0
        most = recipe.pools[name].workers[1] if name in recipe.pools else result.sizes[name]
        parts = (spent.busy_s / there, spent.loading_s / there, 1 - (spent.busy_s + spent.loading_s) / there)
        pools.add_row(Text(name), f"{result.sizes[name]:,}", f"{most:,.0f}", *(f"{part:.1%}" for part in parts))
    console.print(pools)
    span = f"the last {_span(result.seconds - result.from_s)}" if result.from_s else "all of it"
    console.print(Text(f"simulated: {_span(result.seconds)}, {result.decided:,} jobs; shares and rate are those of {span}"))
    console.print(Text(f"rate: {result.rate * 3600:,.1f} pairs an hour"))
    hours_told = ", ".join(f"{hours:,.0f} {kind}" for kind, hours in seen.gpu_hours.items()) or "0"
    reached = "" if result.complete else ", if it goes on like this"
    console.print(Text(f"to the quotas: {seen.days:,.2f} days, GPU-hours of work: {hours_told}{reached}"))
    console.print(Text(f"bottleneck: {seen.bottleneck}"))
    if not times.step_s:
        console.print("steps that are no generator's take no time here; --from DIR takes the times that a run has measured")


def _gpu_hours(recipe: Recipe, pair_s: dict[str, float], kind: str) -> float:
    specs = {pool: recipe.pools.get(pool, PoolSpec()) for pool in pair_s}
    return sum(seconds * specs[pool].gpus for pool, seconds in pair_s.items() if kind == (specs[pool].accelerator or GPU)) / 3600


def _span(seconds: float) -> str:
    return f"{seconds / 86400:,.1f} days" if seconds > 2 * 86400 else f"{seconds / 3600:,.2f} hours"
