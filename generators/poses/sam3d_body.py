"""SAM 3D Body (Meta): a surface and 70 key points in space for each person of each frame, in an environment of its own.

The built-in tracker says who is where; SAM 3D Body is given their boxes, their masks and the lens of 55° that the renderers see through,
and answers with bodies in that lens's space. Joints, depth and hands are then its own; who is who, what is hidden, masks and faces stay the
tracker's and the built-in readers'. The published estimator looks at single pictures, so bodies are smoothed over time like all poses.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from generators.masks.extractor import MaskExtractor
from generators.poses import linking, smoothing
from generators.poses.camera import NEAREST_M, Camera
from generators.poses.details import DetailReader
from generators.poses.extractor import ExtractorOptions, Facts, PoseExtractor, PoseOptions
from generators.poses.people import PeopleTracker
from generators.poses.tracks import INDEX, Bytes, Meshes, People
from generators.sources import digest_of_file, digest_of_sources, digest_of_weights
from generators.workers.group import as_response
from generators.workers.lines import CHILD, Child, ChildDied
from manifests.errors import BadOutput
from manifests.masks import THRESHOLD

Doubles = npt.NDArray[np.float64]

SERVE = Path(__file__).with_name("sam3d_serve.py")
SILENCE_S = 300.0
"""reading the weights may keep Python from running for minutes"""
POINTS = 70
"""of the Momentum Human Rig; their order is that of the package's `metadata/mhr70.py`"""
LANDMARK_OF: dict[str, int] = {
    "nose": 0, "left_eye": 1, "right_eye": 2, "left_ear": 3, "right_ear": 4, "left_shoulder": 5, "right_shoulder": 6, "left_elbow": 7,
    "right_elbow": 8, "left_hip": 9, "right_hip": 10, "left_knee": 11, "right_knee": 12, "left_ankle": 13, "right_ankle": 14,
    "left_foot_index": 15, "left_heel": 17, "right_foot_index": 18, "right_heel": 20, "right_thumb": 23, "right_index": 28,
    "right_pinky": 40, "right_wrist": 41, "left_thumb": 44, "left_index": 49, "left_pinky": 61, "left_wrist": 62,
}  # fmt: skip
FINGERS = tuple(first + k for first in (21, 25, 29, 33, 37) for k in (3, 2, 1, 0))
"""of the right hand, from each finger's root to its end; the left hand's are 21 later"""
HANDS = ((62, *(k + 21 for k in FINGERS)), (41, *FINGERS))
HAND_SEEN = 0.5
"""the wrist's visibility from which a hand is taken for seen"""
UNKEYED = frozenset({"python", "repo", "device", "checkpoint", "mhr", "timeout_s", "load_timeout_s"})
MARGIN = 0.05
"""of its sides, by which a mask's box is grown"""


class Sam3dBodyOptions(PoseOptions):
    """Where SAM 3D Body is installed, on the machines that run it."""

    python: str
    """the interpreter of its own environment"""
    repo: str = ""
    """the folder that holds its package `sam_3d_body`; empty: installed in that environment"""
    checkpoint: str
    """model.ckpt, its model_config.yaml beside it"""
    mhr: str
    """assets/mhr_model.pt"""
    env: dict[str, str] = Field(default_factory=dict)
    """variables beside the worker's own"""
    device: str = Field(default="cuda", pattern=r"^(cpu|cuda(:\d+)?)$")
    use_masks: bool = True
    """give it the people's masks beside their boxes"""
    timeout_s: float = Field(default=1500.0, gt=0)
    """for one video, below the pool's"""
    load_timeout_s: float = Field(default=1200.0, gt=0)

    @field_validator("python", "repo", "checkpoint", "mhr")
    @classmethod
    def _absolute(cls, v: str) -> str:
        if v and not Path(v).is_absolute():
            raise ValueError(f"{v!r} must be an absolute path on the machines that run it")
        return v


class Sam3dBody(PoseExtractor):
    """The tracker's people with SAM 3D Body's bodies."""

    facts: ClassVar[Facts] = Facts(
        what="surfaces and 70 points in space for the built-in tracker's people", code_licence="SAM License", weights_licence="SAM License",
        accept_licence=True, gpus=1, gives=frozenset({"meshes"}),
    )  # fmt: skip
    options_type: ClassVar[type[ExtractorOptions]] = Sam3dBodyOptions
    weights: ClassVar[tuple[str, ...]] = (*PeopleTracker.weights, "hand_landmark_lite")

    def __init__(self, options: Sam3dBodyOptions, masks: MaskExtractor) -> None:
        self.options = options
        self._tracker = PeopleTracker(options.max_people, masks)
        self._details = DetailReader()
        self._child = Child(
            [options.python, str(CHILD), str(SERVE)],
            load={"repo": options.repo, "checkpoint": options.checkpoint, "mhr": options.mhr, "device": options.device},
            env=options.env, load_timeout_s=options.load_timeout_s, silence_s=SILENCE_S,
        )  # fmt: skip

    @classmethod
    def build(cls, options: ExtractorOptions, masks: MaskExtractor) -> Sam3dBody:
        return cls(cast(Sam3dBodyOptions, options), masks)

    @classmethod
    def keyed(cls, options: ExtractorOptions) -> dict[str, Any]:
        """The repository counts by its sources, our serving script and the weights by their content; where they lie does not count."""
        own = cast(Sam3dBodyOptions, options)
        kept = own.model_dump(mode="json", exclude=set(UNKEYED))
        kept |= {"program": digest_of_sources(own.repo) if own.repo else "", "server": digest_of_file(str(SERVE))}
        return kept | {"checkpoint": digest_of_weights(own.checkpoint), "mhr": digest_of_weights(own.mhr)}

    @classmethod
    def missing(cls, options: ExtractorOptions | None = None) -> list[str]:
        """Also the interpreter, the repository and the weights."""
        out = super().missing(options)
        if not isinstance(options, Sam3dBodyOptions):
            return [*out, "no SAM 3D Body: its options say where it is installed"]
        places = (options.python, options.repo, options.checkpoint, options.mhr)
        return out + [f"no {place}" for place in places if place and not Path(place).exists()]

    def setup(self) -> None:
        """Load the estimator in its own environment. Raises Transient where it or its weights are not on this machine."""
        self._tracker.setup()
        try:
            self._child.start()
        except ChildDied as died:
            raise as_response(died) from died

    def end(self) -> None:
        """End the child. It also ends with this process."""
        self._child.end()

    def track(self, frames_THWC: Bytes, fps: float) -> People:
        """As the contract, and Transient, OutOfMemory or OutOfSpace when the child ends."""
        people = self._details.read(frames_THWC, self._tracker.track(frames_THWC, fps))
        return self._embodied(frames_THWC, people)

    def still(self, image_HWC: Bytes) -> People:
        return self._embodied(image_HWC[None], self._tracker.still(image_HWC))

    def _embodied(self, frames_THWC: Bytes, people: People) -> People:
        if not people.present_PT.any():
            return people
        camera = Camera.of(people.size_hw)
        told = self._asked(frames_THWC, people, camera)
        vertices, points = (_in_lens(told[name], told, camera) for name in ("vertices", "points"))
        # One row for each person who is there, frame after frame.
        at = np.zeros((people.frames, people.count), np.int64)
        at[people.present_PT.T] = np.arange(len(points))
        made = [_smoothed(points, at[:, p], people.present_PT[p], people.fps) for p in range(people.count)]
        surfaces = [_smoothed(vertices, at[:, p], people.present_PT[p], people.fps) for p in range(people.count)]
        for p, surface in enumerate(surfaces):
            surface[~people.present_PT[p]] = 0.0
        return _with_bodies(people, np.stack(made), Meshes(np.stack(surfaces).astype(np.float32), told["faces"].astype(np.int32)), camera)

    def _asked(self, frames_THWC: Bytes, people: People, camera: Camera) -> dict[str, Any]:
        """What the child wrote, checked."""
        self.setup()
        shown = [(int(p), t) for t in range(people.frames) for p in np.flatnonzero(people.present_PT[:, t])]
        boxes: list[list[list[float]]] = [[] for _ in range(people.frames)]
        for p, t in shown:
            boxes[t].append(_box(people, p, t))
        with tempfile.TemporaryDirectory(prefix="motionpair-sam3d-") as folder:
            pictures, masks, out = (Path(folder, name) for name in ("frames.rgb", "masks.raw", "bodies.npz"))
            pictures.write_bytes(np.ascontiguousarray(frames_THWC).tobytes())
            if self.options.use_masks:
                masks.write_bytes(np.stack([(people.masks_PTHW[p, t] >= THRESHOLD).astype(np.uint8) for p, t in shown]).tobytes())
            message = {
                "frames": str(pictures), "masks": str(masks) if self.options.use_masks else None, "out": str(out),
                "shape": list(frames_THWC.shape[:3]), "boxes": boxes, "focal": camera.focal_px,
            }  # fmt: skip
            try:
                self._child.call(message, self.options.timeout_s)
            except ChildDied as died:
                raise as_response(died) from died
            return _read(out, len(shown))


def _read(path: Path, count: int) -> dict[str, Any]:
    """The arrays, a row for each body. Raises BadOutput when they are not there, not whole, of other shapes, or no places in space."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        raise BadOutput("SAM 3D Body came back and wrote nothing", "no_output")
    try:
        with np.load(path, allow_pickle=False) as z:
            told = {name: z[name] for name in ("vertices", "places", "focals", "points", "faces")}
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise BadOutput(f"what SAM 3D Body wrote can't be read: {' '.join(str(e).split())[:200]}", "half_written") from e
    vertices, faces = told["vertices"], told["faces"]
    shapes = {name: a.shape for name, a in told.items()}
    fits = vertices.ndim == 3 and vertices.shape[0] == count and vertices.shape[2] == 3 and told["points"].shape == (count, POINTS, 3)
    fits = fits and told["places"].shape == (count, 3) and told["focals"].size == count and faces.ndim == 2 and faces.shape[1] == 3
    if not fits or not faces.size or not 0 <= faces.min() <= faces.max() < vertices.shape[1]:
        raise BadOutput(f"SAM 3D Body's answer for {count} bodies has shapes {shapes}", "bad_shape")
    if not all(np.isfinite(a).all() for a in told.values()):
        raise BadOutput("SAM 3D Body gave values that are no numbers; check its weights", "not_finite")
    if (told["places"][:, 2] < NEAREST_M).any() or (told["focals"] <= 0).any():
        raise BadOutput(f"SAM 3D Body puts somebody {told['places'][:, 2].min():.2f} m before the camera", "bad_camera")
    return told


def _in_lens(points_NxKx3: Any, told: dict[str, Any], camera: Camera) -> Doubles:
    """Points in our camera's space. A body seen through another lens is put at the depth at which ours sees it as large."""
    space = points_NxKx3.astype(np.float64) + told["places"].astype(np.float64)[:, None]
    ratio = camera.focal_px / told["focals"].astype(np.float64).reshape(-1)
    return np.asarray(space * np.stack([np.ones_like(ratio), np.ones_like(ratio), ratio], axis=1)[:, None])


def _smoothed(rows_NxKx3: Doubles, at_T: Any, here_T: Any, fps: float) -> Doubles:
    """A person's points, T×K×3, gaps interpolated; zero for somebody who is never there."""
    values = np.where(here_T[:, None, None], rows_NxKx3[at_T], 0.0)
    return smoothing.smooth(smoothing.fill(values, here_T), fps) if here_T.any() else values


def _with_bodies(people: People, points_PTx70x3: Doubles, meshes: Meshes, camera: Camera) -> People:
    space = np.zeros((people.count, people.frames, 33, 3))
    for name, k in LANDMARK_OF.items():
        space[:, :, INDEX[name]] = points_PTx70x3[:, :, k]
    for p, t in np.ndindex(people.count, people.frames):
        linking.fill_face(space[p, t])
    hips = space[:, :, [INDEX["left_hip"], INDEX["right_hip"]]].mean(axis=2, keepdims=True)
    ever = people.present_PT.any(axis=1)
    landmarks, world = people.landmarks_PT33x3.copy(), people.world_PT33x3.copy()
    flat = camera.project(space[ever])
    deep = (space - hips)[ever][..., 2:] * camera.focal_px / hips[ever][..., 2:]
    landmarks[ever], world[ever] = np.concatenate([flat, deep], axis=-1), (space - hips)[ever]
    if people.details is not None:
        for side, order in enumerate(HANDS):
            hand, wrist = points_PTx70x3[:, :, list(order)], INDEX["left_wrist" if side == 0 else "right_wrist"]
            seen = people.present_PT & (people.visibility_PT33[:, :, wrist] >= HAND_SEEN)
            at = np.concatenate(
                [camera.project(hand[seen]), (hand[seen] - hand[seen][:, :1])[..., 2:] * camera.focal_px / hand[seen][:, :1, 2:]], -1
            )
            people.details.hands_PT2x21x3[:, :, side][seen] = at
            people.details.hand_seen_PT2[:, :, side][seen] = people.visibility_PT33[:, :, wrist][seen]
    return replace(people, landmarks_PT33x3=landmarks, world_PT33x3=world, meshes=meshes)


def _box(people: People, p: int, t: int) -> list[float]:
    """Around the mask, or where there is none around the landmarks, a little larger, within the picture."""
    height, width = people.size_hw
    x, y, w, h = cv2.boundingRect((people.masks_PTHW[p, t] >= THRESHOLD).astype(np.uint8))
    low, high = np.array([x, y], float), np.array([x + w, y + h], float)
    if not w:
        points = people.landmarks_PT33x3[p, t, :, :2].astype(float)
        low, high = points.min(axis=0), points.max(axis=0)
    grown = MARGIN * (high - low)
    low, high = np.clip(low - grown, 0, [width - 1, height - 1]), np.clip(high + grown, 1, [width, height])
    return [float(v) for v in (*low, *high)]
