"""A model for tests, and samples for it: small enough for milliseconds."""

from __future__ import annotations

import torch

from factory.trainer.model import Inputs, ModelConfig, Scail2, build
from factory.trainer.positions import layout_of, positions
from manifests.records import Task

torch.set_num_threads(1)  # with tensors this small, threads only wait for each other

SMALL = ModelConfig(dim=24, ffn_dim=32, heads=2, layers=2, text_dim=8, text_tokens=6, image_dim=None, freq_dim=8)
WITH_PICTURE = SMALL.model_copy(update={"image_dim": 10})


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively(config: ModelConfig = SMALL, seed: int = 0) -> Scail2:
    """A model none of whose parameters is zero, so that everything that is connected has an effect."""
    model = build(config, seed)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.05 * numbers(100 + i, *parameter.shape))
    return model


def inputs(
    tasks: tuple[Task, ...] = ("animation",), more: int = 0, frames: int = 2, height: int = 8, width: int = 12, seed: int = 0
) -> Inputs:
    """Random tensors of the right shapes; every batch of a seed has the same numbers."""
    b, r, small = len(tasks), 1 + more, (frames, height // 2, width // 2)
    return Inputs(
        noisy_B20THW=numbers(seed, b, 20, frames, height, width),
        references_B20RHW=numbers(seed + 1, b, 20, r, height, width),
        driving_B20Thw=numbers(seed + 2, b, 20, *small),
        reference_mask_B28SHW=numbers(seed + 3, b, 28, r + frames, height, width),
        driving_mask_B28Thw=numbers(seed + 4, b, 28, *small),
        sigma_B=torch.linspace(0.3, 0.8, b),
        words_BLC=numbers(seed + 5, b, SMALL.text_tokens, SMALL.text_dim),
        picture_BLC=numbers(seed + 6, b, 5, 10),
        positions=tuple(positions(layout_of(task), more) for task in tasks),
    )
