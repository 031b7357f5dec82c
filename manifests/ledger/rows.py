"""What the ledger's rows say, as records."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from manifests.calls import CallRecord
from manifests.records import Digest, Frozen, Pair, Split, Task, canonical_json
from manifests.store import Cost, Outcome

State = Literal["accepted", "rejected", "review", "quarantined", "undecided"]
MICRO = 1_000_000
"""parts of a second in which time is added up: integers add up exactly"""


class JobState(Frozen):
    """Where one job of the plan stands."""

    job: Digest
    slice: str
    task: Task
    split: Split
    state: State
    reason: str = ""
    message: str = ""
    asked: str = ""
    """digest of everything that can change the decision (the job, its part of the recipe, the code): another one means it has to be made
    anew; empty: make it anew in any case"""
    blamed: str = ""
    """key of the step that is in quarantine, when the job is for its sake"""
    pair: bytes | None = Field(default=None, repr=False)
    """of `pack_pair`, when accepted; only `Ledger.pair_of` reads it back"""
    sketch: bytes = Field(default=b"", repr=False)
    """of `sketch_pair`: what decides about the pair's place in the release, some tenth of its bytes"""


class StepCost(Frozen):
    """What one step took in one pool."""

    step: str
    pool: str
    calls: int
    """that ended with an outcome"""
    seconds: float
    attempts: int
    accelerator: str = ""
    gpu_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    lost: int = 0
    """tries that ended without an outcome; their time is counted in `seconds` and `gpu_seconds`"""


class SliceCost(Frozen):
    """What all steps took that were run for one slice's jobs, in one pool."""

    slice: str
    """empty: for no job, which is indexing"""
    pool: str
    accelerator: str
    seconds: float
    gpu_seconds: float
    bytes_in: int
    bytes_out: int


class JobCost(Frozen):
    """What the steps took that were run for one job, in one pool."""

    job: str
    """empty: for none"""
    slice: str
    pool: str
    accelerator: str
    steps: int
    attempts: int
    micros: int
    """of a worker, in millionths of a second"""
    gpu_micros: int
    bytes_in: int
    bytes_out: int


class QuarantinedStep(Frozen):
    """A step that is not tried again until somebody says so."""

    key: Digest
    step: str
    request: dict[str, Any]
    strikes: tuple[str, ...]
    """why each try failed"""
    details: str
    """the last error's traceback and the worker's last lines"""


def pack_pair(pair: Pair) -> bytes:
    """A pair as the ledger keeps it: with its prints, which are no part of its own JSON."""
    prints = pair.prints.model_dump(mode="json") if pair.prints else None
    return canonical_json({**pair.model_dump(mode="json"), "prints": prints})


def unpack_pair(body: bytes) -> Pair:
    """The pair of `pack_pair`."""
    return Pair.model_validate_json(body)


@dataclass(frozen=True, slots=True)
class PairSketch:
    """What decides about a pair's place in a release: enough to choose it, quick to read, and small enough to hold all of a large run's."""

    driving: Digest
    target: Digest
    source: Digest
    start_frame: int
    crop: tuple[int, int, int, int]
    split: Split
    reference_in_target: bool
    shown: bytes = b""
    """the target's print, packed; empty: nobody looked"""
    painted: tuple[bytes, ...] = ()
    """the painted pictures' prints, packed"""


def sketch_of(pair: Pair) -> PairSketch:
    """The sketch of a pair."""
    line, prints = pair.lineage, pair.prints
    return PairSketch(
        pair.driving.digest, pair.shown[0].digest, line.source, line.start_frame, line.crop, pair.split, pair.reference_in_target,
        prints.target.packed if prints else b"", tuple(one.packed for one in prints.painted) if prints else (),
    )  # fmt: skip


def sketch_pair(pair: Pair) -> bytes:
    """The sketch of a pair as the ledger keeps it."""
    sketch = sketch_of(pair)
    content = {name: getattr(sketch, name) for name in PairSketch.__slots__}
    return canonical_json({**content, "shown": sketch.shown.hex(), "painted": [one.hex() for one in sketch.painted]})


def unpack_sketch(body: bytes) -> PairSketch:
    """The sketch of `sketch_pair`; it is taken as it was written, unchecked."""
    content = json.loads(body)
    shown, painted = bytes.fromhex(content.pop("shown")), tuple(map(bytes.fromhex, content.pop("painted")))
    return PairSketch(**{**content, "crop": _shared(tuple(content["crop"]))}, shown=shown, painted=painted)


@functools.lru_cache(maxsize=1024)
def _shared(crop: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """One object for all equal crops."""
    return crop


def outcome_row(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.key, outcome.step, outcome.status, outcome.reason, *cost_columns(outcome.cost)


def cost_columns(cost: Cost) -> tuple[Any, ...]:
    return (
        cost.pool, cost.accelerator, round(cost.seconds * MICRO), round(cost.gpu_seconds * MICRO), cost.attempts, cost.bytes_in,
        cost.bytes_out, cost.job, cost.slice,
    )  # fmt: skip


def body_row(outcome: Outcome) -> tuple[str, bytes]:
    return outcome.key, canonical_json(outcome)


def call_row(record: CallRecord) -> tuple[Any, ...]:
    return (
        record.id, record.key, record.role, record.model, record.attempt, record.state, record.prompt_tokens, record.completion_tokens,
        record.money_nano,
    )  # fmt: skip
