"""A workbench in a child process, for pools with `command`: `python -m factory.lines_worker`. See factory.worker.CommandWorker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generators.workers.child import serve

if TYPE_CHECKING:
    from factory.workbench import Workbench

_benches: list[Workbench] = []


def load(about: dict[str, Any]) -> None:
    """`about`: what Workbench takes."""
    import cv2

    cv2.setNumThreads(1)  # as in factory.worker
    from factory.workbench import Workbench

    _benches.append(Workbench(**about))


def handle(call: dict[str, Any]) -> dict[str, Any]:
    """`call`: what Workbench.run takes."""
    return _benches[0].run(**call)


if __name__ == "__main__":
    serve(handle, load)
