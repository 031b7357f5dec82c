"""The small networks beside the body model: palms, hands, faces, face meshes, silhouettes. Each is one TFLite file and one class.

The pre- and postprocessing follows MediaPipe's published graphs (`palm_detection_cpu`, `hand_landmark_cpu`, `face_detection_short_range`,
`face_landmark_cpu`, `selfie_segmentation_cpu` and their `..._to_roi` subgraphs). None of them looks at the body, so they can also judge
what the body model drives. Constructing is cheap; the weights are loaded by `setup` or at the first picture. An instance serves one
thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators import weights
from generators.poses.blazepose import overlap, sigmoid
from generators.poses.tracks import Bytes, Floats

Doubles = npt.NDArray[np.float64]

SAME = 0.3
"""detections whose boxes overlap more (intersection over union) are one thing"""
UPRIGHT_FIRST, UPRIGHT_LAST = 33, 263
"""the mesh points at the outer corners of the person's right and left eye"""
PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""the hand's points without the moving finger ends: the region must not breathe when the fist closes"""


@dataclass(frozen=True)
class Region:
    """A turned square of a picture."""

    centre: Doubles
    """x, y in pixels"""
    side: float
    """pixels"""
    angle_rad: float = 0.0
    """clockwise as seen (y points down): a thing turned by this much stands upright in the region"""

    @property
    def turn_22(self) -> Doubles:
        """Rotates the region's directions into the picture's."""
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return np.array([[cos, -sin], [sin, cos]])

    def to_picture(self, points_N2: Doubles) -> Doubles:
        """Points of the region, 0 to 1, as picture pixels."""
        return np.asarray((points_N2 - 0.5) * self.side @ self.turn_22.T + self.centre)

    def cut(self, rgb_HWC: Bytes, pixels: int) -> Bytes:
        """The region as a square picture, upright; black outside. What is much finer than that is averaged first."""
        corners = self.to_picture(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        height, width = rgb_HWC.shape[:2]
        x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, [width - 1, height - 1])
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, [x0 + 1, y0 + 1], [width, height])
        patch, shrink = rgb_HWC[y0:y1, x0:x1], max(1, int(self.side // pixels))
        small_wh = (max(1, (x1 - x0) // shrink), max(1, (y1 - y0) // shrink))
        if shrink > 1:
            patch = np.asarray(cv2.resize(patch, small_wh, interpolation=cv2.INTER_AREA), np.uint8)
        moved = (corners[:3] - [x0, y0]) * [small_wh[0] / (x1 - x0), small_wh[1] / (y1 - y0)] if shrink > 1 else corners[:3] - [x0, y0]
        target = np.array([[0, 0], [pixels, 0], [0, pixels]], np.float32)
        matrix = cv2.getAffineTransform(moved.astype(np.float32), target)
        return np.asarray(cv2.warpAffine(patch, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR), np.uint8)


@dataclass(frozen=True)
class Spot:
    """Something that a detector found, in pixels of the picture."""

    score: float
    box_4: Doubles
    """x0 y0 x1 y1"""
    points_N2: Doubles
    """a palm: wrist, knuckles of index, middle, ring and little finger, thumb's first and second joint; a face: right eye, left eye,
    nose tip, mouth, right ear, left ear (the person's own right and left)"""


@dataclass(frozen=True)
class Hand:
    """One hand, in pixels of the picture."""

    points_21x3: Doubles
    """wrist, then four points each of thumb, index, middle, ring and little finger; z relative to the wrist, negative is nearer"""
    presence: float
    """0 to 1: there is a hand in the region"""
    left: float
    """0 to 1: it is a person's left hand"""

    @property
    def region(self) -> Region:
        """Where to look in the next frame: twice the palm's box, turned so that the fingers point up."""
        xy = self.points_21x3[:, :2]
        knuckles = (xy[5] + 2 * xy[9] + xy[13]) / 4
        return _around(xy[list(PALM)], upwards(knuckles - xy[0]), scale=2.0, up=0.1)


@dataclass(frozen=True)
class Face:
    """One face mesh, in pixels of the picture."""

    points_468x3: Doubles
    """z relative to the head's centre, negative is nearer"""
    presence: float
    """0 to 1: there is a face in the region"""

    @property
    def region(self) -> Region:
        """Where to look in the next frame: one and a half times the mesh's box, eyes level."""
        xy = self.points_468x3[:, :2]
        return _around(xy, float(level(xy[UPRIGHT_LAST] - xy[UPRIGHT_FIRST])), scale=1.5)


def palm_region(palm: Spot) -> Region:
    """The hand network's region for a detected palm."""
    wrist, middle = palm.points_N2[0], palm.points_N2[2]
    angle = upwards(middle - wrist)
    low, high = palm.box_4[:2], palm.box_4[2:]
    side = float((high - low).max())
    up = np.array([np.sin(angle), -np.cos(angle)])
    return Region((low + high) / 2 + 0.5 * side * up, 2.6 * side, angle)


def face_region(face: Spot) -> Region:
    """The mesh network's region for a detected face."""
    low, high = face.box_4[:2], face.box_4[2:]
    return Region((low + high) / 2, 1.5 * float((high - low).max()), float(level(face.points_N2[1] - face.points_N2[0])))


@dataclass
class _Network:
    """A TFLite file with one picture as its input."""

    weight: str
    side: int
    """of the square input, pixels"""
    _interpreter: Any = field(default=None, repr=False)
    _input: int = -1
    _outputs: dict[str, int] = field(default_factory=dict, repr=False)
    """name → index of the tensor; asking the interpreter takes as long as a tenth of the smallest network"""

    def setup(self) -> None:
        """Load the weights (fetching them once). Raises what `generators.weights.fetch` raises."""
        if self._interpreter is None:
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(model_path=str(weights.path_of(self.weight)), num_threads=1)
            self._interpreter.allocate_tensors()
            self._input = self._interpreter.get_input_details()[0]["index"]
            self._outputs = {d["name"]: d["index"] for d in self._interpreter.get_output_details()}

    def _run(self, input_HWC: Floats) -> dict[str, Any]:
        """Output name → array without the batch axis."""
        self.setup()
        self._interpreter.set_tensor(self._input, input_HWC[None])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index)[0] for name, index in self._outputs.items()}

    def _unit(self, rgb_HWC: Bytes, region: Region) -> Floats:
        return np.asarray(region.cut(rgb_HWC, self.side), np.float32) / np.float32(255)


class HandNet(_Network):
    """21 points of the hand in a region of a picture."""

    def __init__(self, lite: bool = False) -> None:
        """`lite`: the smaller of MediaPipe's two networks; half the time, points 3 % of the hand's length apart in the median."""
        super().__init__("hand_landmark_lite" if lite else "hand_landmark", 224)

    def read(self, rgb_HWC: Bytes, region: Region) -> Hand:
        """The hand whose wrist is below and whose fingers point up in `region`. Always answers; look at `presence`."""
        out = self._run(self._unit(rgb_HWC, region))
        points = out["Identity"].astype(np.float64).reshape(21, 3) / self.side
        xy, z = region.to_picture(points[:, :2]), points[:, 2:] * region.side / 0.4  # the graph's normalize_z
        return Hand(np.concatenate([xy, z], axis=1), float(out["Identity_1"][0]), 1.0 - float(out["Identity_2"][0]))


class FaceNet(_Network):
    """468 points of the face in a region of a picture."""

    def __init__(self) -> None:
        super().__init__("face_landmark", 192)

    def read(self, rgb_HWC: Bytes, region: Region) -> Face:
        """The face whose eyes are level in `region`. Always answers; look at `presence`."""
        out = self._run(self._unit(rgb_HWC, region))
        points = out["conv2d_21"].astype(np.float64).reshape(468, 3) / self.side
        xy = region.to_picture(points[:, :2])
        return Face(np.concatenate([xy, points[:, 2:] * region.side], axis=1), float(sigmoid(out["conv2d_31"].item())))


@dataclass
class _Detector(_Network):
    """A single-shot detector on fixed anchors: two per cell and layer, all of size one."""

    strides: tuple[int, ...] = (8, 16, 16, 16)
    names: tuple[str, str] = ("Identity", "Identity_1")
    """of the outputs: boxes with points, and scores"""
    low: float = 0.0
    """what black is in the input; white is 1"""

    def find(self, rgb_HWC: Bytes, threshold: float = 0.5, zoom: int = 1) -> list[Spot]:
        """All found in a picture, best first. `zoom` 2, 3, … also looks into overlapping squares of that fraction of the long side, for
        what is small in the picture (a thing must fill about a tenth of what the network sees)."""
        found: list[Spot] = []
        for region in _windows(rgb_HWC.shape[0], rgb_HWC.shape[1], zoom):
            found += self._look(rgb_HWC, region, threshold)
        return _merged(found)

    def _look(self, rgb_HWC: Bytes, region: Region, threshold: float) -> list[Spot]:
        out = self._run(self._unit(rgb_HWC, region) * np.float32(1 - self.low) + np.float32(self.low))
        scores = sigmoid(out[self.names[1]][:, 0].astype(np.float64))
        keep = np.flatnonzero(scores >= threshold)
        points = out[self.names[0]][keep].astype(np.float64) / self.side
        points = points.reshape(len(keep), points.shape[1] // 2, 2)
        points[:, [0, *range(2, points.shape[1])]] += _anchors(self.side, self.strides)[keep][:, None]
        spots = []
        for score, (centre, size, *rest) in zip(scores[keep], points, strict=True):
            box = region.to_picture(np.stack([centre - size / 2, centre + size / 2])).reshape(4)
            spots.append(Spot(float(score), box, region.to_picture(np.stack(rest))))
        return spots


class PalmNet(_Detector):
    """Palms, however the fingers are."""

    def __init__(self) -> None:
        super().__init__("palm_detection", 192)


class FaceDetector(_Detector):
    """Faces that look more or less into the camera."""

    def __init__(self) -> None:
        super().__init__("face_detection", 128, names=("regressors", "classificators"), low=-1.0)


class SelfieNet(_Network):
    """The silhouette of whoever is near the camera."""

    def __init__(self) -> None:
        super().__init__("selfie_mask", 256)

    def mask(self, rgb_HWC: Bytes) -> Floats:
        """H×W, 0 to 1: a person's pixel. The whole picture is squeezed into the network's square, as its graph does."""
        height, width = rgb_HWC.shape[:2]
        small = cv2.resize(
            rgb_HWC, (self.side, self.side), interpolation=cv2.INTER_AREA if max(height, width) > self.side else cv2.INTER_LINEAR
        )
        out = self._run(np.asarray(small, np.float32) / np.float32(255))["activation_10"][..., 0]
        return np.asarray(np.clip(cv2.resize(out, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1), np.float32)


def upwards(direction_2: Doubles) -> float:
    """The turn of a region, in radians, in which the direction points up."""
    return float(np.arctan2(direction_2[0], -direction_2[1]))


def level(direction_x2: Doubles) -> Any:
    """The turn of a region, in radians, in which the direction points right."""
    return np.arctan2(direction_x2[..., 1], direction_x2[..., 0])


def _around(points_N2: Doubles, angle_rad: float, scale: float, up: float = 0.0) -> Region:
    """The square around the points' box in the turned system, its long side times `scale`, moved up by `up` of that box's height."""
    turn = Region(np.zeros(2), 1.0, angle_rad).turn_22
    turned = points_N2 @ turn
    low, high = turned.min(axis=0), turned.max(axis=0)
    middle = (low + high) / 2 - [0.0, up * (high[1] - low[1])]
    return Region(middle @ turn.T, max(scale * float((high - low).max()), 4.0), angle_rad)


def _anchors(side: int, strides: tuple[int, ...]) -> Doubles:
    """Centres of the detector's anchors, 0 to 1, two for every cell of every layer; layers of one stride share their cells."""
    layers = []
    for stride in sorted(set(strides)):
        line = (np.arange(side // stride) + 0.5) * stride / side
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, 2 * strides.count(stride), axis=0))
    return np.concatenate(layers)


def _windows(height: int, width: int, zoom: int) -> list[Region]:
    """The whole picture, letterboxed, and for each further zoom the squares that cover it, overlapping by half."""
    long = max(height, width)
    found = [Region(np.array([width / 2, height / 2]), float(long))]
    for k in range(2, zoom + 1):
        side = long / k
        across, down = (max(1, int(np.ceil(2 * n / side - 1e-6)) - 1) for n in (width, height))
        for y in np.linspace(min(side, height) / 2, height - min(side, height) / 2, down):
            found += [Region(np.array([x, y]), side) for x in np.linspace(min(side, width) / 2, width - min(side, width) / 2, across)]
    return found


def _merged(spots: list[Spot]) -> list[Spot]:
    """Overlapping ones as their mean, weighted by score (as the graphs' non-maximum suppression does); best first."""
    left, found = sorted(spots, key=lambda s: -s.score), []
    while left:
        boxes = np.stack([s.box_4 for s in left])
        same = overlap(boxes[0], boxes) > SAME
        same[0] = True
        group = [s for s, taken in zip(left, same, strict=True) if taken]
        share = np.array([s.score for s in group])
        share /= share.sum()
        points = sum(w * s.points_N2 for w, s in zip(share, group, strict=True))
        found.append(Spot(group[0].score, share @ boxes[same], np.asarray(points)))
        left = [s for s, taken in zip(left, same, strict=True) if not taken]
    return found
