"""Videos from a model: a reference, a driving video and their masks in, frames out; long ones in chunks that share five frames.

Solvers are diffusers' (UniPC, Euler). A chunk has 81 frames or fewer; each but the first is given the last five frames of the one before
as clean history, two latent frames, as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from factory.trainer import blocks
from factory.trainer.conditioning import HISTORY_FRAMES, marked, tokens_per_frame
from factory.trainer.draws import Draws
from factory.trainer.flow import padded_words
from factory.trainer.masks28 import GROUP, halved, latent_frames, mask_28
from factory.trainer.model import Inputs, Scail2
from factory.trainer.positions import layout_of, positions
from factory.trainer.vae import LATENT_CHANNELS, Vae, to_frames, to_pixels
from manifests.errors import BadInput
from manifests.records import Task

Frames = NDArray[np.uint8]
CHUNK, OVERLAP = 81, 5
"""frames"""
Solver = Literal["unipc", "euler"]


@dataclass(frozen=True)
class Sampling:
    """How a video is sampled."""

    steps: int = 40
    solver: Solver = "unipc"
    guidance: float = 5.0
    """how far from the answer without a caption; 1: that one is not asked for, and a step takes half the time"""
    seed: int = 0
    chunk: int = CHUNK
    """frames, 4n + 1"""


@dataclass(frozen=True, eq=False)
class Given:
    """What conditions a video. Latents of a whole driving video come chunk by chunk from `driving_of`."""

    task: Task
    references_16RHW: Tensor
    """additional ones first, the reference last"""
    reference_masks_28RHW: Tensor
    words_LC: Tensor
    no_words_LC: Tensor
    picture_LC: Tensor | None = None


def sampled(model: Scail2, given: Given, driving_THWC: Frames, driving_mask_THWC: Frames, vae: Vae, how: Sampling | None = None) -> Frames:
    """RGB frames, as many as the driving video has and of its size."""
    how = how or Sampling()
    out: Frames = driving_THWC[:0]
    for number, (first, last, kept) in enumerate(chunks(len(driving_THWC), how.chunk)):
        index = np.minimum(np.arange(first, last), len(driving_THWC) - 1)  # the last chunk is filled up with the last frame
        driving_16Thw = vae.encode(to_pixels(halved(driving_THWC[index])))
        mask_28Thw = mask_28(driving_mask_THWC[index], half=True)
        history = vae.encode(to_pixels(out[-OVERLAP:])) if number else None
        latents = sampled_latents(model, given, driving_16Thw, mask_28Thw, how, history, number)
        frames = to_frames(vae.decode(latents))
        out = np.concatenate([out, frames[OVERLAP if number else 0 :][:kept]])
    return out


def chunks(frames: int, chunk: int = CHUNK) -> Iterator[tuple[int, int, int]]:
    """(first driving frame, frame after the last one, frames that are kept) of each chunk; each has 4n + 1 frames."""
    if chunk % GROUP != 1 or chunk <= OVERLAP:
        raise BadInput(f"a chunk has 4n + 1 frames and more than {OVERLAP}, got {chunk}", "bad_frames")
    made = 0
    while made < frames:
        first = made - OVERLAP if made else 0
        length = min(chunk, -(-(frames - first - 1) // GROUP) * GROUP + 1)
        kept = min(length - (made - first), frames - made)
        yield first, first + length, kept
        made += kept


def sampled_latents(
    model: Scail2,
    given: Given,
    driving_16Thw: Tensor,
    mask_28Thw: Tensor,
    how: Sampling,
    history_16HHW: Tensor | None = None,
    chunk: int = 0,
) -> Tensor:
    """Latents (16, T, H, W) of one chunk; the history's frames, two latent ones, stand at its beginning unchanged."""
    frames = driving_16Thw.shape[1]
    height, width = given.references_16RHW.shape[2:]
    device = next(model.parameters()).device
    x = torch.from_numpy(Draws(how.seed, "sample").normal(f"chunk {chunk}", (LATENT_CHANNELS, frames, height, width)))
    solver = _solver(how, shift_of(height, width))
    asked = [_inputs(given, driving_16Thw, mask_28Thw, words, model).to(device) for words in _captions(given, how)]
    for time, sigma in zip(solver.timesteps, solver.sigmas.tolist(), strict=False):  # sigmas end with 0
        noisy_20THW = _with_history(x, history_16HHW)[None].to(device)
        with torch.no_grad():
            answers = [model(_at(inputs, noisy_20THW, sigma))[0].float().cpu() for inputs in asked]
        velocity = answers[0] if len(answers) == 1 else answers[1] + how.guidance * (answers[0] - answers[1])
        x = solver.step(velocity[None], time, x[None], return_dict=False)[0][0]
    return _with_history(x, history_16HHW)[:LATENT_CHANNELS]


def shift_of(height: int, width: int) -> float:
    """s of training's σ, for so many latent cells."""
    return float(np.exp(0.5 + (tokens_per_frame(height, width) - 256) * (1.15 - 0.5) / (4096 - 256)))


def _captions(given: Given, how: Sampling) -> Sequence[Tensor]:
    return [given.words_LC] if how.guidance == 1 else [given.words_LC, given.no_words_LC]


def _solver(how: Sampling, shift: float) -> Any:
    blocks.hide_broken_torchvision()
    if how.solver == "unipc":
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        solver: Any = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    else:
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        solver = FlowMatchEulerDiscreteScheduler(shift=shift)
        solver.set_timesteps(sigmas=np.linspace(1, 1 / how.steps, how.steps))
        return solver
    solver.set_timesteps(how.steps)
    return solver


def _inputs(given: Given, driving_16Thw: Tensor, mask_28Thw: Tensor, words_LC: Tensor, model: Scail2) -> Inputs:
    """All but the noisy video and σ."""
    references, frames = given.references_16RHW.shape[1], driving_16Thw.shape[1]
    if latent_frames(4 * frames - 3) != frames or driving_16Thw.shape[2] * 2 != given.references_16RHW.shape[2]:
        raise BadInput("the driving video must have half the reference's size in latents", "size_mismatch")
    zeros = torch.zeros(28, frames, *given.references_16RHW.shape[2:])
    return Inputs(
        noisy_B20THW=torch.empty(0),
        references_B20RHW=marked(given.references_16RHW, 1.0)[None],
        driving_B20Thw=marked(driving_16Thw, 1.0)[None],
        reference_mask_B28SHW=torch.cat([given.reference_masks_28RHW, zeros], 1)[None],
        driving_mask_B28Thw=mask_28Thw[None],
        sigma_B=torch.empty(0),
        words_BLC=padded_words(words_LC, model.config, "to be sampled")[None],
        picture_BLC=given.picture_LC[None] if given.picture_LC is not None else None,
        positions=(positions(layout_of(given.task), references - 1),),
    )


def _at(inputs: Inputs, noisy_B20THW: Tensor, sigma: float) -> Inputs:
    return dataclasses.replace(inputs, noisy_B20THW=noisy_B20THW, sigma_B=torch.tensor([sigma], device=noisy_B20THW.device))


def _with_history(x_16THW: Tensor, history_16HHW: Tensor | None) -> Tensor:
    """The noisy video with its marks, (20, T, H, W)."""
    out = marked(x_16THW, 0.0)
    if history_16HHW is not None:
        out[:LATENT_CHANNELS, :HISTORY_FRAMES] = history_16HHW
        out[LATENT_CHANNELS:, :HISTORY_FRAMES] = 1
    return out
