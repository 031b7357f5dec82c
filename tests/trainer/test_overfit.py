"""The tiny model learns one sample by heart: the sampled video is far nearer to the target than the reference standing still."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from made_pairs import figure, made, shown

from factory.trainer.conditioning import Conditioned, condition_pixels, noisy, sigma_of
from factory.trainer.draws import Draws
from factory.trainer.encoders import HashedWordsStandIn
from factory.trainer.flow import collate, losses
from factory.trainer.model import PRESETS, Scail2, build
from factory.trainer.probe import PLAIN
from factory.trainer.sample import Given, Sampling, sampled_latents
from factory.trainer.vae import BlockTransformStandIn, to_frames

torch.set_num_threads(1)
VAE = BlockTransformStandIn()
STEPS, RATE, BATCH = 450, 3e-3, 4


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def again(sample: Conditioned, number: int) -> Conditioned:
    """The sample with other noise and another σ."""
    draws = Draws(number, "overfit")
    noise = torch.from_numpy(draws.normal("noise", tuple(sample.video_16THW.shape)))
    sigma = sigma_of(float(draws.normal("sigma", (1,))[0]), 256)
    return dataclasses.replace(sample, noise_16THW=noise, sigma=sigma, noisy_20THW=noisy(sample.video_16THW, noise, sigma, 0))


def trained(sample: Conditioned) -> Scail2:
    model = build(PRESETS["tiny"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    for step in range(STEPS):
        batch = collate([again(sample, BATCH * step + i) for i in range(BATCH)], model.config)[0]
        optimizer.zero_grad()
        losses(model(batch.inputs), batch).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 30) * (1 - 0.95 * step / STEPS)
        optimizer.step()
    return model


def test_one_sample_is_learnt_by_heart() -> None:
    still = shown(figure(1), 2)[0]  # the target's own first frame: standing still is as good as it can be
    pair = dataclasses.replace(made(), references=(still,))
    sample = condition_pixels(pair, VAE, Draws(0, "k"), PLAIN, HashedWordsStandIn())
    assert sample.words_LC is not None
    target = to_frames(VAE.decode(sample.video_16THW))
    standing = VAE.encode(VAE.decode(sample.references_20RHW[:16]).expand(-1, len(target), -1, -1).contiguous())
    given = Given("animation", sample.references_20RHW[:16], sample.reference_mask_28SHW[:, :1], sample.words_LC, sample.words_LC)
    latents = sampled_latents(
        trained(sample), given, sample.driving_20Thw[:16], sample.driving_mask_28Thw, Sampling(steps=20, guidance=1.0)
    )
    made_psnr, standing_psnr = psnr(to_frames(VAE.decode(latents)), target), psnr(to_frames(VAE.decode(standing)), target)
    assert made_psnr >= standing_psnr + 6, (made_psnr, standing_psnr)
