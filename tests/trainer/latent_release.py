"""A sealed latent release of random tensors, made without encoders: 5 frames of 64×96 pixels a pair."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from tiny_training import numbers

from factory.trainer.latent_sample import Driving, Latents, pack, packed
from manifests.latents import LOSER, Encoder, Encoders, LatentPair
from manifests.records import Geometry, Task
from manifests.sealing import write_release
from manifests.store import Store

T, H, W = 2, 8, 12
ENCODERS = Encoders(vae=Encoder(kind="random"), scale=1.0, stretch=1.0, shift=0.0, level=1)


def latents(key: str, task: Task, seed: int, text_dim: int = 8, more: int = 0) -> Latents:
    """Hands in one place, lettering in another."""
    hands, text = torch.zeros(T, 16, H, W), torch.zeros(T, 16, H, W)
    hands[:, :, 2:4, 3:6] = 1
    text[:, :, 6:, :4] = 1
    return Latents(
        key=key, task=task, video_16THW=numbers(seed, 16, T, H, W),
        driving=Driving(numbers(seed + 1, 16, T, H // 2, W // 2), numbers(seed + 2, 28, T, H // 2, W // 2)),
        augmented=Driving(numbers(seed + 3, 16, T, H // 2, W // 2), numbers(seed + 4, 28, T, H // 2, W // 2)),
        reference_16HW=numbers(seed + 5, 16, H, W), reference_mask_28HW=numbers(seed + 6, 28, H, W),
        reference_pixels_3HW=torch.zeros(3, 8 * H, 8 * W),
        more_references_16AHW=numbers(seed + 7, 16, more, H, W), more_masks_28AHW=numbers(seed + 8, 28, more, H, W),
        hands_T16HW=hands, faces_T16HW=torch.zeros(T, 16, H, W), text_T16HW=text, caption="a walk",
        words_LC=numbers(seed + 9, 4, text_dim), no_words_LC=numbers(999, 1, text_dim), picture_LC=None,
    )  # fmt: skip


def build(folder: Path, pairs: int = 12, text_dim: int = 8, preference: bool = False) -> Path:
    """Every third pair has two references, where all are not preference pairs."""
    store = Store(str(folder / "store"))
    files, made = tiny.parts(store, folder / "parts"), []
    for number in range(pairs):
        pair = tiny.pair(number, files, split="train", geometry=Geometry(frames=4 * T - 3, height=8 * H, width=8 * W))
        sample = latents(pair.key, pair.task, 100 * number, text_dim, int(number % 3 == 2 and not preference))
        members = pack(sample, level=1) | ({LOSER: packed(numbers(100 * number + 50, 16, T, H, W), 1)} if preference else {})
        stored = {name: store.put(data, Path(name).suffix or ".txt") for name, data in members.items()}
        record = pair.model_dump() | {
            name: getattr(pair, name) for name in ("driving", "target", "driving_mask", "references", "reference_masks")
        }
        made.append((LatentPair.model_validate(record | {"latents": stored, "made_of": {}, "encoders": ENCODERS}), 0))
    return write_release(folder / "release", made, store, tiny.meta())
