"""Prompt Weaver: words for the painter and the animator, and, as a step of its own, the caption of the target.

The prompts describe the synthetic picture and video; the caption describes the real one. The two never meet.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from agents.brains.base import Look, Scene, WeaverAnswer, WeaverFacts
from agents.measures.appearance import Descriptor, colour_name
from agents.text import clean
from generators.poses.tracks import People
from manifests.records import Analysis, Candidate, Finding, Person, Prompt, Task, rounded

SCALE_STEP = {"too_small": 1.2, "too_large": 0.83, "cropped": 0.8}
"""what a finding does to the asked size of the character"""
SCALE_LIMITS = (0.3, 2.0)

FRAMING_WORDS = {
    "full": "shown from head to foot",
    "half": "shown from the head to the hips or knees",
    "close": "shown close up, head and shoulders",
}


def look_of(person: Person, descriptor: Descriptor, width: int) -> Look:
    """A person in words. `width` is the picture's, in pixels."""
    parts = np.reshape(descriptor, (3, 4)) if len(descriptor) == 12 else np.zeros((3, 4))
    names = [colour_name(part[:3]) if part[3] > 0.02 else "" for part in parts]
    centre = (person.box[0] + person.box[2]) / 2 / max(1, width)
    return Look(
        framing=FRAMING_WORDS[person.framing],
        facing=_facing(person.yaw_deg),
        hair=names[0],
        top=names[1],
        bottoms=names[2],
        movement=_movement(person.motion),
        place="on the left" if centre < 0.36 else "on the right" if centre > 0.64 else "in the middle",
    )


def _facing(yaw_deg: float) -> str:
    turn = abs(yaw_deg)
    if turn < 30:
        return "facing the camera"
    if turn < 60:
        return "turned a little to the side"
    return "in profile" if turn < 120 else "seen from behind"


def _movement(motion: float) -> str:
    if motion < 0.1:
        return "hardly moves"
    if motion < 0.35:
        return "moves calmly"
    return "moves with large gestures" if motion < 1.0 else "moves fast"


def facts(task: Task, clip: Analysis, track: int, character: Candidate, scene: Candidate | None, roles: tuple[str, ...]) -> WeaverFacts:
    """What the brain is told for one person of the clip and the character that takes its place."""
    assert character.person is not None
    return WeaverFacts(
        task=task,
        real=look_of(clip.people[track], clip.appearance[track], clip.width),
        character=look_of(character.person, character.appearance, character.size[0]),
        scene="backdrop" if scene else "",
        roles=roles,
    )


def woven(answer: WeaverAnswer) -> Prompt:
    """The first prompts."""
    return Prompt(image=clean(answer.image), negative=clean(answer.negative, 2000), video=clean(answer.video))


def revised(prompt: Prompt, findings: tuple[Finding, ...], answer: WeaverAnswer) -> Prompt:
    """The prompts of the next attempt: the brain's words, and the asked size of the character, which no brain sets."""
    scale = prompt.scale
    for finding in findings:
        scale *= SCALE_STEP.get(finding.code, 1.0)
    return woven(answer).model_copy(
        update={
            "findings": (*prompt.findings, *(f.words for f in findings)),
            "revision": prompt.revision + 1,
            "scale": rounded(min(max(scale, SCALE_LIMITS[0]), SCALE_LIMITS[1])),
        }
    )


def scene_of(frames_THWC: npt.NDArray[np.uint8], people: People, analysis: Analysis) -> Scene:
    """The target video in words: its real people and its real scene. Frames are RGB."""
    background = people.masks_PTHW.max(0) < 64 if people.count else np.ones(frames_THWC.shape[:3], bool)
    picked = np.unique(np.linspace(0, len(frames_THWC) - 1, 5).astype(int))
    lab = np.concatenate(
        [cv2.cvtColor(frames_THWC[t].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[background[t]] for t in picked] or [np.zeros((1, 3))]
    )
    median = np.median(lab, 0) if len(lab) else np.zeros(3)
    height, width = frames_THWC.shape[1:3]
    return Scene(
        people=tuple(look_of(p, d, width) for p, d in zip(analysis.people, analysis.appearance, strict=True)),
        backdrop=colour_name(median),
        brightness="dark" if median[0] < 30 else "bright" if median[0] > 65 else "evenly lit",
        orientation="portrait" if height > width else "landscape",
    )
