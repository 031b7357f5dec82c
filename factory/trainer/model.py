"""SCAIL-2: Wan2.1's transformer blocks over the sequence [additional references; reference; video; driving]. Design: SCAIL-2
(arXiv 2606.10804) and its published implementation; blocks: diffusers.

Everything that conditions the video stands in the same sequence, with a patch embedding of its own for driving videos and one for masks;
what belongs together is told by rotary positions and masks. Only the video's tokens are read out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from factory.trainer import blocks, rope
from factory.trainer.attention import Context, CrossAttention, SelfAttention
from factory.trainer.masks28 import CHANNELS
from factory.trainer.positions import PATCH, Positions
from factory.trainer.rope import Rotary
from factory.trainer.vae import LATENT_CHANNELS
from manifests.errors import BadInput
from manifests.records import Frozen

MARKED_CHANNELS = LATENT_CHANNELS + 4
"""latents and the four marks that say whether they are clean"""
KERNEL = (1, PATCH, PATCH)
TIME_SCALE = 1000.0
"""σ from 0 to 1 is told to the model as 0 to this"""


class ModelConfig(Frozen):
    """Sizes of a transformer. What no preset has may be given instead."""

    dim: int = Field(gt=0)
    ffn_dim: int = Field(gt=0)
    heads: int = Field(gt=0)
    layers: int = Field(gt=0)
    text_dim: int = Field(default=4096, gt=0)
    """of the caption's features"""
    text_tokens: int = Field(default=512, gt=0)
    """captions are padded with zeros to this"""
    image_dim: int | None = 1280
    """of the reference picture's features; none: the model does not look at them"""
    freq_dim: int = Field(default=256, gt=0)
    """of σ's sines and cosines"""

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.dim % (2 * self.heads) or self.dim // self.heads < 6:
            raise ValueError(f"dim must be an even multiple of heads, at least 6 times, got dim {self.dim} and {self.heads} heads")
        return self


PRESETS = {
    "tiny": ModelConfig(dim=128, ffn_dim=512, heads=2, layers=3, text_dim=64, text_tokens=64, image_dim=None, freq_dim=64),
    "1.3b": ModelConfig(dim=1536, ffn_dim=8960, heads=12, layers=30),
    "14b": ModelConfig(dim=5120, ffn_dim=13824, heads=40, layers=40),
}
"""`tiny` is for CPUs and tests and takes the stand-in encoders' features; the others have Wan2.1's sizes, with the picture's features"""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the model is given: B samples of one shape with equally many references. Layouts as in conditioning.py."""

    noisy_B20THW: Tensor
    references_B20RHW: Tensor
    driving_B20Thw: Tensor
    reference_mask_B28SHW: Tensor
    driving_mask_B28Thw: Tensor
    sigma_B: Tensor
    words_BLC: Tensor
    """padded"""
    picture_BLC: Tensor | None
    positions: tuple[Positions, ...]
    """of each sample"""

    def to(self, device: torch.device | str) -> Inputs:
        """The same on another device; floats stay what they are."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Inputs(**{**vars(self), **moved})

    def joined(self, others: Inputs) -> Inputs:
        """These samples, then the others."""
        both = {name: torch.cat([value, getattr(others, name)]) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Inputs(**{**vars(self), **both, "positions": self.positions + others.positions})


class Scail2(nn.Module):  # type: ignore[misc]
    """The transformer. Names of parameters are diffusers'; weights.py knows the published ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        wan = blocks.wan()
        dim, added = config.dim, config.dim if config.image_dim else None
        self.patch_embedding = nn.Conv3d(MARKED_CHANNELS, dim, KERNEL, KERNEL)
        self.patch_embedding_pose = nn.Conv3d(MARKED_CHANNELS, dim, KERNEL, KERNEL)
        self.patch_embedding_mask = nn.Conv3d(CHANNELS, dim, KERNEL, KERNEL)
        self.condition_embedder = wan.WanTimeTextImageEmbedding(dim, config.freq_dim, 6 * dim, config.text_dim, config.image_dim)
        self.blocks = nn.ModuleList(
            wan.WanTransformerBlock(dim, config.ffn_dim, config.heads, "rms_norm_across_heads", True, 1e-6, added)
            for _ in range(config.layers)
        )
        self.norm_out = wan.FP32LayerNorm(dim, 1e-6, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, LATENT_CHANNELS * PATCH * PATCH)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.context: Context | None = None
        for block in self.blocks:
            block.attn1.set_processor(SelfAttention())
            block.attn2.set_processor(CrossAttention(config.text_tokens))

    def share_sequence(self, context: Context) -> None:
        """Split each sequence among a group of ranks. Raises BadInput when the heads can't be shared out."""
        if self.config.heads % context.size:
            raise BadInput(f"{self.config.heads} heads can't be shared out to {context.size} context ranks; take a divisor")
        self.context = context
        for block in self.blocks:
            block.attn1.processor.context = context

    def forward(self, inputs: Inputs) -> Tensor:
        """Velocity of the video, float32 (B, 16, T, H, W)."""
        tokens_BNC = self._embedded(inputs)
        count = tokens_BNC.shape[1]
        rotary = self._rotary(inputs, count)
        features_BLC, time_B1C, time_B6C = self._conditions(inputs)
        if self.context is not None:
            tokens_BNC = self.context.part(tokens_BNC)
            rotary = Rotary(self.context.part(rotary.cos_BN1D), self.context.part(rotary.sin_BN1D), count)
        for block in self.blocks:
            tokens_BNC = block(tokens_BNC, features_BLC, time_B6C, rotary)
        first, last = self._video_tokens(inputs)
        if self.context is None:
            return self._unpatched(self._head(tokens_BNC[:, first:last], time_B1C), inputs)
        read_out_BNC = self.context.whole(self._head(tokens_BNC, time_B1C), count)
        return self._unpatched(read_out_BNC[:, first:last], inputs)

    def _embedded(self, inputs: Inputs) -> Tensor:
        """Tokens of the whole sequence, (B, N, dim)."""
        seen = torch.cat([inputs.references_B20RHW, inputs.noisy_B20THW], 2)
        given = self.patch_embedding.weight.dtype
        main = self.patch_embedding(seen.to(given)) + self.patch_embedding_mask(inputs.reference_mask_B28SHW.to(given))
        driving = self.patch_embedding_pose(inputs.driving_B20Thw.to(given)) + self.patch_embedding_mask(
            inputs.driving_mask_B28Thw.to(given)
        )
        return torch.cat([main.flatten(2), driving.flatten(2)], 2).transpose(1, 2).contiguous()

    def _rotary(self, inputs: Inputs, count: int) -> Rotary:
        frames, height, width = (size // step for size, step in zip(inputs.noisy_B20THW.shape[2:], KERNEL, strict=True))
        channels = self.config.dim // self.config.heads
        where = inputs.positions[:1] if len(set(inputs.positions)) == 1 else inputs.positions
        tables = [rope.sequence(positions, frames, height, width, channels) for positions in where]
        cos, sin = (torch.stack(parts)[:, :, None].to(inputs.noisy_B20THW.device) for parts in zip(*tables, strict=True))
        return Rotary(cos, sin, count)

    def _conditions(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Features that are looked at (B, L, dim), σ's embedding (B, 1, dim) and its six modulations of the blocks (B, 6, dim)."""
        given = self.patch_embedding.weight.dtype
        picture = inputs.picture_BLC.to(given) if inputs.picture_BLC is not None and self.config.image_dim else None
        if self.config.image_dim and picture is None:
            raise BadInput(
                "this model looks at the reference's features and the samples have none; make latents with --image", "no_picture"
            )
        time, modulation, words, picture = self.condition_embedder(TIME_SCALE * inputs.sigma_B, inputs.words_BLC.to(given), picture)
        features = words if picture is None else torch.cat([picture, words], 1)
        return features, time[:, None], modulation.unflatten(1, (6, -1))

    def _video_tokens(self, inputs: Inputs) -> tuple[int, int]:
        """Where they begin and end in the sequence."""
        frames, height, width = inputs.noisy_B20THW.shape[2:]
        each = (height // PATCH) * (width // PATCH)
        first = inputs.references_B20RHW.shape[2] * each
        return first, first + frames * each

    def _head(self, tokens_BNC: Tensor, time_B1C: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + time_B1C.float()).chunk(2, dim=1)
        return self.proj_out((self.norm_out(tokens_BNC.float()) * (1 + scale) + shift).type_as(tokens_BNC))

    def _unpatched(self, read_out_BNC: Tensor, inputs: Inputs) -> Tensor:
        frames, height, width = inputs.noisy_B20THW.shape[2:]
        cells = read_out_BNC.float().reshape(-1, frames, height // PATCH, width // PATCH, PATCH, PATCH, LATENT_CHANNELS)
        return cells.permute(0, 6, 1, 2, 4, 3, 5).reshape(-1, LATENT_CHANNELS, frames, height, width)


def build(config: ModelConfig, seed: int = 0, device: Any = "cpu") -> Scail2:
    """A model with fresh weights; `device="meta"`: without any. The mask embedding begins at zero, as for published weights."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = Scail2(config)
        if device != "meta":
            initialise(model)
    return model


def initialise(model: Scail2) -> None:
    """Weights to begin with, where none are loaded: Wan's (Xavier's uniform ones, zero biases, the read-out and the masks at zero)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for layer in (model.condition_embedder.text_embedder, model.condition_embedder.time_embedder):
        for part in (layer.linear_1, layer.linear_2):
            nn.init.normal_(part.weight, std=0.02)
    nn.init.zeros_(model.patch_embedding_mask.weight)
    nn.init.zeros_(model.proj_out.weight)
