"""The detector's looks at a video, on a thread of their own: the scheduled ones run one ahead of the tracker.

What a look sees depends on its frame only, never on when it was made.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from generators.poses.blazepose import BlazePose, Detection
from generators.poses.tracks import Bytes

DETECT_EVERY_S = 0.2
CLOSELY_EVERY = 4
"""of so many scheduled looks, one goes over the picture in parts and so finds small people too"""


class Lookout:
    """A context manager. `at` says who is detected in a frame."""

    def __init__(self, model: BlazePose, frames_THWC: Bytes, fps: float) -> None:
        self._model = model
        self._frames_THWC = frames_THWC
        self.every = max(1, round(DETECT_EVERY_S * fps))
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[list[Detection]]] = {}

    def __enter__(self) -> Lookout:
        self._send(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def scheduled(self, frame: int) -> bool:
        """Whether somebody looks at this frame in any case."""
        return frame % self.every == 0

    def at(self, frame: int) -> list[Detection]:
        """People in a frame, best first. Frames are asked for in order; those not scheduled cost the tracker the wait."""
        if frame not in self._ahead:
            self._send(frame)
        found = self._ahead.pop(frame)
        if self.scheduled(frame):
            self._send(frame + self.every)
        return found.result()

    def _send(self, frame: int) -> None:
        if frame < len(self._frames_THWC):
            closely = frame % (CLOSELY_EVERY * self.every) == 0
            look = self._model.detect_closely if closely else self._model.detect
            self._ahead[frame] = self._pool.submit(look, self._frames_THWC[frame])
