"""Is a video file sound? What shows nothing new, what shows nothing at all, and what damage the decoder hides."""

from __future__ import annotations

import os
import subprocess
from itertools import groupby, islice
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BLACK_LUMA = 16.0
"""of 255: a frame with a lower mean is black"""
ERRORS_COUNTED = 100
"""a hostile file may make the decoder complain for ever"""
_THUMB_PX = 160
_BLUR_PX = 1.5
"""noise goes, a moving hand stays"""
_SAME_LEVELS = 2.5
"""the most that any place of two thumbnails that show the same may differ"""
_NOISE_FACTOR, _NOISE_MOST = 8.0, 1.0
"""or so many times as much as most of the picture does, where that is so few levels: grain on a frozen frame is no motion"""


def thumbnail(frame_HWC: npt.NDArray[np.uint8]) -> Floats:
    """Luma (h, w), 0 to 255, of a frame (RGB) reduced to a longest side of 160 px and softened."""
    grey = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _THUMB_PX / max(grey.shape))
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR_PX))


def is_black(thumb_HW: Floats) -> bool:
    """Whether a frame shows nothing."""
    return bool(thumb_HW.mean() < BLACK_LUMA)


def show_the_same(a_HW: Floats, b_HW: Floats) -> bool:
    """Whether two frames' thumbnails differ by no more than coding noise and grain: a frozen picture."""
    change = np.abs(a_HW - b_HW)
    usual, most = float(np.median(change)), float(change.max())
    return most <= _SAME_LEVELS or (usual <= _NOISE_MOST and most <= _NOISE_FACTOR * usual)


def longest_run(flags: npt.ArrayLike) -> int:
    """The longest run of true values."""
    return max((len(list(run)) for flag, run in groupby(np.asarray(flags, bool).tolist()) if flag), default=0)


def decoder_errors(path: Path) -> int:
    """How often ffmpeg complains while it decodes the first video track, up to 100; for files that `containers.examine` let pass.

    Damage in the middle of a file is concealed by every decoder: the frames are all there, smeared."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "error", "-threads", "1"]
    # "file:" and an absolute path: no name can be taken for an option or a protocol.
    command += ["-protocol_whitelist", "file", "-i", f"file:{os.path.abspath(path)}", "-map", "0:v:0", "-f", "null", "-"]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    with child.stderr:
        try:
            return sum(1 for _ in islice(child.stderr, ERRORS_COUNTED))
        finally:
            child.kill()
            child.wait()
