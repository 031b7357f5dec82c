"""Generators of a user's own, for tests: one that tells the time, one that kills its worker, one that hangs, one that fails once."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from generators.base import Capabilities, Options, Report, VideoGenerator, VideoRequest
from manifests import media

CAN = Capabilities(modes=frozenset({"pose"}), people_max=6, deterministic=True)


class MarkOptions(Options):
    mark: str = ""
    """a file that remembers earlier tries"""


class Ticker(VideoGenerator):
    """Writes 30 fps, each frame as bright as its number."""

    capabilities: ClassVar[Capabilities] = CAN.model_copy(update={"fps": 30.0})

    def run(self, request: VideoRequest, out: Path) -> Report:
        count = int(request.geometry.duration_s * 30) + 2
        g = request.geometry
        levels = 40 + 8 * np.arange(count, dtype=np.uint8)
        media.write_video(out, np.broadcast_to(levels[:, None, None, None], (count, g.height, g.width, 3)), 30)
        return Report()


class Liar(Ticker):
    """Comes back without having written anything but a stump."""

    def run(self, request: VideoRequest, out: Path) -> Report:
        out.write_bytes(b"\0\0\0\x18ftypmp42")
        return Report()


class Killer(VideoGenerator):
    """Takes its worker with it."""

    capabilities: ClassVar[Capabilities] = CAN

    def run(self, request: VideoRequest, out: Path) -> Report:
        print("these are my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return Report()


class KillerOnce(Ticker):
    """Takes its worker with it the first time."""

    options_type: ClassVar[type[Options]] = MarkOptions

    def run(self, request: VideoRequest, out: Path) -> Report:
        assert isinstance(self.options, MarkOptions)
        mark = Path(self.options.mark)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(request, out)


class Dice(VideoGenerator):
    """Never makes the same video twice."""

    capabilities: ClassVar[Capabilities] = CAN

    def run(self, request: VideoRequest, out: Path) -> Report:
        g = request.geometry
        noise = np.random.default_rng().integers(0, 256, (g.frames, g.height, g.width, 3), dtype=np.uint8)
        media.write_video(out, noise, g.fps)
        return Report()


class FullDisk(VideoGenerator):
    """Finds no room for its file until its mark is there; then a video that grows brighter."""

    capabilities: ClassVar[Capabilities] = CAN
    options_type: ClassVar[type[Options]] = MarkOptions

    def run(self, request: VideoRequest, out: Path) -> Report:
        assert isinstance(self.options, MarkOptions)
        if not Path(self.options.mark).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
        g = request.geometry
        levels = 60 + 8 * np.arange(g.frames, dtype=np.uint8)
        media.write_video(out, np.broadcast_to(levels[:, None, None, None], (g.frames, g.height, g.width, 3)), g.fps)
        return Report()


class Sleeper(VideoGenerator):
    """Never comes back."""

    capabilities: ClassVar[Capabilities] = CAN

    def run(self, request: VideoRequest, out: Path) -> Report:
        time.sleep(3600)
        return Report()
