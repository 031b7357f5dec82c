"""LPIPS (Zhang et al. 2018) with AlexNet, version 0.1, written against the published weights' names and shapes.

The package `lpips` needs torchvision; the network is small enough to stand here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from factory.evaluation import backbones
from factory.evaluation.metrics import LPIPS, Seen, Values, lacks_module
from manifests.errors import BadInput
from manifests.media import Frames

BATCH = 8
"""frames at once"""
SMALLEST_PX = 63
"""side from which AlexNet's two poolings leave anything"""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""of the channels, from [-1, 1] to what AlexNet was trained on"""
EPSILON = 1e-10
NEEDS = ("lpips_backbone", "lpips_linear")
_LINEAR = re.compile(r"^lin(\d)\.model\.1\.weight$")


class LpipsMeter:
    """RGB at the truth's size; the mean over the frames."""

    metrics = (LPIPS,)
    needs_truth = True

    def __init__(self, given: Mapping[str, str], device: str = "cpu") -> None:
        self._given, self._device = given, device
        self._network: Any = None
        self.used: dict[str, str] = {}
        """name → digest of the weights that were loaded"""

    def lacking(self) -> str:
        why = lacks_module("torch") or backbones.lacks(NEEDS, self._given)
        if not why and self._network is None:
            found = {name: backbones.bring(name, self._given[name]) for name in NEEDS}
            self.used = {name: backbone.sha256 for name, backbone in found.items()}
            self._network = network(found).to(self._device)
        return why

    def measure(self, seen: Seen) -> Values:
        if min(seen.pair.truth_THWC.shape[1:3]) < SMALLEST_PX:
            return {"lpips": f"smaller than AlexNet's {SMALLEST_PX} px"}
        return {"lpips": distance(self._network, seen.pair.generated_THWC, seen.pair.truth_THWC, self._device)}


def distance(network: Any, made_THWC: Frames, true_THWC: Frames, device: str = "cpu") -> float:
    """The mean over the frames of LPIPS between frames of the same number."""
    import torch

    sums = []
    with torch.inference_mode():
        for first in range(0, len(made_THWC), BATCH):
            pair = [
                torch.from_numpy(np.ascontiguousarray(x[first : first + BATCH])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
                for x in (made_THWC, true_THWC)
            ]
            sums.append(network(*pair).double().cpu().numpy())
    return float(np.concatenate(sums).mean())


def network(found: Mapping[str, backbones.Backbone]) -> Any:
    """The two networks of `NEEDS` as one module: (N, 3, H, W) twice, in [-1, 1] → (N,). Raises BadInput for weights that do not fit."""
    import torch
    from torch import nn

    class Lpips(nn.Module):  # type: ignore[misc]
        """Squared differences of channel-normalised features after each of AlexNet's five ReLUs, weighted by channel, averaged over
        places, summed over layers."""

        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
                nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
                nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
                nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
            )  # fmt: skip
            self.linear = nn.ParameterList(nn.Parameter(torch.zeros(1, width, 1, 1)) for width in (64, 192, 384, 256, 256))
            self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None], persistent=False)
            self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None], persistent=False)

        def layers(self, x: Any) -> list[Any]:
            x, out = (x - self.shift) / self.scale, []
            for module in self.features:
                x = module(x)
                if isinstance(module, nn.ReLU):
                    out.append(x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON))
            return out

        def forward(self, a: Any, b: Any) -> Any:
            parts = zip(self.linear, self.layers(a), self.layers(b), strict=True)
            return sum((weight * (x - y).square()).sum(1).mean((1, 2)) for weight, x, y in parts)

    made = Lpips()
    backbone = backbones.load_state("lpips_backbone", found["lpips_backbone"])
    # The classifier behind the features is of no use here.
    backbones.fill(
        made.features, {k.removeprefix("features."): v for k, v in backbone.items() if k.startswith("features.")},
        "lpips_backbone", found["lpips_backbone"],
    )  # fmt: skip
    linear = backbones.load_state("lpips_linear", found["lpips_linear"])
    named = {match[1]: value for key, value in linear.items() if (match := _LINEAR.match(key))}
    if not named:
        raise BadInput(f"weights lpips_linear: {found['lpips_linear'].path} has no lin0.model.1.weight; {backbones.NAMES['lpips_linear']}")
    backbones.fill(made.linear, named, "lpips_linear", found["lpips_linear"])
    return made.eval()
