"""What the Quality Checker looks at: the painted picture of one character, and the synthetic video beside the clip it was driven by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agents.measures import appearance
from agents.measures.identity import FaceReader
from agents.measures.safety import SafetyNet
from generators.base import Mode, Report
from generators.poses.tracks import People
from manifests.media import Inspection
from manifests.records import Geometry, Person


@dataclass(frozen=True)
class PaintedPicture:
    """What `measure_picture` looks at."""

    image_HWC: npt.NDArray[np.uint8]
    people: People
    clip_person: Person
    clip_people: People
    """only the clip's person"""
    clip_appearance: appearance.Descriptor
    clip_THWC: npt.NDArray[np.uint8]
    """the real span, RGB"""


@dataclass(frozen=True)
class SyntheticVideo:
    """What `measure_video` looks at, after it was brought to the pair's geometry. Frames are RGB."""

    mode: Mode
    frames_THWC: npt.NDArray[np.uint8]
    clip_THWC: npt.NDArray[np.uint8]
    """the real span"""
    people: People
    """everybody in the synthetic video, tracked anew"""
    clip_people: People
    """the driven people only"""
    others: People | None
    """everybody else in the real span"""
    matched: tuple[int, ...]
    """track of the synthetic person that performs each driven person; -1 where none was found"""
    inspection: Inspection
    geometry: Geometry
    report: Report
    painted_HWC: tuple[npt.NDArray[np.uint8], ...]
    """the painted picture of every driven person's character"""
    painted_people: tuple[People, ...]
    """the one person of each (T = 1)"""
    scene_HWC: npt.NDArray[np.uint8] | None
    """animation: the painted picture without the character, where the painter knows it"""


@dataclass
class Networks:
    """The networks of the measures. Constructing is cheap; each is loaded on first use and kept."""

    faces: FaceReader = field(default_factory=FaceReader)
    safety: SafetyNet = field(default_factory=SafetyNet)
