"""The loop's stages without requests: each takes its time at its pools, and draws whether it passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, overload

from agents.selector import Casting
from factory.admission import agents_pool
from factory.brain_pool import BRAIN
from factory.choice import Choice, Decision, Seen
from factory.loop import make_pair
from factory.plan import Job, SlicePlan
from factory.simulate.workers import SimulatedPool
from factory.stages import Clip, PaintedCharacter, Stages
from factory.steps import named
from factory.work.clips import Reference
from factory.work.making import Painted, Synthetic
from factory.work.pairing import Masks
from generators import registry
from generators.base import Report
from manifests.errors import Rejected
from manifests.ledger import sketch_of
from manifests.recipe import JobBudget, Recipe
from manifests.records import PREFERENCE, Analysis, Artifact, Finding, FrameBoxes, Geometry, Prompt, Selection, Span, Verdict

STEPS: dict[str, tuple[str, ...]] = {
    "look": ("cut", "analyze", "find_reference"),
    "analyze": ("analyze",),
    "select": ("show_candidates", "ask"),
    "weave": ("show_sources", "ask"),
    "revise": ("ask",),
    "generate_image": ("generate_image",),
    "check_image": ("measure_picture", "show_painting", "eye"),
    "generate_video": ("generate_video",),
    "check_video": ("measure_video", "show_performance", "eye"),
    "check_loser": ("measure_video",),
    "painted_reference": ("find_painted",),
    "draw_masks": ("draw_masks",),
    "caption": ("describe_scene", "show_clip", "ask"),
    "prints": ("print_video", "print_picture"),
    "boxes": ("find_boxes",),
}
"""stage → the steps that it asks for; `ask` are the built-in rules or the model, `eye` the model where there is one"""
KEPT = 1000
"""pairs of which a choice remembers what they show"""
ANALYSING = ("analyze", "find_reference")
MEASURED_BY_AGENTS = ("ask_rules", "measure_picture", "measure_video")

NOTHING = Artifact(digest="0" * 64, size=0, suffix=".mp4")
SOMEBODY = Selection(person=0, character="0" * 64, score=1.0, reasons=())
WORDS = Prompt(image="simulated", video="simulated")
ACCEPT = Verdict(decision="accept")
REVISE = Verdict(decision="revise", reason="simulated", findings=(Finding(code="simulated", words="drawn at the assumed rate"),))


@dataclass(frozen=True)
class Visit:
    """A step at a pool."""

    pool: str
    depth: int
    mean_s: float


Key = tuple[str, str]
"""pool, step"""
Visits = Mapping[str, Mapping[str, tuple[Visit, ...]]]


def visits_of(recipe: Recipe, step_s: Mapping[Key, float], generator_s: Mapping[str, float]) -> Visits:
    """Slice → stage → its visits. `step_s`: mean times of steps; `generator_s`: of a generator's calls. What has no time is left out."""
    out: dict[str, dict[str, tuple[Visit, ...]]] = {name: {} for name in recipe.slices}
    for name, part in recipe.slices.items():
        for stage, steps in STEPS.items():
            found = []
            for step in steps:
                if part.task == PREFERENCE and step == "find_reference":
                    continue  # its reference is painted
                generator = {"generate_image": part.painter, "generate_video": part.generator}.get(step)
                if generator:
                    key = recipe.pool_of(generator), step
                    mean_s = generator_s.get(generator, 0.0)
                else:
                    key = _place(recipe, step)
                    mean_s = step_s.get(key, 0.0)
                if mean_s:
                    found.append(Visit(key[0], named(key[1]).depth, mean_s))
            out[name][stage] = tuple(found)
    return out


def _place(recipe: Recipe, step: str) -> Key:
    """The pool and the name of a step that is no generator's."""
    eyes = recipe.agents.brain.model is not None
    if step == "eye" or (step == "ask" and eyes):
        return BRAIN, "ask_model"
    step = "ask_rules" if step == "ask" else step
    if step in ANALYSING:
        return recipe.extractors.pool or "cpu", step
    return (agents_pool(recipe) if step in MEASURED_BY_AGENTS or step.startswith("show_") else "cpu"), step


@dataclass
class Scene:
    """What all simulated jobs share."""

    recipe: Recipe
    pools: Mapping[str, SimulatedPool]
    visits: Visits
    spread: float
    """standard deviation of a call's time, as a share of its mean"""
    seed: int
    deterministic: dict[str, bool] = field(default_factory=dict)
    """slice → its generator makes the same video again"""

    def __post_init__(self) -> None:
        generators = self.recipe.generators
        self.deterministic = {n: registry.capabilities_of(generators[s.generator]).deterministic for n, s in self.recipe.slices.items()}


class SimulatedStages:
    """Has the methods of factory.stages.Stages, for one job. What it draws depends on the seed, the job and how often it drew before."""

    def __init__(self, scene: Scene, job: Job) -> None:
        self._scene, self._job, self._visits = scene, job, scene.visits[job.slice]
        self._state = _mixed(scene.seed ^ int(job.id[:16], 16))
        video = Artifact.model_construct(digest=job.id, size=0, suffix=".mp4")
        self._video = Synthetic.model_construct(video=video, raw_frames=0, raw_fps=0.0, report=REPORT)
        other = Artifact.model_construct(digest=job.id[::-1], size=0, suffix=".mp4")
        self._second = self._video.model_copy(update={"video": other})
        """of a preference pair: what the first one drives"""
        self.spent_s: dict[str, float] = {}
        """pool → worker-seconds"""
        self.calls: dict[str, int] = {}

    @property
    def budget(self) -> JobBudget:
        return self._scene.recipe.budget_per_job

    def where(self, artifact: Artifact) -> str:
        """See Stages; nothing lies anywhere."""
        return artifact.digest

    def generator_of(self, job: Job) -> str:
        return self._scene.recipe.slices[job.slice].generator

    def deterministic(self, job: Job) -> bool:
        return self._scene.deterministic[job.slice]

    def _draw(self) -> float:
        """The job's next number in [0, 1)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        return (_mixed(self._state) >> 11) / (1 << 53)

    def _passes(self) -> bool:
        return self._draw() < self._scene.recipe.slices[self._job.slice].acceptance

    async def _take(self, stage: str) -> None:
        """The stage's time at its pools: even around the mean, with the asked spread."""
        for visit in self._visits[stage]:
            service_s = visit.mean_s * max(0.0, 1 + self._scene.spread * 3.4641 * (self._draw() - 0.5))
            await self._scene.pools[visit.pool].call(visit.depth, self._job.rank, service_s)
            self.spent_s[visit.pool] = self.spent_s.get(visit.pool, 0.0) + service_s
            self.calls[visit.pool] = self.calls.get(visit.pool, 0) + 1

    async def look(self, job: Job) -> Clip:
        await self._take("look")
        return Clip(NOTHING, ANALYSIS, tuple(range(int(job.people[0]))), REFERENCE)

    async def analyze(self, job: Job, video: Artifact) -> Analysis:
        await self._take("analyze")
        return ANALYSIS

    async def select(self, job: Job, clip: Clip) -> tuple[Casting, ...]:
        await self._take("select")
        return ((SOMEBODY,) * len(clip.driven),) * self.budget.candidates

    async def weave(self, job: Job, clip: Clip, selection: Selection) -> Prompt:
        await self._take("weave")
        return WORDS

    async def revise(self, job: Job, prompt: Prompt, verdict: Verdict, about: Literal["image", "video"]) -> Prompt:
        await self._take("revise")
        return WORDS

    async def generate_image(self, job: Job, clip: Clip, selection: Selection, prompt: Prompt, attempt: int) -> Painted:
        await self._take("generate_image")
        return PAINTED

    async def check_image(self, job: Job, clip: Clip, selection: Selection, prompt: Prompt, painted: Painted) -> Verdict:
        """Passes: a recipe says nothing of pictures."""
        await self._take("check_image")
        return ACCEPT

    async def generate_video(self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], attempt: int) -> Synthetic:
        """A pose job is inspected nowhere later, so its share that does not pass ends here."""
        await self._take("generate_video")
        if job.task == "pose" and not self._passes():
            raise Rejected("drawn at the assumed rate", "simulated")
        return self._second if clip.target is self._video.video else self._video

    async def check_video(
        self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], video: Synthetic, driving: Analysis
    ) -> tuple[Verdict, tuple[int, ...]]:
        await self._take("check_video")
        return (ACCEPT if self._passes() else REVISE), clip.driven

    async def check_loser(
        self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...], video: Synthetic, driving: Analysis, winner: Verdict
    ) -> Verdict:
        """Passes: the assumed rate is of attempts, and it was drawn for the winner."""
        await self._take("check_loser")
        return ACCEPT

    async def painted_reference(self, job: Job, painted: PaintedCharacter) -> Reference:
        await self._take("painted_reference")
        return REFERENCE

    async def draw_masks(self, job: Job, driving: Artifact, analysis: Analysis, matched: tuple[int, ...], reference: Reference) -> Masks:
        await self._take("draw_masks")
        return MASKS

    async def caption(self, job: Job, clip: Clip) -> str:
        await self._take("caption")
        return "simulated"

    async def prints(self, job: Job, clip: Clip, painted: tuple[PaintedCharacter, ...]) -> None:
        """None: nobody looks whether simulated pairs show the same."""
        await self._take("prints")

    async def boxes(self, job: Job, clip: Clip) -> tuple[FrameBoxes, ...]:
        await self._take("boxes")
        return BOXES


async def simulated(job: Job, stages: SimulatedStages) -> Decision:
    """A job through the loop that makes real pairs."""
    try:
        return Decision("accepted", pair=sketch_of(await make_pair(job, cast(Stages, stages))))
    except Rejected as e:
        return Decision("rejected", e.code, e.message)


class SimulatedJobs(Sequence[Job]):
    """The jobs of a slice, made when they are asked for: a plan's million would take gigabytes."""

    def __init__(self, recipe: Recipe, part: SlicePlan, count: int, seed: int) -> None:
        self._count, self._part, self._seed = count, part, _mixed(seed ^ sum(ord(c) << (5 * i % 40) for i, c in enumerate(part.name)))
        height, width = recipe.geometry.sizes[0]
        geometry = Geometry(frames=recipe.geometry.frames, fps=recipe.geometry.fps, height=height, width=width)
        self._common: dict[str, Any] = {
            "slice": part.name, "task": part.spec.task, "split": "train", "group": "simulated", "licence": "unknown", "shot": (0, 0),
            "span": Span(source=NOTHING.digest, start_frame=0, geometry=geometry, crop=(0, 0, width, height)),
            "people": part.spec.where.people, "shortlist": (),
        }  # fmt: skip

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Job: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Job]: ...
    def __getitem__(self, place: int | slice) -> Job | Sequence[Job]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._count))]
        if not 0 <= place < self._count:
            raise IndexError(place)
        rank = f"{place * (1 << 60) // self._count:016x}{_mixed(self._seed + place):016x}"  # the slices' jobs take turns
        return Job(id=rank[16:] + rank[:16] + "0" * 32, rank=rank, repeat=place, **self._common)


class Tally(Choice):
    """Decides like any choice, and forgets what it took: a million pairs and jobs would take gigabytes."""

    def _take(self, job: Job, decision: Decision) -> None:
        super()._take(job, decision)
        self.left_out.clear()
        if decision.pair is not None:
            self.pairs[-1] = self.pairs[0]
            if len(self.pairs) % KEPT == 0:
                self._seen = Seen(self.duplicates)

    def close(self) -> None:
        """The rest of the plan is not listed."""


def _mixed(x: int) -> int:
    """Another number of 64 bits that looks random: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


"""one set for all jobs"""
REPORT = Report()
PAINTED = Painted(picture=NOTHING, scene=None, report=REPORT)
ANALYSIS = Analysis(frames=5, height=64, width=64, fps=16, people=(), arrays=NOTHING)
REFERENCE = Reference(picture=NOTHING, arrays=NOTHING, in_target=False)
BOXES = (FrameBoxes(faces=((0.0, 0.0, 1.0, 1.0),)),)
MASKS = Masks(driving_mask=NOTHING, reference=NOTHING, reference_mask=NOTHING, slots=1)
"""what all simulated jobs see"""
