"""The loop's stages: each method asks for one step, with exactly the inputs that may change its answer."""

from __future__ import annotations

from dataclasses import dataclass

from agents.selector import Casting, SelectRequest
from factory.memo import Memo
from factory.plan import Job
from factory.work import clips, judging, making, pairing, spans
from generators import registry
from manifests.errors import Rejected
from manifests.recipe import JobBudget, Recipe
from manifests.records import Analysis, Artifact, Candidate, Digest, FrameBoxes, Prompt, Selection, Verdict


@dataclass(frozen=True)
class Clip:
    """A real span, looked at."""

    target: Artifact
    analysis: Analysis
    driven: tuple[int, ...]
    """tracks that take part in the pair"""
    reference: clips.Reference


@dataclass(frozen=True)
class PaintedCharacter:
    """A painted picture that passed."""

    picture: Artifact
    scene: Artifact | None
    """without the character, where the painter knows it"""
    selection: Selection
    prompt: Prompt
    appearance: tuple[float, ...]
    attempts: int


class Stages:
    """All stages of one run. Shared by all jobs."""

    def __init__(self, recipe: Recipe, memo: Memo) -> None:
        self._recipe, self._memo = recipe, memo
        self._brain, self._checker = recipe.agents.brain, recipe.agents.checker
        self._agents_pool = "agents" if "agents" in recipe.pools else "cpu"

    @property
    def budget(self) -> JobBudget:
        return self._recipe.budget_per_job

    def generator_of(self, job: Job) -> str:
        """Name of the recipe's generator entry."""
        return self._recipe.slices[job.slice].generator

    def deterministic(self, job: Job) -> bool:
        """Whether the job's video generator gives the same video for every seed."""
        return registry.capabilities_of(self._recipe.generators[self.generator_of(job)]).deterministic

    async def look(self, job: Job) -> Clip:
        """Cut the span out, find everybody in it, find the reference. Raises Rejected when it is not what the index promised."""
        cut = await self._memo.call(clips.cut, clips.CutRequest(span=job.span), rank=job.rank, pool="cpu")
        analysis = await self.analyze(job, cut.target)
        present = [p.track for p in analysis.people if p.presence >= spans.PRESENCE_MIN]
        if not job.people[0] <= len(present) <= job.people[1]:
            want = f"{job.people[0]:g} to {job.people[1]:g}"
            raise Rejected(f"{len(present)} people are seen throughout the span, the slice wants {want}", "people_count")
        driven = tuple(present)
        if job.task != "replacement" and len(driven) < len(analysis.people):
            raise Rejected("somebody else is seen in a part of the span, whom the driving video would not show", "others_present")
        request = clips.ReferenceRequest(
            span=job.span, shot=job.shot, min_gap_s=self._recipe.reference.min_gap_s, analysis=analysis, driven=driven
        )
        reference = await self._memo.call(clips.find_reference, request, rank=job.rank, pool="cpu")
        return Clip(cut.target, analysis, driven, reference)

    async def analyze(self, job: Job, video: Artifact) -> Analysis:
        """Everybody in a video."""
        return await self._memo.call(clips.analyze, clips.AnalyzeRequest(video=video), rank=job.rank, pool="cpu")

    async def select(self, job: Job, clip: Clip) -> tuple[Casting, ...]:
        """Candidate Selector: castings, best first, as many as the budget allows. Raises Rejected when there is none."""
        ask = SelectRequest(
            clip=clip.analysis, driven=clip.driven, shortlist=job.shortlist,
            identity_gap_min=self._checker.identity_gap_min, yaw_max_deg=self._checker.yaw_max_deg,
        )  # fmt: skip
        request = judging.SelectStepRequest(brain=self._brain, ask=ask)
        answer = await self._memo.call(judging.select, request, rank=job.rank, pool=self._agents_pool)
        if not answer.castings:
            why = sorted(set(answer.refused.values())) or ["the shortlist is too short"]
            raise Rejected(f"no candidate suits: {', '.join(why)}", "no_candidate")
        return answer.castings[: self.budget.candidates]

    async def weave(self, job: Job, clip: Clip, selection: Selection) -> Prompt:
        """Prompt Weaver: the first prompts."""
        character, scene = _picked(job, selection.character), _picked(job, selection.scene)
        assert character is not None
        request = judging.WeaveStepRequest(
            brain=self._brain, task=job.task, clip=clip.analysis, person=selection.person, character=character,
            scene=scene if job.task == "animation" else None, roles=tuple(self._pictures(job, selection)),
        )  # fmt: skip
        return await self._memo.call(judging.weave, request, rank=job.rank, pool=self._agents_pool)

    async def revise(self, job: Job, prompt: Prompt, verdict: Verdict) -> Prompt:
        """Prompt Weaver: the findings go into the next prompt."""
        request = judging.ReviseRequest(brain=self._brain, prompt=prompt, findings=verdict.findings)
        return await self._memo.call(judging.revise, request, rank=job.rank, pool=self._agents_pool)

    async def generate_image(self, job: Job, clip: Clip, selection: Selection, prompt: Prompt, attempt: int) -> making.Painted:
        """The painter."""
        name = self._recipe.slices[job.slice].painter
        spec = self._recipe.generators[name]
        request = making.PaintRequest(
            kind=spec.kind, options=spec.options, pictures=self._pictures(job, selection), prompt=prompt.image, negative=prompt.negative,
            scale=prompt.scale, geometry=job.span.geometry, clip=clip.analysis.arrays, person=selection.person, mode=job.task,
            seed=self._seed(job, spec.kind, attempt),
        )  # fmt: skip
        return await self._memo.call(making.generate_image, request, rank=job.rank, pool=self._recipe.pool_of(name))

    def _pictures(self, job: Job, selection: Selection) -> dict[str, str]:
        roles = {"character": selection.character, "clothing": selection.clothing}
        if job.task == "animation":
            roles["scene"] = selection.scene
        return {role: picture for role, picture in roles.items() if picture}

    def _seed(self, job: Job, kind: str, attempt: int) -> int:
        """A generator that is deterministic gets one seed, so that equal work is done once."""
        fixed = registry.class_of(kind).capabilities.deterministic
        return 0 if fixed else job.seed(self._recipe.seed, attempt)

    async def check_image(self, job: Job, clip: Clip, selection: Selection, painted: making.Painted) -> judging.ImageCheck:
        """Quality Checker, first inspection."""
        request = judging.CheckImageRequest(
            checker=self._checker,
            picture=painted.picture,
            report=painted.report,
            clip=clip.analysis,
            person=selection.person,
            mode=job.task,
        )
        return await self._memo.call(judging.check_image, request, rank=job.rank, pool=self._agents_pool)

    async def generate_video(self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], attempt: int) -> making.Synthetic:
        """The animator, or the renderer of poses."""
        name = self.generator_of(job)
        spec = self._recipe.generators[name]
        request = making.AnimateRequest(
            kind=spec.kind, options=spec.options, mode=job.task, clip_video=clip.target, clip=clip.analysis.arrays, driven=clip.driven,
            painted=tuple(p.picture for p in painted), views=self._views(job, spec.kind, painted),
            scene=painted[0].scene if job.task == "animation" and painted else None,
            prompt=" ".join(p.prompt.video for p in painted), geometry=job.span.geometry, seed=self._seed(job, spec.kind, attempt),
        )  # fmt: skip
        return await self._memo.call(making.generate_video, request, rank=job.rank, pool=self._recipe.pool_of(name))

    def _views(self, job: Job, kind: str, painted: tuple[PaintedCharacter, ...]) -> tuple[tuple[Digest, ...], ...]:
        """Further pictures of the painted characters, for generators that use them; none of a character in other clothes."""
        if not registry.class_of(kind).capabilities.views:
            return ()
        known = {c.picture: c.views for c in job.shortlist if c.role == "character"}
        found = tuple(() if p.selection.clothing else known.get(p.selection.character, ()) for p in painted)
        return found if any(found) else ()

    async def check_video(
        self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], video: making.Synthetic, driving: Analysis
    ) -> judging.VideoCheck:
        """Quality Checker, second inspection."""
        request = judging.CheckVideoRequest(
            checker=self._checker, video=video.video, driving=driving, report=video.report, geometry=job.span.geometry,
            clip=clip.analysis, driven=clip.driven, painted_appearance=tuple(p.appearance for p in painted),
        )  # fmt: skip
        return await self._memo.call(judging.check_video, request, rank=job.rank, pool=self._agents_pool)

    async def draw_masks(
        self, job: Job, driving: Artifact, analysis: Analysis, matched: tuple[int, ...], reference: clips.Reference
    ) -> pairing.Masks:
        """In-context masks, from driving and reference only."""
        request = pairing.MaskRequest(
            task=job.task, driving=driving, driving_arrays=analysis.arrays, matched=matched, reference=reference.picture,
            reference_arrays=reference.arrays,
        )  # fmt: skip
        return await self._memo.call(pairing.draw_masks, request, rank=job.rank, pool="cpu")

    async def caption(self, job: Job, clip: Clip) -> str:
        """Prompt Weaver: the long description of the target."""
        request = judging.CaptionRequest(brain=self._brain, target=clip.target, analysis=clip.analysis)
        return (await self._memo.call(judging.caption, request, rank=job.rank, pool=self._agents_pool)).text

    async def boxes(self, job: Job, clip: Clip) -> tuple[FrameBoxes, ...]:
        """Hands, faces and text of the target."""
        return (
            await self._memo.call(
                pairing.find_boxes, pairing.BoxRequest(target=clip.target, arrays=clip.analysis.arrays), rank=job.rank, pool="cpu"
            )
        ).frames


def _picked(job: Job, picture: str | None) -> Candidate | None:
    return next((c for c in job.shortlist if c.picture == picture), None)
