"""Should a person look at this before it is used? Yahoo's Open NSFW classifier (Mahadeokar & Pesavento 2016) on single pictures.

It sees skin rather than meaning: a man in a suit got 0.73 and bare shoulders 0.87. So it is good for one thing only: above a *high*
threshold something goes to review, where somebody looks. Nothing may be dropped or refused on this score alone.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from generators import weights
from generators.poses.tracks import Bytes
from manifests.errors import BadInput

Floats = npt.NDArray[np.float32]

WEIGHTS = ("nsfw",)
"""what steps that use `SafetyNet` declare"""

SQUEEZED_PX, CENTRE_PX = 256, 224
"""the picture is squeezed into the first square; the network sees the middle of it"""
MEAN_BGR = (104.0, 117.0, 123.0)
JPEG_QUALITY = 75
"""the network was trained on JPEG files; without that step scores move by some per cent"""
SAMPLED_FRAMES = 5


class SafetyNet:
    """Scores pictures. The model is loaded on first use; constructing is cheap. One thread at a time."""

    def __init__(self) -> None:
        self._net: Any = None

    def setup(self) -> None:
        """Load the model (fetching it once). Raises what `generators.weights.fetch` raises."""
        if self._net is None:
            self._net = cv2.dnn.readNetFromONNX(str(weights.path_of(WEIGHTS[0])))

    def score(self, rgb_HWC: Bytes) -> float:
        """Probability, 0 to 1, that one picture is not safe for work; see the module for what it is good for. Raises BadInput for what is
        no RGB picture."""
        if rgb_HWC.dtype != np.uint8 or rgb_HWC.ndim != 3 or rgb_HWC.shape[2] != 3 or min(rgb_HWC.shape) < 1:
            raise BadInput(f"expected RGB uint8 pixels in layout HWC, got {rgb_HWC.dtype} {rgb_HWC.shape}")
        self.setup()
        self._net.setInput(_prepared(rgb_HWC))
        return float(np.asarray(self._net.forward())[0, 1])

    def worst(self, frames_THWC: Bytes) -> float:
        """The highest score of up to 5 frames, evenly spread over a video, 0 to 1; 0 for no frames."""
        if not len(frames_THWC):
            return 0.0
        picked = np.unique(np.linspace(0, len(frames_THWC) - 1, SAMPLED_FRAMES).astype(int))
        return max(self.score(frames_THWC[t]) for t in picked)


def _prepared(rgb_HWC: Bytes) -> Floats:
    """As the network was trained: squeezed, through JPEG, cut, BGR without the training set's mean; 1×224×224×3."""
    shrinks = min(rgb_HWC.shape[:2]) > SQUEEZED_PX
    squeezed = cv2.resize(rgb_HWC, (SQUEEZED_PX, SQUEEZED_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    _, jpeg = cv2.imencode(".jpg", squeezed[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    bgr = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    edge = (SQUEEZED_PX - CENTRE_PX) // 2
    middle = bgr[edge : edge + CENTRE_PX, edge : edge + CENTRE_PX].astype(np.float32) - np.array(MEAN_BGR, np.float32)
    return np.ascontiguousarray(middle[None], np.float32)
