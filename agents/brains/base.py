"""What a brain is asked. Roles measure and hold the hard limits; a brain orders, words and judges within them.

Requests and answers are frozen records, so the same question can go to a vision-language model as JSON or to the built-in rules.
"""

from __future__ import annotations

from typing import Protocol

from manifests.records import Digest, Finding, Frozen, Prompt, Task


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


class Ranked(Frozen):
    """One line of a brain's answer to a shortlist."""

    candidate: Digest
    score: float
    reasons: tuple[str, ...]


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


class WeaveRequest(Frozen):
    """Ask for the prompts of the synthetic picture and video."""

    task: Task
    real: Look
    character: Look
    scene: str
    """colour of the scene picture; empty when the character's own background stays"""
    roles: tuple[str, ...]


class Brain(Protocol):
    """Turns a role's request into its answer."""

    def rank(self, fits: tuple[Fit, ...]) -> tuple[Ranked, ...]:
        """Best first."""
        ...

    def weave(self, request: WeaveRequest) -> Prompt:
        """The prompts of the synthetic picture and video."""
        ...

    def revise(self, prompt: Prompt, findings: tuple[Finding, ...]) -> Prompt:
        """The same prompt, answering the checker's findings."""
        ...

    def caption(self, scene: Scene) -> str:
        """A long description of the target video. Never an instruction."""
        ...
