"""A step that tells what a generator says, and where it was asked."""

from __future__ import annotations

import time
from typing import Any

import ray
from pydantic import JsonValue

from factory.steps import step
from factory.workbench import Workbench
from manifests.records import Frozen


class TellRequest(Frozen):
    kind: str
    options: dict[str, JsonValue]
    number: int


class Told(Frozen):
    word: str
    node: str
    """empty in a child, which is not Ray's"""


@step(depth=1)
def tell(request: TellRequest, bench: Workbench) -> Told:
    """Load the generator and ask it, slowly enough for another worker to get something to do as well."""
    time.sleep(0.25)
    made: Any = bench.generator(request.kind, dict(request.options))
    return Told(word=made.word(), node=ray.get_runtime_context().get_node_id() if ray.is_initialized() else "")
