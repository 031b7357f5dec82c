"""A sample as latents, and as the members of a latent shard: the names, layouts and encodings of SCAIL-2's published ones, and a few more.

Tensors are `torch.save` in bfloat16, compressed with zstandard. Published readers skip the members that they do not know.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from manifests.errors import BadInput, Damaged
from manifests.latents import (
    CAPTION,
    DRIVING,
    DRIVING_AUG,
    END_TO_END,
    FACES,
    FIRST,
    FRAMES,
    HANDS,
    ID,
    MASK,
    MASK_AUG,
    META,
    MORE_MASKS,
    MORE_REFERENCES,
    NEEDED,
    NO_WORDS,
    PICTURE,
    PIXELS,
    REF_MASK_FLAG,
    REFERENCE,
    REFERENCE_MASK,
    TENSOR,
    TEXT,
    VIDEO,
    WORDS,
    expanded,
)  # fmt: skip
from manifests.records import Task, canonical_json

LEVEL = 22
"""of zstandard, as published"""
HISTORY_KEY = re.compile(r"_1_\d{5}|part1_0_\d{5}")
"""keys of samples that go on where another one ends; they are trained with history more often"""


@dataclass(frozen=True, eq=False)
class Driving:
    """A driving video, clean or augmented, at half the height and width."""

    latents_16Thw: Tensor
    mask_28Thw: Tensor


@dataclass(frozen=True, eq=False)
class Latents:
    """All that a pair gives to training, before anything is drawn. T is in latent frames, H and W in latent cells, h = H/2, w = W/2."""

    key: str
    task: Task
    video_16THW: Tensor
    """of the target"""
    driving: Driving
    augmented: Driving | None
    reference_16HW: Tensor
    reference_mask_28HW: Tensor
    reference_pixels_3HW: Tensor
    """-1 to 1, in pixels of the video"""
    more_references_16AHW: Tensor
    """A may be 0"""
    more_masks_28AHW: Tensor
    hands_T16HW: Tensor
    faces_T16HW: Tensor
    text_T16HW: Tensor
    """lettering in the target; it is left out of the loss"""
    caption: str
    words_LC: Tensor | None = None
    """the caption's features, trimmed"""
    no_words_LC: Tensor | None = None
    """those of the empty caption"""
    picture_LC: Tensor | None = None
    """the reference's features"""
    first_16THW: Tensor | None = None
    """of the reference followed by frames of grey; published readers want it, SCAIL-2 does not"""


def pack(sample: Latents, level: int = LEVEL) -> dict[str, bytes]:
    """Member name → bytes; the same tensors give the same bytes. Raises BadInput for a pair without a
    caption, which published readers would skip without a word."""
    if not sample.caption.strip():
        raise BadInput(f"pair {sample.key} has no caption; published readers skip such samples", "no_caption")
    _, frames, height, width = sample.video_16THW.shape
    augmented = sample.augmented or sample.driving
    tensors: dict[str, Tensor | None] = {
        VIDEO: sample.video_16THW, DRIVING: sample.driving.latents_16Thw, DRIVING_AUG: augmented.latents_16Thw, FIRST: sample.first_16THW,
        REFERENCE: sample.reference_16HW[:, None], PIXELS: sample.reference_pixels_3HW[:, None], MASK: sample.driving.mask_28Thw,
        MASK_AUG: augmented.mask_28Thw, REFERENCE_MASK: sample.reference_mask_28HW[:, None], HANDS: sample.hands_T16HW,
        FACES: sample.faces_T16HW, TEXT: sample.text_T16HW, WORDS: sample.words_LC, NO_WORDS: sample.no_words_LC,
        PICTURE: sample.picture_LC,
    }  # fmt: skip
    if sample.more_references_16AHW.shape[1]:
        tensors |= {MORE_REFERENCES: sample.more_references_16AHW, MORE_MASKS: sample.more_masks_28AHW}
    about = {"task": sample.task, "height": height * 8, "width": width * 8, "frames": 4 * frames - 3}
    return {name: packed(tensor, level) for name, tensor in tensors.items() if tensor is not None} | {
        CAPTION: sample.caption.encode(), FRAMES: str(frames).encode(), ID: sample.key.encode(),
        END_TO_END: str(sample.task != "pose").encode(), REF_MASK_FLAG: str(sample.task != "replacement").encode(),
        META: canonical_json(about),
    }  # fmt: skip


def unpack(key: str, members: Mapping[str, bytes]) -> Latents:
    """A sample of one of our latent shards or of a published one; tensors in float32. Raises Damaged for members that can't be one."""
    missing = [name for name in NEEDED if name not in members]
    if missing:
        raise Damaged(f"sample {key} has no {', '.join(missing)}; make its latents again")
    tensors = {name: unpacked(data, f"{key}.{name}") for name, data in members.items() if name.endswith(TENSOR)}
    video_16THW = tensors[VIDEO]
    if video_16THW.ndim != 4 or video_16THW.shape[0] != 16:
        raise Damaged(f"{key}.{VIDEO} is {tuple(video_16THW.shape)}, expected (16, T, H, W); make its latents again")
    no_boxes_T16HW = torch.zeros(video_16THW.shape[1], 16, *video_16THW.shape[2:])
    clean = Driving(tensors[DRIVING], tensors[MASK])
    sample = Latents(
        key=key,
        task=task_told(members, key),
        video_16THW=video_16THW,
        driving=clean,
        augmented=_augmented(tensors, clean),
        reference_16HW=tensors[REFERENCE][:, 0],
        reference_mask_28HW=tensors[REFERENCE_MASK][:, 0],
        reference_pixels_3HW=tensors[PIXELS][:, 0],
        more_references_16AHW=tensors.get(MORE_REFERENCES, video_16THW[:, :0]),
        more_masks_28AHW=tensors.get(MORE_MASKS, tensors[REFERENCE_MASK][:, :0]),
        hands_T16HW=tensors[HANDS],
        faces_T16HW=tensors.get(FACES, no_boxes_T16HW),
        text_T16HW=tensors.get(TEXT, no_boxes_T16HW),
        caption=members[CAPTION].decode("utf-8", errors="replace"),
        words_LC=tensors.get(WORDS),
        no_words_LC=tensors.get(NO_WORDS),
        picture_LC=tensors.get(PICTURE),
        first_16THW=tensors.get(FIRST),
    )
    check_shapes(sample)
    return sample


def task_told(members: Mapping[str, bytes], key: str) -> Task:
    """By the two flags: a reference that is matted means a replacement, a driving video that is none of a person a pose pair."""
    if not _flag(members, REF_MASK_FLAG, key):
        return "replacement"
    return "animation" if _flag(members, END_TO_END, key) else "pose"


def _augmented(tensors: Mapping[str, Tensor], clean: Driving) -> Driving | None:
    """None where there is none, or where the clean one stands in its place, as in our replacement pairs."""
    if DRIVING_AUG not in tensors or MASK_AUG not in tensors:
        return None
    same = torch.equal(tensors[DRIVING_AUG], clean.latents_16Thw) and torch.equal(tensors[MASK_AUG], clean.mask_28Thw)
    return None if same else Driving(tensors[DRIVING_AUG], tensors[MASK_AUG])


def check_shapes(sample: Latents) -> None:
    """Raises Damaged when tensors of a sample do not fit each other."""
    _, frames, height, width = sample.video_16THW.shape
    small, full = (frames, height // 2, width // 2), (frames, height, width)
    more = sample.more_references_16AHW.shape[1]
    expected = {
        "driving": (sample.driving.latents_16Thw, (16, *small)), "driving mask": (sample.driving.mask_28Thw, (28, *small)),
        "reference": (sample.reference_16HW, (16, height, width)), "reference mask": (sample.reference_mask_28HW, (28, height, width)),
        "additional references": (sample.more_references_16AHW, (16, more, height, width)),
        "additional masks": (sample.more_masks_28AHW, (28, more, height, width)),
        "hands": (sample.hands_T16HW, (frames, 16, height, width)), "faces": (sample.faces_T16HW, (frames, 16, height, width)),
        "text": (sample.text_T16HW, (frames, 16, height, width)), "pixels": (sample.reference_pixels_3HW, (3, height * 8, width * 8)),
    }  # fmt: skip
    if sample.augmented:
        expected["augmented driving"] = sample.augmented.latents_16Thw, (16, *small)
        expected["augmented driving mask"] = sample.augmented.mask_28Thw, (28, *small)
    wrong = [f"{name} {tuple(t.shape)} instead of {shape}" for name, (t, shape) in expected.items() if tuple(t.shape) != shape]
    if wrong:
        raise Damaged(f"sample {sample.key} with a video of {full} latents has {'; '.join(wrong)}; make its latents again")


def packed(tensor: Tensor, level: int = LEVEL) -> bytes:
    """A tensor's bytes in a shard."""
    buffer = io.BytesIO()
    torch.save(tensor.detach().cpu().to(torch.bfloat16).contiguous().clone(), buffer)
    data = pa.Codec("zstd", compression_level=level).compress(buffer.getvalue(), asbytes=True)
    return bytes(data)


def unpacked(data: bytes, name: str = "a tensor") -> Tensor:
    """The inverse of `packed`, float32. Nothing in the bytes is run. Raises Damaged."""
    raw = expanded(data, name)
    try:
        tensor = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise what they like for bytes that are none of theirs
        raise Damaged(f"{name} can't be read ({type(error).__name__}); restore its shard") from error
    if not isinstance(tensor, Tensor):
        raise Damaged(f"{name} holds a {type(tensor).__name__}, expected a tensor; restore its shard")
    return tensor.to(torch.float32)


def _flag(members: Mapping[str, bytes], name: str, key: str) -> bool:
    said = members[name].strip()
    if said not in (b"True", b"False"):
        raise Damaged(f'{key}.{name} is {said[:20]!r}, expected "True" or "False"; restore its shard')
    return said == b"True"
