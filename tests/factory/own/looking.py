"""A step that tells where it runs, or dies or hangs there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from factory.steps import step
from factory.workbench import Workbench
from manifests.records import Frozen


class LookRequest(Frozen):
    number: int = 0
    variable: str = ""
    """of the environment, to be told"""
    log: str
    """a file that gets a line for every look that begins"""
    end: str = ""
    """die: take the process along; hang: never come back, with a child"""


class Look(Frozen):
    prefix: str
    """of the interpreter"""
    value: str | None
    pid: int
    parent: int
    pool: str
    processors: str | None
    """GPUs, as Ray gives them"""


@step(depth=1)
def look(request: LookRequest, bench: Workbench) -> Look:
    """Look around."""
    with Path(request.log).open("a") as log:
        log.write(f"{request.number}\n")
    print("printed by a step")
    if request.end == "die":
        print("these are my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    if request.end == "hang":
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    seen = os.environ.get(request.variable)
    return Look(
        prefix=sys.prefix, value=seen, pid=os.getpid(), parent=os.getppid(), pool=bench.pool,
        processors=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )  # fmt: skip
