"""`motionpair plan`: a plan from what can be read, and otherwise from the recipe alone."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

from factory.plan import Plan, make_plan
from factory.progress import Progress
from factory.run import working
from factory.sources import NO_FILES
from manifests.errors import BadRecipe
from manifests.recipe import Recipe


def plan_of(recipe: Recipe, out: Path | None, progress: Progress, given: bool = False) -> tuple[Plan, str]:
    """The plan, and a note when it stands on the recipe alone because its clips are not here.

    Raises BadRecipe when that is so and the user has `given` clips or characters of their own.
    """
    try:
        return asyncio.run(_indexed(recipe, out, progress)), ""
    except BadRecipe as e:
        if e.code != NO_FILES or given:
            raise
        return make_plan(recipe, [], []), f"without an index: {e.message}"


async def _indexed(recipe: Recipe, out: Path | None, progress: Progress) -> Plan:
    with contextlib.ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="motionpair-plan-")))
        async with working(recipe, folder, progress) as run:
            index = await run.index()
            return make_plan(recipe, index.spans, index.gallery)
