"""The frozen records that move between the parts of the house. Sizes are pixels, times seconds unless a name says otherwise."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Mode = Literal["animation", "replacement", "pose"]
"""how a pair is made and conditioned: what generators, masks and positions go by"""
MODES: tuple[Mode, ...] = ("animation", "replacement", "pose")
"""also the tasks of the mix"""
Task = Literal[Mode, "preference"]
PREFERENCE: Literal["preference"] = "preference"
TASKS: tuple[Task, ...] = (*MODES, PREFERENCE)
Split = Literal["train", "validation"]
Framing = Literal["close", "half", "full"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the picture it belongs to."""


class Frozen(BaseModel):
    """Base of all records: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def mode_of(task: Task) -> Mode:
    """A preference pair is made and conditioned like an animation; every other task is a mode of its own."""
    return "animation" if task == "preference" else task


def canonical_json(value: Any) -> bytes:
    """The one serialisation that digests are made of: sorted keys, no spaces, UTF-8, no NaN."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex digits) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def rounded(value: float) -> float:
    """A score as it is stored: 4 digits after the point, so that the last bits of a float never reach a digest."""
    return round(float(value), 4) + 0.0


class Artifact(Frozen):
    """Bytes in the store."""

    digest: Digest
    size: int = Field(ge=0)
    """bytes"""
    suffix: str = Field(pattern=r"^\.[a-z0-9]{2,5}$")
    """".mp4", ".png", ".npz": what a file made of it must be called"""


class Geometry(Frozen):
    """Size and time of a pair; driving, target and masks share it exactly."""

    frames: int = Field(ge=5)
    fps: float = Field(default=16.0, gt=0, le=120)
    height: int = Field(ge=64, le=4096)
    width: int = Field(ge=64, le=4096)

    @field_validator("frames")
    @classmethod
    def _four_n_plus_one(cls, v: int) -> int:
        if v % 4 != 1:
            raise ValueError(f"frames must be 4n+1 (5, 9, 13, …, 81), got {v}")
        return v

    @field_validator("height", "width")
    @classmethod
    def _multiple_of_32(cls, v: int) -> int:
        if v % 32:
            raise ValueError(f"height and width must be multiples of 32, got {v}")
        return v

    @property
    def duration_s(self) -> float:
        """From the first frame's instant to the last one's."""
        return (self.frames - 1) / self.fps


class Span(Frozen):
    """A stretch of a real clip, as a pair uses it. Names and paths are not part of it."""

    source: Digest
    """of the clip's file"""
    start_frame: int = Field(ge=0)
    """first frame on the geometry's own time grid: the span starts at start_frame / fps seconds"""
    geometry: Geometry
    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1 in the source's pixels; what is scaled to the geometry"""

    @property
    def start_s(self) -> float:
        return self.start_frame / self.geometry.fps


class Person(Frozen):
    """One tracked person of a video or picture, in that picture's pixels."""

    track: int
    """position on the first axis of the People arrays"""
    box: Box
    """around the visible joints, median over frames"""
    presence: float
    """share of frames in which the person was found"""
    framing: Framing
    """full: ankles visible; half: hips visible; close: neither"""
    visible_joints: tuple[str, ...]
    """names (see generators/poses/tracks.py) seen in most frames"""
    yaw_deg: float
    """median body yaw: 0 faces the camera, ±90 in profile, ±180 from behind"""
    yaw_spread_deg: float
    """95th percentile of the distance from the median yaw"""
    height: float
    """of the box, in pixels"""
    motion: float
    """motion energy: median over frames of the mean joint speed, in body heights per second"""
    arms_crossed: bool
    """a forearm lies over the chest or crosses the other one in most frames"""
    confidence: float
    """mean landmark visibility of the torso and limbs, 0 to 1"""


class Figure(Frozen):
    """A real person of an indexed span, as far as it decides who can play them."""

    framing: Framing
    yaw_deg: float
    """median: 0 faces the camera, ±90 in profile, ±180 from behind"""
    visible_joints: tuple[str, ...]
    motion: float = 0.0
    """body heights per second"""
    stature_px: float = 0.0
    """how tall the whole body would be, in pixels of the pair's geometry; 0: not known"""
    appearance: tuple[float, ...] = ()


class Analysis(Frozen):
    """What is known of a video's or picture's people."""

    frames: int
    height: int
    width: int
    fps: float
    people: tuple[Person, ...]
    """by first appearance, then left to right"""
    arrays: Artifact
    """the People arrays (.npz)"""
    appearance: tuple[tuple[float, ...], ...] = ()
    """per person: colour descriptor of head, torso and legs (see agents/measures/appearance.py)"""


class Candidate(Frozen):
    """A gallery picture that passed the pose model."""

    picture: Digest
    role: Literal["character", "clothing", "scene"]
    group: str
    split: Split
    person: Person | None = None
    """None for scenes"""
    appearance: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    """width, height"""
    stature_px: float = 0.0
    """how tall the character's whole body would be in the picture, also where it is cut; 0: not known"""
    views: tuple[Digest, ...] = ()
    """further pictures of the same character, from other sides"""


class Selection(Frozen):
    """The Candidate Selector's answer for one person of the clip."""

    person: int
    """the real person's track in the clip"""
    character: Digest
    clothing: Digest | None = None
    scene: Digest | None = None
    score: float
    reasons: tuple[str, ...]
    difficulty: Literal["easy", "medium", "hard"] = "medium"
    """as the selector expects it for the generators"""


class Prompt(Frozen):
    """The Prompt Weaver's answer. It describes the synthetic picture and video, never the target."""

    image: str = Field(max_length=4000)
    negative: str = Field(default="", max_length=2000)
    video: str = Field(max_length=4000)
    findings: tuple[str, ...] = ()
    """of earlier verdicts that this version answers"""
    revision: int = 0
    scale: float = 1.0
    """asked size of the character relative to the clip's person; a revision may change it"""


class Finding(Frozen):
    """One thing a check saw."""

    code: str
    words: str
    """as the weaver can use them"""


class Verdict(Frozen):
    """The Quality Checker's answer."""

    decision: Literal["accept", "revise", "reject", "review"]
    """review: a person has to look at it; it is neither used nor forgotten"""
    reason: str = ""
    """code of the decisive finding; empty when accepted"""
    findings: tuple[Finding, ...] = ()
    scores: dict[str, float] = Field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.decision == "accept"


class Exhibit(Frozen):
    """A picture that a brain with eyes is shown, and what is said of it."""

    label: str
    picture: Artifact


class VideoPrint(Frozen):
    """What a video looks like, so that it is known again in another encoding. Hashes of 64 bits, in hex; agents/measures/duplicates.py."""

    scene: str = Field(pattern=r"^[0-9a-f]{16}$")
    """of the median frame"""
    looks: str = Field(pattern=r"^([0-9a-f]{16})+$")
    """of the people's part of every frame, one after the other"""
    moves: str = Field(pattern=r"^([0-9a-f]{16})+$")
    """of every frame's difference from the median frame"""

    @property
    def packed(self) -> bytes:
        """The hashes of scene, looks and moves one after the other, 8 bytes each, the highest first."""
        return bytes.fromhex(self.scene + self.looks + self.moves)


class PicturePrint(Frozen):
    """What a picture looks like; see agents/measures/duplicates.py."""

    shape: str = Field(pattern=r"^[0-9a-f]{16}$")
    """hash of 64 bits, in hex"""
    colours: str = Field(pattern=r"^[0-9a-f]{384}$")
    """8×8 CIELAB colours, 3 bytes each, in hex"""

    @property
    def packed(self) -> bytes:
        """The hash's 8 bytes, then the colours."""
        return bytes.fromhex(self.shape + self.colours)


class Prints(Frozen):
    """By what a pair is known again."""

    target: VideoPrint
    painted: tuple[PicturePrint, ...] = ()
    """of the characters, one a driven person"""


class Lineage(Frozen):
    """Where a pair came from, by digest."""

    source: Digest
    start_frame: int
    crop: tuple[int, int, int, int]
    characters: tuple[Digest, ...] = ()
    painted: tuple[Digest, ...] = ()
    image_attempts: int = 0
    video_attempts: int = 0


class FrameBoxes(Frozen):
    """Boxes in one frame of a video."""

    hands: tuple[Box, ...] = ()
    faces: tuple[Box, ...] = ()
    text: tuple[Box, ...] = ()
    """lines of text; empty also where nobody looked for any, see Pair.text_boxes"""


class Pair(Frozen):
    """One finished motion pair: what the release holds, by digest."""

    key: str = Field(pattern=r"^[0-9a-z]{16,64}$")
    job: Digest
    slice: str
    task: Task
    split: Split
    group: str
    generator: str
    geometry: Geometry
    driving: Artifact
    target: Artifact | None = None
    """the real span; None for a preference pair, which has the next two instead"""
    winner: Artifact | None = None
    """driven by poses that were read once, from the real span"""
    loser: Artifact | None = None
    """the same again, driven by poses that were read from the winner"""
    driving_mask: Artifact
    references: tuple[Artifact, ...] = Field(min_length=1)
    reference_masks: tuple[Artifact, ...] = Field(min_length=1)
    reference_in_target: bool
    """the reference is a frame of the span itself"""
    slots: int = Field(ge=1, le=6)
    """how many binding slots the masks use"""
    caption: str = Field(min_length=1, max_length=4000)
    prompt: str = ""
    scores: dict[str, float] = Field(default_factory=dict)
    boxes: tuple[FrameBoxes, ...] = ()
    """one entry a frame of the target, or of the winner"""
    loser_boxes: tuple[FrameBoxes, ...] = ()
    """the same of the loser; empty where there is none"""
    text_boxes: Literal["measured", "not_measured"] = "not_measured"
    """whether text was looked for"""
    lineage: Lineage
    licence: str = "unknown"
    prints: Prints | None = Field(default=None, exclude=True)
    """for finding duplicates when the release is sealed; no part of it"""

    @model_validator(mode="after")
    def _has_the_videos_of_its_task(self) -> Pair:
        given = [name for name in ("target", "winner", "loser") if getattr(self, name) is not None]
        wanted = ["winner", "loser"] if self.task == PREFERENCE else ["target"]
        if given != wanted:
            raise ValueError(f"a pair for {self.task} has {' and '.join(wanted)}, got {' and '.join(given) or 'neither'}")
        return self

    @property
    def shown(self) -> tuple[Artifact, ...]:
        """What a model is trained to make: the target, or winner and loser."""
        return tuple(video for video in (self.target, self.winner, self.loser) if video is not None)

    def members(self) -> dict[str, Artifact]:
        """WebDataset extension → artifact, in the order they stand in a shard."""
        names = ("winner.mp4", "loser.mp4") if self.task == PREFERENCE else ("target.mp4",)
        out = {"driving.mp4": self.driving, **dict(zip(names, self.shown, strict=True)), "driving_mask.mp4": self.driving_mask}
        for name, group in (("reference", self.references), ("reference_mask", self.reference_masks)):
            for i, artifact in enumerate(group):
                out[f"{name}.png" if i == 0 else f"{name}_{i + 1}.png"] = artifact
        return out
