"""Bias-Aware DPO: away from what the synthetic data gets wrong, in hands and faces. Formula: SCAIL-2 (arXiv 2606.10804); neighbours:
Diffusion-DPO (2311.12908), LocalDPO (2601.04068), Reg-DPO (2511.01450).

With e_m = Σ m‖v_θ − v‖² / Σ m, and e_m^ref the same of the model that training began with, for winner w and loser l of one noise and σ:

    L = −log σ( −(β/2) [ (e_m − e_m^ref)_w − (e_m − e_m^ref)_l ] ) + λ e_w

e_w in the second term is over the flow-matching loss's mask: it is supervised training on the winner. In the beginning both models are
one, and the first term is ln 2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from factory.trainer.flow import Batch, losses
from factory.trainer.model import Inputs
from manifests.errors import BadInput
from manifests.records import Frozen

Predict = Callable[[Inputs], Tensor]


class DpoConfig(Frozen):
    """How strongly. Defaults: LocalDPO's, with which SCAIL-2's facts begin."""

    beta: float = Field(default=5000.0, gt=0)
    sft: float = Field(default=0.1, ge=0)
    """λ"""
    elsewhere: float = Field(default=0.0, ge=0, le=1)
    """weight of what lies outside hands and faces, which have 1"""


class Preference(NamedTuple):
    """What a step came to, float32, one number a pair."""

    loss: Tensor
    preference: Tensor
    """the first term"""
    margin: Tensor
    """how much more than the reference model the winner is preferred, before β/2; above 0 is right"""


def preference(
    predict: Predict, reference: Predict, without: AbstractContextManager[object], winner: Batch, loser: Batch, config: DpoConfig
) -> Preference:
    """The loss of pairs. `reference` is run within `without` (adapters_off, or nothing for a frozen copy), without gradients.

    Errors are of whole sequences: under context parallelism the model's answer is gathered before any sum is formed.
    """
    _check_shared(winner, loser)
    both = winner.inputs.joined(loser.inputs)  # one pass for both sides: sharded weights are gathered once
    weights = region_weights(winner, config)
    with torch.no_grad(), without:
        before_w, before_l = _errors(reference(both), winner, loser, weights)
    answer = predict(both)
    after_w, after_l = _errors(answer, winner, loser, weights)
    margin = (after_l - before_l) - (after_w - before_w)
    first = -functional.logsigmoid(config.beta / 2 * margin)
    supervised = losses(answer.chunk(2)[0], winner)
    return Preference(first + config.sft * supervised, first.detach(), margin.detach())


def _errors(answer_B16THW: Tensor, winner: Batch, loser: Batch, weights_B16THW: Tensor) -> tuple[Tensor, Tensor]:
    """e_m of the winners and the losers, whose answers stand one after the other."""
    answer_w, answer_l = answer_B16THW.chunk(2)
    return region_error(answer_w, winner, weights_B16THW), region_error(answer_l, loser, weights_B16THW)


def region_weights(batch: Batch, config: DpoConfig) -> Tensor:
    """m, (B, 16, T, H, W). A pair without a box of hands or faces counts everywhere."""
    boxed = batch.regions_B16THW * batch.loss_mask_B16THW
    anywhere = boxed.flatten(1).any(1).view(-1, 1, 1, 1, 1)
    wide = torch.clamp(boxed + config.elsewhere * batch.loss_mask_B16THW, max=1)
    return torch.where(anywhere, wide, batch.loss_mask_B16THW)


def region_error(predicted_B16THW: Tensor, batch: Batch, weights_B16THW: Tensor) -> Tensor:
    """e_m of each sample, float32 (B,)."""
    off = (predicted_B16THW.float() - batch.velocity_B16THW.float()).square() * weights_B16THW
    return off.flatten(1).sum(1) / weights_B16THW.flatten(1).sum(1).clamp_min(1e-12)


def _check_shared(winner: Batch, loser: Batch) -> None:
    """Raises BadInput when the two sides differ in more than their video."""
    shared = ("references_B20RHW", "driving_B20Thw", "reference_mask_B28SHW", "driving_mask_B28Thw", "sigma_B", "words_BLC")
    other = [name for name in shared if not torch.equal(getattr(winner.inputs, name), getattr(loser.inputs, name))]
    noise_w, noise_l = (side.velocity_B16THW + _video(side) for side in (winner, loser))
    if not torch.allclose(noise_w, noise_l, atol=1e-4):
        other.append("noise")
    if other:
        raise BadInput(f"winner and loser of {', '.join(winner.keys)} differ in {', '.join(other)}; only their videos may", "not_a_pair")


def _video(side: Batch) -> Tensor:
    """x₀ = x_σ − σ v, where the frames are noisy; both sides' history frames are left as they are."""
    x = side.inputs.noisy_B20THW[:, :16]
    sigma = side.inputs.sigma_B.view(-1, 1, 1, 1, 1) * (1 - side.inputs.noisy_B20THW[:, 16:17])
    return x - sigma * side.velocity_B16THW
