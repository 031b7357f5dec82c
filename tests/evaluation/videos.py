"""Small videos to evaluate: a soft scene in which a square moves, and what a model may make of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from manifests import media

FPS = 16.0


def scene(seed: int, frames: int = 5, height: int = 64, width: int = 96) -> np.ndarray:
    """(T, H, W, 3), RGB."""
    rough = np.random.default_rng(seed).integers(40, 216, (5, 7, 3), np.uint8)
    still = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    out = np.stack([still] * frames)
    for t in range(frames):
        out[t, height // 4 : height // 2, 4 + 2 * t : 24 + 2 * t] = (220, 60, 30)
    return out


def blurred(frames_THWC: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames_THWC])


def write(folder: Path, name: str, frames_THWC: np.ndarray, fps: float = FPS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    media.write_video(folder / name, frames_THWC, fps)
    return folder / name


def truth_and_two_models(folder: Path, keys: int = 4) -> tuple[Path, Path, Path]:
    """Ground truth with driving videos and references, a model that blurs a little and one that blurs much."""
    truth, good, bad = folder / "truth", folder / "good", folder / "bad"
    for number in range(keys):
        frames = scene(number)
        write(truth, f"k{number}.mp4", frames)
        write(truth, f"k{number}.driving.mp4", scene(number + 50))
        media.write_png(truth / f"k{number}.reference.png", frames[0])
        write(good, f"k{number}.mp4", blurred(frames, 0.5 + 0.1 * number))
        write(bad, f"k{number}.mp4", blurred(frames, 3 + number))
    return truth, good, bad
