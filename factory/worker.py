"""What runs in a worker's process: one Ray actor, one step at a time."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

LAST_LINES = 20
"""of a dead worker that are kept"""


class Worker:
    """The Ray actor: a workbench behind a remote call."""

    def __init__(self, store_url: str, files: dict[str, str], pool: str, gpus: float, accelerator: str) -> None:
        import cv2

        cv2.setNumThreads(1)  # a worker is one core; the pool is the parallelism
        from factory.workbench import Workbench

        self._bench = Workbench(store_url, files, pool, gpus, accelerator)

    def ready(self) -> dict[str, str]:
        """Answers when the worker stands: its node, and the file that its standard error goes to."""
        import ray

        return {"node": ray.get_runtime_context().get_node_id(), "stderr": os.path.realpath(f"/proc/{os.getpid()}/fd/2")}

    def run(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
        """See Workbench.run."""
        return self._bench.run(name, request, key, job, slice_)


def last_lines(file: str) -> str:
    """The end of a log of this node; empty where it can't be read."""
    try:
        with Path(file).open(errors="replace") as stream:
            lines = deque(stream, LAST_LINES)
    except OSError:
        return ""
    return "".join(lines)
