"""Whether the tiny model can learn one pair by heart: PSNR of the sampled video beside that of the reference standing still.

    python benchmarks/overfit.py out/quickstart/release    # the first animation pair, made small; about two minutes of one core
    python benchmarks/overfit.py RELEASE --quick           # 60 steps: too few, but all of it runs; without a release nothing is done

Both are held against the target after the same stand-in autoencoder. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import cv2
import numpy as np
import torch

from factory.trainer.conditioning import Conditioned, condition_pixels, noisy, sigma_of, tokens_per_frame
from factory.trainer.draws import Draws
from factory.trainer.encoders import HashedWordsStandIn
from factory.trainer.flow import collate, losses
from factory.trainer.model import PRESETS, Scail2, build
from factory.trainer.probe import PLAIN
from factory.trainer.sample import Given, Sampling, sampled_latents
from factory.trainer.stream import Sample, Stream
from factory.trainer.vae import BlockTransformStandIn, to_frames

LONG, SHORT = 128, 96
RATE, BATCH = 3e-3, 4
VAE = BlockTransformStandIn()


def main() -> None:
    """Train, sample, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("release", nargs="?", help="a pixel release")
    parser.add_argument("--steps", type=int, help="default 600")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the noise")
    parser.add_argument("--quick", action="store_true", help="60 steps")
    asked = parser.parse_args()
    if not asked.release:
        print(json.dumps({"skipped": "no release was given"}))
        return
    with Stream(asked.release, tasks=("animation",)) as stream:
        sample = condition_pixels(small(next(stream)), VAE, Draws(0, "pair"), PLAIN, HashedWordsStandIn())
    began = time.process_time()
    steps = asked.steps or (60 if asked.quick else 600)
    model = learnt(sample, steps, asked.seed)
    target = to_frames(VAE.decode(sample.video_16THW))
    standing = VAE.encode(VAE.decode(sample.references_20RHW[:16]).expand(-1, len(target), -1, -1).contiguous())
    figures = {
        "key": sample.key, "frames": target.shape, "steps": steps, "seed": asked.seed,
        "standing_db": round(psnr(to_frames(VAE.decode(standing)), target), 2),
        "sampled_db": round(psnr(to_frames(VAE.decode(video(model, sample))), target), 2),
        "cpu_s": round(time.process_time() - began, 1), "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(figures))


def small(pair: Sample) -> Sample:
    """The pair at 128×96 or 96×128 pixels; boxes are left out."""
    upright = pair.target_THWC.shape[1] > pair.target_THWC.shape[2]
    size = (SHORT, LONG) if upright else (LONG, SHORT)

    def scaled(frames: np.ndarray, mask: bool = False) -> np.ndarray:
        return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST if mask else cv2.INTER_AREA) for frame in frames])

    return dataclasses.replace(
        pair, driving_THWC=scaled(pair.driving_THWC), target_THWC=scaled(pair.target_THWC),
        driving_mask_THWC=scaled(pair.driving_mask_THWC, True), references=tuple(scaled(np.stack(pair.references))),
        reference_masks=tuple(scaled(np.stack(pair.reference_masks), True)),
        meta={name: value for name, value in pair.meta.items() if name != "boxes"},
    )  # fmt: skip


def learnt(sample: Conditioned, steps: int, seed: int) -> Scail2:
    """A model that has seen nothing else, each time with other noise and another σ."""
    model = build(PRESETS["tiny"], seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    for step in range(steps):
        batch = collate([again(sample, seed, step * BATCH + i) for i in range(BATCH)], model.config)[0]
        optimizer.zero_grad()
        losses(model(batch.inputs), batch).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 30) * (1 - 0.95 * step / steps)
        optimizer.step()
    return model


def again(sample: Conditioned, seed: int, number: int) -> Conditioned:
    """The sample with other noise and another σ."""
    draws = Draws(seed, "overfit", number)
    noise = torch.from_numpy(draws.normal("noise", tuple(sample.video_16THW.shape)))
    sigma = sigma_of(float(draws.normal("sigma", (1,))[0]), tokens_per_frame(*sample.video_16THW.shape[2:]))
    return dataclasses.replace(sample, noise_16THW=noise, sigma=sigma, noisy_20THW=noisy(sample.video_16THW, noise, sigma, 0))


def video(model: Scail2, sample: Conditioned) -> torch.Tensor:
    """Latents, sampled from noise."""
    assert sample.words_LC is not None
    references = sample.references_20RHW.shape[1]
    masks = sample.reference_mask_28SHW[:, :references]
    given = Given("animation", sample.references_20RHW[:16], masks, sample.words_LC, sample.words_LC)
    return sampled_latents(model, given, sample.driving_20Thw[:16], sample.driving_mask_28Thw, Sampling(steps=20, guidance=1.0))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Decibels, of 255."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


if __name__ == "__main__":
    main()
