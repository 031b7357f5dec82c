"""Losses that can be compared between steps and runs: the same samples, noise and σ every time, nothing dropped or augmented."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from factory.trainer.augment import Augmentation
from factory.trainer.conditioning import Conditioned, Conditioning, FromLatents
from factory.trainer.flow import at_sigma, collate, losses
from factory.trainer.model import Inputs, ModelConfig
from factory.trainer.stream import Stream

PLAIN = Conditioning(text_drop=0, history=0, history_of_chunks=0, augmentation=Augmentation(end_to_end=0, pose=0))
"""nothing is drawn but noise"""
SIGMAS = (0.3, 0.6, 0.9)


def fixed_samples(releases: Any, split: Any, tasks: Sequence[str], each: int, seed: int = 0, shapes: Any = None) -> list[Conditioned]:
    """The first `each` pairs of every task, the same on all ranks."""
    found: list[Conditioned] = []
    for task in tasks:
        with Stream(releases, split, seed, tasks=(task,), shapes=shapes, decode=FromLatents(PLAIN), threads=1) as stream:
            found += [next(stream) for _ in range(each)]
    return found


def fixed_losses(
    predict: Callable[[Inputs], Tensor], model: ModelConfig, samples: Sequence[Conditioned], sigmas: Sequence[float] = SIGMAS
) -> dict[str, float]:
    """Mean loss by task over the samples and all σ."""
    device = next((p.device for p in getattr(predict, "parameters", list)()), torch.device("cpu"))
    found: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        for sample in samples:
            for sigma in sigmas:
                batch = collate([at_sigma(sample, sigma)], model)[0].to(device)
                found[sample.task].append(float(losses(predict(batch.inputs), batch)))
    return {task: sum(values) / len(values) for task, values in found.items()}
