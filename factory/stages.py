"""The loop's stages: each method asks for one step, with exactly the inputs that may change its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import JsonValue

from agents import checker, prompts, selector, weaver
from agents.brains.base import (
    CaptionerAnswer,
    CaptionerFacts,
    Facts,
    ImageCheckerFacts,
    ImageJudgement,
    ReviserFacts,
    SelectorAnswer,
    VideoCheckerFacts,
    VideoJudgement,
    WeaverAnswer,
)
from agents.selector import Casting
from agents.text import clean
from factory.brain_pool import BRAIN
from factory.memo import Answers
from factory.plan import Job
from factory.steps import Step
from factory.work import asking, clips, describing, making, measuring, pairing, preferences, prints, rules, showing, spans
from factory.work.showing import (
    ShowCandidatesRequest,
    ShowClipRequest,
    Shown,
    ShowPaintingRequest,
    ShowPerformanceRequest,
    ShowSourcesRequest,
)
from generators import registry
from generators.extractors import Extraction
from manifests.errors import Rejected
from manifests.recipe import GeneratorSpec, JobBudget, Recipe
from manifests.records import (
    PREFERENCE,
    Analysis,
    Artifact,
    Candidate,
    Digest,
    Exhibit,
    FrameBoxes,
    Frozen,
    Prints,
    Prompt,
    Selection,
    Verdict,
)

Q = TypeVar("Q", bound=Frozen)


@dataclass(frozen=True)
class Clip:
    """A real span, looked at; or the winner of a preference pair, whose poses drive the loser."""

    target: Artifact
    analysis: Analysis
    driven: tuple[int, ...]
    """tracks that take part in the pair"""
    reference: clips.Reference | None
    """of the real people; a preference pair shows the painted character instead"""


@dataclass(frozen=True)
class PaintedCharacter:
    """A painted picture that passed."""

    picture: Artifact
    scene: Artifact | None
    """without the character, where the painter knows it"""
    selection: Selection
    prompt: Prompt
    attempts: int


def video_prompt(painted: tuple[PaintedCharacter, ...]) -> str:
    """What the animator is told: every character's prompt, in order."""
    return " ".join(p.prompt.video for p in painted)


class Stages:
    """All stages of one run. Shared by all jobs."""

    def __init__(self, recipe: Recipe, memo: Answers) -> None:
        self._recipe, self._memo = recipe, memo
        self._checker = recipe.agents.checker
        self._eyes = recipe.agents.brain.model is not None
        self._agents_pool = "agents" if "agents" in recipe.pools else "cpu"
        self._extraction, self._analysis_pool = Extraction.of(recipe.extractors), recipe.extractors.pool or "cpu"

    @property
    def budget(self) -> JobBudget:
        return self._recipe.budget_per_job

    def where(self, artifact: Artifact) -> str:
        """A place that a person can look at."""
        return self._memo.where(artifact)

    def generator_of(self, job: Job) -> str:
        """Name of the recipe's generator entry."""
        return self._recipe.slices[job.slice].generator

    def deterministic(self, job: Job) -> bool:
        """Whether the job's video generator gives the same video for every seed."""
        return registry.capabilities_of(self._recipe.generators[self.generator_of(job)]).deterministic

    async def look(self, job: Job) -> Clip:
        """Cut the span out, find everybody in it, find the reference where real people are shown. Raises Rejected when the span is not what
        the index promised."""
        cut = await self._memo.call(clips.cut, clips.CutRequest(span=job.span), charge=job.charge, pool="cpu")
        analysis = await self.analyze(job, cut.target)
        present = [p.track for p in analysis.people if p.presence >= spans.PRESENCE_MIN]
        if not job.people[0] <= len(present) <= job.people[1]:
            want = f"{job.people[0]:g} to {job.people[1]:g}"
            raise Rejected(f"{len(present)} people are seen throughout the span, the slice wants {want}", "people_count")
        driven = tuple(present)
        if job.mode != "replacement" and len(driven) < len(analysis.people):
            raise Rejected("somebody else is seen in a part of the span, whom the driving video would not show", "others_present")
        if job.task == PREFERENCE:
            return Clip(cut.target, analysis, driven, None)
        request = clips.ReferenceRequest(
            span=job.span, shot=job.shot, min_gap_s=self._recipe.reference.min_gap_s, analysis=analysis, driven=driven,
            extraction=self._extraction,
        )  # fmt: skip
        reference = await self._memo.call(clips.find_reference, request, charge=job.charge, pool=self._analysis_pool)
        return Clip(cut.target, analysis, driven, reference)

    async def analyze(self, job: Job, video: Artifact) -> Analysis:
        """Everybody in a video."""
        request = clips.AnalyzeRequest(video=video, extraction=self._extraction)
        return await self._memo.call(clips.analyze, request, charge=job.charge, pool=self._analysis_pool)

    async def select(self, job: Job, clip: Clip) -> tuple[Casting, ...]:
        """Candidate Selector: castings, best first, as many as the budget allows. Raises Rejected when there is none."""
        request = selector.SelectRequest(
            clip=clip.analysis, driven=clip.driven, shortlist=job.shortlist,
            identity_gap_min=self._checker.identity_gap_min, yaw_max_deg=self._checker.yaw_max_deg,
            own_scene=job.mode == "animation",
        )  # fmt: skip
        found = selector.usable(request)
        if not all(found.fits):
            why = sorted(set(found.refused.values())) or ["the shortlist is too short"]
            raise Rejected(f"no candidate suits: {', '.join(why)}", "no_candidate")
        answers = [await self._choose(job, clip, found, place) for place in range(len(clip.driven))]
        castings = selector.cast(request, found, answers)
        if not castings:
            raise Rejected("no candidate suits: the shortlist is too short", "no_candidate")
        return castings[: self.budget.candidates]

    async def _choose(self, job: Job, clip: Clip, found: selector.Usable, place: int) -> SelectorAnswer:
        track = clip.driven[place]
        look = weaver.look_of(clip.analysis.people[track], clip.analysis.appearance[track], clip.analysis.width)
        facts = selector.facts(found, place, look)
        shown = ShowCandidatesRequest(
            clip=clip.target, arrays=clip.analysis.arrays, person=track, characters=tuple(f.candidate for f in facts.fits),
            scenes=tuple(c.picture for c in found.scenes), clothing=tuple(c.picture for c in found.clothing),
        )  # fmt: skip
        return SelectorAnswer.model_validate(await self._ask(job, facts, showing.show_candidates, shown))

    async def weave(self, job: Job, clip: Clip, selection: Selection) -> Prompt:
        """Prompt Weaver: the first prompts."""
        character, scene = _picked(job, selection.character), _picked(job, selection.scene)
        assert character is not None
        pictures = self._pictures(job, selection)
        facts = weaver.facts(
            job.mode, clip.analysis, selection.person, character, scene if job.mode == "animation" else None, tuple(pictures)
        )
        shown = ShowSourcesRequest(clip=clip.target, arrays=clip.analysis.arrays, person=selection.person, pictures=pictures)
        return weaver.woven(WeaverAnswer.model_validate(await self._ask(job, facts, showing.show_sources, shown)))

    async def revise(self, job: Job, prompt: Prompt, verdict: Verdict, about: Literal["image", "video"]) -> Prompt:
        """Prompt Weaver: what was found in the picture or the video goes into the next prompts."""
        facts = ReviserFacts(prompt=prompt, findings=verdict.findings, about=about)
        return weaver.revised(prompt, verdict.findings, WeaverAnswer.model_validate(await self._ask(job, facts)))

    async def _ask(self, job: Job, facts: Facts, show: Step[Q, Shown] | None = None, shown: Q | None = None) -> dict[str, JsonValue]:
        """Ask the recipe's brain. Pictures are drawn only for one that has eyes."""
        model = self._recipe.agents.brain.model
        if model is None:
            return (
                await self._memo.call(rules.ask_rules, rules.RulesRequest(facts=facts), charge=job.charge, pool=self._agents_pool)
            ).answer
        exhibits: tuple[Exhibit, ...] = ()
        if show is not None and shown is not None:
            exhibits = (await self._memo.call(show, shown, charge=job.charge, pool=self._agents_pool)).exhibits
        instructions = prompts.text_of(facts.role, self._recipe.agents.prompts)
        request = asking.AskRequest(model=model, instructions=instructions, facts=facts, exhibits=exhibits)
        return (await self._memo.call(asking.ask_model, request, charge=job.charge, pool=BRAIN)).answer

    async def generate_image(self, job: Job, clip: Clip, selection: Selection, prompt: Prompt, attempt: int) -> making.Painted:
        """The painter."""
        name = self._recipe.slices[job.slice].painter
        spec = self._recipe.generators[name]
        request = making.PaintRequest(
            kind=spec.kind, options=spec.options, pictures=self._pictures(job, selection), prompt=prompt.image, negative=prompt.negative,
            scale=prompt.scale, geometry=job.span.geometry, clip=clip.analysis.arrays, person=selection.person, mode=job.mode,
            seed=self._seed(job, spec, attempt),
        )  # fmt: skip
        return await self._memo.call(making.generate_image, request, charge=job.charge, pool=self._recipe.pool_of(name))

    def _pictures(self, job: Job, selection: Selection) -> dict[str, str]:
        roles = {"character": selection.character, "clothing": selection.clothing}
        if job.mode == "animation":
            roles["scene"] = selection.scene
        return {role: picture for role, picture in roles.items() if picture}

    def _seed(self, job: Job, spec: GeneratorSpec, attempt: int) -> int:
        """A generator that is deterministic gets one seed, so that equal work is done once."""
        fixed = registry.capabilities_of(spec).deterministic
        return 0 if fixed else job.seed(self._recipe.seed, attempt)

    async def check_image(self, job: Job, clip: Clip, selection: Selection, prompt: Prompt, painted: making.Painted) -> Verdict:
        """Quality Checker, first inspection: the measures, then the eye where there is one and nothing is lost already."""
        request = measuring.PictureRequest(picture=painted.picture, target=clip.target, clip=clip.analysis, person=selection.person)
        measured = await self._memo.call(measuring.measure_picture, request, charge=job.charge, pool=self._agents_pool)
        verdict = checker.judge_picture(measured.scores, job.mode, self._checker)
        if verdict.decision == "reject" or not self._eyes:
            return verdict
        facts = ImageCheckerFacts(task=job.mode, prompt=prompt.image, scores=verdict.scores)
        shown = ShowPaintingRequest(
            painted=painted.picture, clip=clip.target, arrays=clip.analysis.arrays, person=selection.person,
            pictures=self._pictures(job, selection),
        )  # fmt: skip
        return checker.joined(verdict, ImageJudgement.model_validate(await self._ask(job, facts, showing.show_painting, shown)))

    async def generate_video(self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], attempt: int) -> making.Synthetic:
        """The animator, or the renderer of poses."""
        name = self.generator_of(job)
        spec = self._recipe.generators[name]
        request = making.AnimateRequest(
            kind=spec.kind, options=spec.options, mode=job.mode, clip_video=clip.target, clip=clip.analysis.arrays, driven=clip.driven,
            painted=tuple(p.picture for p in painted), views=self._views(job, spec, painted),
            scene=self._scene(job, painted), prompt=video_prompt(painted), geometry=job.span.geometry,
            seed=self._seed(job, spec, attempt),
        )  # fmt: skip
        return await self._memo.call(making.generate_video, request, charge=job.charge, pool=self._recipe.pool_of(name))

    def _scene(self, job: Job, painted: tuple[PaintedCharacter, ...]) -> Artifact | None:
        return painted[0].scene if job.mode == "animation" and painted else None

    def _views(self, job: Job, spec: GeneratorSpec, painted: tuple[PaintedCharacter, ...]) -> tuple[tuple[Digest, ...], ...]:
        """Further pictures of the painted characters, for generators that use them; none of a character in other clothes."""
        if not registry.capabilities_of(spec).views:
            return ()
        known = {c.picture: c.views for c in job.shortlist if c.role == "character"}
        found = tuple(() if p.selection.clothing else known.get(p.selection.character, ()) for p in painted)
        return found if any(found) else ()

    async def check_video(
        self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], video: making.Synthetic, driving: Analysis
    ) -> tuple[Verdict, tuple[int, ...]]:
        """Quality Checker, second inspection: the measures, then the eye where there is one and the measures found nothing. And which track
        of the synthetic video performs each driven person."""
        measured = await self._measured(job, clip, painted, video, driving)
        verdict = checker.judge_video(measured.scores, job.span.geometry, video.report, self._checker)
        if not verdict.accepted or not self._eyes:
            return verdict, measured.matched
        facts = VideoCheckerFacts(task=job.mode, prompt=video_prompt(painted), scores=verdict.scores)
        shown = ShowPerformanceRequest(
            video=video.video, arrays=driving.arrays, matched=measured.matched, clip=clip.target, clip_arrays=clip.analysis.arrays,
            driven=clip.driven, painted=tuple(p.picture for p in painted),
        )  # fmt: skip
        judged = VideoJudgement.model_validate(await self._ask(job, facts, showing.show_performance, shown))
        return checker.joined(verdict, judged), measured.matched

    async def check_loser(
        self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], video: making.Synthetic, driving: Analysis, winner: Verdict
    ) -> Verdict:
        """Quality Checker, on a preference pair's loser: like the winner but for what poses change, and further from the clip. By the
        measures alone: what an eye would say against it is what it is made for."""
        measured = await self._measured(job, clip, painted, video, driving)
        return checker.judge_loser(measured.scores, winner.scores, job.span.geometry, video.report, self._checker)

    async def _measured(
        self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], video: making.Synthetic, driving: Analysis
    ) -> measuring.VideoScores:
        request = measuring.VideoRequest(
            mode=job.mode, video=video.video, driving=driving, report=video.report, geometry=job.span.geometry, target=clip.target,
            clip=clip.analysis, driven=clip.driven, painted=tuple(p.picture for p in painted), scene=self._scene(job, painted),
        )  # fmt: skip
        return await self._memo.call(measuring.measure_video, request, charge=job.charge, pool=self._agents_pool)

    async def painted_reference(self, job: Job, painted: PaintedCharacter) -> clips.Reference:
        """A painted picture as the reference of a preference pair, whose videos show its character."""
        request = preferences.PaintedRequest(picture=painted.picture)
        found = await self._memo.call(preferences.find_painted, request, charge=job.charge, pool="cpu")
        return clips.Reference(picture=painted.picture, in_target=False, arrays=found.arrays)

    async def draw_masks(
        self, job: Job, driving: Artifact, analysis: Analysis, matched: tuple[int, ...], reference: clips.Reference
    ) -> pairing.Masks:
        """In-context masks, from driving and reference only."""
        request = pairing.MaskRequest(
            task=job.mode, driving=driving, driving_arrays=analysis.arrays, matched=matched, reference=reference.picture,
            reference_arrays=reference.arrays,
        )  # fmt: skip
        return await self._memo.call(pairing.draw_masks, request, charge=job.charge, pool="cpu")

    async def caption(self, job: Job, clip: Clip) -> str:
        """Prompt Weaver: the long description of the target."""
        request = describing.SceneRequest(target=clip.target, analysis=clip.analysis)
        scene = await self._memo.call(describing.describe_scene, request, charge=job.charge, pool="cpu")
        answer = await self._ask(job, CaptionerFacts(scene=scene), showing.show_clip, ShowClipRequest(clip=clip.target))
        words = clean(CaptionerAnswer.model_validate(answer).caption)
        if not words:
            raise Rejected("the caption has no words", "bad_answer")
        return words

    async def prints(self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...]) -> Prints:
        """By what the pair is known again when duplicates are looked for."""
        about = prints.VideoPrintRequest(video=clip.target, arrays=clip.analysis.arrays)
        target = await self._memo.call(prints.print_video, about, charge=job.charge, pool="cpu")
        pictures = [
            await self._memo.call(prints.print_picture, prints.PicturePrintRequest(picture=p.picture), charge=job.charge, pool="cpu")
            for p in painted
        ]
        return Prints(target=target, painted=tuple(pictures))

    async def boxes(self, job: Job, clip: Clip) -> tuple[FrameBoxes, ...]:
        """Hands, faces and text of the target."""
        return (
            await self._memo.call(
                pairing.find_boxes, pairing.BoxRequest(target=clip.target, arrays=clip.analysis.arrays), charge=job.charge, pool="cpu"
            )
        ).frames


def _picked(job: Job, picture: str | None) -> Candidate | None:
    return next((c for c in job.shortlist if c.picture == picture), None)
