"""The metrics: what each is, what it needs, and the meters that compute them. A meter that can't run here says why; nothing is left out
in silence."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal, Protocol

from factory.evaluation.alignment import Aligned
from factory.evaluation.cases import Case

EXTRA = "pip install 'motionpair[evaluate]'"
NO_TRUTH = "no ground truth (cross-identity)"
UNASKED = "not asked for"


@dataclass(frozen=True)
class Metric:
    """One figure of a video, or of a set of videos."""

    name: str
    better: Literal["higher", "lower"]
    digits: int
    """after the point, where it is shown"""
    what: str


SSIM = Metric("ssim", "higher", 4, "structural similarity, 0 to 1")
PSNR = Metric("psnr", "higher", 2, "peak signal-to-noise ratio, dB")
VMAF = Metric("vmaf", "higher", 2, "VMAF v0.6.1, 0 to 100")
LPIPS = Metric("lpips", "lower", 4, "perceptual distance, AlexNet, LPIPS v0.1")
FVD = Metric("fvd", "lower", 2, "Fréchet video distance of the set, I3D")
POSE_PRESENCE = Metric("pose_presence", "higher", 4, "share of frames in which the driven people are found, 0 to 1")
POSE_PCK = Metric("pose_pck", "higher", 4, "share of joints within 0.2 torso lengths of where the driver puts them, 0 to 1")
POSE_LIMB = Metric("pose_limb_deg", "lower", 2, "mean angle between the limbs' directions, degrees")
POSE_MOTION = Metric("pose_motion", "higher", 4, "correlation of the bones' motion, -1 to 1")
IDENTITY = Metric("identity", "higher", 4, "SFace cosine of the faces, -1 to 1")
ALL = (SSIM, PSNR, VMAF, LPIPS, FVD, POSE_PRESENCE, POSE_PCK, POSE_LIMB, POSE_MOTION, IDENTITY)
BY_NAME = {metric.name: metric for metric in ALL}


@dataclass(frozen=True)
class Seen:
    """One generated video beside its case. With no ground truth, `pair` holds the driving video in its place."""

    case: Case
    pair: Aligned
    cross: bool


Values = dict[str, "float | str"]
"""by metric; a word instead of a figure says why there is none"""


class Meter(Protocol):
    """Computes one or more metrics of one video."""

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    @property
    def needs_truth(self) -> bool: ...

    def lacking(self) -> str:
        """Why it can't run here; empty when it can, and then it is loaded. Raises BadInput when weights that were given are unusable."""
        ...

    def measure(self, seen: Seen) -> Values: ...


class SetMeter(Protocol):
    """Computes one figure of a whole set of videos."""

    @property
    def metric(self) -> Metric: ...

    def lacking(self) -> str: ...

    def add(self, model: str, seen: Seen) -> str:
        """Take in a video; returns why it can't, or nothing."""
        ...

    def result(self, model: str, keys: tuple[str, ...]) -> float | str:
        """Of these videos of a model, in this order, or why there is none."""
        ...


def lacks_module(*names: str) -> str:
    """The first of these packages that is not installed, in words."""
    missing = next((name for name in names if importlib.util.find_spec(name) is None), None)
    return f"{missing} is not installed: {EXTRA}" if missing else ""
