"""A worker that dies after every call, when the outcome is kept and the answer has not left."""

from __future__ import annotations

import os
import signal
from typing import Any

from factory.worker import Worker


class DyingWorker(Worker):
    """See above."""

    def run(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
        super().run(name, request, key, job, slice_)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}
