"""Is it the same face? SFace (Zhong et al. 2021) on faces that YuNet (Wu et al. 2023) finds, both through OpenCV.

Real faces are told apart well. Drawn ones are not: two of the sample mannequins are more alike (0.9) than two views of one of them (0.5).
So a low cosine says that the face is another one, a high one that it is of the same kind. What a face can't tell (seen from behind,
under 12 pixels wide) is None; clothing.py looks at the rest of the person.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators import weights
from generators.poses.networks import Region, upwards
from generators.poses.tracks import INDEX, Bytes, People

Doubles = npt.NDArray[np.float64]

WEIGHTS = ("face_finder", "face_identity")
"""what steps that use `FaceReader` declare"""

LOOK_PX = 256
"""side of the square about a head that YuNet looks at"""
HEAD_OF_TORSO = 0.9
"""side of that square over the torso's length: drawn heads are larger than a body's"""
SURE = 0.8
"""YuNet's score from which something is a face; below it are fists, backs of heads and faces made unrecognisable"""
SAME = 0.3
"""found boxes that overlap more (intersection over union) are one face"""
SMALLEST_PX = 12.0
"""faces less wide than this say nothing: what is enlarged from them looks like everybody"""
SAMPLED_FRAMES = 16
RUN = 3
"""faces in a row that a change must last"""
ALIKE_PERCENTILE = 90.0


@dataclass(frozen=True)
class FaceLook:
    """The faces of one person in the frames of a video, or in a picture, where they show."""

    frames_N: npt.NDArray[np.int64]
    """ascending"""
    vectors_Nx128: Doubles
    """SFace's features, each of length 1"""
    points_Nx5x2: Doubles
    """pixels: right eye, left eye, nose tip, right and left corner of the mouth (the person's own right and left)"""
    looked: int
    """frames that were looked at"""


@dataclass(frozen=True)
class Likeness:
    """How alike two people's faces are."""

    cosine: float
    """-1 to 1, the median; SFace's authors call 0.363 and more the same person"""
    frames: int
    """of the video (the second of the two) that show a face; a single one may be the back of a head"""


class FaceReader:
    """Finds the faces of tracked people and describes whose they are. The models are loaded on first use; constructing is cheap. One thread
    at a time."""

    def __init__(self) -> None:
        self._finder: Any = None
        self._identity: Any = None

    def setup(self) -> None:
        """Load the models (fetching them once). Raises what `generators.weights.fetch` raises."""
        if self._identity is None:
            finder, identity = (np.fromfile(weights.path_of(name), np.uint8) for name in WEIGHTS)
            nothing = np.zeros(0, np.uint8)
            with _quiet():
                self._finder = cv2.FaceDetectorYN.create("onnx", finder, nothing, (LOOK_PX, LOOK_PX), SURE, SAME)
                self._identity = cv2.FaceRecognizerSF.create("onnx", identity, nothing)

    def read(self, frames_THWC: Bytes, people: People, person: int = 0) -> FaceLook:
        """The face of one person in up to 16 of the frames (RGB) in which it was found, evenly spread."""
        self.setup()
        found = np.flatnonzero(people.present_PT[person])
        picked = found[np.unique(np.linspace(0, len(found) - 1, SAMPLED_FRAMES).astype(int))] if len(found) else found
        seen = [(int(t), *face) for t in picked if (face := self._read_one(frames_THWC[t], _head(people, person, int(t)))) is not None]
        return FaceLook(
            np.array([t for t, _, _ in seen], np.int64),
            np.array([vector for _, vector, _ in seen], np.float64).reshape(-1, 128),
            np.array([points for _, _, points in seen], np.float64).reshape(-1, 5, 2),
            len(picked),
        )

    def _read_one(self, rgb_HWC: Bytes, head: Region) -> tuple[Doubles, Doubles] | None:
        """Features and points of the surest face near the middle of the region."""
        bgr_HWC = np.ascontiguousarray(head.cut(rgb_HWC, LOOK_PX)[..., ::-1])
        _, rows = self._finder.detect(bgr_HWC)
        if rows is None:
            return None
        off_centre = np.linalg.norm(rows[:, :2] + rows[:, 2:4] / 2 - LOOK_PX / 2, axis=1) / LOOK_PX
        row = rows[int(np.argmax(rows[:, -1] - off_centre))]
        if row[2] * head.side / LOOK_PX < SMALLEST_PX:
            return None
        vector = self._identity.feature(self._identity.alignCrop(bgr_HWC, row))[0].astype(np.float64)
        return vector / max(float(np.sqrt((vector**2).sum())), 1e-9), head.to_picture(row[4:14].reshape(5, 2).astype(np.float64) / LOOK_PX)


def likeness(wanted: FaceLook, video: FaceLook) -> Likeness | None:
    """Median SFace cosine over all pairs of a face that is wanted (of a painted picture, or of another video) and one of the video; None
    when no face shows in either."""
    if not len(wanted.frames_N) or not len(video.frames_N):
        return None
    return Likeness(float(np.median(_cosines(wanted, video))), len(video.frames_N))


def worst_run(wanted: FaceLook, video: FaceLook) -> float | None:
    """The lowest median cosine to what is wanted over three neighbouring faces of the video, -1 to 1: a face that changes half way shows
    here and not in `likeness`. So does a head that turns away. None below three faces, or when none is wanted."""
    if not len(wanted.frames_N) or len(video.frames_N) < RUN:
        return None
    per_face = np.median(_cosines(wanted, video), axis=0)
    return float(min(np.median(per_face[k : k + RUN]) for k in range(len(per_face) - RUN + 1)))


def continuity(video: FaceLook) -> float | None:
    """How alike the faces before and after the worst cut of the video are, -1 to 1, with no picture to compare to: at each cut with three
    faces on either side the 90th percentile of the cosines across it, the lowest of all cuts. A head that turns stays alike, because some
    view before is near some view after; another head does not. None below six faces."""
    count = len(video.frames_N)
    if count < 2 * RUN:
        return None
    cosines = _cosines(video, video)
    return float(min(np.percentile(cosines[:cut, cut:], ALIKE_PERCENTILE) for cut in range(RUN, count - RUN + 1)))


def _cosines(a: FaceLook, b: FaceLook) -> Doubles:
    """(N, M). No matrix product: it would add in an order that depends on the machine."""
    return np.asarray((a.vectors_Nx128[:, None] * b.vectors_Nx128[None]).sum(axis=2))


def _head(people: People, person: int, t: int) -> Region:
    """Where a face would be: about the head, upright as the spine is."""
    xy = people.landmarks_PT33x3[person, t, :, :2].astype(np.float64)
    shoulders = (xy[INDEX["left_shoulder"]] + xy[INDEX["right_shoulder"]]) / 2
    up = shoulders - (xy[INDEX["left_hip"]] + xy[INDEX["right_hip"]]) / 2
    middle = xy[:11].mean(axis=0)
    # In pictures that foreshorten the torso the neck is the better measure: the head's middle is half a head above the shoulders.
    side = max(HEAD_OF_TORSO * float(np.linalg.norm(up)), 1.9 * float(np.linalg.norm(middle - shoulders)), 16.0)
    return Region(middle, side, upwards(up))


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV 5 warns at every load that its new engine knows no targets."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
