"""Preference pairs from latent releases: two videos of one motion, of which one is to be preferred, under one and the same condition."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from torch import Tensor

from factory.trainer.conditioning import Conditioned, FromLatents, noisy
from factory.trainer.decode import Raw
from factory.trainer.latent_sample import unpacked
from manifests.errors import Damaged
from manifests.latents import LOSER


class Contest(NamedTuple):
    """Two samples that differ in their videos alone: noise, σ, history and all conditions are shared."""

    winner: Conditioned
    loser: Conditioned


def contest(winner: Conditioned, loser_16THW: Tensor) -> Contest:
    """The winner's sample with another video. Raises Damaged when the two have not one shape."""
    if loser_16THW.shape != winner.video_16THW.shape:
        shapes = f"{tuple(winner.video_16THW.shape)} and {tuple(loser_16THW.shape)}"
        raise Damaged(f"preference pair {winner.key} has videos of {shapes}; make its latents again")
    x = noisy(loser_16THW, winner.noise_16THW, winner.sigma, winner.history_frames)
    return Contest(winner, dataclasses.replace(winner, video_16THW=loser_16THW, noisy_20THW=x))


class FromPreferences(FromLatents):
    """A decoder of the stream for latent releases of preference pairs: samples are `Contest`."""

    def __call__(self, raw: Raw) -> Contest:  # type: ignore[override]
        if LOSER not in raw.members:
            raise Damaged(f"sample {raw.key} has no {LOSER}; it is no preference pair")
        return contest(super().__call__(raw), unpacked(bytes(raw.members[LOSER]), f"{raw.key}.{LOSER}"))
