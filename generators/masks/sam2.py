"""Masks of tracked people by SAM2's video predictor (Meta, Apache-2.0), in place of the built-in refinement.

The tracker says who is where; SAM2 is told by boxes or points in a few good frames of everybody and follows them through the clip.
Nothing here imports torch or sam2 before `setup`.
"""

from __future__ import annotations

import errno
import importlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from generators.masks.extractor import check_frames
from generators.poses.extractor import Extractor, ExtractorOptions, Facts
from generators.poses.tracks import BODY, INDEX, Bools, Bytes, People
from generators.sources import digest_of_file
from manifests.errors import BadOutput, Transient
from manifests.masks import THRESHOLD

EXTRA = "pip install 'motionpair[sam2]'"
CONFIGS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
SHARED = 63
"""the most that a pixel may have in the mask of whoever it is not: contract of `MaskExtractor`"""
SEEN = 0.5
POINTS: tuple[tuple[str, ...], ...] = (
    ("nose",), ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_knee",), ("right_knee",),
)  # fmt: skip
"""where a person is clicked, as means of landmarks"""
TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
"""where others are clicked as not belonging, if that lies in the person's box"""
MARGIN = 0.05
"""of its sides, by which a box of landmarks is grown: they lie inside the body"""
FULL = (errno.ENOSPC, errno.EDQUOT)

Logits = npt.NDArray[np.float32]


class Sam2Options(ExtractorOptions):
    """What may change the masks."""

    weights: str = "hf:facebook/sam2.1-hiera-large"
    """`hf:facebook/sam2.1-hiera-SIZE`, or `file:CHECKPOINT.pt` of `size`"""
    size: Literal["tiny", "small", "base-plus", "large"] = "large"
    """of a checkpoint file; a repository's name says it"""
    device: str = Field(default="cuda", pattern=r"^(cpu|cuda(:\d+)?)$")
    prompts: Literal["box", "points", "both"] = "both"
    prompt_every_s: float = Field(default=1.0, gt=0, le=60)
    """everybody is shown to it about so often, in the best frame of each such stretch"""
    image_size: int = Field(default=1024, ge=128, le=2048, multiple_of=64)
    """side of the square that frames are scaled to; the published weights are for 1024"""


@dataclass(frozen=True)
class Prompt:
    """One person shown in one frame, in pixels of the clip."""

    person: int
    frame: int
    box: tuple[float, float, float, float] | None
    points_N2: npt.NDArray[np.float32]
    belongs_N: npt.NDArray[np.int32]
    """1: the person, 0: somebody else"""


class Sam2(Extractor):
    """A `MaskExtractor`: `PeopleTracker(extractor=Sam2())`."""

    facts: ClassVar[Facts] = Facts(
        what="masks by SAM2's video predictor, prompted by boxes and points",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        gpus=1,
    )
    options_type: ClassVar[type[ExtractorOptions]] = Sam2Options
    requires: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "sam2")

    @classmethod
    def build(cls, options: ExtractorOptions) -> Sam2:
        return cls(cast(Sam2Options, options))

    @classmethod
    def facts_with(cls, options: ExtractorOptions) -> Facts:
        """A checkpoint file is anybody's."""
        strange = cast(Sam2Options, options).weights.startswith("file:")
        change = {"weights_licence": "unclear", "accept_licence": True} if strange else {}
        return super().facts_with(options).model_copy(update=change)

    @classmethod
    def keyed(cls, options: ExtractorOptions) -> dict[str, Any]:
        """A checkpoint file counts by its content."""
        kept, named = super().keyed(options), cast(Sam2Options, options).weights
        return kept | ({"weights": digest_of_file(str(Path(named[5:]).expanduser()))} if named.startswith("file:") else {})

    def __init__(self, options: Sam2Options | None = None) -> None:
        self.options = options or Sam2Options()
        self._predictor: Any = None

    def setup(self) -> None:
        """Load the model. Raises Transient where sam2 or the weights can't be had: another machine, or this one later, may have them."""
        if self._predictor is not None:
            return
        try:
            # An import fails with RuntimeError where torchvision was built for another torch.
            build = importlib.import_module("sam2.build_sam")
        except (ImportError, RuntimeError) as e:
            raise Transient(f"sam2 can't be imported here: {' '.join(str(e).split())[:200]} Mend it: {EXTRA}", "no_library") from e
        source = self.options.weights
        more = {"device": self.options.device, "hydra_overrides_extra": [f"++model.image_size={self.options.image_size}"]}
        try:
            if source.startswith("file:"):
                config = f"configs/sam2.1/sam2.1_hiera_{CONFIGS[self.options.size]}.yaml"
                self._predictor = build.build_sam2_video_predictor(config, str(Path(source[5:]).expanduser()), **more)
            else:
                self._predictor = build.build_sam2_video_predictor_hf(source.removeprefix("hf:"), **more)
        except OSError as e:
            if e.errno in FULL:
                raise
            raise Transient(
                f"{source} can't be loaded: {' '.join(str(e).split())[:200]} Check its name and the network", "no_weights"
            ) from e
        except KeyError as e:
            raise Transient(f"{source} is none of sam2's repositories: {', '.join(build.HF_MODEL_ID_TO_FILENAMES)}", "no_weights") from e
        except RuntimeError as e:
            if type(e).__name__ == "OutOfMemoryError":
                raise
            raise Transient(f"{source} is no checkpoint of SAM2.1 {self.options.size}; name the right size", "no_weights") from e

    def extract(self, frames_THWC: Bytes, people: People) -> Bytes:
        """masks_PTHW, soft (0 to 255), as the contract of `MaskExtractor` says. Raises BadInput when the frames are not the people's."""
        out = np.zeros(people.masks_PTHW.shape, np.uint8)
        for t, logits_PHW in self._followed(frames_THWC, people):
            soft = np.round(255 / (1 + np.exp(-np.clip(logits_PHW, -30, 30)))).astype(np.uint8)
            owner = logits_PHW.argmax(axis=0) == np.arange(people.count)[:, None, None]
            out[:, t] = np.where(owner, soft, np.minimum(soft, SHARED))
        out[~people.present_PT] = 0
        return out

    def segment(self, frames_THWC: Bytes, people: People) -> list[Bools]:
        """For each person T×H×W, true where they are; no pixel belongs to two. Raises BadInput when the frames are not the people's."""
        return list(self.extract(frames_THWC, people) >= THRESHOLD)

    def _followed(self, frames_THWC: Bytes, people: People) -> Iterator[tuple[int, Logits]]:
        """Frame numbers, each once, with everybody's logits (P×H×W)."""
        check_frames(frames_THWC, people)
        shown = prompts(people, self.options)
        if not shown:
            return
        self.setup()
        torch = importlib.import_module("torch")
        # The predictor keeps its memory of earlier frames in bfloat16 whatever the device, and reads it back only under autocast.
        half = torch.autocast(self.options.device.partition(":")[0], dtype=torch.bfloat16)
        with tempfile.TemporaryDirectory(prefix="motionpair-sam2-") as folder, torch.inference_mode(), half:
            _write_jpegs(frames_THWC, Path(folder))
            state = self._predictor.init_state(folder, offload_video_to_cpu=True, offload_state_to_cpu=False)
            for prompt in shown:
                self._predictor.add_new_points_or_box(
                    state, prompt.frame, prompt.person, prompt.points_N2, prompt.belongs_N, box=prompt.box
                )
            first = min(prompt.frame for prompt in shown)
            for reverse in (False, True):
                for t, persons, logits in self._predictor.propagate_in_video(state, start_frame_idx=first, reverse=reverse):
                    if not (reverse and t == first):
                        yield t, _logits(persons, logits, people)


def _logits(persons: list[int], logits_N1HW: Any, people: People) -> Logits:
    """In the people's order; nowhere for those who were never shown."""
    made = logits_N1HW[:, 0].float().cpu().numpy()
    if not np.isfinite(made).all():
        raise BadOutput("SAM2 gave values that are no numbers; check its weights", "not_finite")
    out = np.full((people.count, *people.size_hw), -np.inf, np.float32)
    out[persons] = made
    return out


def _write_jpegs(frames_THWC: Bytes, folder: Path) -> None:
    """SAM2 reads a folder of JPEG files, or a video through decord, which it leaves set up for torch: nothing else could read then."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for t, frame in enumerate(frames_THWC):
        if not cv2.imwrite(str(folder / f"{t:05d}.jpg"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality):
            raise OSError(errno.ENOSPC, "frames for SAM2 can't be written to the temporary folder")


def prompts(people: People, options: Sam2Options) -> list[Prompt]:
    """Everybody in the best frame of each stretch of `prompt_every_s` in which they are present; nobody who is never present.

    Best is where most of the body's joints are seen and least of the box lies in other people's boxes.
    """
    boxes_PT4 = np.array([[_box(people, p, t) for t in range(people.frames)] for p in range(people.count)]).reshape(people.count, -1, 4)
    joints = [INDEX[name] for name in BODY]
    length = max(1, round(options.prompt_every_s * people.fps))
    out = []
    for p in range(people.count):
        clear_T = people.visibility_PT33[p][:, joints].mean(axis=1) - _covered(boxes_PT4, people.present_PT, p)
        for start in range(0, people.frames, length):
            here = np.flatnonzero(people.present_PT[p, start : start + length]) + start
            if len(here):
                out.append(_prompt(people, p, int(here[np.argmax(clear_T[here])]), boxes_PT4, options.prompts))
    return out


def _prompt(people: People, p: int, t: int, boxes_PT4: npt.NDArray[np.float64], kind: str) -> Prompt:
    box = boxes_PT4[p, t]
    mine, others = _clicks(people, p, t), np.zeros((0, 2))
    if kind != "box":
        trunks = [_place(people, q, t, TRUNK) for q in range(people.count) if q != p and people.present_PT[q, t]]
        others = np.array([xy for xy in trunks if xy is not None and _inside(xy, box)]).reshape(-1, 2)
        # A click where two people overlap would say opposite things of the same place.
        mine = np.array([xy for xy in mine if not len(others) or np.linalg.norm(others - xy, axis=1).min() > 2.0]).reshape(-1, 2)
    if kind == "box":
        mine = mine[:0]
    keep_box = kind != "points" or not len(mine)
    points = np.concatenate([mine, others]).astype(np.float32)
    belongs = np.array([1] * len(mine) + [0] * len(others), np.int32)
    x0, y0, x1, y1 = (float(v) for v in box)
    return Prompt(p, t, (x0, y0, x1, y1) if keep_box else None, points, belongs)


def _clicks(people: People, p: int, t: int) -> npt.NDArray[np.float64]:
    """Seen parts of the body that lie on the rough silhouette, where there is one."""
    height, width = people.size_hw
    found = []
    for names in POINTS:
        xy = _place(people, p, t, names)
        if xy is None or not (0 <= xy[0] < width and 0 <= xy[1] < height):
            continue
        mask = people.masks_PTHW[p, t]
        if not mask.any() or mask[int(xy[1]), int(xy[0])] >= THRESHOLD:
            found.append(xy)
    return np.array(found).reshape(-1, 2)


def _place(people: People, p: int, t: int, names: tuple[str, ...]) -> npt.NDArray[np.float64] | None:
    """Mean of landmarks that are all seen."""
    index = [INDEX[name] for name in names]
    if people.visibility_PT33[p, t, index].min() < SEEN:
        return None
    return np.asarray(people.landmarks_PT33x3[p, t, index, :2].mean(axis=0), np.float64)


def _box(people: People, p: int, t: int) -> tuple[float, float, float, float]:
    """Of the rough silhouette, else of the landmarks that are seen, clipped to the picture; all zero for somebody absent."""
    height, width = people.size_hw
    if not people.present_PT[p, t]:
        return 0.0, 0.0, 0.0, 0.0
    x, y, w, h = cv2.boundingRect((people.masks_PTHW[p, t] >= THRESHOLD).astype(np.uint8))
    low, high = np.array([x, y], float), np.array([x + w, y + h], float)
    if not w:
        seen = people.visibility_PT33[p, t] >= SEEN
        points = people.landmarks_PT33x3[p, t, seen if seen.any() else slice(None), :2].astype(np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _inside(xy: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> bool:
    return bool((box[:2] <= xy).all() and (xy <= box[2:]).all())


def _covered(boxes_PT4: npt.NDArray[np.float64], present_PT: Bools, p: int) -> npt.NDArray[np.float64]:
    """Share of a person's box that lies in the box of whoever covers most of it, per frame."""
    mine = boxes_PT4[p]
    area = np.maximum((mine[:, 2:] - mine[:, :2]).prod(axis=1), 1.0)
    most = np.zeros(len(mine))
    for q in range(len(boxes_PT4)):
        if q != p:
            low, high = np.maximum(mine[:, :2], boxes_PT4[q, :, :2]), np.minimum(mine[:, 2:], boxes_PT4[q, :, 2:])
            most = np.maximum(most, np.maximum(high - low, 0).prod(axis=1) / area * present_PT[q])
    return most
