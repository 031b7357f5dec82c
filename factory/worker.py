"""What runs in a worker's process: one Ray actor, one step at a time, there or in a child of another environment."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generators.workers.lines import Child, ChildDied
from manifests.errors import Transient

LAST_LINES = 20
"""of a dead worker that are kept"""


class Worker:
    """The Ray actor: a workbench behind a remote call."""

    def __init__(self, store_url: str, files: dict[str, str], pool: str, gpus: float, accelerator: str, texts: Mapping[str, str]) -> None:
        """What Workbench takes."""
        import cv2

        cv2.setNumThreads(1)  # a worker is one core; the pool is the parallelism
        from factory.workbench import Workbench

        self._at = _at_file()
        self._bench = Workbench(store_url, files, pool, gpus, accelerator, texts)

    def ready(self) -> dict[str, str]:
        """Answers when the worker stands: its node, the file that its standard error goes to, and the one that says which step it is at."""
        return _standing(self._at)

    def run(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
        """See Workbench.run."""
        self._at.write_text(key)
        return self._bench.run(name, request, key, job, slice_)


class CommandWorker:
    """The Ray actor of a pool with `command`: its workbench stands in a child that the command started. It ends with its child, so that the
    pool sees a dead worker and no standing one that fails whatever it is given."""

    def __init__(
        self,
        store_url: str,
        files: dict[str, str],
        pool: str,
        gpus: float,
        accelerator: str,
        texts: Mapping[str, str],
        command: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        """Raises Transient when the child does not come up."""
        self._at = _at_file()
        about = {"store_url": store_url, "files": files, "pool": pool, "gpus": gpus, "accelerator": accelerator, "texts": dict(texts)}
        seen = {name: os.path.expandvars(value) for name, value in env.items()}  # as Ray does with those of its own workers
        self._child = Child([*command, "-m", "factory.lines_worker"], about, seen)
        try:
            self._child.start()
        except ChildDied as died:  # one line: it is what is told of a worker that does not start
            raise Transient(died.message) from None

    def ready(self) -> dict[str, str]:
        """As Worker's. The child's standard error goes to the worker's."""
        return _standing(self._at)

    def run(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
        """See Workbench.run."""
        if not self._child.alive:  # it died while it waited: this step, which has not begun, is not to blame
            self._at.write_text("-")
            os._exit(1)
        self._at.write_text(key)
        try:
            return self._child.call({"name": name, "request": request, "key": key, "job": job, "slice_": slice_})
        except ChildDied as died:
            print(died, file=sys.stderr, flush=True)
            os._exit(1)


def _at_file() -> Path:
    from factory.workbench import TEMPORARY

    return Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-"), "at")


def _standing(at: Path) -> dict[str, str]:
    import ray

    node = ray.get_runtime_context().get_node_id()
    return {"node": node, "stderr": os.path.realpath(f"/proc/{os.getpid()}/fd/2"), "at": str(at)}


def last_words(ready: dict[str, str]) -> tuple[str, str]:
    """What a dead worker of this node has left: the end of its standard error, and the key of the last step that it began; both empty where
    they can't be read."""
    lines, key = "", ""
    with contextlib.suppress(OSError), Path(ready["stderr"]).open(errors="replace") as stream:
        lines = "".join(deque(stream, LAST_LINES))
    with contextlib.suppress(OSError):
        key = Path(ready["at"]).read_text()
    return lines, key
