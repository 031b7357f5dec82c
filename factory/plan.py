"""Recipe + index + gallery → an ordered list of jobs. Nothing here depends on file names, listing order or what other jobs did."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from factory.shortlist import Galleries, Wish
from factory.steps import Charge
from factory.work.spans import SpanInfo
from manifests.recipe import Recipe, Slice, SplitSpec
from manifests.records import Candidate, Digest, Figure, Frozen, Mode, Span, Split, Task, digest_of, mode_of


class PlannedSpan(Frozen):
    """A span of the index with what the plan must know of its clip."""

    info: SpanInfo
    group: str
    licence: str


@dataclass(frozen=True, slots=True)
class Job:
    """One pair to be made. There may be hundreds of thousands, so it is small."""

    id: Digest
    slice: str
    task: Task
    split: Split
    group: str
    licence: str
    span: Span
    shot: tuple[int, int]
    repeat: int
    people: tuple[float, float]
    """how many people the slice wants, at least and at most"""
    shortlist: tuple[Candidate, ...]
    rank: Digest
    """place in the plan's order"""

    @property
    def charge(self) -> Charge:
        """Where its steps stand and who pays for them."""
        return Charge(self.rank, self.id, self.slice)

    @property
    def key(self) -> str:
        """Of the pair in the release."""
        return self.id[:24]

    @property
    def mode(self) -> Mode:
        """How the pair is made and conditioned."""
        return mode_of(self.task)

    def seed(self, recipe_seed: int, attempt: int) -> int:
        """A seed of 31 bits for one attempt."""
        return int(digest_of([recipe_seed, self.id, attempt])[:8], 16) >> 1


@dataclass(frozen=True)
class SlicePlan:
    """The jobs of a slice in plan order, and what the recipe asks of it."""

    name: str
    spec: Slice
    jobs: tuple[Job, ...]
    attempts: int
    """needed at the assumed acceptance rate"""
    gpu_hours: float | None
    """None: unknown, no speed is given for a generator that uses GPUs"""
    without_character: int
    """spans left out because their side of the split has no character"""


@dataclass(frozen=True)
class Plan:
    slices: tuple[SlicePlan, ...]

    @property
    def jobs(self) -> list[Job]:
        return [job for part in self.slices for job in part.jobs]


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:13], 16) / 16**13


def side_of(group: str, seed: int, spec: SplitSpec) -> Split:
    """Train or validation, by the group alone: adding other groups moves nobody."""
    named = group in spec.validation_groups
    return "validation" if named or fraction(seed, "split", group) < spec.validation_fraction else "train"


def split_gallery(candidates: Iterable[Candidate], seed: int, spec: SplitSpec) -> list[Candidate]:
    """Put every picture on one side, by its group: the same rule as for clips, so a clip's person never crosses over.

    Where the recipe wants two sides and the hash gives one of them no group of a role, it gets the group nearest to it, with all its
    pictures of any role. Only the gallery decides that, so adding clips moves no picture.
    """
    pictures = sorted(candidates, key=lambda c: (c.role, c.picture))
    sides: dict[str, Split] = {c.group: side_of(c.group, seed, spec) for c in pictures}
    wanted: tuple[Split, ...] = ("train", "validation") if spec.validation_fraction or spec.validation_groups else ()
    for role in ("character", "clothing", "scene"):
        groups = sorted({c.group for c in pictures if c.role == role}, key=lambda g: fraction(seed, "split", g))
        for side in wanted:
            if len(groups) > 1 and side not in {sides[g] for g in groups}:
                sides[groups[0] if side == "validation" else groups[-1]] = side
    return [c.model_copy(update={"split": sides[c.group]}) for c in pictures]


def suits(info: SpanInfo, part: Slice) -> bool:
    """Whether a span meets a slice's conditions."""
    where = part.where
    low, high = where.motion_range()
    return (
        where.people[0] <= info.people <= where.people[1]
        and low <= info.main.motion <= high
        and info.main.framing in where.framing
        and abs(info.main.yaw_deg) <= where.yaw_max_deg
    )


def make_plan(recipe: Recipe, spans: Sequence[PlannedSpan], gallery: Sequence[Candidate]) -> Plan:
    """All jobs of a recipe. `gallery` has its sides already (`split_gallery`)."""
    galleries = Galleries(gallery, recipe.agents.checker)
    return Plan(tuple(_plan_slice(recipe, name, part, spans, galleries) for name, part in recipe.slices.items()))


def _plan_slice(recipe: Recipe, name: str, part: Slice, spans: Sequence[PlannedSpan], galleries: Galleries) -> SlicePlan:
    drafts: dict[str, tuple[Job, tuple[Figure, ...]]] = {}
    lonely = 0
    for planned in spans:
        if not suits(planned.info, part):
            continue
        split = side_of(planned.group, recipe.seed, recipe.split)
        if part.task != "pose" and not len(galleries.casts[split, "character"]):
            lonely += 1
            continue
        for repeat in range(part.repeats):
            job = _job(recipe, name, part, planned, split, repeat)
            drafts[job.id] = job, planned.info.figures
    ordered = sorted(drafts.values(), key=lambda draft: draft[0].rank)
    jobs = [job for job, _ in ordered]
    if part.task != "pose":
        wishes = [Wish(digest_of([recipe.seed, job.span.model_dump(mode="json")]), job.split, figures) for job, figures in ordered]
        dealt = galleries.shortlists(wishes, recipe.budget_per_job.candidates)
        jobs = [replace(job, shortlist=pictures) for job, pictures in zip(jobs, dealt, strict=True)]
    attempts = math.ceil(part.quota / part.acceptance)
    return SlicePlan(name, part, tuple(jobs), attempts, gpu_hours(recipe, part, attempts), lonely)


def _job(recipe: Recipe, name: str, part: Slice, planned: PlannedSpan, split: Split, repeat: int) -> Job:
    """A job that has no shortlist yet."""
    info = planned.info
    job_id = digest_of({"span": info.span.model_dump(mode="json"), "slice": name, "task": part.task, "repeat": repeat})
    return Job(
        id=job_id, slice=name, task=part.task, split=split, group=planned.group, licence=planned.licence, span=info.span,
        shot=info.shot, repeat=repeat, people=part.where.people, rank=digest_of([recipe.seed, job_id]), shortlist=(),
    )  # fmt: skip


def gpu_hours(recipe: Recipe, part: Slice, attempts: int) -> float | None:
    """GPU-hours of the attempts' videos; 0 for pools without GPUs; None where the recipe gives no speed."""
    pool = recipe.pools.get(recipe.pool_of(part.generator))
    if pool is None or not pool.gpus:
        return 0.0
    seconds = recipe.generators[part.generator].seconds_per_pair
    videos = attempts + (part.rounds - 1) * part.quota
    return None if seconds is None else videos * seconds * pool.gpus / 3600


def block_of(job_id: str, blocks: int) -> int:
    """The block of a job among so many, a power of two: by the last digits of its id, whatever else is planned."""
    return int(job_id[-8:], 16) % blocks


class Blocks:
    """The shard blocks of a recipe: so many for each slice, numbered slice after slice by name.

    No block holds pairs of two slices, so what changes one slice's pairs changes no byte of another's shards.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._of: dict[str, tuple[int, int]] = {}
        """slice → its first block, how many it has"""
        first = 0
        for name in sorted(recipe.slices):
            count = block_count(recipe, recipe.slices[name])
            self._of[name] = first, count
            first += count

    def of(self, job: Job) -> int:
        """The block of a job, by its slice and its id."""
        first, count = self._of[job.slice]
        return first + block_of(job.id, count)


def block_count(recipe: Recipe, part: Slice) -> int:
    """How many blocks a slice's pairs are cut into, from the recipe alone: a power of two that makes shards of about the asked size."""
    g = recipe.geometry
    pixels = max(h * w for h, w in g.sizes) * g.frames
    pair_mb = (2 + part.rounds) * pixels * 0.35 / 8e6 + 0.5  # videos and a mask at about a third of a bit per pixel, and the pictures
    return 1 << max(0, round(math.log2(max(1.0, part.quota * pair_mb / recipe.release.shard_mb))))
