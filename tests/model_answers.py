"""What a well-behaved model would answer to the facts of each role, for a scripted server that stands in for one."""

from __future__ import annotations

from typing import Any


def good(facts: dict[str, Any]) -> dict[str, Any]:
    """A fitting answer without findings."""
    return {
        "selector": _select, "weaver": _weave, "reviser": _revise, "captioner": _caption, "image_checker": _fine, "video_checker": _fine,
    }[facts["role"]](facts)  # fmt: skip


def _select(facts: dict[str, Any]) -> dict[str, Any]:
    picks = [{"number": i, "score": 0.5, "reasons": ["a whole body"]} for i in reversed(range(len(facts["fits"])))]
    scene = 0 if facts["scenes"] else None
    return {"characters": picks, "scene": scene, "clothing": None, "difficulty": "easy"}


def _weave(facts: dict[str, Any]) -> dict[str, Any]:
    return {"image": "The person of picture 1, upright.", "negative": "text", "video": "A new character walks."}


def _revise(facts: dict[str, Any]) -> dict[str, Any]:
    words = " ".join(f["words"] for f in facts["findings"])
    return {"image": f"{facts['prompt']['image']} Mended: {words}", "negative": "text", "video": facts["prompt"]["video"]}


def _caption(facts: dict[str, Any]) -> dict[str, Any]:
    return {"caption": "A person in dark clothes walks across a bright room from left to right."}


def _fine(facts: dict[str, Any]) -> dict[str, Any]:
    return {"findings": [], "score": 0.9}
