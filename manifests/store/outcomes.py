"""What a step answered and what it took, as records and as the bytes of their files."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from manifests.calls import CallRecord
from manifests.errors import Damaged
from manifests.records import Artifact, Digest, Frozen, canonical_json, digest_of


class Cost(Frozen):
    """What an outcome took. Kept beside it, never part of a key or a release.

    A step is charged as a whole to the job whose call had it run; jobs that ask for it later have it for nothing.
    """

    seconds: float = Field(default=0.0, ge=0)
    """of a worker; of waiting for the model's server where the pool is the brain"""
    pool: str = ""
    attempts: int = Field(default=1, ge=1)
    gpu_seconds: float = Field(default=0.0, ge=0)
    """seconds times the GPUs, or fraction of one, that the worker holds"""
    accelerator: str = ""
    """type of these GPUs, as Ray names it; empty without one"""
    bytes_in: int = Field(default=0, ge=0)
    """of the artifacts, clips and pictures that were opened"""
    bytes_out: int = Field(default=0, ge=0)
    """of the artifacts that were made"""
    job: Digest | Literal[""] = ""
    """whose call had the step run; empty for what belongs to no job: indexing"""
    slice: str = ""
    """of that job"""


class Outcome(Frozen):
    """How one call of a step ended. A rejection is an outcome like any other; faults of machines are not."""

    key: Digest
    """digest of the frozen request: same key, same answer"""
    step: str
    status: Literal["ok", "rejected"]
    reason: str = ""
    """code, when rejected"""
    message: str = ""
    answer: JsonValue = None
    artifacts: tuple[Artifact, ...] = ()
    request: JsonValue = None
    cost: Cost = Cost()
    earlier: Cost | None = None
    """what it took where it was made, when it was taken over from another store: nothing of it was spent here"""

    @property
    def made_for(self) -> Cost:
        """What making it took, wherever that was."""
        return self.earlier or self.cost


def outcome_bytes(outcome: Outcome) -> bytes:
    """The file of an outcome."""
    return canonical_json({"digest": digest_of(outcome), "outcome": outcome.model_dump(mode="json")})


def parse_outcome(body: bytes, key: str) -> Outcome:
    """The outcome of a file. Raises Damaged when it is not what was written."""
    try:
        envelope = json.loads(body)
        content = envelope["outcome"]
        outcome = Outcome.model_validate(content)
        # The content as it was written: outcomes of earlier versions had fewer fields.
        intact = outcome.key == key and envelope["digest"] == digest_of(content)
    except (ValueError, KeyError, TypeError, ValidationError):
        intact = False
    if not intact:
        raise Damaged(f"the outcome {key} is not what was written; its step has to run again")
    return outcome


def call_bytes(record: CallRecord) -> bytes:
    """The file of a request's record."""
    return canonical_json({"digest": digest_of(record), "call": record.model_dump(mode="json")})


def parse_call(body: bytes, path: str) -> CallRecord:
    """The record of a file. Raises Damaged when it is not what was written."""
    try:
        envelope = json.loads(body)
        record = CallRecord.model_validate(envelope["call"])
        intact = path.endswith(f"{record.key}/{record.id}.json") and envelope["digest"] == digest_of(envelope["call"])
    except (ValueError, KeyError, TypeError, ValidationError):
        intact = False
    if not intact:
        raise Damaged(f"the call record {path} is not what was written; what it cost is unknown")
    return record
