"""What a simulation tells: a short table, the days and GPU-hours to the quotas, and what holds it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.brain_pool import BRAIN
from factory.scaling import GPU, asks_of
from factory.simulate.simulation import Result
from factory.simulate.times import Times
from manifests.recipe import PoolSpec, Recipe

FULL = 0.85
"""share of the time from which something counts as used up"""


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


def _limits(recipe: Recipe, result: Result, pairs: Mapping[str, int]) -> dict[str, float]:
    """Pool or kind of room → seconds that so many pairs of every slice take there, if all that may be is used."""
    work_s: Counter[str] = Counter()
    for name, count in pairs.items():
        for pool, seconds in result.pair_s[name].items():
            work_s[pool] += count * seconds  # type: ignore[assignment]
    limits = {pool: work_s[pool] / (recipe.pools[pool].workers[1] if pool in recipe.pools else result.sizes[pool]) for pool in work_s}
    for kind, there in result.budget.items():
        limits[kind] = max(limits.get(kind, 0.0), sum(work_s[pool] * _asks(recipe, pool).get(kind, 0.0) for pool in work_s) / there)
    return limits


def _asks(recipe: Recipe, pool: str) -> dict[str, float]:
    return {} if pool == BRAIN else asks_of(recipe.pools.get(pool, PoolSpec()))


def _days(recipe: Recipe, result: Result) -> float:
    """What is left of the work, over the room for it, as well as what is short was used."""
    left = _limits(recipe, result, {name: quota - result.accepted[name] for name, quota in result.quotas.items()})
    slowest = max(left, key=lambda name: (left[name], name))
    if not left[slowest]:
        return result.seconds / 86400
    return (result.seconds + left[slowest] / max(_used(recipe, result, slowest), 0.01)) / 86400


def _used(recipe: Recipe, result: Result, limit: str) -> float:
    """How well what is short was used: the pool's workers, or those of the pools that take of a kind."""
    pools = [limit] if limit in result.spent else [pool for pool in result.spent if limit in _asks(recipe, pool)]
    there_s = sum(result.spent[pool].there_s for pool in pools)
    return sum(result.spent[pool].busy_s for pool in pools) / there_s if there_s else 0.0


def bottleneck(recipe: Recipe, result: Result) -> str:
    """What the quotas take longest at, and who would use more of it."""
    limits = _limits(recipe, result, result.quotas)
    first = max(limits, key=lambda name: (limits[name], name != GPU, name))
    used = _used(recipe, result, first)
    idle = "" if used >= FULL else "; it is not full since the end of a run, loads and small quotas leave gaps"
    if first not in result.spent:
        pools = [pool for pool in result.spent if first in _asks(recipe, pool)]
        return f"{first}: all {result.budget[first]:g} are in use by {', '.join(pools)}, busy {used:.0%}{idle}"
    most = recipe.pools[first].workers[1] if first in recipe.pools else result.sizes[first]
    where = "agents.brain.in_flight" if first == BRAIN else f"pools.{first}.workers"
    return f"{first}: {result.sizes[first]} workers of the {most:g} that {where} allows, busy {used:.0%}{idle}"


def tell(recipe: Recipe, times: Times, result: Result, console: Console) -> None:
    """The tables and lines of the command."""
    seen = outlook(recipe, result)
    slices = Table("slice", "accepted", "quota", *(f"{kind} h/pair" for kind in seen.gpu_hours), box=None, pad_edge=False)
    for name, quota in result.quotas.items():
        hours = [_gpu_hours(recipe, result.pair_s[name], kind) for kind in seen.gpu_hours]
        slices.add_row(Text(name), f"{result.accepted[name]:,}", f"{quota:,}", *(f"{h:.3f}" for h in hours))
    console.print(slices)
    window_s = max(result.seconds - result.from_s, 1e-9)
    pools = Table("pool", "workers, mean", "most", "busy", "loading", "idle", box=None, pad_edge=False)
    for name, spent in result.spent.items():
        there = spent.there_s or 1.0
        most = recipe.pools[name].workers[1] if name in recipe.pools else result.sizes[name]
        parts = (spent.busy_s / there, spent.loading_s / there, max(0.0, 1 - (spent.busy_s + spent.loading_s) / there))
        pools.add_row(Text(name), f"{spent.there_s / window_s:,.1f}", f"{most:,.0f}", *(f"{part:.1%}" for part in parts))
    console.print(pools)
    span = f"the last {_span(result.seconds - result.from_s)}" if result.from_s else "all of it"
    console.print(Text(f"simulated: {_span(result.seconds)}, {result.decided:,} jobs; shares and rate are those of {span}"))
    console.print(Text(f"rate: {result.rate * 3600:,.1f} pairs an hour"))
    hours_told = ", ".join(f"{hours:,.0f} {kind}" for kind, hours in seen.gpu_hours.items()) or "0"
    reached = "" if result.complete else ", if it goes on like this"
    console.print(Text(f"to the quotas: {_span(86400 * seen.days)}, GPU-hours of work: {hours_told}{reached}"))
    console.print(Text(f"bottleneck: {seen.bottleneck}"))
    if not times.step_s:
        console.print("steps that are no generator's take no time here; --from DIR takes the times that a run has measured")


def _gpu_hours(recipe: Recipe, pair_s: dict[str, float], kind: str) -> float:
    specs = {pool: recipe.pools.get(pool, PoolSpec()) for pool in pair_s}
    return sum(seconds * specs[pool].gpus for pool, seconds in pair_s.items() if kind == (specs[pool].accelerator or GPU)) / 3600


def _span(seconds: float) -> str:
    if seconds >= 86400:
        return f"{seconds / 86400:,.2f} days"
    return f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
