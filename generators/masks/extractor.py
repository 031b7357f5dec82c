"""The contract between whoever knows where people are and whoever draws their masks."""

from __future__ import annotations

from typing import Protocol

from generators.poses.tracks import Bytes, People
from manifests.errors import BadInput


class MaskExtractor(Protocol):
    """Draws people's masks. The tracker calls one after it knows who is where; the built-in one is `generators.masks.refine.EdgeRefiner`,
    and a video segmenter may take its place. Those that a recipe can name also derive from `generators.poses.extractor.Extractor`."""

    def extract(self, frames_THWC: Bytes, people: People) -> Bytes:
        """masks_PTHW: soft masks (uint8, 0 to 255) of `people` in these RGB frames.

        `people` comes with poses and with the pose model's rough silhouettes, which serve as prompts. Masks are zero where somebody is
        absent, and no pixel has a value of 64 or more in two people's masks. The same input gives the same bytes. Raises BadInput when
        the frames are not those of the people.
        """
        ...


def check_frames(frames_THWC: Bytes, people: People) -> None:
    """Raises BadInput when these are not the frames in which the people were tracked."""
    if frames_THWC.shape[:3] != (people.frames, *people.size_hw):
        raise BadInput(
            f"the frames are {frames_THWC.shape[:3]} (T, H, W), the people were tracked in {(people.frames, *people.size_hw)}; "
            "analyse these frames",
            "size_mismatch",
        )
