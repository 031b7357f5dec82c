"""`motionpair plan`: a plan from what can be read, and otherwise from the recipe alone; and what of an earlier run it would make again."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from factory.earlier import Earlier
from factory.plan import Plan, make_plan
from factory.progress import Progress
from factory.remaking import Remaking, remaking
from factory.run import working
from factory.sources import NO_FILES
from manifests.errors import BadRecipe
from manifests.recipe import Recipe


@dataclass(frozen=True)
class Planned:
    """A plan, and what there is to say of it."""

    plan: Plan
    note: str = ""
    """why it stands on the recipe alone; empty when it does not"""
    remaking: Remaking | None = None
    """what is made again, when there is an earlier run and the clips are here"""


def plan_of(recipe: Recipe, out: Path | None, progress: Progress, given: bool = False, source: Path | None = None) -> Planned:
    """The plan; with `source`, an earlier run's folder, also what is made again of it. It stands on the recipe alone when its clips are
    not here.

    Raises BadRecipe when that is so and the user has `given` clips or characters of their own.
    """
    earlier = Earlier(source) if source else None
    try:
        return asyncio.run(_indexed(recipe, out, progress, source, earlier))
    except BadRecipe as e:
        if e.code != NO_FILES or given:
            raise
        return Planned(make_plan(recipe, [], []), f"without an index: {e.message}")


async def _indexed(recipe: Recipe, out: Path | None, progress: Progress, source: Path | None, earlier: Earlier | None) -> Planned:
    with contextlib.ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="motionpair-plan-")))
        async with working(recipe, folder, progress, source=source) as run:
            index = await run.index()
            plan = make_plan(recipe, index.spans, index.gallery)
            if earlier is None:
                return Planned(plan)
            progress.enter("looking up what is there already")
            return Planned(plan, remaking=await remaking(recipe, plan, [Earlier(out), earlier] if out else [earlier]))
