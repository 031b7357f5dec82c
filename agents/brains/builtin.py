"""The brain that needs no network: rules over measured features. Deterministic."""

from __future__ import annotations

from agents.brains.base import Fit, Look, Ranked, Scene, WeaveRequest
from manifests.records import Finding, Prompt, rounded

SCALE_STEP = {"too_small": 1.2, "too_large": 0.83, "cropped": 0.8}
"""What a revision does to the asked size of the character."""


class BuiltinBrain:
    """See agents.brains.base.Brain."""

    def rank(self, fits: tuple[Fit, ...]) -> tuple[Ranked, ...]:
        """By visible joints, framing, body yaw, identity distance and the candidate's own pose confidence; ties by digest."""
        ranked = [Ranked(candidate=fit.candidate, score=rounded(_score(fit)), reasons=_reasons(fit)) for fit in fits]
        return tuple(sorted(ranked, key=lambda r: (-r.score, r.candidate)))

    def weave(self, request: WeaveRequest) -> Prompt:
        pictures = "; ".join(f"picture {i + 1} is the {role}" for i, role in enumerate(request.roles))
        who = _person(request.character)
        if request.task == "replacement":
            image = f"{pictures}. Show {who}, {request.real.framing}, {request.real.facing}, alone before a plain backdrop."
            video = f"{who} takes the place of the person in the clip and {request.real.movement}; everything else stays."
        else:
            where = f"in front of a {request.scene} scene" if request.scene else "in front of the backdrop of picture 1"
            image = f"{pictures}. Show {who}, {request.real.framing}, {request.real.facing}, {request.real.place}, {where}."
            video = f"{who} {request.real.movement} {where}. The camera stands still."
        return Prompt(image=_sentence(image), negative="extra limbs, missing limbs, blur, text, other people", video=_sentence(video))

    def revise(self, prompt: Prompt, findings: tuple[Finding, ...]) -> Prompt:
        scale = prompt.scale
        for finding in findings:
            scale *= SCALE_STEP.get(finding.code, 1.0)
        words = " ".join(f.words for f in findings)
        return prompt.model_copy(
            update={
                "image": f"{prompt.image} {words}"[:4000],
                "findings": (*prompt.findings, *(f.words for f in findings)),
                "revision": prompt.revision + 1,
                "scale": rounded(min(max(scale, 0.3), 2.0)),
            }
        )

    def caption(self, scene: Scene) -> str:
        count = len(scene.people)
        opening = {1: "One person is seen", 2: "Two people are seen"}.get(count, f"{count} people are seen")
        article = "an" if scene.brightness[0] in "aeiou" else "a"
        parts = [f"{opening} in {article} {scene.brightness} {scene.orientation} shot with a mostly {scene.backdrop} background."]
        for look in scene.people:
            parts.append(_sentence(f"{_person(look)} stands {look.place}, {look.framing}, {look.facing}, and {look.movement}."))
        parts.append("The background stays as it is while the body moves; the video is realistic and unedited.")
        return " ".join(parts)[:4000]


def _score(fit: Fit) -> float:
    yaw = max(0.0, 1 - fit.yaw_gap_deg / 90)
    identity = min((fit.identity_gap or 0.0) / 40, 1.0)
    return 0.35 * fit.joints + 0.2 * fit.framing + 0.2 * yaw + 0.15 * identity + 0.1 * fit.confidence


def _reasons(fit: Fit) -> tuple[str, ...]:
    return (
        f"shows {fit.joints:.0%} of the joints that the clip shows",
        "framing suits the clip" if fit.framing else "framing is closer than the clip's",
        f"turned {fit.yaw_gap_deg:.0f}° from the clip's person",
        "clothing colours can't be compared" if fit.identity_gap is None else f"clothing colours differ by {fit.identity_gap:.0f}",
    )


def _person(look: Look) -> str:
    """What was measured are colours; whether they are of cloth or of skin is not known."""
    seen = [(look.hair, "hair or headwear"), (look.top, "on the upper body"), (look.bottoms, "on the legs")]
    colours = [f"{colour} {where}" for colour, where in seen if colour]
    return f"a person with {_listed(colours)}" if colours else "a person"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
