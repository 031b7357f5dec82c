"""Videos that show their own frame numbers, and what else the tests of media files share."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

BITS, BAR_PX = 10, 16


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def numbered(count: int, height: int = 64) -> np.ndarray:
    """Frames that show their own number as white and black bars. Shape (count, height, 160, 3)."""
    bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
    row = np.repeat(bits * 255, BAR_PX, axis=1).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[:, None, :, None], (count, height, BITS * BAR_PX, 3)))


def numbers(frames: np.ndarray) -> list[int]:
    """Read the bars again, whatever the frames' size."""
    bars = np.stack([cv2.resize(frame, (BITS, 1), interpolation=cv2.INTER_AREA)[0, :, 0] for frame in frames])
    return [int(n) for n in ((bars > 127) << np.arange(BITS)).sum(1)]


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
