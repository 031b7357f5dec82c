"""The brain that needs no network: rules over measured features. Deterministic; it has no eyes, so it inspects nothing."""

from __future__ import annotations

from agents.brains.base import (
    CaptionerAnswer,
    CaptionerFacts,
    Facts,
    Fit,
    Look,
    Pick,
    ReviserFacts,
    SelectorAnswer,
    SelectorFacts,
    WeaverAnswer,
    WeaverFacts,
)
from agents.fitting import JOINTS_SUIT, YAW_SUITS_DEG
from manifests.records import Frozen, rounded

COUNTED = {1: "One person is seen", 2: "Two people are seen"}


class BuiltinBrain:
    """See agents.brains.base.RuleBrain."""

    def answer(self, facts: Facts) -> Frozen:
        match facts:
            case SelectorFacts():
                return select(facts)
            case WeaverFacts():
                return weave(facts)
            case ReviserFacts():
                return revise(facts)
            case CaptionerFacts():
                return caption(facts)
        raise TypeError(f"the built-in brain has no eyes; it can't answer as {facts.role}")


def select(facts: SelectorFacts) -> SelectorAnswer:
    """Those that suit as the plan dealt them, so that everybody keeps its share of the jobs; then the others, the best score first."""
    order = sorted(range(len(facts.fits)), key=lambda i: (0.0 if _suits(facts.fits[i]) else 1 - _score(facts.fits[i]), i))
    picks = tuple(Pick(number=i, score=rounded(_score(facts.fits[i])), reasons=_reasons(facts.fits[i])) for i in order)
    best = picks[0].score if picks else 0.0
    return SelectorAnswer(
        characters=picks, scene=0 if facts.scenes else None, clothing=0 if facts.clothing else None,
        difficulty="easy" if best > 0.85 else "medium" if best > 0.6 else "hard",
    )  # fmt: skip


def weave(facts: WeaverFacts) -> WeaverAnswer:
    """Plain words for the painter and the animator."""
    pictures = "; ".join(f"picture {i + 1} is the {role}" for i, role in enumerate(facts.roles))
    who = _person(facts.character)
    if facts.task == "replacement":
        image = f"{pictures}. Show {who}, {facts.real.framing}, {facts.real.facing}, alone before a plain backdrop."
        video = f"{who} takes the place of the person in the clip and {facts.real.movement}; everything else stays."
    else:
        where = f"in front of a {facts.scene} scene" if facts.scene else "in front of the backdrop of picture 1"
        image = f"{pictures}. Show {who}, {facts.real.framing}, {facts.real.facing}, {facts.real.place}, {where}."
        video = f"{who} {facts.real.movement} {where}. The camera stands still."
    return WeaverAnswer(image=_sentence(image), negative="extra limbs, missing limbs, blur, text, other people", video=_sentence(video))


def revise(facts: ReviserFacts) -> WeaverAnswer:
    """The same words, and the findings after those they are about."""
    words = " ".join(f.words for f in facts.findings)
    told = {name: getattr(facts.prompt, name) for name in ("image", "negative", "video")}
    return WeaverAnswer.model_validate(told | {facts.about: f"{told[facts.about]} {words}"[:4000]})


def caption(facts: CaptionerFacts) -> CaptionerAnswer:
    """What was measured, in sentences."""
    scene = facts.scene
    opening = COUNTED.get(len(scene.people), f"{len(scene.people)} people are seen")
    article = "an" if scene.brightness[0] in "aeiou" else "a"
    parts = [f"{opening} in {article} {scene.brightness} {scene.orientation} shot with a mostly {scene.backdrop} background."]
    for look in scene.people:
        parts.append(_sentence(f"{_person(look)} stands {look.place}, {look.framing}, {look.facing}, and {look.movement}."))
    parts.append("The background stays as it is while the body moves; the video is realistic and unedited.")
    return CaptionerAnswer(caption=" ".join(parts)[:4000])


def _suits(fit: Fit) -> bool:
    return fit.framing and fit.joints >= JOINTS_SUIT and fit.yaw_gap_deg <= YAW_SUITS_DEG


def _score(fit: Fit) -> float:
    """By visible joints, framing, body yaw, identity distance and the candidate's own pose confidence, 0 to 1."""
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
