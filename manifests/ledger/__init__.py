"""A SQLite index over the store's outcomes and calls: look-up, decisions on jobs, costs. The store is the truth; this file may be deleted.

Write-ahead logging keeps every committed row through a SIGKILL. A file that SQLite can't read is moved aside and, where the store is
at hand, filled again from it; so is one of an earlier format. What the store does not hold (jobs, quarantines, tries without an outcome) is
lost with the file: the next run decides its jobs anew from the store, without repeating a step.
"""

from __future__ import annotations

from manifests.ledger.index import Ledger
from manifests.ledger.rows import (
    JobCost,
    JobState,
    PairSketch,
    QuarantinedStep,
    SliceCost,
    State,
    StepCost,
    pack_pair,
    sketch_of,
    sketch_pair,
    unpack_pair,
    unpack_sketch,
)

__all__ = [
    "JobCost", "JobState", "Ledger", "PairSketch", "QuarantinedStep", "SliceCost", "State", "StepCost", "pack_pair", "sketch_of",
    "sketch_pair", "unpack_pair", "unpack_sketch",
]  # fmt: skip
