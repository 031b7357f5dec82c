"""The attentions of Wan's blocks as diffusers' processors, and the context parallelism inside them (Ulysses; Jacobs et al., 2023).

With P ranks in a group each holds 1/P of the tokens everywhere but inside the self-attention: there it holds all tokens of 1/P of the
heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as functional_collectives
from torch.nn import functional

from factory.trainer.rope import Rotary, turned


class Context:
    """A group of ranks that share one sequence."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.size: int = dist.get_world_size(group)
        self.rank: int = dist.get_rank(group)

    def part(self, x_BN: Tensor) -> Tensor:
        """This rank's tokens of (B, N, …), with zeros behind the last ones so that all ranks have equally many."""
        each = -(-x_BN.shape[1] // self.size)
        missing = each * self.size - x_BN.shape[1]
        if missing:
            x_BN = torch.cat([x_BN, x_BN.new_zeros(x_BN.shape[0], missing, *x_BN.shape[2:])], 1)
        return x_BN.narrow(1, self.rank * each, each).contiguous()

    def whole(self, x_Bn: Tensor, tokens: int) -> Tensor:
        """All ranks' tokens, (B, tokens, …). Its gradient is summed over the ranks, as each goes on with a copy of its own."""
        gathered: Tensor = _Gather.apply(x_Bn.contiguous(), self)
        return gathered.transpose(0, 1).flatten(1, 2)[:, :tokens]

    def to_heads(self, x_SBnHC: Tensor, tokens: int) -> Tensor:
        """(S, B, n, H, C) → (S, B, tokens, H / P, C)."""
        sent = x_SBnHC.unflatten(3, (self.size, -1)).movedim(3, 0).contiguous()
        got = functional_collectives.all_to_all_single_autograd(sent, None, None, self.group)
        return got.movedim(0, 2).flatten(2, 3)[:, :, :tokens]

    def to_tokens(self, x_BNhC: Tensor) -> Tensor:
        """The way back: (B, N, H / P, C) → (B, n, H, C)."""
        batch, tokens, heads, channels = x_BNhC.shape
        each = -(-tokens // self.size)
        padded = functional.pad(x_BNhC, (0, 0, 0, 0, 0, each * self.size - tokens))
        sent = padded.unflatten(1, (self.size, each)).movedim(1, 0).contiguous()
        got = functional_collectives.all_to_all_single_autograd(sent, None, None, self.group)
        return got.movedim(0, 2).reshape(batch, each, self.size * heads, channels)


class _Gather(torch.autograd.Function):  # type: ignore[misc]
    """(…) on each of P ranks → (P, …) on all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, context: Context) -> Tensor:
        ctx.context = context
        out = x.new_empty(context.size, *x.shape)
        dist.all_gather_into_tensor(out.view(-1, *x.shape[1:]), x, group=context.group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out = grad.new_empty(grad.shape[1:])
        dist.reduce_scatter_tensor(out, grad.flatten(0, 1).contiguous(), group=ctx.context.group)
        return out, None


class SelfAttention:
    """Of all tokens with each other. A processor of diffusers' `WanAttention`."""

    def __init__(self) -> None:
        self.context: Context | None = None

    def __call__(self, attn: Any, hidden: Tensor, _context: None, _mask: None, rotary: Rotary) -> Tensor:
        query, key, value = attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(hidden)), attn.to_v(hidden)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        query, key = turned(query, rotary), turned(key, rotary)
        if self.context is None:
            out = _attended(query, key, value)
        else:
            query, key, value = self.context.to_heads(torch.stack([query, key, value]), rotary.tokens).unbind(0)
            out = self.context.to_tokens(_attended(query, key, value))
        return attn.to_out[0](out.flatten(2))


class CrossAttention:
    """Of all tokens with the caption's features and, apart and added, with the picture's. A processor of diffusers' `WanAttention`."""

    def __init__(self, words: int) -> None:
        """How many of the last tokens that are looked at are the caption's."""
        self._words = words

    def __call__(self, attn: Any, hidden: Tensor, features: Tensor, _mask: None, _rotary: None) -> Tensor:
        query = attn.norm_q(attn.to_q(hidden)).unflatten(2, (attn.heads, -1))
        pictures = features.shape[1] - self._words
        picture, words = features[:, :pictures], features[:, pictures:]
        key, value = attn.norm_k(attn.to_k(words)), attn.to_v(words)
        out = _attended(query, key.unflatten(2, (attn.heads, -1)), value.unflatten(2, (attn.heads, -1)))
        if attn.add_k_proj is not None:
            key, value = attn.norm_added_k(attn.add_k_proj(picture)), attn.add_v_proj(picture)
            out = out + _attended(query, key.unflatten(2, (attn.heads, -1)), value.unflatten(2, (attn.heads, -1)))
        return attn.to_out[0](out.flatten(2))


def _attended(query_BNHC: Tensor, key_BNHC: Tensor, value_BNHC: Tensor) -> Tensor:
    heads_first = (x.transpose(1, 2) for x in (query_BNHC, key_BNHC, value_BNHC))
    out: Tensor = functional.scaled_dot_product_attention(*heads_first)
    return out.transpose(1, 2)
