"""How long a call takes: as the recipe says, or as a run's ledger has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.workplace import ledger_of
from manifests.errors import BadRecipe
from manifests.recipe import Recipe

GENERATING = ("generate_image", "generate_video")
EXAMPLES = {"--gpus": "H100=64", "--seconds": "painter=20"}
SPREAD = 0.2
"""standard deviation of a call's time as a share of its mean; neither recipe nor ledger tells it"""


@dataclass(frozen=True)
class Times:
    """Mean seconds of one call on one worker."""

    generator_s: Mapping[str, float]
    step_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(pool, step) → of steps that are no generator's; those that are not named take none"""
    spread: float = SPREAD


def times_of(recipe: Recipe, run: Path | None = None, given: Mapping[str, float] | None = None) -> Times:
    """What is `given` by a generator's name comes first, then what a run has measured, then the recipe's seconds_per_pair.

    A ledger knows pools, not generators: where two generators of one sort share a pool, the recipe's number is taken if it has one.
    Raises BadRecipe for a generator that a slice needs and nobody has a time for.
    """
    measured = _measured(run) if run else {}
    given = given or {}
    if unknown := sorted(set(given) - set(recipe.generators)):
        raise BadRecipe(f"--seconds {unknown[0]}: the recipe has no such generator; it has {', '.join(recipe.generators)}.")
    found: dict[str, float] = {}
    for step, names in _needed(recipe).items():
        pools = [recipe.pool_of(name) for name in names]
        for name, pool in zip(names, pools, strict=True):
            told, own = recipe.generators[name].seconds_per_pair, measured.get((pool, step))
            best = told or own if pools.count(pool) > 1 else own or told
            if seconds := given.get(name) or best:
                found[name] = seconds
    missing = [name for names in _needed(recipe).values() for name in names if name not in found]
    if missing:
        keys = ", ".join(f"generators.{name}.seconds_per_pair" for name in dict.fromkeys(missing))
        raise BadRecipe(f"no time is known for {len(set(missing))} generators: add {keys}, or give --seconds {missing[0]}=S or --from DIR.")
    return Times(found, {key: seconds for key, seconds in measured.items() if key[1] not in GENERATING})


def _needed(recipe: Recipe) -> dict[str, list[str]]:
    """Step → the generators that do it, in the recipe's order."""
    painters = [part.painter for part in recipe.slices.values() if part.task != "pose"]
    animators = [part.generator for part in recipe.slices.values()]
    return {"generate_image": list(dict.fromkeys(painters)), "generate_video": list(dict.fromkeys(animators))}


def _measured(run: Path) -> dict[tuple[str, str], float]:
    """(pool, step) → mean seconds of its outcomes, rejected ones and lost tries included. Raises BadRecipe where no run has worked."""
    calls: Counter[tuple[str, str]] = Counter()
    seconds: Counter[tuple[str, str]] = Counter()
    with ledger_of(run) as ledger:
        for cost in ledger.costs():
            calls[cost.pool, cost.step] += cost.calls
            seconds[cost.pool, cost.step] += cost.seconds  # type: ignore[assignment]
    return {key: seconds[key] / count for key, count in calls.items() if count and seconds[key]}


def counts(option: str, given: Iterable[str]) -> dict[str, float]:
    """NAME=NUMBER arguments. Raises BadRecipe."""
    out = {}
    for entry in given:
        name, _, number = entry.partition("=")
        try:
            out[name] = float(number)
        except ValueError:
            out[name] = 0.0
        if not name or not 0 < out[name] < 1e12:
            raise BadRecipe(f"{option} {entry}: expected NAME=NUMBER with a number above 0, as {option} {EXAMPLES.get(option, 'a=1')}.")
    return out
