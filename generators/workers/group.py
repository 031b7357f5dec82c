"""A model on several GPUs that stays: a group of ranks under torchrun, spoken to as one child, and what the end of any child means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from generators.workers.command import FULL_DISK, KILLED, NOT_FOUND, OOM, TERMINATED
from generators.workers.lines import ChildDied
from manifests.errors import MotionpairError, OutOfMemory, OutOfSpace, Transient

RANKS = Path(__file__).with_name("ranks.py")
"""to be run by torchrun in the model's own environment: [torchrun, …, RANKS, script]"""
TORCHRUN = ("-m", "torch.distributed.run")
"""of any Python that has torch; the command `torchrun` need not be on the path"""


def torchrun(python: str, ranks: int, *command: str) -> list[str]:
    """The command line that runs a script and its arguments once a GPU of this node, as that interpreter's torchrun.

    Without restarts: a rank that dies takes the others along, and the owner starts a new group with the next call.
    """
    if ranks < 1:
        raise ValueError(f"ranks is {ranks}; it must be at least 1")
    return [python, *TORCHRUN, "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "0", *command]


def served(python: str, ranks: int, script: str, *arguments: str) -> list[str]:
    """The command of a `lines.Child` whose `load` and `handle` stand in `script` and are called in every rank."""
    return torchrun(python, ranks, str(RANKS), script, *arguments)


def as_response(died: ChildDied) -> MotionpairError:
    """What a child's end calls for: Transient where it hung or is not on this node, OutOfMemory, OutOfSpace, else a fault."""
    said = str(died)
    made: MotionpairError
    if died.status == KILLED or _says(died.lines, OOM):
        made = OutOfMemory(said)
    elif _says(died.lines, FULL_DISK.pattern):
        made = OutOfSpace(said)
    elif died.status is None or died.status == TERMINATED or died.status in NOT_FOUND:
        made = Transient(said)
    else:
        made = MotionpairError(said)
    for note in getattr(died, "__notes__", ()):
        made.add_note(note)
    return made


def _says(lines: Sequence[str], pattern: str) -> bool:
    return any(re.search(pattern, line) for line in lines)
