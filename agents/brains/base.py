"""What a brain is asked and how it answers. Roles measure and hold the hard limits; a brain orders, words and judges within them.

Facts and answers are frozen records: facts go to a vision-language model as JSON, beside pictures, and its answer comes back by the JSON
schema of the answer's type; the built-in rules take and give the same records. Every text in an answer is data: its length is limited here,
`agents.text.clean` takes control characters out, and nothing of it is ever a path, a command or a decision over a hard check.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from agents.reasons import SEEN_IN_IMAGES, SEEN_IN_VIDEOS
from manifests.records import Digest, Finding, Frozen, Prompt, Task

Words = Annotated[str, Field(max_length=400)]
Role = Literal["selector", "weaver", "reviser", "captioner", "image_checker", "video_checker"]
ROLES: tuple[Role, ...] = ("selector", "weaver", "reviser", "captioner", "image_checker", "video_checker")


class Fit(Frozen):
    """How a candidate suits one person of the clip, as measured."""

    candidate: Digest
    joints: float
    """share of the joints visible in the clip that the candidate shows, 0 to 1"""
    framing: bool
    """the candidate shows at least as much of the body as the clip"""
    yaw_gap_deg: float
    identity_gap: float | None
    """colour difference to the real person, see agents/measures/appearance.py; None: can't be told"""
    confidence: float
    """of the candidate's own pose, 0 to 1"""


class Look(Frozen):
    """What is known of a person, in words a prompt can use."""

    framing: str
    facing: str
    hair: str
    top: str
    bottoms: str
    movement: str
    place: str


class Scene(Frozen):
    """A clip or picture, in words."""

    people: tuple[Look, ...]
    backdrop: str
    brightness: str
    orientation: str


# --- answers


class Pick(Frozen):
    """One candidate of those that were shown."""

    number: int
    """its place in the facts, from 0; numbers that were not shown are ignored"""
    score: float = Field(ge=0, le=1)
    reasons: tuple[Words, ...] = Field(max_length=8)


class SelectorAnswer(Frozen):
    """Who plays one person of the clip."""

    characters: tuple[Pick, ...] = Field(max_length=64)
    """best first; who is not named comes after them in the measured order"""
    scene: int | None
    """number of the scene picture; null: any"""
    clothing: int | None
    """number of the clothing picture; null: the character keeps its own clothes"""
    difficulty: Literal["easy", "medium", "hard"]
    """expected, for the generators"""


class WeaverAnswer(Frozen):
    """The prompts of the synthetic picture and video."""

    image: str = Field(max_length=4000)
    negative: str = Field(max_length=2000)
    video: str = Field(max_length=4000)


class CaptionerAnswer(Frozen):
    """A description of the real video."""

    caption: str = Field(min_length=1, max_length=4000)


class ImageFinding(Frozen):
    """One thing that is wrong with a painted picture."""

    code: Literal[SEEN_IN_IMAGES]  # type: ignore[valid-type]
    words: Words
    """as the weaver can use them"""


class VideoFinding(Frozen):
    """One thing that is wrong with a synthetic video."""

    code: Literal[SEEN_IN_VIDEOS]  # type: ignore[valid-type]
    words: Words


class ImageJudgement(Frozen):
    """What the eye says of a painted picture that the measures did not reject."""

    findings: tuple[ImageFinding, ...] = Field(max_length=8)
    score: float = Field(ge=0, le=1)
    """how believable it is"""


class VideoJudgement(Frozen):
    """What the eye says of a synthetic video that passed the measures."""

    findings: tuple[VideoFinding, ...] = Field(max_length=8)
    score: float = Field(ge=0, le=1)


Judgement = ImageJudgement | VideoJudgement


# --- facts


class SelectorFacts(Frozen):
    """Ask who shall play one person of the clip."""

    answer: ClassVar[type[Frozen]] = SelectorAnswer
    role: Literal["selector"] = "selector"
    person: Look
    fits: tuple[Fit, ...]
    """the usable characters; the pictures are numbered like them"""
    scenes: int
    """how many scene pictures are offered"""
    clothing: int


class WeaverFacts(Frozen):
    """Ask for the prompts of the synthetic picture and video."""

    answer: ClassVar[type[Frozen]] = WeaverAnswer
    role: Literal["weaver"] = "weaver"
    task: Task
    real: Look
    character: Look
    scene: str
    """colour of the scene picture; empty when the character's own background stays"""
    roles: tuple[str, ...]
    """of the pictures that the painter is given, in order"""


class ReviserFacts(Frozen):
    """Ask for the same prompts, answering the checker's findings."""

    answer: ClassVar[type[Frozen]] = WeaverAnswer
    role: Literal["reviser"] = "reviser"
    prompt: Prompt
    findings: tuple[Finding, ...]
    about: Literal["image", "video"]
    """what they were found in"""


class CaptionerFacts(Frozen):
    """Ask for a long description of the target video. Never an instruction."""

    answer: ClassVar[type[Frozen]] = CaptionerAnswer
    role: Literal["captioner"] = "captioner"
    scene: Scene


class ImageCheckerFacts(Frozen):
    """Ask what is wrong with a painted picture."""

    answer: ClassVar[type[Frozen]] = ImageJudgement
    role: Literal["image_checker"] = "image_checker"
    task: Task
    prompt: str
    scores: dict[str, float]


class VideoCheckerFacts(Frozen):
    """Ask what is wrong with a synthetic video."""

    answer: ClassVar[type[Frozen]] = VideoJudgement
    role: Literal["video_checker"] = "video_checker"
    task: Task
    prompt: str
    scores: dict[str, float]


Facts = Annotated[
    SelectorFacts | WeaverFacts | ReviserFacts | CaptionerFacts | ImageCheckerFacts | VideoCheckerFacts, Field(discriminator="role")
]


class RuleBrain(Protocol):
    """A brain without eyes: it answers from the facts alone."""

    def answer(self, facts: Facts) -> Frozen:
        """The answer, of `facts.answer`'s type. Raises TypeError for a role that needs eyes."""
        ...
