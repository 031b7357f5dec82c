"""People of a video as arrays: the one form in which poses and masks travel between tracker, generators, masks and measures.

Axis letters: P people, T frames, 33 landmarks of the MediaPipe pose model, H and W pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO

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
class Details:
    """Hands and faces of the people of one video, where they can be read. Everything is zero where a hand or a face is not seen."""

    hands_PT2x21x3: Floats
    """left hand first; wrist, then four points each of thumb, index, middle, ring and little finger; x and y in pixels, z in pixels
    relative to the wrist (negative is nearer)"""
    hand_seen_PT2: Floats
    """0 to 1, the model's belief that the hand is there; 0 where it is not seen"""
    faces_PT468x3: Floats
    """MediaPipe's face mesh; x and y in pixels, z in pixels relative to the head's centre (negative is nearer)"""
    face_seen_PT: Floats
    """0 to 1; 0 where it is not seen, from behind for one"""

    def __post_init__(self) -> None:
        p, t = self.face_seen_PT.shape
        for name, shape in (("hands_PT2x21x3", (p, t, 2, 21, 3)), ("hand_seen_PT2", (p, t, 2)), ("faces_PT468x3", (p, t, 468, 3))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @staticmethod
    def unseen(people: int, frames: int) -> Details:
        """Nothing seen of anybody."""
        return Details(
            np.zeros((people, frames, 2, 21, 3), np.float32), np.zeros((people, frames, 2), np.float32),
            np.zeros((people, frames, 468, 3), np.float32), np.zeros((people, frames), np.float32),
        )  # fmt: skip

    def picked(self, index: Any) -> Details:
        """The same indexing of people and frames in all arrays."""
        return Details(self.hands_PT2x21x3[index], self.hand_seen_PT2[index], self.faces_PT468x3[index], self.face_seen_PT[index])


STEP_M = 1e-4
"""to which meshes are rounded in files"""


@dataclass(frozen=True)
class Meshes:
    """The surfaces of the people of one video, of one topology, in the camera's space: x right, y down, z away from it."""

    vertices_PTVx3: Floats
    """metres, as seen through `generators.poses.camera`; zero where somebody is absent"""
    faces_Fx3: npt.NDArray[np.int32]
    """vertices of the triangles, counter-clockwise seen from outside"""

    def __post_init__(self) -> None:
        if self.vertices_PTVx3.ndim != 4 or self.vertices_PTVx3.shape[3] != 3 or self.faces_Fx3.ndim != 2 or self.faces_Fx3.shape[1] != 3:
            raise ValueError(f"meshes of shapes {self.vertices_PTVx3.shape}, {self.faces_Fx3.shape}, expected (P, T, V, 3) and (F, 3)")
        if self.faces_Fx3.size and not 0 <= self.faces_Fx3.min() <= self.faces_Fx3.max() < self.vertices_PTVx3.shape[2]:
            raise ValueError(f"a mesh's triangles name vertices beyond its {self.vertices_PTVx3.shape[2]}")

    def picked(self, index: Any) -> Meshes:
        """The same indexing of people and frames."""
        return Meshes(self.vertices_PTVx3[index], self.faces_Fx3)

    def arrays(self) -> dict[str, Any]:
        """For a file: steps of a tenth of a millimetre around each body's middle, which fit in 16 bits (±3.2 m) and pack well."""
        middle = np.round(self.vertices_PTVx3.mean(axis=2, keepdims=True), 4)
        steps = np.round((self.vertices_PTVx3 - middle) / STEP_M)
        return {"mesh": np.clip(steps, -32767, 32767).astype(np.int16), "mesh_at": middle.astype(np.float32), "mesh_faces": self.faces_Fx3}

    @staticmethod
    def of_arrays(z: Any) -> Meshes | None:
        """What `arrays` wrote, if it is there."""
        if "mesh" not in z:
            return None
        return Meshes(z["mesh"].astype(np.float32) * np.float32(STEP_M) + z["mesh_at"], z["mesh_faces"])


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
    details: Details | None = None
    """hands and faces; None where nobody looked for them"""
    meshes: Meshes | None = None
    """surfaces; None where the pose extractor gives none"""

    def __post_init__(self) -> None:
        p, t = self.present_PT.shape
        for name, shape in (("landmarks_PT33x3", (p, t, 33, 3)), ("world_PT33x3", (p, t, 33, 3)), ("visibility_PT33", (p, t, 33))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if self.masks_PTHW.shape[:2] != (p, t) or self.masks_PTHW.ndim != 4:
            raise ValueError(f"masks_PTHW has shape {self.masks_PTHW.shape}, expected ({p}, {t}, H, W)")
        if self.details is not None and self.details.face_seen_PT.shape != (p, t):
            raise ValueError(f"details are of {self.details.face_seen_PT.shape} people and frames, expected ({p}, {t})")
        if self.meshes is not None and self.meshes.vertices_PTVx3.shape[:2] != (p, t):
            raise ValueError(f"meshes are of {self.meshes.vertices_PTVx3.shape[:2]} people and frames, expected ({p}, {t})")

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
            self.masks_PTHW[tracks], self.fps, self.details and self.details.picked(tracks), self.meshes and self.meshes.picked(tracks),
        )  # fmt: skip

    def window(self, start: int, stop: int) -> People:
        """The frames from `start` up to, not including, `stop`."""
        t = slice(start, stop)
        return People(
            self.landmarks_PT33x3[:, t], self.world_PT33x3[:, t], self.visibility_PT33[:, t], self.present_PT[:, t],
            self.masks_PTHW[:, t], self.fps, self.details and self.details.picked((slice(None), t)),
            self.meshes and self.meshes.picked((slice(None), t)),
        )  # fmt: skip

    def save(self, stream: BinaryIO) -> None:
        """Write as .npz; the same arrays always give the same bytes. Floats are rounded first (1/100 px, 1/10 mm)."""
        details: dict[str, Any] = {} if self.details is None else {
            "hands": np.round(self.details.hands_PT2x21x3, 2).astype(np.float32),
            "hand_seen": np.round(self.details.hand_seen_PT2, 4).astype(np.float32),
            "faces": np.round(self.details.faces_PT468x3, 2).astype(np.float32),
            "face_seen": np.round(self.details.face_seen_PT, 4).astype(np.float32),
        }  # fmt: skip
        np.savez_compressed(
            stream,
            landmarks=np.round(self.landmarks_PT33x3, 2).astype(np.float32),
            world=np.round(self.world_PT33x3, 4).astype(np.float32),
            visibility=np.round(self.visibility_PT33, 4).astype(np.float32),
            present=self.present_PT,
            masks=self.masks_PTHW,
            fps=np.float64(self.fps),
            **details,
            **(self.meshes.arrays() if self.meshes else {}),
        )

    @staticmethod
    def load(stream: BinaryIO | bytes) -> People:
        """Read what `save` wrote. Raises ValueError on anything else; never unpickles."""
        with np.load(io.BytesIO(stream) if isinstance(stream, bytes) else stream, allow_pickle=False) as z:
            details = Details(z["hands"], z["hand_seen"], z["faces"], z["face_seen"]) if "hands" in z else None
            arrays = (z["landmarks"], z["world"], z["visibility"], z["present"], z["masks"])
            return People(*arrays, float(z["fps"]), details, Meshes.of_arrays(z))
