"""What runs in a worker's process: one Ray actor, one step at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
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
        from factory.workbench import TEMPORARY, Workbench

        self._at = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-"), "at")
        self._bench = Workbench(store_url, files, pool, gpus, accelerator)

    def ready(self) -> dict[str, str]:
        """Answers when the worker stands: its node, the file that its standard error goes to, and the one that says which step it is at."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return {"node": node, "stderr": os.path.realpath(f"/proc/{os.getpid()}/fd/2"), "at": str(self._at)}

    def run(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
        """See Workbench.run."""
        self._at.write_text(key)
        return self._bench.run(name, request, key, job, slice_)


def last_words(ready: dict[str, str]) -> tuple[str, str]:
    """What a dead worker of this node has left: the end of its standard error, and the key of the last step that it began; both empty where
    they can't be read."""
    lines, key = "", ""
    with contextlib.suppress(OSError), Path(ready["stderr"]).open(errors="replace") as stream:
        lines = "".join(deque(stream, LAST_LINES))
    with contextlib.suppress(OSError):
        key = Path(ready["at"]).read_text()
    return lines, key
