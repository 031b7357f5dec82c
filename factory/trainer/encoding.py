"""A decoded pair to latents: what each tensor is made of, and that it is made of nothing else.

Reverse driving is checked here: the target is the real video, the driving video another, and no mask is drawn from the target. The
functions that make the masks are not given it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from factory.trainer.augment import Warp, warped
from factory.trainer.encoders import ImageEncoder, TextEncoder
from factory.trainer.latent_sample import Driving, Latents
from factory.trainer.masks28 import boxes_mask, halved, mask_28
from factory.trainer.vae import Vae, to_pixels
from manifests import masks
from manifests.errors import BadInput
from manifests.records import MODES, Box, Mode

Picture = NDArray[np.uint8]
ENCODED_AGAIN = 4.0
"""levels of 255, on average: what differs by less is the same video, encoded once more"""


class DecodedPair(Protocol):
    """A pair of a pixel release, as `factory.trainer.decode.Sample` is one. Pictures are RGB."""

    @property
    def task(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def driving_THWC(self) -> Picture: ...  # noqa: N802
    @property
    def target_THWC(self) -> Picture: ...  # noqa: N802
    @property
    def driving_mask_THWC(self) -> Picture: ...  # noqa: N802
    @property
    def references(self) -> tuple[Picture, ...]: ...
    @property
    def reference_masks(self) -> tuple[Picture, ...]: ...
    @property
    def caption(self) -> str: ...
    @property
    def meta(self) -> dict[str, Any]: ...


def check_reverse_driving(sample: DecodedPair) -> None:
    """Raises BadInput when a sample is not what a pair has to be: the driving video another than the target, all videos of one size, a
    legal driving mask of its task's polarity, and a legal mask of its size for each reference.

    Where a mask was drawn from can't be seen in its pixels, as driving and target move alike. That it is not the target is held where masks
    are made: no function on the way is given the target, in the factory (`draw_masks`) or here.
    """
    task = task_of(sample)
    if sample.meta.get("task", sample.task) != sample.task:
        raise BadInput(f"pair {sample.key} is drawn as {sample.task}, its record says {sample.meta['task']}", "wrong_task")
    shapes = {video.shape for video in (sample.driving_THWC, sample.target_THWC, sample.driving_mask_THWC)}
    if len(shapes) > 1:
        raise BadInput(f"pair {sample.key} has videos of different shapes {sorted(shapes)}; verify its release", "size_mismatch")
    if not sample.references or len(sample.references) != len(sample.reference_masks):
        counts = f"{len(sample.references)} references and {len(sample.reference_masks)} masks"
        raise BadInput(f"pair {sample.key} has {counts}; each reference has one", "size_mismatch")
    for picture_HWC, mask_HWC in zip(sample.references, sample.reference_masks, strict=True):
        if picture_HWC.shape != mask_HWC.shape:
            raise BadInput(
                f"pair {sample.key} has a reference {picture_HWC.shape} with a mask {mask_HWC.shape}; verify its release", "size_mismatch"
            )
        masks.validate_colours(mask_HWC, task, "reference")
    masks.validate_colours(sample.driving_mask_THWC, task, "driving")
    if _drives_itself(sample):
        raise BadInput(
            f"pair {sample.key} is driven by its own target; in reverse driving the synthetic video drives", "not_reverse_driven"
        )


def _drives_itself(sample: DecodedPair) -> bool:
    """Whether the driving video is the target: the same file, or the same pictures but for what an encoder changes. Looked at are five
    frames, and in them the people of the driving mask: a replacement's scene is the same in both."""
    members = sample.meta.get("members", {})
    said = [members[name]["sha256"] for name in ("driving.mp4", "target.mp4") if name in members]
    if len(said) == 2 and said[0] == said[1]:
        return True
    some = np.linspace(0, len(sample.target_THWC) - 1, 5).round().astype(int)
    mask_THWC = sample.driving_mask_THWC[some]
    people_THW = mask_THWC.any(-1) & (mask_THWC == 0).any(-1)  # neither black nor white
    where_THW = people_THW if people_THW.any() else np.ones_like(people_THW)
    apart = np.abs(sample.driving_THWC[some][where_THW].astype(np.int16) - sample.target_THWC[some][where_THW])
    return bool(apart.mean() < ENCODED_AGAIN)


def task_of(sample: DecodedPair) -> Mode:
    """Its task. Raises BadInput for one that has no conditioning of this kind."""
    for task in MODES:
        if sample.task == task:
            return task
    raise BadInput(f"pair {sample.key} is of task {sample.task!r}; conditioned are {', '.join(MODES)}", "wrong_task")


def encode_driving(sample: DecodedPair, vae: Vae, warp: Warp | None = None) -> Driving:
    """The driving video's latents and mask at half size, both moved by the same warp first."""
    driving_THWC, mask_THWC = sample.driving_THWC, sample.driving_mask_THWC
    if warp is not None:
        driving_THWC, mask_THWC = warped(driving_THWC, mask_THWC, task_of(sample), warp)
    return Driving(vae.encode(to_pixels(halved(driving_THWC))), mask_28(mask_THWC, half=True))


def encode_references(
    references: Sequence[Picture], reference_masks: Sequence[Picture], task: Mode, height: int, width: int, vae: Vae
) -> tuple[torch.Tensor, torch.Tensor, Picture]:
    """Latents (16, R, H, W) and masks (28, R, H, W) of all references, and the first one's picture at the video's size.

    For a replacement the pictures are matted onto black with their masks.
    """
    pictures, coloured = [], []
    for picture_HWC, mask_HWC in zip(references, reference_masks, strict=True):
        shown = masks.matte(picture_HWC, mask_HWC) if task == "replacement" else picture_HWC
        pictures.append(fitted(shown, height, width))
        coloured.append(fitted(mask_HWC, height, width, mask=True))
    latents = torch.cat([vae.encode(to_pixels(picture[None])) for picture in pictures], 1)
    return latents, torch.cat([mask_28(mask[None]) for mask in coloured], 1), pictures[0]


def fitted(picture_HWC: Picture, height: int, width: int, mask: bool = False) -> Picture:
    """A picture scaled to cover the size, and cut off equally on both sides. Masks keep to their palette."""
    h, w = picture_HWC.shape[:2]
    if (h, w) == (height, width):
        return picture_HWC
    factor = max(height / h, width / w)
    size = max(width, round(w * factor)), max(height, round(h * factor))
    how = cv2.INTER_NEAREST if mask else cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture_HWC, size, interpolation=how)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def encode(
    sample: DecodedPair,
    vae: Vae,
    warp: Warp | None = None,
    text: TextEncoder | None = None,
    image: ImageEncoder | None = None,
    *,
    clean: bool = True,
    first_frame: bool = False,
) -> Latents:
    """All tensors of a pair.

    `warp`: also the driving video and mask moved by it; without `clean` they stand for the clean ones, which are not encoded then.
    `first_frame`: also what only published readers want. Raises BadInput as `check_reverse_driving`.
    """
    check_reverse_driving(sample)
    augmented = encode_driving(sample, vae, warp) if warp else None
    driving = augmented if augmented and not clean else encode_driving(sample, vae)
    frames, height, width = sample.target_THWC.shape[:3]
    references, reference_masks, picture = encode_references(sample.references, sample.reference_masks, task_of(sample), height, width, vae)
    hands, faces, lettering = (boxes_mask(_boxes(sample, name, frames), frames, height, width) for name in ("hands", "faces", "text"))
    pixels_3HW = to_pixels(picture[None])[:, 0]
    return Latents(
        key=sample.key,
        task=task_of(sample),
        video_16THW=vae.encode(to_pixels(sample.target_THWC)),
        driving=driving,
        augmented=augmented,
        reference_16HW=references[:, 0],
        reference_mask_28HW=reference_masks[:, 0],
        reference_pixels_3HW=pixels_3HW,
        more_references_16AHW=references[:, 1:],
        more_masks_28AHW=reference_masks[:, 1:],
        hands_T16HW=hands,
        faces_T16HW=faces,
        text_T16HW=lettering,
        caption=sample.caption,
        words_LC=text.encode(sample.caption) if text else None,
        no_words_LC=text.encode("") if text else None,
        picture_LC=image.encode(picture) if image else None,
        first_16THW=vae.encode(_then_grey(pixels_3HW, frames)) if first_frame else None,
    )


def _then_grey(pixels_3HW: torch.Tensor, frames: int) -> torch.Tensor:
    """The picture, then frames of zeros."""
    out = torch.zeros(3, frames, *pixels_3HW.shape[1:])
    out[:, 0] = pixels_3HW
    return out


def _boxes(sample: DecodedPair, name: str, frames: int) -> list[list[Box]]:
    """The target's boxes of one kind, by frame; all empty where the record has none."""
    entries = sample.meta.get("boxes") or [{}] * frames
    if len(entries) != frames:
        raise BadInput(f"pair {sample.key} has boxes for {len(entries)} of {frames} frames; verify its release", "bad_boxes")
    try:
        return [[(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in entry.get(name, ())] for entry in entries]
    except (TypeError, ValueError, AttributeError):
        raise BadInput(f"pair {sample.key} has boxes that are none: {json.dumps(entries)[:80]}; verify its release", "bad_boxes") from None
