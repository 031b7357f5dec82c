"""How much of a device's speed a training step of SCAIL-2 reaches: an 8-block slice of the 14B and of the 1.3B, forward, loss and backward.

    python benchmarks/mfu.py            # on a GPU: 512×896×81, 48,832 tokens, bfloat16; on a CPU: a small stand-in for these, float32
    python benchmarks/mfu.py --quick    # under 50 s on a CPU

MFU counts three forward passes' operations (factory/trainer/flops.py) against the device's peak; what checkpointing computes again is not
counted. The roofline is the time that the same operations, those computed again among them, take at the speeds of attention and of one
large matrix product measured in the same run. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from factory.trainer import parallel
from factory.trainer.config import ParallelConfig
from factory.trainer.flops import PICTURE_TOKENS, forward_flops, peak_of, tokens_of, training_flops
from factory.trainer.flow import Batch, losses
from factory.trainer.model import PRESETS, Inputs, ModelConfig, build
from factory.trainer.positions import positions

AT_512P = (21, 64, 112)
SMALL_DIMS = {"dim": 512, "ffn_dim": 1408, "heads": 4, "text_dim": 256, "text_tokens": 128, "image_dim": 128}


@dataclass(frozen=True)
class Case:
    """What is measured."""

    name: str
    model: ModelConfig
    latents: tuple[int, int, int]
    checkpointing: Literal["none", "selective", "full"]

    @property
    def again(self) -> tuple[float, float]:
        """Shares of attention and of the rest that are computed a second time."""
        return {"none": (0.0, 0.0), "selective": (0.0, 0.5), "full": (1.0, 1.0)}[self.checkpointing]


def cases(on_gpu: bool, quick: bool, layers: int) -> list[Case]:
    """On a GPU the real sizes."""
    found = []
    for preset in ("14b", "1.3b"):
        model = PRESETS[preset].model_copy(update={"layers": layers} if on_gpu else {**SMALL_DIMS, "layers": 2})
        latents = AT_512P if on_gpu else (2, 16, 32) if quick else (5, 32, 56)
        modes: tuple[Any, ...] = ("full", "selective") if preset == "14b" else ("selective",)
        name = f"{preset}, {layers} blocks" if on_gpu else f"small stand-in for {preset}, 2 blocks"
        found += [Case(f"{name}, {mode}", model, latents, mode) for mode in modes]
    return found if on_gpu else found[:2]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and smaller sizes on a CPU")
    parser.add_argument("--layers", type=int, default=8, help="blocks of the slice on a GPU")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which is used on a GPU only")
    parser.add_argument("--peak-tflops", type=float, help="of this device, where its name does not tell")
    asked = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    name = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    peak = asked.peak_tflops * 1e12 if asked.peak_tflops else peak_of(name) if on_gpu else None
    rounds = 3 if asked.quick else 7
    ran_on = {"device": name, "gpu": on_gpu, "threads": torch.get_num_threads(), "torch": torch.__version__, "dtype": str(dtype)}
    figures: dict[str, Any] = {"ran_on": ran_on, "peak_tflops": peak and peak / 1e12, "cases": {}}
    print(f"on {name}, torch {torch.__version__}, {dtype}" + ("" if on_gpu else ": no GPU; small sizes, which say nothing about a GPU"))
    for case in cases(on_gpu, asked.quick, asked.layers):
        found = measured(case, device, dtype, rounds, on_gpu and not asked.no_compile, peak)
        figures["cases"][case.name] = found
        print(f"{case.name}: {found}", flush=True)
    print(json.dumps(figures))


def measured(case: Case, device: torch.device, dtype: torch.dtype, rounds: int, compiled: bool, peak: float | None) -> dict[str, Any]:
    """One case: step, attention and matrix product by turns, so that a slow moment falls on all alike."""
    tokens = tokens_of(*case.latents)
    step = training_step(case, device, dtype, compiled)
    products = {"step": step, "attention": attention(case, tokens.all, device, dtype), "matmul": matmul(case, tokens.all, device, dtype)}
    taken = {name: [] for name in products}  # type: dict[str, list[float]]
    for turn in range(rounds + 2):
        for name, run in products.items():
            seconds = timed(run, device)
            if turn >= 2:  # the first two compile and warm up
                taken[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    parts = forward_flops(case.model, tokens)
    # Measured is forward and backward of one attention: 3.5 forward passes, as the backward pass forms the scores again.
    attention_s = medians["attention"] * case.model.layers
    more_attention, more_linear = case.again
    linear_rate = 2 * tokens.all * case.model.dim * case.model.ffn_dim / medians["matmul"]
    roofline_s = attention_s * (1 + more_attention / 3.5) + parts["linear"] * (3 + more_linear) / linear_rate
    useful = training_flops(case.model, tokens)
    del step, products
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {
        "tokens": tokens.all, "step_s": _rounded(medians["step"]), "spread_s": [_rounded(min(taken["step"])), _rounded(max(taken["step"]))],
        "useful_tflops_per_s": _rounded(useful / medians["step"] / 1e12), "mfu": peak and _rounded(useful / medians["step"] / peak),
        "of_the_roofline": _rounded(roofline_s / medians["step"]), "matmul_tflops_per_s": _rounded(linear_rate / 1e12),
        "attention_tflops_per_s": _rounded(3 * parts["attention"] / attention_s / 1e12), "rounds": rounds,
    }  # fmt: skip


def training_step(case: Case, device: torch.device, dtype: torch.dtype, compiled: bool) -> Callable[[], None]:
    """Forward, loss, backward; gradients are dropped. Without an optimizer and without other ranks."""
    config = ParallelConfig(checkpointing=case.checkpointing, compile=compiled)
    model = build(case.model, device=str(device)).to(dtype)
    parallel.checkpoint_activations(model, config)
    parallel.compile_blocks(model, config)
    batch = random_batch(case, device)

    def run() -> None:
        losses(model(batch.inputs), batch).sum().backward()
        model.zero_grad(set_to_none=True)

    return run


def random_batch(case: Case, device: torch.device) -> Batch:
    """One sample's tensors."""
    frames, height, width = case.latents
    small = (frames, height // 2, width // 2)
    inputs = Inputs(
        noisy_B20THW=torch.randn(1, 20, frames, height, width), references_B20RHW=torch.randn(1, 20, 1, height, width),
        driving_B20Thw=torch.randn(1, 20, *small), reference_mask_B28SHW=torch.zeros(1, 28, 1 + frames, height, width),
        driving_mask_B28Thw=torch.zeros(1, 28, *small), sigma_B=torch.tensor([0.5]),
        words_BLC=torch.randn(1, case.model.text_tokens, case.model.text_dim),
        picture_BLC=torch.randn(1, PICTURE_TOKENS, case.model.image_dim) if case.model.image_dim else None,
        positions=(positions("animation", 0),),
    )  # fmt: skip
    shape = (1, 16, frames, height, width)
    return Batch(inputs, torch.randn(shape), torch.ones(shape), torch.zeros(shape), ("animation",), ("random",)).to(device)


def attention(case: Case, tokens: int, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """Self-attention of one block alone, forward and backward."""
    heads = case.model.heads
    query, key, value = (
        torch.randn(1, heads, tokens, case.model.dim // heads, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )

    def run() -> None:
        out: Tensor = functional.scaled_dot_product_attention(query, key, value)
        out.backward(torch.ones_like(out))
        query.grad = key.grad = value.grad = None

    return run


def matmul(case: Case, tokens: int, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """All tokens times the feed-forward layer's weight, once."""
    x = torch.randn(tokens, case.model.dim, device=device, dtype=dtype)
    weight = torch.randn(case.model.dim, case.model.ffn_dim, device=device, dtype=dtype)

    def run() -> None:
        with torch.no_grad():
            x @ weight

    return run


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Seconds until it is done."""
    wait = torch.cuda.synchronize if device.type == "cuda" else contextlib.nullcontext
    wait()
    began = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - began


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
