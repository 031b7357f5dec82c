"""What a recipe would make again of what an earlier run has made: the jobs' own loop over answers that are there, and nothing is run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from factory.choice import Choice, Decision
from factory.earlier import Earlier
from factory.loop import make_pair
from factory.plan import Job, Plan
from factory.stages import Stages
from factory.steps import Charge, Step, key_of
from manifests.errors import NeedsReview, Rejected
from manifests.ledger import PairSketch, sketch_of
from manifests.recipe import PoolSpec, Recipe
from manifests.records import Artifact, Frozen, digest_of
from manifests.store import Outcome

Q = TypeVar("Q", bound=Frozen)
A = TypeVar("A", bound=Frozen)

AT_ONCE = 64
"""jobs that are looked up side by side"""
GENERATING = {"generate_image": "pictures", "generate_video": "videos"}
INSPECTING = ("measure_picture", "measure_video", "show_painting", "show_performance")


class Missing(Exception):
    """A step whose answer is not there. The job goes no further: what it asks next depends on that answer."""

    def __init__(self, step: str, key: str) -> None:
        super().__init__(f"{step} {key}")
        self.step, self.key = step, key


class Known:
    """Answers as runs of some folders have them, asked in turn; it stands where `Memo` stands in a run."""

    def __init__(self, folders: Sequence[Earlier]) -> None:
        self._folders = folders
        self.spared: dict[str, float] = {}
        """key → GPU seconds that an answer which is there has cost"""

    async def call(self, step: Step[Q, A], request: Q, charge: Charge, pool: str) -> A:
        """The step's answer. Raises Rejected when the step refused its input, Missing when it has not been run."""
        key = key_of(step, request)
        outcome = await self._found(key)
        if outcome is None:
            raise Missing(step.name, key)
        self.spared[key] = outcome.made_for.gpu_seconds
        if outcome.status == "rejected":
            raise Rejected(outcome.message, outcome.reason)
        return step.answer.model_validate(outcome.answer)

    async def _found(self, key: str) -> Outcome | None:
        for folder in self._folders:
            outcome = folder.outcome(key) if folder.store.local else await asyncio.to_thread(folder.outcome, key)
            if outcome is not None:
                return outcome
        return None

    def where(self, artifact: Artifact) -> str:
        """A place that a person can look at."""
        return self._folders[0].where(artifact)


@dataclass
class Remade:
    """What is made again of one slice, at least: a job that is made again may be rejected, and then another takes its place."""

    name: str
    jobs: int = 0
    """that are needed for the quota if all that are made again pass"""
    unchanged: int = 0
    """of these: nothing of them is made again, whatever was decided"""
    since: Counter[str] = field(default_factory=Counter)
    """step → jobs of which it is the first that has to run"""
    missing: dict[str, str] = field(default_factory=dict)
    """key → step, of these steps; jobs may share one"""
    gpu_seconds: float | None = 0.0
    """of them; None: the recipe gives no seconds_per_pair for a generator on GPUs"""

    def from_the(self, what: str) -> int:
        """Jobs that are made again from their "pictures", "videos" or "inspections" on, or from "other" steps on."""
        return sum(count for step, count in self.since.items() if kind_of(step) == what)


@dataclass(frozen=True)
class Remaking:
    """What is made again, by slice, and what is not."""

    slices: tuple[Remade, ...]
    steps_kept: int
    """answers that are taken as they are"""
    gpu_seconds_kept: float
    """that these have cost"""


def kind_of(step: str) -> str:
    """What of a pair a step makes: "pictures", "videos", "inspections" or "other"."""
    return GENERATING.get(step) or ("inspections" if step in INSPECTING else "other")


async def remaking(recipe: Recipe, plan: Plan, folders: Sequence[Earlier]) -> Remaking:
    """Walk the jobs of every slice in plan order as far as answers are there in one of the folders, until its quota would be met."""
    known = Known(folders)
    stages = Stages(recipe, known)
    slices = [await _slice(recipe, Choice(part, recipe.reference.in_target_max, recipe.duplicates), stages) for part in plan.slices]
    return Remaking(tuple(slices), len(known.spared), sum(known.spared.values()))


async def _slice(recipe: Recipe, choice: Choice, stages: Stages) -> Remade:
    remade, jobs = Remade(choice.part.name), choice.part.jobs
    while not choice.full and remade.jobs < len(jobs):
        some = jobs[remade.jobs : remade.jobs + AT_ONCE]
        for decision, missing in await asyncio.gather(*(_looked_up(job, stages) for job in some)):
            if choice.full:
                break
            choice.decide(remade.jobs, decision)
            remade.jobs += 1
            if missing is None:
                remade.unchanged += 1
            else:
                remade.since[missing.step] += 1
                remade.missing[missing.key] = missing.step
    remade.gpu_seconds = _gpu_seconds(recipe, choice.part.name, list(remade.missing.values()))
    return remade


async def _looked_up(job: Job, stages: Stages) -> tuple[Decision, Missing | None]:
    """How the job ended, or the first step that is missing; a job that is made again is taken to give a pair."""
    try:
        return Decision("accepted", pair=sketch_of(await make_pair(job, stages))), None
    except Rejected as e:
        return Decision("rejected", e.code, e.message), None
    except NeedsReview as e:
        return Decision("review", e.code, e.message), None
    except Missing as e:
        return Decision("accepted", pair=_to_come(job, e)), e


def _to_come(job: Job, missing: Missing) -> PairSketch:
    """A pair like no other, except that of a job with the same span that misses the same video."""
    driving = missing.key if missing.step == "generate_video" else job.id
    return PairSketch(
        driving, digest_of(job.span), job.span.source, job.span.start_frame, job.span.crop, job.split, reference_in_target=False
    )  # fmt: skip


def _gpu_seconds(recipe: Recipe, name: str, steps: Sequence[str]) -> float | None:
    """What generators' steps of a slice take, as the recipe says; 0 on pools without GPUs."""
    part, total = recipe.slices[name], 0.0
    for step, generator in (("generate_image", part.painter), ("generate_video", part.generator)):
        count = sum(one == step for one in steps)
        pool = recipe.pools.get(recipe.pool_of(generator), PoolSpec()) if count else PoolSpec()
        if not count or not pool.gpus:
            continue
        seconds = recipe.generators[generator].seconds_per_pair
        if seconds is None:
            return None
        total += count * seconds * pool.gpus
    return total
