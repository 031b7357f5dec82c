"""Naps through memo, engine, Ray, store and ledger, as the factory's steps go."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from engine_parts.naps import Nap, NapRequest, first_nap, second_nap, third_nap
from factory.engine import Engine
from factory.memo import Memo
from factory.pool import Quarantined
from factory.steps import Charge
from manifests.ledger import Ledger
from manifests.recipe import PoolSpec, Recipe, load_recipe
from manifests.store import Store

REJECTED = 0.3
"""share of attempts that loop back"""


def recipe_of(**pools: PoolSpec) -> Recipe:
    return load_recipe("quickstart").model_copy(update={"pools": pools})


def workers(count: int, most: int | None = None, **more: object) -> PoolSpec:
    """So many sleepers; they take hardly any processor."""
    return PoolSpec.model_validate({"workers": (count, most or count), "cpus": 0.01, "timeout_s": 120, **more})


@contextlib.asynccontextmanager
async def engine_at(folder: Path, recipe: Recipe) -> AsyncIterator[tuple[Memo, Engine]]:
    store = Store(folder / "store")
    with Ledger(folder / "ledger.sqlite", store) as ledger:
        async with Engine(recipe, store, ledger, {}) as engine:
            yield Memo(store, ledger, engine), engine


async def nap(memo: Memo, number: int, seconds: float, pool: str = "cpu", **more: object) -> Nap:
    request = NapRequest.model_validate({"number": number, "seconds": seconds, **more})
    return await memo.call(first_nap, request, Charge(f"{number:064d}"), pool)


async def awake(memo: Memo, count: int, pool: str = "cpu") -> None:
    """Have all workers of a pool stand before the clock runs."""
    await asyncio.gather(*(nap(memo, 10**6 + i, 0.5, pool) for i in range(2 * count)))


async def of_lengths(folder: Path, lengths_s: Sequence[float], count: int, rejecting: bool = False) -> tuple[list[Nap], float, float]:
    """All naps, and when the first was asked for and the last had ended."""
    dice = random.Random(5)
    async with engine_at(folder, recipe_of(cpu=workers(count))) as (memo, _):
        await awake(memo, count)
        began = time.monotonic()

        async def job(number: int, seconds: float) -> list[Nap]:
            naps = [await nap(memo, number, seconds)]
            while rejecting and dice.random() < REJECTED:
                naps.append(await nap(memo, number + 1000 * len(naps), seconds))
            return naps

        found = await asyncio.gather(*(job(i, s) for i, s in enumerate(lengths_s)))
    naps = [n for made in found for n in made]
    return naps, began, max(n.ended_s for n in naps)


async def of_no_length(folder: Path, jobs: int, count: int) -> float:
    """Milliseconds a job, which passes through three pools."""
    pools = {name: workers(count) for name in ("first", "second", "third")}
    async with engine_at(folder, recipe_of(**pools)) as (memo, _):
        for name in pools:
            await awake(memo, count, name)

        async def job(number: int) -> None:
            request, charge = NapRequest(number=number), Charge(f"{number:064d}")
            for step, pool in zip((first_nap, second_nap, third_nap), pools, strict=True):
                await memo.call(step, request, charge, pool)

        began = time.monotonic()
        waiting = iter(range(jobs))

        async def lane() -> None:
            for number in waiting:
                await job(number)

        await asyncio.gather(*(lane() for _ in range(12 * count)))
        return 1000 * (time.monotonic() - began) / jobs


async def with_a_killer(folder: Path, inputs: int, count: int) -> dict[str, int]:
    """One input of many takes its worker with it."""
    log = folder / "naps.log"
    async with engine_at(folder, recipe_of(cpu=workers(count))) as (memo, _):
        await awake(memo, count)
        calls = [nap(memo, i, 0.05, log=str(log), killer=i == inputs // 3) for i in range(inputs)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    begun = [int(line) for line in log.read_text().split()]
    innocent = [n for n in begun if n != inputs // 3]
    return {
        "inputs": inputs, "out": sum(isinstance(f, Nap) for f in found), "quarantined": sum(isinstance(f, Quarantined) for f in found),
        "innocent_redone": len(innocent) - len(set(innocent)),
    }  # fmt: skip
