"""Flow matching: samples to batches, and the loss. Formulas: SCAIL-2 (arXiv 2606.10804) and its published implementation.

x_σ = (1 − σ) x₀ + σ ε, v = ε − x₀, L = mean(m · ‖v_θ − v‖²), m = (1 − history)(1 − lettering). The mean is over all elements, not over Σm.
σ, ε, history and text drop are drawn in conditioning.py, by sample and epoch; here nothing is random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from factory.trainer.conditioning import Conditioned, noisy
from factory.trainer.model import Inputs, ModelConfig
from manifests.errors import BadInput


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples that the model is given at once, and what its answer is held against. float32."""

    inputs: Inputs
    velocity_B16THW: Tensor
    """ε − x₀"""
    loss_mask_B16THW: Tensor
    regions_B16THW: Tensor
    """1 where hands or faces are, anywhere in a latent frame's group"""
    tasks: tuple[str, ...]
    keys: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**{**vars(self), **moved, "inputs": self.inputs.to(device)})


def collate(samples: Sequence[Conditioned], model: ModelConfig) -> list[Batch]:
    """Batches of samples that have one shape and equally many references, in the order of their first ones. Raises BadInput for a sample
    that has not the features that the model takes."""
    groups: dict[tuple[torch.Size, torch.Size], list[Conditioned]] = {}
    for sample in samples:
        groups.setdefault((sample.video_16THW.shape, sample.references_20RHW.shape), []).append(sample)
    return [_stacked(group, model) for group in groups.values()]


def _stacked(samples: Sequence[Conditioned], model: ModelConfig) -> Batch:
    pictures = [_picture(sample, model) for sample in samples] if model.image_dim else None
    inputs = Inputs(
        noisy_B20THW=torch.stack([s.noisy_20THW for s in samples]),
        references_B20RHW=torch.stack([s.references_20RHW for s in samples]),
        driving_B20Thw=torch.stack([s.driving_20Thw for s in samples]),
        reference_mask_B28SHW=torch.stack([s.reference_mask_28SHW for s in samples]),
        driving_mask_B28Thw=torch.stack([s.driving_mask_28Thw for s in samples]),
        sigma_B=torch.tensor([s.sigma for s in samples], dtype=torch.float32),
        words_BLC=torch.stack([padded_words(s.words_LC, model, s.key) for s in samples]),
        picture_BLC=torch.stack(pictures) if pictures else None,
        positions=tuple(s.positions for s in samples),
    )
    return Batch(
        inputs=inputs,
        velocity_B16THW=torch.stack([velocity(s.video_16THW, s.noise_16THW) for s in samples]),
        loss_mask_B16THW=torch.stack([s.loss_mask_16THW for s in samples]),
        regions_B16THW=torch.stack([torch.maximum(s.hands_T16HW, s.faces_T16HW).transpose(0, 1) for s in samples]),
        tasks=tuple(s.task for s in samples),
        keys=tuple(s.key for s in samples),
    )


def padded_words(words_LC: Tensor | None, model: ModelConfig, key: str = "") -> Tensor:
    """A caption's features, cut or padded with zeros to the model's count."""
    if words_LC is None or words_LC.shape[1] != model.text_dim:
        got = "no features of its caption" if words_LC is None else f"features of {words_LC.shape[1]} channels"
        raise BadInput(f"sample {key} has {got}, the model takes {model.text_dim}; make latents with its text encoder", "wrong_features")
    return functional.pad(words_LC[: model.text_tokens], (0, 0, 0, max(0, model.text_tokens - len(words_LC))))


def _picture(sample: Conditioned, model: ModelConfig) -> Tensor:
    if sample.picture_LC is None or sample.picture_LC.shape[1] != model.image_dim:
        got = "no features of its reference" if sample.picture_LC is None else f"features of {sample.picture_LC.shape[1]} channels"
        told = f"sample {sample.key} has {got}, the model takes {model.image_dim}"
        raise BadInput(f"{told}; make latents with --image, or set model.image_dim to null", "wrong_features")
    return sample.picture_LC


def velocity(video_16THW: Tensor, noise_16THW: Tensor) -> Tensor:
    """What the model is to answer: ε − x₀."""
    return noise_16THW - video_16THW


def losses(predicted_B16THW: Tensor, batch: Batch) -> Tensor:
    """The loss of each sample, float32 (B,)."""
    off = (predicted_B16THW.float() - batch.velocity_B16THW.float()).square() * batch.loss_mask_B16THW
    return off.flatten(1).mean(1)


def at_sigma(sample: Conditioned, sigma: float) -> Conditioned:
    """The same sample and noise at another σ, to compare models with."""
    x = noisy(sample.video_16THW, sample.noise_16THW, sigma, sample.history_frames)
    return dataclasses.replace(sample, sigma=sigma, noisy_20THW=x)
