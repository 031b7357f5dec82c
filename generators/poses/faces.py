"""The face of one tracked person through a video: the body's nose, eyes and mouth say where to look, the mesh network what is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.poses.blazepose import Body
from generators.poses.following import LOOK_S, follow
from generators.poses.networks import Face, FaceNet, Region, level, upwards
from generators.poses.tracks import INDEX, Bytes, Floats

Doubles = npt.NDArray[np.float64]

PRESENT = 0.5
SMALLEST_PX = 16.0
"""faces less tall than this are not looked at"""
FACE_OF_HEIGHT = 0.115
"""brow to chin over the height of the body: 0.19 m of 1.65 m, as the mesh covers it"""
REGION = 1.5
HEAD_OF_TORSO = 0.6
"""side of the square about a head, over the torso's length"""
BEHIND = 0.05
"""how far the nose may lie behind the ears, over the body's height, in a head that is not seen from behind"""
APART = 0.5
"""face heights between the mesh's middle and the body's face from which it is somebody else's"""
TALL = (0.4, 1.8)
"""how tall a mesh may be, over the face's height"""


@dataclass(frozen=True)
class Head:
    """What the body model says of one head, all in pixels."""

    middle_T2: Doubles
    angle_T: Doubles
    """of the line through the eyes, radians"""
    face_T: Doubles
    """how tall the face is"""
    visible_T: npt.NDArray[np.bool_]
    """seen, in the picture, and not from behind"""

    @staticmethod
    def of(landmarks_T33x3: Floats, visibility_T33: Floats, present_T: npt.NDArray[np.bool_], tall_T: Doubles,
           size_hw: tuple[int, int]) -> Head:  # fmt: skip
        """`tall_T`: the standing body's height in pixels, see summary.standing_height."""
        points = landmarks_T33x3.astype(np.float64)
        right, left, nose = (points[:, INDEX[name]] for name in ("right_eye", "left_eye", "nose"))
        eyes, mouth = (right + left) / 2, (points[:, INDEX["mouth_left"]] + points[:, INDEX["mouth_right"]]) / 2
        middle = ((eyes + mouth) / 2)[:, :2]
        inside = (middle >= 0).all(axis=1) & (middle[:, 0] < size_hw[1]) & (middle[:, 1] < size_hw[0])
        ears = (points[:, INDEX["left_ear"]] + points[:, INDEX["right_ear"]]) / 2
        front = nose[:, 2] - ears[:, 2] <= BEHIND * tall_T
        # Eyes to mouth is a good third of the face; it sees that drawn heads are larger than a body's.
        face = np.maximum(2.7 * np.linalg.norm((eyes - mouth)[:, :2], axis=1), 0.8 * FACE_OF_HEIGHT * tall_T)
        line = (left - right)[:, :2]
        down = (mouth - eyes)[:, :2]
        turned = np.where(np.linalg.norm(line, axis=1) > 0.5 * np.linalg.norm(down, axis=1), level(line), level(down) - np.pi / 2)
        return Head(middle, turned, face, np.asarray(present_T & inside & front & (visibility_T33[:, :11].mean(axis=1) >= 0.5)))

    def region(self, t: int) -> Region:
        return Region(self.middle_T2[t], REGION * float(self.face_T[t]), float(self.angle_T[t]))


def head_region(body: Body) -> Region:
    """Where a face would be on a body of which not even the facing is certain: about the head, upright as the spine is."""
    xy = body.landmarks_33x3[:, :2].astype(np.float64)
    up = (xy[INDEX["left_shoulder"]] + xy[INDEX["right_shoulder"]] - xy[INDEX["left_hip"]] - xy[INDEX["right_hip"]]) / 2
    return Region(xy[:11].mean(axis=0), max(HEAD_OF_TORSO * float(np.linalg.norm(up)), SMALLEST_PX), upwards(up))


def face_through(net: FaceNet, frames_THWC: Bytes, head: Head, fps: float) -> dict[int, Face]:
    """The face in the frames in which it is seen and sits on this head."""

    def checked(t: int, region: Region) -> Face | None:
        face = net.read(frames_THWC[t], region)
        return face if face.presence >= PRESENT and _fits(face, head, t) else None

    def look(t: int) -> Face | None:
        if not _worth_looking(head, t):
            return None
        first = net.read(frames_THWC[t], head.region(t))
        return checked(t, first.region) if first.presence >= PRESENT / 2 else None

    def again(t: int, face: Face, since: int) -> Face | None:
        if not _worth_looking(head, t):
            return None
        known = face.region
        return checked(t, Region(known.centre + head.middle_T2[t] - head.middle_T2[since], known.side, known.angle_rad))

    return follow(len(frames_THWC), max(1, round(LOOK_S * fps)), look, again)


def _worth_looking(head: Head, t: int) -> bool:
    return bool(head.visible_T[t]) and float(head.face_T[t]) >= SMALLEST_PX


def _fits(face: Face, head: Head, t: int) -> bool:
    low, high = face.points_468x3[:, :2].min(axis=0), face.points_468x3[:, :2].max(axis=0)
    tall = float(head.face_T[t])
    near = float(np.linalg.norm((low + high) / 2 - head.middle_T2[t])) <= APART * tall
    return near and TALL[0] * tall <= float((high - low).max()) <= TALL[1] * tall
