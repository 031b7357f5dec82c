"""TorchScript files with the method of NLF's, whose answers are known beforehand. Real torch.jit, no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from posing import body

from generators.poses.nlf import JOINT_OF, JOINTS, TIP_OF, VERTEX_OF, VERTICES
from generators.poses.silhouettes import BONES
from generators.poses.tracks import INDEX


class Nlf(torch.nn.Module):
    """Always sees the same bodies, moved to the right by a millimetre for each step of the first pixel's red."""

    def __init__(self, joints_mm: torch.Tensor, vertices_mm: torch.Tensor, doubts_mm: torch.Tensor, focal: float) -> None:
        super().__init__()
        self.joints, self.vertices, self.doubts = joints_mm, vertices_mm, doubts_mm
        self.focal: float = focal

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    @torch.jit.export
    def detect_smpl_batched(self, images: torch.Tensor, default_fov_degrees: float = 55.0) -> dict[str, list[torch.Tensor]]:
        joints: list[torch.Tensor] = []
        vertices: list[torch.Tensor] = []
        flat: list[torch.Tensor] = []
        doubts: list[torch.Tensor] = []
        boxes: list[torch.Tensor] = []
        middle = torch.tensor([images.shape[3] / 2.0, images.shape[2] / 2.0])
        for i in range(images.shape[0]):
            shift = torch.tensor([1.0, 0.0, 0.0]) * images[i, 0, 0, 0].float()
            joints.append(self.joints + shift)
            vertices.append(self.vertices + shift)
            flat.append(joints[i][..., :2] / joints[i][..., 2:] * self.focal + middle)
            doubts.append(self.doubts)
            boxes.append(torch.ones(self.joints.shape[0], 5) * 0.9)
        return {
            "boxes": boxes, "joints3d_nonparam": joints, "joints2d_nonparam": flat, "vertices3d_nonparam": vertices,
            "joint_uncertainties": doubts,
        }  # fmt: skip


class Says(torch.nn.Module):
    """Answers with one tensor, for each image, under a name of its own."""

    def __init__(self, name: str, value: torch.Tensor, short: int = 0) -> None:
        super().__init__()
        self.name: str = name
        self.value = value
        self.short: int = short

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    @torch.jit.export
    def detect_smpl_batched(self, images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        out: list[torch.Tensor] = []
        for _ in range(images.shape[0] - self.short):
            out.append(self.value)
        return {self.name: out}


class Other(torch.nn.Module):
    """Some other file."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def smpl_of(place: tuple[float, float, float], world_33x3: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """24 joints and 6,890 surface points, metres, of posing's figure with its hips at a place in the camera's space."""
    at = (body() if world_33x3 is None else world_33x3) + np.array(place)
    joints = np.tile(at[INDEX["nose"]], (JOINTS, 1))
    for name, k in JOINT_OF.items():
        joints[k] = at[INDEX[name]]
    joints[0] = at[[INDEX["left_hip"], INDEX["right_hip"]]].mean(axis=0)
    for side, hand in (("left", 22), ("right", 23)):
        joints[hand] = at[INDEX[f"{side}_wrist"]]
    random = np.random.default_rng(0)
    bones = np.array(BONES)[random.integers(0, len(BONES), VERTICES)]
    share = random.random((VERTICES, 1))
    vertices = at[bones[:, 0]] * share + at[bones[:, 1]] * (1 - share) + random.normal(0, 0.03, (VERTICES, 3))
    for name, k in VERTEX_OF.items():
        vertices[k] = at[INDEX[name]]
    for name, k in TIP_OF.items():
        vertices[k] = at[INDEX[name.partition("_")[0] + "_wrist"]]
    return joints, vertices


def saved(module: torch.nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def nlf(path: Path, bodies: list[tuple[np.ndarray, np.ndarray]], focal: float, doubt_mm: float = 30.0) -> Path:
    joints = np.array([j for j, _ in bodies]).reshape(-1, JOINTS, 3) * 1000
    vertices = np.array([v for _, v in bodies]).reshape(-1, VERTICES, 3) * 1000
    tensors = [torch.tensor(a, dtype=torch.float32) for a in (joints, vertices, np.full(joints.shape[:2], doubt_mm))]
    return saved(Nlf(*tensors, focal), path)
