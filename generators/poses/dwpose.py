"""DWPose (Yang et al., 2023): a YOLOX person detector and 133 whole-body points per person, two ONNX files run by onnxruntime.

Pre- and postprocessing follow the published configurations: the detector gets the picture at the upper left of a grey square, BGR from 0 to
255, and answers with boxes on strides 8, 16 and 32; the pose network gets 1.25 times each box, RGB, normalised by ImageNet's means, and
answers with one row of likelihoods per axis and point in half pixels (SimCC, Li et al., 2022).

DWPose knows no depth. That, and a rough silhouette, are taken from the built-in landmark model on the same person; where it sees nobody,
the body is flat.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from generators import weights
from generators.masks.extractor import MaskExtractor
from generators.poses import linking, wholebody
from generators.poses.blazepose import BlazePose, overlap
from generators.poses.details import DetailReader
from generators.poses.extractor import ExtractorOptions, Facts, PoseExtractor, PoseOptions
from generators.poses.figures import SEEN_DETAIL
from generators.poses.following import steady
from generators.poses.linking import Linked, Look
from generators.poses.people import PRESENT, check_pixels
from generators.poses.silhouettes import body_size
from generators.poses.tracks import Bytes, Floats, People
from generators.weights import Weight
from manifests.errors import BadOutput, Transient

Doubles = npt.NDArray[np.float64]

EXTRA = "pip install 'motionpair[dwpose]'"
PERSON, SAME, GREY = 0, 0.45, 114
"""class, overlap of boxes that are one person, and colour of the border"""
STRIDES = (8, 16, 32)
MARGIN = 1.25
SPLIT = 2.0
"""likelihoods per pixel"""
MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
LEAST_JOINTS = 3
"""of the body that a person must show"""
TORSO_M = 0.5
"""an adult's `body_size`"""
KNOWN = 0.3
"""score from which the published code takes a point for seen"""


def _published(file: str, sha256: str, size: int) -> Weight:
    return Weight(uri=f"hf:yzd-v/DWPose/{file}", sha256=sha256, size=size, licence="Apache-2.0", origin="DWPose, IDEA Research")


DETECTOR = _published("yolox_l.onnx", "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411", 216746733)
POSE = _published("dw-ll_ucoco_384.onnx", "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843", 134399116)
PUBLISHED = {weight.uri: weight for weight in (DETECTOR, POSE)}
DIGESTS = {weight.sha256 for weight in PUBLISHED.values()}


class DWPoseOptions(PoseOptions):
    """What a recipe may set."""

    detector: str = DETECTOR.uri
    pose: str = POSE.uri
    """`hf:OWNER/NAME/FILE` or `file:PATH`, ONNX"""
    detector_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    pose_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """checked when given; needed for files of the hub other than the published two"""
    device: Literal["cpu", "cuda"] = "cuda"
    detection_min: float = Field(default=0.3, gt=0, lt=1)
    """score from which a box is a person"""

    @model_validator(mode="after")
    def _named(self) -> DWPoseOptions:
        for uri, sha256 in self.files():
            if complaint := weights.complain_of(uri, sha256, PUBLISHED):
                raise ValueError(complaint)
        return self

    def files(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """URI and digest of both."""
        return (self.detector, self.detector_sha256), (self.pose, self.pose_sha256)


class DWPose(PoseExtractor):
    """People by YOLOX and DWPose, with hands and faces."""

    facts: ClassVar[Facts] = Facts(
        what="133 points in the plane: body, feet, hands, face; depth by the built-in model", code_licence="Apache-2.0",
        weights_licence="Apache-2.0", gpus=1,
    )  # fmt: skip
    options_type: ClassVar[type[ExtractorOptions]] = DWPoseOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark", "hand_landmark_lite", "face_landmark")
    requires: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(self, options: DWPoseOptions, masks: MaskExtractor) -> None:
        self.options, self._masks = options, masks
        self._nets: tuple[Net, Net] | None = None
        self._depth: BlazePose | None = None
        self._details = DetailReader()

    @classmethod
    def build(cls, options: ExtractorOptions, masks: MaskExtractor) -> DWPose:
        return cls(cast(DWPoseOptions, options), masks)

    @classmethod
    def facts_with(cls, options: ExtractorOptions) -> Facts:
        """Other files than the published ones have a licence that is not known here."""
        own = cast(DWPoseOptions, options)
        strange = [uri for uri, sha256 in own.files() if uri not in PUBLISHED and sha256 not in DIGESTS]
        change = {"weights_licence": "unclear", "accept_licence": True} if strange else {}
        return super().facts_with(options).model_copy(update=change)

    @classmethod
    def keyed(cls, options: ExtractorOptions) -> dict[str, Any]:
        """Files count by their content."""
        own = cast(DWPoseOptions, options)
        kept = own.model_dump(mode="json", exclude={"device", "detector", "pose", "detector_sha256", "pose_sha256"})
        return kept | {"files": [weights.key_of_named(uri, sha256, PUBLISHED) for uri, sha256 in own.files()]}

    def setup(self) -> None:
        """Load the networks. Raises Transient where onnxruntime or the files can't be had, Damaged for a wrong digest."""
        if self._nets is None:
            detector, pose = (Net(weights.named(uri, sha256, PUBLISHED), self.options.device) for uri, sha256 in self.options.files())
            self._nets = detector, pose
            self._depth = BlazePose()

    def track(self, frames_THWC: Bytes, fps: float) -> People:
        check_pixels(frames_THWC, 4, fps)
        found = self._linked(frames_THWC, fps)
        return self._with_details(frames_THWC, found)

    def still(self, image_HWC: Bytes) -> People:
        check_pixels(image_HWC, 3)
        return self._linked(image_HWC[None], 1.0).people

    def _linked(self, frames_THWC: Bytes, fps: float) -> Linked:
        self.setup()
        looks = [[look for box in self.boxes(rgb) if (look := self._look(rgb, box)) is not None] for rgb in frames_THWC]
        return linking.linked(frames_THWC, looks, fps, self.options.max_people, self._masks)

    def boxes(self, rgb_HWC: Bytes) -> Doubles:
        """N×5: x0, y0, x1, y1 in pixels and the score of each person, best first."""
        assert self._nets is not None
        net = self._nets[0]
        side = (net.height, net.width)
        ratio = min(side[0] / rgb_HWC.shape[0], side[1] / rgb_HWC.shape[1])
        small_wh = (max(1, int(rgb_HWC.shape[1] * ratio)), max(1, int(rgb_HWC.shape[0] * ratio)))
        padded = np.full((*side, 3), GREY, np.float32)
        padded[: small_wh[1], : small_wh[0]] = cv2.resize(rgb_HWC, small_wh, interpolation=cv2.INTER_LINEAR)[..., ::-1]
        (made,) = net.run(padded)
        grid = _grid(side)
        if made.ndim != 2 or made.shape[0] != len(grid) or made.shape[1] < 6:
            raise BadOutput(f"the detector gave {made.shape}, a YOLOX of {side[0]}×{side[1]} gives ({len(grid)}, 5 + classes)", "bad_shape")
        centre, size = (made[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(np.minimum(made[:, 2:4], 20.0)) * grid[:, 2:]
        scores = made[:, 4:5] * made[:, 5:]
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1) / ratio
        keep = (scores[:, PERSON] > self.options.detection_min) & (scores.argmax(axis=1) == PERSON)
        return _distinct(corners[keep], scores[keep, PERSON])

    def points(self, rgb_HWC: Bytes, box_4: Doubles) -> tuple[Doubles, Doubles]:
        """133×2 pixels of the picture and 133 scores, of the person in a box."""
        assert self._nets is not None
        net = self._nets[1]
        low, size = _window(box_4, net.width / net.height)
        scale = np.array([net.width, net.height]) / size
        matrix = np.array([[scale[0], 0, -low[0] * scale[0]], [0, scale[1], -low[1] * scale[1]]])
        inside = cv2.warpAffine(rgb_HWC, matrix, (net.width, net.height), flags=cv2.INTER_LINEAR)
        rows = net.run((inside.astype(np.float32) - MEAN) / STD)
        want = [(wholebody.COUNT, round(net.width * SPLIT)), (wholebody.COUNT, round(net.height * SPLIT))]
        if [row.shape for row in rows] != want:
            raise BadOutput(f"the pose network gave {[row.shape for row in rows]}, 133 points of SimCC are {want}", "bad_shape")
        at = np.stack([row.argmax(axis=1) for row in rows], axis=1) / SPLIT
        return at / scale + low, np.minimum(rows[0].max(axis=1), rows[1].max(axis=1))

    def _look(self, rgb_HWC: Bytes, box_5: Doubles) -> Look | None:
        """Nobody where the pose network sees too few joints."""
        points, scores = self.points(rgb_HWC, box_5[:4])
        if (scores[wholebody.BODY] > KNOWN).sum() < LEAST_JOINTS:
            return None
        xy, belief = wholebody.landmarks(points, scores)
        flat = _flat(xy)
        look = Look(
            np.concatenate([xy, np.zeros((33, 1))], axis=1).astype(np.float32), flat, np.clip(belief, 0, 1).astype(np.float32),
            float(np.clip(box_5[4], 0, 1)), more=(points, scores),
        )  # fmt: skip
        return self._deepened(rgb_HWC, look)

    def _deepened(self, rgb_HWC: Bytes, look: Look) -> Look:
        """With what the built-in landmark model knows of depth and outline, if it sees the same person."""
        assert self._depth is not None
        frame = linking.body_of(rgb_HWC, look)
        body = self._depth.body(rgb_HWC, frame.centre, frame.tip)
        if body.presence < PRESENT:
            return look
        landmarks = np.concatenate([look.landmarks_33x3[:, :2], body.landmarks_33x3[:, 2:]], axis=1)
        return replace(look, landmarks_33x3=landmarks, world_33x3=body.world_33x3, silhouette_HW=body.mask())

    def _with_details(self, frames_THWC: Bytes, found: Linked) -> People:
        """Hands by DWPose. Faces: the built-in mesh, pulled onto DWPose's 68 points, where both see one."""
        people = self._details.read(frames_THWC, found.people)
        details = people.details
        assert details is not None
        for p, looks in enumerate(found.looks_P):
            for side, part in enumerate(wholebody.HANDS):
                points, belief = np.zeros((people.frames, 21, 3)), np.zeros(people.frames)
                for t, look in looks.items():
                    points[t, :, :2], belief[t] = look.more[0][part], float(np.clip(look.more[1][part].mean(), 0, 1))
                belief[belief < KNOWN] = 0.0
                points[belief == 0] = 0.0
                details.hands_PT2x21x3[p, :, side], details.hand_seen_PT2[p, :, side] = steady(points, belief, people.fps)
            for t, look in looks.items():
                if details.face_seen_PT[p, t] > 0 and look.more[1][wholebody.FACE].mean() >= SEEN_DETAIL:
                    mesh = details.faces_PT468x3[p, t].astype(np.float64)
                    details.faces_PT468x3[p, t] = wholebody.pulled(mesh, look.more[0][wholebody.FACE])
        return people


class Net:
    """An ONNX file with one picture as its input."""

    def __init__(self, path: Path, device: str) -> None:
        """Raises Transient where onnxruntime is missing, lacks the device, or the file is none that it can run."""
        try:
            ort = importlib.import_module("onnxruntime")
        except ImportError as e:
            raise Transient(f"onnxruntime can't be imported here: {' '.join(str(e).split())[:200]} Mend it: {EXTRA}", "no_library") from e
        provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
        if provider not in ort.get_available_providers():
            raise Transient(f"this onnxruntime has no {provider}; install onnxruntime-gpu, or write device: cpu", "no_library")
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1  # sums in one order: the same bytes on every machine of a kind
        settings.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), settings, providers=[provider])
        except Exception as e:
            raise Transient(f"{path.name} is no ONNX file that onnxruntime can run: {' '.join(str(e).split())[:200]}", "no_weights") from e
        asked = self._session.get_inputs()
        shape = list(asked[0].shape) if asked else []
        if len(asked) != 1 or len(shape) != 4 or shape[1] != 3 or not all(isinstance(side, int) and side > 31 for side in shape[2:]):
            wants = [i.shape for i in asked]
            raise Transient(f"{path.name} wants {wants}; DWPose's files want one picture, [1, 3, height, width]", "no_weights")
        self._name, self.height, self.width = asked[0].name, shape[2], shape[3]

    def run(self, picture_HWC: Floats) -> list[Doubles]:
        """All outputs, without the batch axis. Raises BadOutput for what are no numbers."""
        made = self._session.run(None, {self._name: np.ascontiguousarray(picture_HWC.transpose(2, 0, 1)[None], np.float32)})
        out = [np.asarray(array, np.float64)[0] for array in made]
        if not all(np.isfinite(array).all() for array in out):
            raise BadOutput("an ONNX network of DWPose gave values that are no numbers; check its weights", "not_finite")
        return out


def _grid(side_hw: tuple[int, int]) -> Doubles:
    """Of every cell its column and row, and its stride."""
    cells = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: side_hw[0] // stride, : side_hw[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
    return np.concatenate(cells).astype(np.float64)


def _distinct(boxes_N4: Doubles, scores_N: Doubles) -> Doubles:
    """Non-maximum suppression; N×5, best first."""
    left, kept = np.argsort(-scores_N, kind="stable"), []
    while len(left):
        kept.append(left[0])
        left = left[overlap(boxes_N4[left[0]], boxes_N4[left]) <= SAME]
        left = left[left != kept[-1]]
    return np.concatenate([boxes_N4[kept], scores_N[kept, None]], axis=1).reshape(-1, 5)


def _window(box_4: Doubles, aspect: float) -> tuple[Doubles, Doubles]:
    """Corner and size of what the pose network sees: the box, a margin, and its own proportions around the same centre."""
    centre, size = (box_4[:2] + box_4[2:]) / 2, np.maximum(box_4[2:] - box_4[:2], 1.0) * MARGIN
    size = np.array([max(size[0], size[1] * aspect), max(size[1], size[0] / aspect)])
    return centre - size / 2, size


def _flat(xy_33x2: Doubles) -> Floats:
    """The body as if it stood in one plane: metres around the hips, an adult's size."""
    landmarks = np.concatenate([xy_33x2, np.zeros((33, 1))], axis=1).astype(np.float32)
    metres = (xy_33x2 - xy_33x2[[23, 24]].mean(axis=0)) * (TORSO_M / body_size(landmarks))
    return np.concatenate([metres, np.zeros((33, 1))], axis=1).astype(np.float32)
