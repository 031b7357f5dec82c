"""Latent releases: the members of a sample as SCAIL-2's published latent shards have them, a few more, and what they were made with.

A latent release has the layout of any other; its pairs have these members in the place of videos and pictures. Shards that others made
get an index beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa
from pydantic import Field

from manifests.errors import Damaged
from manifests.records import Artifact, Digest, Frozen, Pair, Task
from manifests.release import PairRow, Release

VIDEO, FIRST, REFERENCE, PIXELS = "video_pth.zstd", "first_frame_pth.zstd", "ref_frame_pth.zstd", "pixel_first_frame.zstd"
DRIVING, DRIVING_AUG = "smpl_render_downsample.zstd", "smpl_render_aug_downsample.zstd"
MASK, MASK_AUG, REFERENCE_MASK = "latent_sam_mask.zstd", "latent_sam_aug_mask.zstd", "latent_ref_mask.zstd"
HANDS, FACES, TEXT = "latent_hands_mask.zstd", "latent_faces_mask.zstd", "latent_ocr_mask.zstd"
CAPTION, FRAMES, ID, END_TO_END, REF_MASK_FLAG, META = "recaption", "frame", "id", "e2e_flag", "ref_mask_flag", "meta.json"
MORE_REFERENCES, MORE_MASKS = "more_ref_frames_pth.zstd", "more_ref_masks.zstd"
LOSER = "loser_pth.zstd"
"""of a preference pair; the winner's latents stand where others have the target's"""
WORDS, NO_WORDS, PICTURE = "text_pth.zstd", "text_empty_pth.zstd", "image_pth.zstd"

ORDER = (
    VIDEO, LOSER, DRIVING, DRIVING_AUG, FIRST, REFERENCE, PIXELS, MASK, MASK_AUG, REFERENCE_MASK, HANDS, FACES, TEXT, WORDS, NO_WORDS,
    PICTURE, MORE_REFERENCES, MORE_MASKS, CAPTION, FRAMES, ID, END_TO_END, REF_MASK_FLAG, META,
)  # fmt: skip
"""in which members stand in a shard"""
NEEDED = (VIDEO, REFERENCE, PIXELS, DRIVING, MASK, REFERENCE_MASK, HANDS, CAPTION, END_TO_END, REF_MASK_FLAG)
"""without which a sample can't be trained with; a sample without the hands' mask or the caption is skipped by published readers"""
TENSOR = ".zstd"
"""how the names of members end that are tensors"""
MAX_TENSOR_BYTES, PART_BYTES = 4 << 30, 8 << 20


INDEX, INDEX_FORMAT = "motionpair-index.parquet", 1
"""beside latent shards that were not sealed by us, and its version"""
INDEX_KEY = b"motionpair"
"""of the Parquet file's own metadata that holds a `LatentIndex`"""


class LatentIndex(Frozen):
    """What such an index says besides its rows, whose columns are those of a manifest that the stream needs."""

    format: int
    content: Digest
    """of all rows"""
    mix: dict[Task, int]
    """the trainer's sampling weights"""
    shards: dict[str, int]
    """file name → bytes"""


class Encoder(Frozen):
    """One model that made latents or features."""

    kind: str
    """"stand-in", or the class that was loaded"""
    weights: Digest | None = None
    """of all files of its folder; none for a stand-in"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    versions: dict[str, str] = Field(default_factory=dict)
    """of the libraries that run it"""


class Encoders(Frozen):
    """What latents were made with, all of it: the same of this and of the pair gives the same latents."""

    vae: Encoder
    text: Encoder | None = None
    """without one there are no features of captions, only captions"""
    image: Encoder | None = None
    """without one there are the reference's pixels alone"""
    seed: int = 0
    """of the augmented driving"""
    scale: float
    """see factory/trainer/augment.py, also of the two that follow"""
    stretch: float
    shift: float
    level: int = Field(ge=1, le=22)
    """of zstandard"""


class LatentPair(Pair):
    """A pair with latents for files. Its record still tells of the videos they were made of, under `made_of`."""

    latents: dict[str, Artifact] = Field(exclude=True)
    made_of: dict[str, Digest]
    """member of the pixel release → SHA-256"""
    encoders: Encoders

    def members(self) -> dict[str, Artifact]:
        """Member name → artifact, in the order they stand in a shard: an answer that comes back from the store has lost its own."""
        return {name: self.latents[name] for name in ORDER if name in self.latents}


def is_latent(row: PairRow) -> bool:
    """Whether a row of a manifest is of a latent release."""
    return any(member.name == VIDEO for member in row.members)


def expanded(data: bytes, name: str) -> bytes:
    """A tensor member's bytes without their compression. Raises Damaged."""
    out = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            while (part := stream.read(PART_BYTES)) and len(out) <= MAX_TENSOR_BYTES:
                out += part
    except (OSError, pa.ArrowException) as error:
        raise Damaged(f"{name} can't be read ({str(error).splitlines()[0]}); restore its shard") from error
    if not 0 < len(out) <= MAX_TENSOR_BYTES:
        raise Damaged(f"{name} has {len(out)} bytes or more, allowed are 1 to {MAX_TENSOR_BYTES}; restore its shard")
    return bytes(out)


def latent_problems(release: Release, row: PairRow, decode: bool) -> Iterator[tuple[str, str]]:
    """(member, what is wrong) of a latent pair whose bytes are known to be whole. Tensors are expanded, not built: that needs torch."""
    names = [member.name for member in row.members]
    if missing := [name for name in (*NEEDED, "json") if name not in names]:
        yield "", f"has no {', '.join(missing)}; a latent pair has {', '.join(NEEDED)} and JSON"
    for name in names if decode else ():
        if name.endswith(TENSOR):
            try:
                expanded(release.read_member(row, name), f"{row.key}.{name}")
            except Damaged as error:
                yield name, error.message
