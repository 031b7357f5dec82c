"""The step that asks the built-in brain."""

from __future__ import annotations

from pydantic import JsonValue

from agents.brains.base import Facts
from agents.brains.builtin import BuiltinBrain
from factory.steps import step
from factory.workbench import Workbench
from manifests.records import Frozen


class RulesRequest(Frozen):
    facts: Facts


class Ruled(Frozen):
    answer: dict[str, JsonValue]
    """of the type that the facts name"""


@step(depth=4)
def ask_rules(request: RulesRequest, bench: Workbench) -> Ruled:
    """What the rules answer."""
    return Ruled(answer=BuiltinBrain().answer(request.facts).model_dump(mode="json"))
