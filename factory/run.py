"""One run: index, plan, make pairs in plan order until the quotas are met, seal. Everything can be killed and asked for again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from agents import prompts
from agents.brains.base import ROLES
from agents.text import clean
from factory.admission import Admission, Line, PoolLoad, empty_loads, route_of
from factory.asked import Asked
from factory.brain_pool import BRAIN
from factory.choice import Choice, distinct
from factory.earlier import Earlier
from factory.engine import Engine
from factory.index import Index, index_clips, index_gallery, write_index
from factory.jobs import UNMADE, Jobs
from factory.members import SLOTS
from factory.memo import Memo
from factory.plan import Blocks, Plan, make_plan
from factory.progress import Progress
from factory.sources import Finder
from factory.stages import Stages
from factory.stopping import GRACE_S, Stop, Stopped, to_its_end
from factory.workplace import Workplace
from generators import extractors, registry
from manifests.costs import write_costs
from manifests.errors import BadRecipe, Damaged, MotionpairError
from manifests.ledger import JobState, Ledger
from manifests.recipe import Recipe, Source
from manifests.records import digest_of
from manifests.release import ReleaseMeta
from manifests.sealing import write_release

LOOK_AT_OPEN_S = 1.0
"""after each look at what open questions have sent, when there is a cap on money"""
LOOKS = 4
"""questions that are looked at side by side; the store's other threads need some room"""
LOOK_EVERY_S = 1.0
"""how often the admission looks whether the pools have room, besides whenever a job ends"""


@dataclass
class RunResult:
    """What a run came to."""

    release: Path | None
    new_revision: bool
    accepted: Counter[str]
    quotas: dict[str, int]
    left_out: Counter[str]
    """reason → jobs"""
    unmade: list[JobState]
    index: Index
    ran: Counter[str]
    reused: Counter[str]
    taken: Counter[str]
    """taken over from an earlier run"""
    spoilt: int
    """outcomes of the earlier run that could not be taken over: damaged, or their files are gone"""
    spent: tuple[str, ...]
    """budgets that were used up before the quotas were met"""

    @property
    def complete(self) -> bool:
        return all(self.accepted.get(name, 0) >= quota for name, quota in self.quotas.items())


def with_material(recipe: Recipe, clips: str | None, characters: str | None) -> Recipe:
    """The recipe with the user's own clips or characters in place of its own."""
    update: dict[str, object] = {}
    if clips:
        first = recipe.sources[0]
        update["sources"] = (Source(clips=clips, group_by="folder", spans_per_clip=first.spans_per_clip),)
    if characters:
        update["gallery"] = recipe.gallery.model_copy(update={"characters": characters})
    return recipe.model_copy(update=update)


class Run:
    """A recipe at work in a folder."""

    def __init__(
        self, recipe: Recipe, place: Workplace, ledger: Ledger, progress: Progress, address: str | None = None, stop: Stop | None = None,
        earlier: Earlier | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.place, self.ledger, self.progress = recipe, place, ledger, progress
        self.stop = stop or Stop()
        self.files: dict[str, str] = {}
        self.engine = Engine(recipe, place.store, ledger, self.files, address)
        self.engine.started = self.stop.listen
        self.earlier = earlier if earlier and earlier.store.url != place.store.url else None
        """with one store for both, all is found there anyway"""
        self.memo = Memo(place.store, ledger, self.engine, self.earlier)
        self._warm = empty_loads(recipe)
        self._uncounted: Exception | None = None
        """why what is open can't be counted any more"""
        self._spent: list[str] = []
        """budgets that stopped the admission"""

    @functools.cached_property
    def jobs(self) -> Jobs:
        """Only for a recipe that can be run: a plan may name generators that can't yet."""
        asked = Asked(self.recipe, recipe_digest(self.recipe))
        return Jobs(Stages(self.recipe, self.memo), asked, self.place.store, self.ledger, self.engine)

    async def index(self, with_gallery: bool = True) -> Index:
        """Look at all clips and gallery pictures."""
        self.progress.enter("looking for clips and pictures")
        finder = Finder(self.ledger)
        clips = await asyncio.to_thread(finder.clips, self.recipe)
        with_gallery = with_gallery and any(part.task != "pose" for part in self.recipe.slices.values())
        pictures = await asyncio.to_thread(finder.pictures, self.recipe) if with_gallery else {}
        everything = [*clips, *(f for files in pictures.values() for f in files)]
        self.files.update({f.digest: str(f.path) for f in everything})
        self.progress.load = self.engine.load
        self.progress.enter(f"indexing {len(clips)} clips and {len(everything) - len(clips)} pictures")
        index = await index_clips(self.memo, self.recipe, clips, self.progress.changed)
        if with_gallery:
            await index_gallery(self.memo, self.recipe, pictures, index)
        index.bad[:0] = finder.bad
        known = {f.group for f in everything}
        for group in (g for g in self.recipe.split.validation_groups if g not in known):
            self.progress.say(clean(f"split.validation_groups: no clip or picture has the group {group!r}"))
        for bad in index.bad:
            self.progress.say(clean(f"left out: {bad.name}: {bad.message} [{bad.reason}]"))
        return index

    async def pairs(self, plan: Plan) -> list[Choice]:
        """Make pairs, all slices together, until their quotas are met or their jobs are used up. Raises Damaged when files of pairs that
        were made again for it are gone again."""
        made_again: set[str] = set()
        while True:
            choices = await self._decided(plan)
            lost = await asyncio.to_thread(self.jobs.lost, [job for choice in choices for job in choice.pairs])
            if not lost:
                return choices
            if twice := sorted(lost & made_again):
                words = f"files of {len(twice)} pairs, that of job {twice[0]} first, are gone again from {self.place.store.url}"
                raise Damaged(f"{words} after they were made again. Find what removes files there, then run again.")
            made_again |= lost
            self.memo.forget()
            self.progress.say(f"files of {len(lost)} finished pairs are gone from the store; they are made again")

    async def _decided(self, plan: Plan) -> list[Choice]:
        self.progress.enter("making pairs")
        self.progress.begin_pairs({p.name: p.spec.quota for p in plan.slices}, {p.name: len(p.jobs) for p in plan.slices})
        choices = [Choice(part, self.recipe.reference.in_target_max, self.recipe.duplicates) for part in plan.slices]
        await asyncio.to_thread(self.jobs.take_finished, choices)
        routes = {part.name: route_of(self.recipe, part.name) for part in plan.slices}
        admission = Admission(choices, routes, self.jobs.decide, self._may_spend, self._loads, self._show)
        with_cap = [_regularly(self._keep_count, LOOK_AT_OPEN_S)] if self.recipe.budget.money is not None else []
        looking = [asyncio.create_task(one) for one in (_regularly(admission.look_again, LOOK_EVERY_S), *with_cap)]
        try:
            choices = await admission.run()
        finally:
            for one in looking:
                one.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
        if self.stop.asked and not all(choice.full for choice in choices):
            raise Stopped("stopped; what was under way has come to its end")
        return choices

    def _loads(self) -> dict[str, PoolLoad]:
        """What the pools have to do; those that have not begun stand there as the recipe keeps them warm."""
        loads = self.engine.calls().items()
        return self._warm | {pool: PoolLoad(size if pool == BRAIN else SLOTS * size, calls) for pool, (calls, size) in loads}

    def gpu_hours(self) -> float:
        """Spent so far, by the ledger."""
        return self.ledger.gpu_seconds() / 3600

    def money(self) -> float:
        """Spent on questions, as of the last `look_at_open` for what is under way; that, and what may have been charged before a connection
        was cut, counts in full. Raises what kept the last look from its end."""
        if self._uncounted:
            raise self._uncounted
        return self.ledger.money_nano() / 1e9

    async def look_at_open(self) -> None:
        """Have `money` count what open questions have sent so far. On threads: with hundreds open on an object store it takes seconds."""
        keys = self.ledger.asking_now()
        for first in range(0, len(keys), LOOKS):
            some = (to_its_end(self.ledger.look_at, key, self.place.store) for key in keys[first : first + LOOKS])
            for error in await asyncio.gather(*some, return_exceptions=True):
                if error is not None:
                    raise error

    async def _keep_count(self) -> None:
        try:
            await self.look_at_open()
            self._uncounted = None
        except Exception as e:
            self._uncounted = e  # nothing is begun that could pass the cap unseen

    def _may_spend(self) -> bool:
        if self.stop.asked:
            return False
        budget = self.recipe.budget
        for name, spent, limit in (("gpu_hours", self.gpu_hours, budget.gpu_hours), ("money", self.money, budget.money)):
            if limit is not None and (now := spent()) >= limit:
                if name not in self._spent:
                    self._spent.append(name)
                    self.progress.say(f"budget.{name}: {now:.4g} of {limit:g} is spent; no new job is begun, those under way are finished")
                return False
        return True

    def _show(self, line: Line) -> None:
        self.engine.wanting = {**self.engine.wanting, line.name: line.to_come}
        self.progress.accepted[line.name] = line.choice.likely
        self.progress.running[line.name] = line.in_flight
        self.progress.rejected, self.progress.unmade = self.jobs.rejected, len(self.jobs.unmade)
        self.progress.changed()

    def seal(self, choices: list[Choice], index: Index) -> RunResult:
        """Write the release, in plan order."""
        self.progress.enter("sealing the release")
        quotas = {c.part.name: c.part.spec.quota for c in choices}
        taken, twice = distinct([job for c in choices for job in c.pairs], self.jobs.sketch_of, self.recipe.duplicates)
        accepted = Counter(job.slice for job in taken)
        left_out = [entry for c in choices for entry in c.left_out] + twice
        reasons = Counter(entry.reason for entry in left_out if entry.reason)
        unmade = [s for state in UNMADE for s in self.ledger.jobs(state) if s.job in self.jobs.unmade]
        memo, spoilt = self.memo, len(self.earlier.spoilt) if self.earlier else 0
        result = RunResult(
            None, False, accepted, quotas, reasons, unmade, index, memo.ran, memo.reused, memo.taken, spoilt, tuple(self._spent)
        )
        blocks = Blocks(self.recipe)
        if taken:
            meta = ReleaseMeta(
                name=self.recipe.recipe, recipe=recipe_digest(self.recipe), mix=self.recipe.mix, quotas=quotas, complete=result.complete,
                left_out=tuple(left_out), shard_mb=self.recipe.release.shard_mb,
            )  # fmt: skip
            root = self.place.out / "release"
            before = set(os.listdir(root)) if root.is_dir() else set()
            entries = [(self.jobs.pair_of(job), blocks.of(job)) for job in taken]
            try:
                result.release = write_release(root, entries, self.place.store, meta)
            except Damaged as e:
                if e.digest:
                    self.ledger.doubt(e.digest)  # so that the next run makes its jobs anew
                raise
            result.new_revision = result.release.name not in before
        return result


def recipe_digest(recipe: Recipe) -> str:
    """Of what the recipe says about the dataset. Pools, and where the material lies, are left out: they change no byte of it."""
    value = recipe.model_dump(mode="json", exclude={"pools", "budget"})
    for source in value["sources"]:
        del source["clips"]
    for part in value["slices"].values():
        del part["acceptance"]
    del value["gallery"]
    value["extractors"] = extractors.stands_on(extractors.Extraction.of(recipe.extractors)).content
    value["agents"]["brain"].pop("endpoint")
    folder = value["agents"].pop("prompts")  # what they say is part of the dataset, where they lie is not
    value["agents"]["instructions"] = [prompts.text_of(role, folder) for role in ROLES] if value["agents"]["brain"]["model"] else []
    for name, spec in recipe.generators.items():
        # Where the user keeps a generator's file is no part of the dataset, nor is who runs it, and for how long.
        value["generators"][name] = {**registry.keyed(spec.kind, spec.options), "kind": spec.kind.rpartition(":")[2]}
    return digest_of(value)


async def _regularly(look: Callable[[], Awaitable[None] | None], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        if (looking := look()) is not None:
            await looking


@contextlib.asynccontextmanager
async def working(
    recipe: Recipe, out: Path, progress: Progress, address: str | None = None, store: str | None = None, stop: Stop | None = None,
    source: Path | None = None,
) -> AsyncIterator[Run]:  # fmt: skip
    """A run in an opened workplace, its workers stopped at the end. `source`: another run's folder, whose finished steps are taken over."""
    if source and source.resolve() == out.resolve():
        raise BadRecipe(f"--from and --out are one folder, {out}. Leave --from out to go on there, or choose another --out.")
    earlier = Earlier(source) if source else None
    place = Workplace(out, store)
    with place.opened() as ledger:
        run = Run(recipe, place, ledger, progress, address, stop, earlier)
        async with run.engine:
            yield run


async def run_recipe(
    recipe: Recipe, out: Path, progress: Progress, address: str | None = None, store: str | None = None, grace_s: float = GRACE_S,
    source: Path | None = None,
) -> RunResult:  # fmt: skip
    """The whole run. Raises BadRecipe before anything starts, OutOfSpace or Stopped in the middle; what is finished is kept.

    What the run of another folder, `source`, has finished is taken over where nothing of its request has changed. After SIGTERM nothing
    more is begun, and what is under way has `grace_s` seconds.
    """
    registry.check(recipe, to_run=True)
    if recipe.agents.brain.endpoint:
        from agents.brains.openai import key_of

        key_of(recipe.agents.brain.endpoint)
    if recipe.agents.prompts:
        prompts.check(recipe.agents.prompts)
    stop = Stop(grace_s)
    async with working(recipe, out, progress, address, store, stop, source) as run:
        for line in [] if address else registry.lacking(recipe):
            progress.say(clean(f"{line}; what is not made yet can't be made without"))
        try:
            return await stop.over(_whole(run))
        finally:
            await run.engine.close()  # what it cuts off has taken its time too
            await asyncio.to_thread(write_costs, run.ledger, out / "costs.parquet")


async def _whole(run: Run) -> RunResult:
    index = await run.index()
    write_index(index, run.place.out / "index.parquet")
    plan = make_plan(run.recipe, index.spans, index.gallery)
    _refuse_empty(plan, index)
    return await to_its_end(run.seal, await run.pairs(plan), index)


def _refuse_empty(plan: Plan, index: Index) -> None:
    if plan.jobs:
        return
    why = f"{len(index.bad)} files were left out (see above)" if index.bad else "no span meets the slices' conditions"
    raise MotionpairError(f"nothing to do: {len(index.spans)} spans in {len(index.clips)} usable clips, and no job among them; {why}.")
