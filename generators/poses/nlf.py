"""NLF (Sárándi & Pons-Moll, "Neural Localizer Fields", 2024): joints and surface of SMPL bodies in the camera's space, a TorchScript file.

The published file finds people by itself (`detect_smpl_batched`), assumes a lens of 55° over the picture's longer side, the one that the
cylinders are drawn through, and answers in millimetres. So every body stands at its true depth, and `camera.distances` finds that again
from its places in the picture and in space.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from generators import weights
from generators.masks.extractor import MaskExtractor
from generators.poses import linking
from generators.poses.camera import NEAREST_M, Camera
from generators.poses.extractor import ExtractorOptions, Facts, PoseExtractor, PoseOptions
from generators.poses.linking import Look
from generators.poses.people import check_pixels
from generators.poses.tracks import INDEX, Bytes, People
from manifests.errors import BadOutput, Transient

Doubles = npt.NDArray[np.float64]

EXTRA = "pip install 'motionpair[nlf]'"
JOINTS, VERTICES = 24, 6890
"""of SMPL (Loper et al., 2015)"""
JOINT_OF: dict[str, int] = {
    "left_hip": 1, "right_hip": 2, "left_knee": 4, "right_knee": 5, "left_ankle": 7, "right_ankle": 8, "left_foot_index": 10,
    "right_foot_index": 11, "left_shoulder": 16, "right_shoulder": 17, "left_elbow": 18, "right_elbow": 19, "left_wrist": 20,
    "right_wrist": 21,
}  # fmt: skip
VERTEX_OF: dict[str, int] = {
    "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583, "left_heel": 3387, "right_heel": 6787,
    "left_foot_index": 3216, "right_foot_index": 6617,
}  # fmt: skip
"""vertices of SMPL's mesh that are key points (smplx, `vertex_ids`)"""
TIP_OF: dict[str, int] = {
    "left_thumb": 2746, "left_index": 2319, "left_pinky": 2673, "right_thumb": 6191, "right_index": 5782, "right_pinky": 6133,
}  # fmt: skip
"""finger ends; our landmarks are where the fingers begin, which is taken to be half way from the wrist"""
HEAD, NECK, HANDS = 15, 12, (22, 23)
SURE_MM, LOST_MM = 100.0, 300.0
"""uncertainty of a joint up to which it counts as seen, and from which as not (chosen, not measured)"""
CAMERA_SLACK_PX = 3.0
SPLAT = 0.05
"""radius of a vertex in a silhouette, in body sizes"""


class NLFOptions(PoseOptions):
    """What a recipe may set."""

    weights: str
    """`file:PATH` or `hf:OWNER/NAME/FILE`, a TorchScript file such as nlf_l_multi_0.3.2.torchscript"""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """checked when given; needed for files of the hub"""
    device: str = Field(default="cuda", pattern=r"^(cpu|cuda(:\d+)?)$")
    batch: int = Field(default=8, ge=1, le=256)
    """frames at once"""

    @model_validator(mode="after")
    def _named(self) -> NLFOptions:
        if complaint := weights.complain_of(self.weights, self.sha256, {}):
            raise ValueError(complaint)
        return self


class NLF(PoseExtractor):
    """People by NLF, in space."""

    facts: ClassVar[Facts] = Facts(
        what="24 joints and 6,890 surface points in space, at their true depth", code_licence="MIT",
        weights_licence="non-commercial research", accept_licence=True, gpus=1,
    )  # fmt: skip
    options_type: ClassVar[type[ExtractorOptions]] = NLFOptions
    requires: ClassVar[tuple[str, ...]] = ("torch", "torchvision")

    def __init__(self, options: NLFOptions, masks: MaskExtractor) -> None:
        self.options, self._masks = options, masks
        self._model: Any = None

    @classmethod
    def build(cls, options: ExtractorOptions, masks: MaskExtractor) -> NLF:
        return cls(cast(NLFOptions, options), masks)

    @classmethod
    def keyed(cls, options: ExtractorOptions) -> dict[str, Any]:
        """The file counts by its content."""
        own = cast(NLFOptions, options)
        return {"max_people": own.max_people, "weights": weights.key_of_named(own.weights, own.sha256, {})}

    def setup(self) -> None:
        """Load the file. Raises Transient where torch or the file can't be had, Damaged for a wrong digest."""
        if self._model is not None:
            return
        path = weights.named(self.options.weights, self.options.sha256, {})
        try:
            torch = importlib.import_module("torch")
        except ImportError as e:
            raise Transient(f"torch can't be imported here: {' '.join(str(e).split())[:200]} Mend it: {EXTRA}", "no_library") from e
        # The published file calls torchvision's nms, which importing it registers. Others may do without.
        with contextlib.suppress(ImportError, RuntimeError):
            importlib.import_module("torchvision")
        try:
            made = torch.jit.load(str(path), map_location=self.options.device).eval()
        except (RuntimeError, ValueError) as e:
            if type(e).__name__ == "OutOfMemoryError":
                raise
            why = " ".join(str(e).split())[:200]
            code = "no_library" if "torchvision::" in why else "no_weights"
            raise Transient(f"{path.name} can't be loaded as TorchScript: {why}", code) from e
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Transient(f"{path.name} can't be read: {e}", "no_weights") from e
        if not hasattr(made, "detect_smpl_batched"):
            raise Transient(f"{path.name} has no method detect_smpl_batched; give NLF's multi-person TorchScript file", "no_weights")
        self._model = made

    def track(self, frames_THWC: Bytes, fps: float) -> People:
        check_pixels(frames_THWC, 4, fps)
        self.setup()
        looks = list(self._looks(frames_THWC))
        return linking.linked(frames_THWC, looks, fps, self.options.max_people, self._masks).people

    def still(self, image_HWC: Bytes) -> People:
        check_pixels(image_HWC, 3)
        return self.track(image_HWC[None], 1.0)

    def _looks(self, frames_THWC: Bytes) -> Iterator[list[Look]]:
        """Everybody in each frame."""
        torch = importlib.import_module("torch")
        size_hw, step = (frames_THWC.shape[1], frames_THWC.shape[2]), self.options.batch
        for start in range(0, len(frames_THWC), step):
            some = frames_THWC[start : start + step]
            images = torch.from_numpy(np.ascontiguousarray(some.transpose(0, 3, 1, 2))).to(self.options.device)
            with torch.inference_mode():
                made = self._model.detect_smpl_batched(images)
            for answer in _answers(made, len(some)):
                yield [_look(answer, i, size_hw) for i in range(len(answer.joints_Nx24x3))]


@dataclass(frozen=True)
class Answer:
    """Everybody in one frame."""

    joints_Nx24x3: Doubles
    """metres, in the camera's space, as are"""
    vertices_NxVx3: Doubles | None
    flat_Nx24x2: Doubles | None
    """the joints in the picture, as the model has them"""
    doubts_Nx24: Doubles | None
    """uncertainties, millimetres"""
    scores_N: Doubles


def _answers(made: Any, count: int) -> Iterator[Answer]:
    """Per frame. Raises BadOutput for anything else than NLF's answers."""
    joints = _part(made, ("joints3d_nonparam", "joints3d"), count, (JOINTS, 3))
    if joints is None:
        raise BadOutput(f"NLF answered with {_names(made)}; joints3d_nonparam or joints3d is needed", "bad_shape")
    vertices = _part(made, ("vertices3d_nonparam", "vertices3d"), count, (VERTICES, 3))
    flat = _part(made, ("joints2d_nonparam", "joints2d"), count, (JOINTS, 2))
    doubts = _part(made, ("joint_uncertainties",), count, (JOINTS,))
    boxes = _part(made, ("boxes",), count, (5,))
    for t in range(count):
        people = len(joints[t])
        if any(part is not None and len(part[t]) != people for part in (vertices, flat, doubts, boxes)):
            raise BadOutput(f"NLF's answers are of different numbers of people in frame {t}", "bad_shape")
        yield Answer(
            joints[t] / 1000, vertices[t] / 1000 if vertices else None, flat[t] if flat else None, doubts[t] if doubts else None,
            boxes[t][:, 4] if boxes else np.ones(people),
        )  # fmt: skip


def _part(made: Any, names: tuple[str, ...], count: int, shape: tuple[int, ...]) -> list[Doubles] | None:
    """The first of these that is there, an array for each frame."""
    name = next((n for n in names if isinstance(made, dict) and n in made), None)
    if name is None:
        return None
    arrays = [np.asarray(part.detach().float().cpu().numpy(), np.float64) for part in made[name]]
    if len(arrays) != count or any(a.shape[1:] != shape and a.size for a in arrays):
        got = [a.shape for a in arrays[:4]]
        raise BadOutput(f"NLF's {name} has shapes {got} for {count} frames, expected (people, {', '.join(map(str, shape))})", "bad_shape")
    if not all(np.isfinite(a).all() for a in arrays):
        raise BadOutput(f"NLF's {name} holds values that are no numbers; check its weights", "not_finite")
    return [a.reshape(-1, *shape) for a in arrays]


def _names(made: Any) -> str:
    return ", ".join(sorted(map(str, made))) if isinstance(made, dict) else type(made).__name__


def _look(answer: Answer, i: int, size_hw: tuple[int, int]) -> Look:
    camera = Camera.of(size_hw)
    joints, vertices = answer.joints_Nx24x3[i], None if answer.vertices_NxVx3 is None else answer.vertices_NxVx3[i]
    if joints[:, 2].min() < NEAREST_M:
        raise BadOutput(f"NLF puts a joint {joints[:, 2].min():.2f} m before the camera; are its answers in millimetres?", "bad_shape")
    if answer.flat_Nx24x2 is not None:
        gap = float(np.median(np.linalg.norm(camera.project(joints) - answer.flat_Nx24x2[i], axis=1)))
        if gap > CAMERA_SLACK_PX:
            raise BadOutput(
                f"NLF's joints in the picture lie {gap:.0f} px from those in space seen through 55°: another lens", "bad_camera"
            )
    placed = landmarks_of(joints, vertices)
    xy = camera.project(placed)
    hips = placed[[INDEX["left_hip"], INDEX["right_hip"]]].mean(axis=0)
    depth = (placed[:, 2:] - hips[2]) * camera.focal_px / hips[2]
    belief = np.ones(33) if answer.doubts_Nx24 is None else _belief(answer.doubts_Nx24[i])
    inside = ((xy >= 0) & (xy < [size_hw[1], size_hw[0]])).all(axis=1)
    return Look(
        np.concatenate([xy, depth], axis=1).astype(np.float32), (placed - hips).astype(np.float32),
        np.where(inside, belief, 0.0).astype(np.float32), float(np.clip(answer.scores_N[i], 0, 1)),
        None if vertices is None else silhouette(camera.project(vertices), size_hw),
    )  # fmt: skip


def landmarks_of(joints_24x3: Doubles, vertices_Vx3: Doubles | None) -> Doubles:
    """Our 33 landmarks in the same space. Without a surface, face and fingers are put at the head's and hands' joints."""
    out = np.tile(joints_24x3[HEAD], (33, 1))
    for name, joint in JOINT_OF.items():
        out[INDEX[name]] = joints_24x3[joint]
    for side, hand in zip(("left", "right"), HANDS, strict=True):
        for part in ("pinky", "index", "thumb"):
            out[INDEX[f"{side}_{part}"]] = joints_24x3[hand]
        out[INDEX[f"{side}_heel"]] = out[INDEX[f"{side}_ankle"]]
    if vertices_Vx3 is None:
        return out
    for name, vertex in VERTEX_OF.items():
        out[INDEX[name]] = vertices_Vx3[vertex]
    for name, vertex in TIP_OF.items():
        wrist = out[INDEX[f"{name.partition('_')[0]}_wrist"]]
        out[INDEX[name]] = (wrist + vertices_Vx3[vertex]) / 2
    linking.fill_face(out)
    return out


def _belief(doubts_24: Doubles) -> Doubles:
    """Visibility of the landmarks: 1 where a joint is sure, 0 where it is lost. What hangs on a joint is as sure as that."""
    sure = np.clip((LOST_MM - doubts_24) / (LOST_MM - SURE_MM), 0, 1)
    out = np.full(33, sure[HEAD])
    for name, joint in JOINT_OF.items():
        out[INDEX[name]] = sure[joint]
    for side, hand in zip(("left", "right"), HANDS, strict=True):
        for part in ("pinky", "index", "thumb"):
            out[INDEX[f"{side}_{part}"]] = sure[hand]
        out[INDEX[f"{side}_heel"]] = out[INDEX[f"{side}_ankle"]]
    return out


def silhouette(points_Nx2: Doubles, size_hw: tuple[int, int]) -> Bytes:
    """Where a body's surface points are seen: a spot each, gaps between them closed."""
    height, width = size_hw
    canvas = np.zeros(size_hw, np.uint8)
    at = np.round(points_Nx2).astype(int)
    inside = ((at >= 0) & (at < [width, height])).all(axis=1)
    canvas[at[inside, 1], at[inside, 0]] = 255
    radius = max(1, round(SPLAT * float(np.ptp(points_Nx2, axis=0).max()) / 3.5))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.GaussianBlur(cv2.morphologyEx(canvas, cv2.MORPH_CLOSE, kernel), (0, 0), 1.0), np.uint8)
