"""From files to a sampled video: the checkpoint, the encoders by name, and pictures and videos of a size that fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory.trainer import encoders, weights
from factory.trainer.checkpoint import about_of, load_model
from factory.trainer.encoding import encode_references
from factory.trainer.model import PRESETS, ModelConfig, Scail2, build
from factory.trainer.sample import Given, Sampling, sampled
from factory.trainer.vae import BlockTransformStandIn, Vae, WanVae
from manifests import masks, media
from manifests.errors import BadInput
from manifests.records import Mode

STAND_IN, NONE = "stand-in", "none"


@dataclass(frozen=True)
class Encoders:
    """What pictures, videos and captions are encoded with: `stand-in`, a folder, or (pictures) `none`. As the model was trained."""

    vae: str = STAND_IN
    text: str = STAND_IN
    image: str = NONE


@dataclass(frozen=True)
class Asked:
    """A video that is wanted. Masks are colour masks (docs/release-format.md); the first reference is the main one."""

    task: Mode
    references: tuple[Path, ...]
    reference_masks: tuple[Path, ...]
    driving: Path
    driving_mask: Path
    caption: str
    encoders: Encoders = field(default_factory=Encoders)
    how: Sampling = field(default_factory=Sampling)


def load_for_sampling(place: Path, preset: str | None = None, device: str = "cpu", ema: bool = False) -> Scail2:
    """A model from a run's folder (its newest checkpoint), from one checkpoint, or from published weights of a preset's size.

    Raises BadInput or Damaged.
    """
    if place.suffix == ".safetensors":
        config = PRESETS.get(preset or "14b")
        if config is None:
            raise BadInput(f"no preset {preset!r}; known are {', '.join(PRESETS)}")
        model = build(config, device="meta")
        model.to_empty(device=device)
        weights.load(model, weights.open_weights(place))
        model.eval()
        return model
    folder = _checkpoint(place)
    about = about_of(folder)
    if about.get("lora"):
        raise BadInput(f"{folder} holds adapters alone; sample from weights that they were merged into", "only_adapters")
    model = build(ModelConfig.model_validate(about["model"]))
    load_model(folder, model, ema)
    model.to(device).eval()
    return model


def make_video(model: Scail2, asked: Asked, device: str = "cpu") -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) of the driving video's size and count. Raises BadInput for files that do not fit each other."""
    driving_THWC, mask_THWC = media.read_frames(asked.driving)[0], media.read_frames(asked.driving_mask)[0]
    if driving_THWC.shape != mask_THWC.shape:
        raise BadInput(f"the driving video is {driving_THWC.shape}, its mask {mask_THWC.shape}; they must be of one size", "size_mismatch")
    height, width = driving_THWC.shape[1:3]
    if height % 32 or width % 32:
        raise BadInput(f"the driving video is {width}×{height}; sides must be multiples of 32", "bad_size")
    masks.validate_colours(mask_THWC, asked.task, "driving")
    vae, text, image = _opened(asked.encoders, device)
    pictures = [media.read_image(path) for path in asked.references]
    coloured = [media.read_image(path) for path in asked.reference_masks]
    for mask_HWC in coloured:
        masks.validate_colours(mask_HWC, asked.task, "reference")
    latents_16RHW, masks_28RHW, picture = encode_references(pictures, coloured, asked.task, height, width, vae)
    given = Given(
        task=asked.task,
        references_16RHW=latents_16RHW.roll(-1, 1),
        reference_masks_28RHW=masks_28RHW.roll(-1, 1),
        words_LC=text.encode(asked.caption),
        no_words_LC=text.encode(""),
        picture_LC=image.encode(picture) if image else None,
    )
    return sampled(model, given, driving_THWC, mask_THWC, vae, asked.how)


def _opened(named: Encoders, device: str) -> tuple[Vae, encoders.TextEncoder, Any]:
    vae: Vae = BlockTransformStandIn() if named.vae == STAND_IN else WanVae(named.vae, device)
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    text: encoders.TextEncoder = encoders.HashedWordsStandIn() if named.text == STAND_IN else encoders.Umt5(named.text, device, dtype)
    return vae, text, None if named.image == NONE else encoders.ClipPicture(named.image, device, dtype)


def _checkpoint(place: Path) -> Path:
    """A checkpoint's folder: itself, or the newest of a run."""
    if (place / ".metadata").is_file():
        return place
    complete = sorted(p.parent for p in (place / "checkpoints").glob("*/.metadata"))
    if not complete:
        raise BadInput(f"{place} holds no checkpoint; give a run's folder, one of its checkpoints, or a .safetensors file", "no_weights")
    return complete[-1]
