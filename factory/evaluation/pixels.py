"""SSIM and PSNR, by scikit-image, with the settings of decision 0023."""

from __future__ import annotations

import numpy as np

from factory.evaluation.metrics import PSNR, SSIM, Seen, Values, lacks_module
from manifests.media import Frames, Image

WINDOW_PX = 11
"""of SSIM's Gaussian, σ = 1.5: 3.5 σ to each side"""
PSNR_MAX_DB = 100.0
"""of frames without any difference, whose PSNR is infinite and would carry the mean away"""


class PixelMeter:
    """Both on RGB, 8 bit, at the truth's size, frame by frame; the mean of the frames is the video's."""

    metrics = (SSIM, PSNR)
    needs_truth = True

    def lacking(self) -> str:
        return lacks_module("skimage")

    def measure(self, seen: Seen) -> Values:
        made_THWC, true_THWC = seen.pair.generated_THWC, seen.pair.truth_THWC
        values: Values = {"psnr": float(np.mean([psnr(a, b) for a, b in zip(made_THWC, true_THWC, strict=True)]))}
        if min(true_THWC.shape[1:3]) < WINDOW_PX:
            return values | {"ssim": f"smaller than SSIM's window of {WINDOW_PX} px"}
        return values | {"ssim": ssim(made_THWC, true_THWC)}


def psnr(a_HWC: Image, b_HWC: Image) -> float:
    """10 log10(255² / mean squared error over all pixels and channels), dB, at most 100."""
    from skimage.metrics import mean_squared_error

    error = float(mean_squared_error(a_HWC, b_HWC))
    return PSNR_MAX_DB if error == 0 else min(PSNR_MAX_DB, 10 * float(np.log10(255**2 / error)))


def ssim(made_THWC: Frames, true_THWC: Frames) -> float:
    """Wang et al. 2004: Gaussian window, σ = 1.5 over 11×11 px, population covariance, K1 = 0.01, K2 = 0.03, range 255; the mean over the
    three channels and over the pixels whose window lies inside, then over the frames."""
    from skimage.metrics import structural_similarity

    return float(
        np.mean([
            structural_similarity(a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            for a, b in zip(made_THWC, true_THWC, strict=True)
        ])
    )  # fmt: skip
