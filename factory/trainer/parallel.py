"""Ranks, and the four things that are done to a model so that many of them train it. train.py applies them in the order of this file."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from factory.trainer.attention import Context
from factory.trainer.config import ParallelConfig
from factory.trainer.model import Scail2
from manifests.errors import BadRecipe

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SHARDED = "shard_context"


@dataclass(frozen=True)
class Ranks:
    """Where this process stands."""

    rank: int
    world: int
    device: torch.device
    mesh: Any
    """(replicate, shard, context)"""
    over: Any
    """(replicate, shard × context), or its second part alone: what weights are spread over"""
    data_rank: int
    """ranks of one context group read the same samples"""
    data_world: int

    @property
    def first(self) -> bool:
        return self.rank == 0

    def summed(self, numbers: list[float]) -> list[float]:
        """Of all ranks."""
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return list(tensor.tolist())

    def largest(self, number: int) -> int:
        """Of all ranks."""
        tensor = torch.tensor(number, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)


@contextmanager
def started(config: ParallelConfig) -> Iterator[Ranks]:
    """The process group, as torchrun set it up or of this process alone. Raises BadRecipe for ranks that can't be shared out so."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rest, left = divmod(world, config.context * config.replicate)
    if left or not rest:
        asked = f"parallel.context {config.context} × parallel.replicate {config.replicate}"
        raise BadRecipe(f"{asked} must divide the number of ranks, got {world}; start with torchrun --nproc-per-node, or lower them")
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    alone = {} if world > 1 else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", **alone)
    try:
        yield _ranks(config, rest, device)
    finally:
        dist.destroy_process_group()


def _ranks(config: ParallelConfig, shard: int, device: torch.device) -> Ranks:
    mesh = dist.device_mesh.init_device_mesh(
        device.type, (config.replicate, shard, config.context), mesh_dim_names=("replicate", "shard", "context")
    )
    sharded = mesh["shard", "context"]._flatten(SHARDED)
    over = mesh["replicate", SHARDED] if config.replicate > 1 else sharded
    rank = dist.get_rank()
    return Ranks(rank, dist.get_world_size(), device, mesh, over, rank // config.context, config.replicate * shard)


def share_sequences(model: Scail2, ranks: Ranks, config: ParallelConfig) -> None:
    """1. Context parallelism: each sequence's tokens are spread over the ranks of a context group."""
    if config.context > 1:
        model.share_sequence(Context(ranks.mesh["context"].get_group()))


def checkpoint_activations(model: Scail2, config: ParallelConfig) -> None:
    """2. What the backward pass computes again instead of keeping it."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    if config.checkpointing == "none":
        return
    options: dict[str, Any] = {"preserve_rng_state": False}  # nothing in a block is random
    if config.checkpointing == "selective":
        options["context_fn"] = lambda: create_selective_checkpoint_contexts(_kept_policy())
    for i, block in enumerate(model.blocks):
        model.blocks[i] = checkpoint_wrapper(block, **options)


def _kept_policy() -> Any:
    """Keep what attention and all-to-all gave, and every other matrix product; compute the rest again."""
    from torch.utils.checkpoint import CheckpointPolicy

    keep = _attention_operators() | {torch.ops._c10d_functional.all_to_all_single.default}
    products = 0

    def policy(_context: Any, operator: Any, *_args: Any, **_kwargs: Any) -> Any:
        nonlocal products
        if operator in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            products += 1
            return CheckpointPolicy.MUST_SAVE if products % 2 else CheckpointPolicy.PREFER_RECOMPUTE
        return CheckpointPolicy.MUST_SAVE if operator in keep else CheckpointPolicy.PREFER_RECOMPUTE

    return policy


def _attention_operators() -> set[Any]:
    names = ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
    return {getattr(torch.ops.aten, f"_scaled_dot_product_{name}").default for name in names}


def compile_blocks(model: Scail2, config: ParallelConfig) -> None:
    """3. Each block compiled by itself: all are alike, so it is compiled once a shape."""
    if config.compile:
        for block in model.blocks:
            block.compile(fullgraph=False)


def shard(model: Scail2, ranks: Ranks, config: ParallelConfig) -> None:
    """4. FSDP2: weights, gradients and optimizer state in parts on all ranks; a block is gathered while it is computed."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # No casting of inputs: the model casts what it is given, and rotary tables stay float32.
    policy = MixedPrecisionPolicy(DTYPES[config.param_dtype], DTYPES[config.reduce_dtype], cast_forward_inputs=False)
    exact = MixedPrecisionPolicy(torch.float32, DTYPES[config.reduce_dtype], cast_forward_inputs=False)
    spread = functools.partial(fully_shard, mesh=ranks.over)
    for block in model.blocks:
        spread(block, mp_policy=policy)
    spread(model.condition_embedder.time_embedder, mp_policy=exact)  # σ's embedding is computed in float32, as Wan does
    spread(model, mp_policy=policy)


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, on every rank."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
