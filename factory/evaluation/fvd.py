"""FVD (Unterthiner et al. 2018): the Fréchet distance of I3D's features of clips of 16 frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from factory.evaluation import backbones
from factory.evaluation.frechet import frechet_distance
from factory.evaluation.metrics import FVD, Seen, lacks_module
from manifests.errors import BadInput
from manifests.media import Frames

CLIP_FRAMES = 16
SIDE_PX = 224
"""the whole frame is brought to a square of this side, bilinearly, as the published network was fed"""
BATCH = 4
"""clips at once"""
NEEDS = ("fvd",)
Doubles = npt.NDArray[np.float64]


class FvdMeter:
    """Every video is cut into clips of 16 frames one after the other; what is left over at its end is not looked at."""

    metric = FVD

    def __init__(self, given: Mapping[str, str], device: str = "cpu") -> None:
        self._given, self._device = given, device
        self._network: Any = None
        self._features: dict[tuple[str, str], tuple[Doubles, Doubles]] = {}
        """(model, key) → features of the generated and of the real clips, (clips, D) each"""
        self.used: dict[str, str] = {}

    def lacking(self) -> str:
        why = lacks_module("torch") or backbones.lacks(NEEDS, self._given)
        if not why and self._network is None:
            backbone = backbones.bring("fvd", self._given["fvd"])
            self.used = {"fvd": backbone.sha256}
            self._network = load(backbone, self._device)
        return why

    def add(self, model: str, seen: Seen) -> str:
        if len(seen.pair.truth_THWC) < CLIP_FRAMES:
            return f"shorter than a clip of {CLIP_FRAMES} frames"
        made, real = (features(self._network, x, self._device) for x in (seen.pair.generated_THWC, seen.pair.truth_THWC))
        self._features[model, seen.case.key] = made, real
        return ""

    def clips(self, model: str, keys: tuple[str, ...]) -> int:
        """How many clips of these videos there are."""
        return sum(len(self._features[model, key][0]) for key in keys if (model, key) in self._features)

    def result(self, model: str, keys: tuple[str, ...]) -> float | str:
        if self.clips(model, keys) < 2:
            return f"needs two clips of {CLIP_FRAMES} frames"
        parts = [self._features[model, key] for key in keys if (model, key) in self._features]
        made, real = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        return frechet_distance(made, real)


def load(backbone: backbones.Backbone, device: str = "cpu") -> Any:
    """The TorchScript network. Raises BadInput when the file holds none."""
    import torch

    try:
        return torch.jit.load(str(backbone.path), map_location=device).eval()
    except Exception as e:  # a zip reader's, pickle's or torch's own
        raise BadInput(f"weights fvd: {backbone.path} holds no TorchScript; it should be {backbones.NAMES['fvd']}", "no_weights") from e


def features(network: Any, frames_THWC: Frames, device: str = "cpu") -> Doubles:
    """(clips, D) of the video's consecutive clips; the frames past the last whole clip are left out.

    The network is called as StyleGAN-V calls its own: clips (N, 3, 16, 224, 224) in [-1, 1], with `rescale=False, resize=False,
    return_features=True`. Raises BadInput when it answers anything but N finite vectors.
    """
    import torch

    count = len(frames_THWC) // CLIP_FRAMES
    clips_NTHWC = frames_THWC[: count * CLIP_FRAMES].reshape(count, CLIP_FRAMES, *frames_THWC.shape[1:])
    out = []
    with torch.inference_mode():
        for first in range(0, count, BATCH):
            some = torch.from_numpy(np.ascontiguousarray(clips_NTHWC[first : first + BATCH])).to(device)
            flat = some.flatten(0, 1).permute(0, 3, 1, 2).float()
            square = torch.nn.functional.interpolate(flat, size=(SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
            clips_NCTHW = square.unflatten(0, some.shape[:2]).transpose(1, 2) / 127.5 - 1
            try:
                answer = network(clips_NCTHW.contiguous(), rescale=False, resize=False, return_features=True)
            except RuntimeError as e:
                raise BadInput(f"weights fvd: the network does not take clips of 16 frames: {str(e).splitlines()[0][:160]}") from e
            out.append(answer.double().cpu().numpy())
    found: Doubles = np.concatenate(out)
    if found.ndim != 2 or len(found) != count or not np.isfinite(found).all():
        raise BadInput(f"weights fvd: the network answered {found.shape}, expected ({count}, D) finite figures", "no_weights")
    return found
