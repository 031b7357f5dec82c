"""Captions and reference pictures to features: umT5 and CLIP by name, and a stand-in for captions that needs no weights."""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manifests.errors import BadInput

TEXT_TOKENS = 512
"""at most; captions are cut there"""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""of the pictures that CLIP was trained with (Radford et al., 2021)"""


class TextEncoder(Protocol):
    """A caption as one vector a token."""

    def encode(self, text: str) -> Tensor:
        """float32 (tokens, width): trimmed, without padding, at least one token (the end mark of an empty text)."""


class ImageEncoder(Protocol):
    """A reference picture as features."""

    def encode(self, picture_HWC: NDArray[np.uint8]) -> Tensor:
        """float32 (tokens, width); 257 × 1280 for Wan's."""


def cleaned(text: str) -> str:
    """Entities read, white space of any kind as single spaces: as Wan's tokenizer does it, but for its repair of broken encodings."""
    return " ".join(html.unescape(html.unescape(text)).split())


class HashedWordsStandIn:
    """No language model: every word is a fixed random direction of length 1, with a mark of its place, and every text ends with an end
    mark.

    Equal words get equal vectors; nothing else is known of them.
    """

    width = 64

    def encode(self, text: str) -> Tensor:
        """See `TextEncoder.encode`."""
        words = [*cleaned(text).casefold().split()[: TEXT_TOKENS - 1], "</s>"]
        return torch.from_numpy(np.stack([self._vector(word) + 0.1 * self._vector(f"place {i}") for i, word in enumerate(words)]))

    def _vector(self, word: str) -> NDArray[np.float32]:
        key = int.from_bytes(hashlib.sha256(word.encode()).digest()[:16], "little")
        signs = np.random.Philox(key=key).random_raw(self.width) >> np.uint64(63)
        return ((signs.astype(np.float32) * 2 - 1) / np.float32(self.width**0.5)).astype(np.float32)


class Umt5:
    """transformers' `UMT5EncoderModel` and its tokenizer, from one folder or from `text_encoder` and `tokenizer` in it."""

    def __init__(self, folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        from transformers import AutoTokenizer, UMT5EncoderModel

        self._tokenizer: Any = AutoTokenizer.from_pretrained(_part(folder, "tokenizer", "tokenizer_config.json"))
        self._model: Any = UMT5EncoderModel.from_pretrained(_part(folder, "text_encoder"), dtype=dtype).to(device).eval()
        self._device = device

    def encode(self, text: str) -> Tensor:
        """See `TextEncoder.encode`. Encoded with padding to 512, as Wan was trained, then trimmed."""
        tokens = self._tokenizer(
            [cleaned(text)], padding="max_length", max_length=TEXT_TOKENS, truncation=True, add_special_tokens=True, return_tensors="pt"
        )
        ids, mask = tokens.input_ids.to(self._device), tokens.attention_mask.to(self._device)
        with torch.no_grad():
            hidden: Tensor = self._model(ids, attention_mask=mask).last_hidden_state[0]
        return hidden[: max(1, int(mask.sum()))].float().cpu()


class ClipPicture:
    """transformers' `CLIPVisionModel` from a folder (its own, or one that holds it as `image_encoder`): the last layer but one, as Wan
    takes it."""

    def __init__(self, folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        from transformers import CLIPVisionModel

        self._model: Any = CLIPVisionModel.from_pretrained(_part(folder, "image_encoder"), dtype=dtype).to(device).eval()
        self._side = int(self._model.config.image_size)
        self._device, self._dtype = device, dtype

    def encode(self, picture_HWC: NDArray[np.uint8]) -> Tensor:
        """See `ImageEncoder.encode`. The whole picture is scaled to the model's square (bicubic), nothing is cut off."""
        pixels_13HW = torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1)[None].float() / 255
        scaled = functional.interpolate(pixels_13HW, size=(self._side, self._side), mode="bicubic", align_corners=False)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        given = ((scaled - mean) / std).to(self._device, self._dtype)
        with torch.no_grad():
            features: Tensor = self._model(given, output_hidden_states=True).hidden_states[-2][0]
        return features.float().cpu()


def _part(folder: str | Path, name: str, file: str = "config.json") -> Path:
    """The model's own folder: the one given, or the part of it that has this name."""
    for place in (Path(folder) / name, Path(folder)):
        if (place / file).is_file():
            return place
    raise BadInput(f"{folder} holds no {name} (no {file}); give a folder that save_pretrained wrote, or a diffusers pipeline's")
