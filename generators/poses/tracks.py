"""People of a video as arrays: the one form in which poses and masks travel between tracker, generators, masks and measures.

Axis letters: P people, T frames, 33 landmarks of the MediaPipe pose model, H and W pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

LANDMARKS: tuple[str, ...] = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer", "left_ear",
    "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
INDEX: dict[str, int] = {name: i for i, name in enumerate(LANDMARKS)}
BODY: tuple[str, ...] = ("nose", *(LANDMARKS[i] for i in (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)))
"""The joints that framing, eligibility and measures look at."""


@dataclass(frozen=True)
class People:
    """Everybody in one video (or, with T = 1, one picture), ordered by first appearance, then left to right."""

    landmarks_PT33x3: Floats
    """x and y in pixels, z in pixels relative to the hips (negative is nearer); smoothed; interpolated where absent"""
    world_PT33x3: Floats
    """metres, hip-centred, x right, y down, z away from the camera"""
    visibility_PT33: Floats
    """0 to 1, the model's belief that the landmark is in the picture and not hidden"""
    present_PT: Bools
    """whether the person was found in the frame"""
    masks_PTHW: Bytes
    """soft silhouette, 0 to 255; zero where absent"""
    fps: float

    def __post_init__(self) -> None:
        p, t = self.present_PT.shape
        for name, shape in (("landmarks_PT33x3", (p, t, 33, 3)), ("world_PT33x3", (p, t, 33, 3)), ("visibility_PT33", (p, t, 33))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if self.masks_PTHW.shape[:2] != (p, t) or self.masks_PTHW.ndim != 4:
            raise ValueError(f"masks_PTHW has shape {self.masks_PTHW.shape}, expected ({p}, {t}, H, W)")

    @property
    def count(self) -> int:
        return int(self.present_PT.shape[0])

    @property
    def frames(self) -> int:
        return int(self.present_PT.shape[1])

    @property
    def size_hw(self) -> tuple[int, int]:
        return int(self.masks_PTHW.shape[2]), int(self.masks_PTHW.shape[3])

    def only(self, tracks: list[int]) -> People:
        """The same video with only these people, in this order."""
        return People(
            self.landmarks_PT33x3[tracks], self.world_PT33x3[tracks], self.visibility_PT33[tracks], self.present_PT[tracks],
            self.masks_PTHW[tracks], self.fps,
        )  # fmt: skip

    def window(self, start: int, stop: int) -> People:
        """The frames from `start` up to, not including, `stop`."""
        t = slice(start, stop)
        return People(
            self.landmarks_PT33x3[:, t], self.world_PT33x3[:, t], self.visibility_PT33[:, t], self.present_PT[:, t],
            self.masks_PTHW[:, t], self.fps,
        )  # fmt: skip

    def save(self, stream: BinaryIO) -> None:
        """Write as .npz; the same arrays always give the same bytes. Floats are rounded first (1/100 px, 1/10 mm)."""
        np.savez_compressed(
            stream,
            landmarks=np.round(self.landmarks_PT33x3, 2).astype(np.float32),
            world=np.round(self.world_PT33x3, 4).astype(np.float32),
            visibility=np.round(self.visibility_PT33, 4).astype(np.float32),
            present=self.present_PT,
            masks=self.masks_PTHW,
            fps=np.float64(self.fps),
        )

    @staticmethod
    def load(stream: BinaryIO | bytes) -> People:
        """Read what `save` wrote. Raises ValueError on anything else; never unpickles."""
        with np.load(io.BytesIO(stream) if isinstance(stream, bytes) else stream, allow_pickle=False) as z:
            return People(z["landmarks"], z["world"], z["visibility"], z["present"], z["masks"], float(z["fps"]))
