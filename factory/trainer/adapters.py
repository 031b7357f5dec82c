"""LoRA by peft: small trained matrices beside frozen ones (Hu et al., 2021). Switched off, the model is the one that it was before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from factory.trainer import blocks
from factory.trainer.weights import copy_into, published_of
from manifests.records import Frozen

TARGETS = r"blocks\.\d+\.(attn[12]\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_v_proj)|ffn\.net\.(0\.proj|2))"
NAME = "default"


class LoraConfig(Frozen):
    """Sizes of the adapters; SCAIL-2's post-training is published at rank 128."""

    rank: int = Field(default=128, gt=0)
    alpha: float | None = None
    """they are scaled by alpha / rank; default: 1"""
    targets: str = TARGETS
    """a regular expression over the names of layers; default: all large ones in the blocks"""


def add_adapters(model: nn.Module, config: LoraConfig) -> None:
    """Put adapters beside the layers and freeze all else. They are set by `initialise_adapters`."""
    blocks.hide_broken_torchvision()
    import peft

    asked = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha or config.rank, target_modules=config.targets, lora_dropout=0.0)
    peft.inject_adapter_in_model(asked, model, adapter_name=NAME)


def initialise_adapters(model: nn.Module, seed: int) -> None:
    """The first matrices at random, the second ones zero: the model's answers do not change. Sharded or not, the numbers are the same."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                bound = parameter.shape[1] ** -0.5
                copy_into(parameter, (2 * torch.rand(tuple(parameter.shape), generator=generator) - 1) * bound)
            elif "lora_B" in name:
                parameter.zero_()


@contextlib.contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model as it was without them. peft's own switch also turns off their gradients, which a sharded model would not forgive."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "lora_A")]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def adapter_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters alone, under the names that ComfyUI and diffusers load: diffusion_model.blocks.0.self_attn.q.lora_A.weight …"""
    own = {name.replace(f".{NAME}.", "."): tensor for name, tensor in state.items() if ".lora_" in name}
    return {f"diffusion_model.{published_of(name)}": tensor for name, tensor in own.items()}
