"""BlazePose as two TFLite files: a person detector, and 33 landmarks with a silhouette for one upright crop.

The decoding follows MediaPipe's published graphs (`pose_detection_cpu`, `pose_landmark_by_roi`, `pose_detection_to_roi`): anchors on
strides 8, 16, 32, 32, 32; 12 numbers a box; a crop whose centre is the middle of the hips and whose side is 2.5 times the distance
to a second point above the head, turned so that this second point is straight up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators import weights
from generators.poses.pruning import pruned
from generators.poses.tracks import BODY, INDEX, Bytes, Floats

Doubles = npt.NDArray[np.float64]

DETECTOR_SIDE = 224
BODY_THREADS = 2
"""of the landmark model in a chain of looks; the outputs are the same bytes with any number"""
READERS = 2
"""landmark models of one thread each and without silhouettes (half the work), for looks that don't wait for one another: two threads share
one look at a loss"""
CROP_SIDE = 256
CROP_SCALE = 1.25
"""MediaPipe's margin around the circle through the second point"""
JOINTS = [INDEX[name] for name in BODY]
OVERLAP_SAME = 0.3
"""boxes that overlap more (intersection over union) are one person"""


@dataclass(frozen=True)
class Detection:
    """One person as the detector sees it, in pixels of the whole picture."""

    score: float
    centre: Doubles
    """middle of the hips, (x, y)"""
    tip: Doubles
    """the point that gives the crop's size and rotation"""
    box: Doubles
    """around the face, x0 y0 x1 y1"""

    @property
    def scale(self) -> float:
        return float(np.linalg.norm(self.tip - self.centre))

    def same_as(self, other: Detection) -> bool:
        """Hips nearly at the same place, or faces that overlap."""
        near = float(np.linalg.norm(self.centre - other.centre)) < 0.25 * max(self.scale, other.scale)
        return near or bool(overlap(self.box, other.box[None])[0] > OVERLAP_SAME)


@dataclass(frozen=True)
class Crop:
    """The landmark model's square: where it lies in the picture."""

    centre: Doubles
    side: float
    turn_22: Doubles
    """rotates crop directions into picture directions"""

    def to_picture(self, points_N2: Doubles) -> Doubles:
        """Crop pixels (0 to 256) as picture pixels."""
        return np.asarray((points_N2 / CROP_SIDE - 0.5) * self.side @ self.turn_22.T + self.centre)

    def matrix(self) -> Doubles:
        """2×3 affine from picture to crop pixels."""
        corners = np.array([[0, 0], [CROP_SIDE, 0], [0, CROP_SIDE]], np.float32)
        return np.asarray(cv2.getAffineTransform(self.to_picture(corners.astype(np.float64)).astype(np.float32), corners), np.float64)


@dataclass(frozen=True)
class Body:
    """One person as the landmark model sees it, in pixels of the whole picture."""

    landmarks_33x3: Floats
    centre: Doubles
    """middle of the hips and..."""
    tip: Doubles
    """...second point: the next frame's crop"""
    world_33x3: Floats
    """metres, hip-centred, upright in the picture (not in the crop)"""
    visibility_33: Floats
    presence: float
    """0 to 1: a person was in the crop at all"""
    crop: Crop
    """where in the picture the model looked"""
    size_hw: tuple[int, int]
    """of the picture"""
    crop_HWC: Bytes
    """the upright crop, 256×256"""
    silhouette_HW: Bytes
    """soft silhouette in the crop, 256×256, 0 to 255"""

    @property
    def scale(self) -> float:
        """Distance from the hips to the second point: about half a standing person's height, in pixels."""
        return float(np.linalg.norm(self.tip - self.centre))

    @property
    def agreement(self) -> float:
        """Share of the visible joints that lie on the silhouette, 0 to 1: two heads of the network, which part when it is at a loss."""
        matrix = self.crop.matrix()
        xy = np.round(self.landmarks_33x3[JOINTS, :2] @ matrix[:, :2].T + matrix[:, 2]).astype(int)
        seen = ((xy >= 0) & (xy < CROP_SIDE)).all(axis=1) & (self.visibility_33[JOINTS] > 0.5)
        return float((self.silhouette_HW[xy[seen, 1], xy[seen, 0]] > 127).mean()) if seen.any() else 1.0

    def mask(self, step: int = 1) -> Bytes:
        """The soft silhouette in the picture, 0 to 255; of every `step`-th pixel, which is much cheaper."""
        return pasted(self.silhouette_HW, self.crop, self.size_hw, step)


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


def anchors() -> Doubles:
    """Centres of the detector's 2,254 anchors, 0 to 1: 28×28 cells with 2 each, 14×14 with 2, 7×7 with 6."""
    layers = []
    for cells, each in ((28, 2), (14, 2), (7, 6)):
        line = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, each, axis=0))
    return np.concatenate(layers)


def crop_of(centre: Doubles, tip: Doubles) -> Crop:
    """The square around `centre`, turned so that `tip` is straight above it."""
    dx, dy = np.asarray(tip, np.float64) - np.asarray(centre, np.float64)
    angle = np.arctan2(dy, dx) + np.pi / 2
    cos, sin = np.cos(angle), np.sin(angle)
    side = max(2.0 * CROP_SCALE * float(np.hypot(dx, dy)), 8.0)
    return Crop(np.asarray(centre, np.float64), side, np.array([[cos, -sin], [sin, cos]]))


class BlazePose:
    """Both models, loaded once. Results do not depend on the machine: threads share work, never sums."""

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        def load(network: bytes, threads: int) -> _Model:
            interpreter = Interpreter(model_content=network, num_threads=threads)
            interpreter.allocate_tensors()
            return _Model(interpreter)

        landmarker = weights.path_of("pose_landmark").read_bytes()
        self._detector = load(weights.path_of("pose_detection").read_bytes(), 1)
        self._landmarker = load(pruned(landmarker, {*_READ, _SILHOUETTE}), BODY_THREADS)
        self._readers: SimpleQueue[_Model] = SimpleQueue()
        for _ in range(READERS):
            self._readers.put(load(pruned(landmarker, _READ), 1))
        self._anchors_N2 = anchors()

    def detect(self, rgb_HWC: Bytes, threshold: float = 0.5) -> list[Detection]:
        """People in a picture, best first; boxes that overlap are averaged by their scores."""
        height, width = rgb_HWC.shape[:2]
        factor = DETECTOR_SIDE / max(height, width)
        small_wh = (max(1, round(width * factor)), max(1, round(height * factor)))
        offset = np.array([(DETECTOR_SIDE - small_wh[0]) // 2, (DETECTOR_SIDE - small_wh[1]) // 2])
        padded = np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.float32)
        padded[offset[1] : offset[1] + small_wh[1], offset[0] : offset[0] + small_wh[0]] = cv2.resize(
            rgb_HWC, small_wh, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        )
        boxes_1N12, logits_1N1 = self._detector.run(padded / 127.5 - 1.0, (1, 2254, 12), (1, 2254, 1))
        return self._decode(boxes_1N12[0], sigmoid(logits_1N1[0, :, 0].astype(np.float64)), threshold, offset, factor)

    def detect_closely(self, rgb_HWC: Bytes, threshold: float = 0.35) -> list[Detection]:
        """Also people who are small in the whole picture: it and its overlapping squares, what was seen twice being one."""
        height, width = rgb_HWC.shape[:2]
        side, found = min(height, width), self.detect(rgb_HWC, threshold)
        steps = int(np.ceil(2 * max(height, width) / side)) - 1
        for k in range(steps if steps > 1 else 0):
            x, y = round(k * (width - side) / (steps - 1)), round(k * (height - side) / (steps - 1))
            shift = np.array([x, y], np.float64)
            for one in self.detect(np.ascontiguousarray(rgb_HWC[y : y + side, x : x + side]), threshold):
                moved = replace(one, centre=one.centre + shift, tip=one.tip + shift, box=one.box + np.tile(shift, 2))
                if not any(moved.same_as(other) for other in found):
                    found.append(moved)
        return found

    def _decode(self, boxes_N12: Floats, scores_N: Doubles, threshold: float, offset: Doubles, factor: float) -> list[Detection]:
        keep = np.flatnonzero(scores_N > threshold)
        points = boxes_N12[keep].astype(np.float64).reshape(-1, 6, 2) / DETECTOR_SIDE
        points[:, [0, 2, 3, 4, 5]] += self._anchors_N2[keep][:, None]
        centre, half = points[:, 0], points[:, 1] / 2
        boxes, scores = np.concatenate([centre - half, centre + half], axis=1), scores_N[keep]
        left, found = np.argsort(-scores, kind="stable"), []
        while len(left):
            same = overlap(boxes[left[0]], boxes[left]) > OVERLAP_SAME
            same[0] = True
            share = scores[left[same]] / scores[left[same]].sum()
            pairs = np.concatenate([points[left[same], 2:4], boxes[left[same]].reshape(-1, 2, 2)], axis=1)
            mean = ((pairs * share[:, None, None]).sum(axis=0) * DETECTOR_SIDE - offset) / factor
            found.append(Detection(float(scores[left[0]]), mean[0], mean[1], mean[2:].reshape(4)))
            left = left[~same]
        return found

    def body(self, rgb_HWC: Bytes, centre: Doubles, tip: Doubles) -> Body:
        """Landmarks and silhouette of the person whose hips are at `centre` and whose second point is at `tip` (pixels)."""
        crop = crop_of(centre, tip)
        upright = cut(rgb_HWC, crop)
        *read, silhouette = self._landmarker.run(_scaled(upright), *_READ, _SILHOUETTE)
        soft = 255.0 * sigmoid(silhouette[0, :, :, 0]) + 0.5
        return Body(
            **_located(read, crop), crop=crop, size_hw=(rgb_HWC.shape[0], rgb_HWC.shape[1]), crop_HWC=upright,
            silhouette_HW=soft.astype(np.uint8),
        )  # fmt: skip

    def reread(self, rgb_HWC: Bytes, body: Body, centre: Doubles, tip: Doubles) -> Body:
        """The body with what another crop shows of its joints; its silhouette stays. For several threads at once: waits while all
        `READERS` are busy."""
        crop = crop_of(centre, tip)
        upright = _scaled(cut(rgb_HWC, crop))
        reader = self._readers.get()
        try:
            read = reader.run(upright, *_READ)
        finally:
            self._readers.put(reader)
        return replace(body, **_located(read, crop))


def overlap(box_4: Doubles, boxes_N4: Doubles) -> Doubles:
    """Intersection over union of one box with many."""
    size = np.clip(np.minimum(box_4[2:], boxes_N4[:, 2:]) - np.maximum(box_4[:2], boxes_N4[:, :2]), 0, None)
    both = size.prod(axis=1)
    area, areas = (box_4[2:] - box_4[:2]).prod(), (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(axis=1)
    return np.asarray(both / np.maximum(area + areas - both, 1e-9))


class _Model:
    """A network with one picture as its input. The shapes tell its outputs apart, their order does not."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._input: int = interpreter.get_input_details()[0]["index"]
        self._outputs: dict[tuple[int, ...], int] = {tuple(d["shape"].tolist()): d["index"] for d in interpreter.get_output_details()}

    def run(self, picture_HWC: Any, *shapes: tuple[int, ...]) -> list[Any]:
        """The outputs of these shapes."""
        self._interpreter.set_tensor(self._input, picture_HWC[None].astype(np.float32, copy=False))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(self._outputs[shape]) for shape in shapes]


_READ, _SILHOUETTE = ((1, 195), (1, 117), (1, 1)), (1, CROP_SIDE, CROP_SIDE, 1)
"""shapes of the landmark model's outputs: points, points in space, presence; silhouette"""


def _scaled(upright_HWC: Bytes) -> Floats:
    return upright_HWC.astype(np.float32) / np.float32(255.0)


def _located(read: list[Any], crop: Crop) -> dict[str, Any]:
    """The model's points in the picture: those fields of a Body that do not tell where it looked."""
    points, world = read[0].reshape(39, 5).astype(np.float64), read[1].reshape(39, 3)[:33].astype(np.float64)
    xy, z = crop.to_picture(points[:, :2]), points[:33, 2:3] / CROP_SIDE * crop.side
    world[:, :2] = world[:, :2] @ crop.turn_22.T
    return {
        "landmarks_33x3": np.concatenate([xy[:33], z], axis=1).astype(np.float32),
        "centre": xy[33],
        "tip": xy[34],
        "world_33x3": world.astype(np.float32),
        "visibility_33": np.minimum(sigmoid(points[:33, 3]), sigmoid(points[:33, 4])).astype(np.float32),
        "presence": float(read[2].item()),
    }


def cut(rgb_HWC: Bytes, crop: Crop) -> Bytes:
    """The upright crop; a picture that is much finer than the crop is halved first (the quickest way), so that nothing aliases."""
    matrix = crop.matrix()
    for _ in range(int(np.log2(max(1.0, crop.side / CROP_SIDE)))):
        height, width = rgb_HWC.shape[:2]
        size = (max(1, width // 2), max(1, height // 2))
        rgb_HWC = np.asarray(cv2.resize(rgb_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ np.diag([width / size[0], height / size[1], 1.0])
    return np.asarray(cv2.warpAffine(rgb_HWC, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR), np.uint8)


def pasted(silhouette_HW: Bytes, crop: Crop, size_hw: tuple[int, int], step: int = 1) -> Bytes:
    """A crop's silhouette in the picture of `size_hw`, of every `step`-th pixel."""
    matrix = crop.matrix() @ np.diag([step, step, 1.0])
    size = (-(-size_hw[1] // step), -(-size_hw[0] // step))
    return np.asarray(cv2.warpAffine(silhouette_HW, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.uint8)
