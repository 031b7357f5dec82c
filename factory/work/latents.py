"""The step that makes a pair's latents. Its module stands alone, so its key covers this code and what it imports, not the command's.

torch and the models are imported where they are used: the driver registers the step without them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.steps import step
from factory.workbench import Workbench
from manifests.errors import BadInput, BadRecipe, Transient
from manifests.latents import Encoder, Encoders
from manifests.records import Artifact, Digest, Frozen
from manifests.release import PairRow, Release

if TYPE_CHECKING:
    from factory.trainer.decode import Sample
    from factory.trainer.encoders import ImageEncoder, TextEncoder
    from factory.trainer.vae import Vae

PARTS = {"vae": ("vae",), "text": ("text_encoder", "tokenizer"), "image": ("image_encoder",)}
"""folders of a diffusers pipeline that hold the model"""


class LatentRequest(Frozen):
    """One pair of a pixel release, by the bytes of its members."""

    key: str
    members: dict[str, Digest]
    encoders: Encoders


class LatentMembers(Frozen):
    """Member name → artifact."""

    members: dict[str, Artifact]


@step(depth=0)
def encode_latents(request: LatentRequest, bench: Workbench) -> LatentMembers:
    """The pair's latents: clean and augmented driving, masks moved alike, boxes, features. The pair is found by its target."""
    from factory.trainer.augment import Augmentation, drawn, movable
    from factory.trainer.draws import Draws
    from factory.trainer.encoding import encode
    from factory.trainer.latent_sample import pack

    made_with = request.encoders
    sample = _decoded(*_placed(request, bench.clip(request.members["target.mp4"])))
    vae, text, image = _models(made_with, bench)
    how = Augmentation(scale=made_with.scale, stretch=made_with.stretch, shift=made_with.shift)
    warp = drawn(Draws(made_with.seed, request.key), how) if movable(sample.task, how) else None
    members = pack(encode(sample, vae, warp, text, image, first_frame=True), made_with.level)
    return LatentMembers(members={name: bench.keep(data, _suffix(name)) for name, data in members.items()})


def _placed(request: LatentRequest, shard: Path) -> tuple[Release, PairRow]:
    """The pair in the release that the shard is of. Raises Transient when that is no longer what was asked for."""
    release, rows = _opened(shard.parent.parent)
    row = rows.get(request.key)
    if row is None or {m.name: m.sha256 for m in row.members} != request.members:
        raise Transient(f"{release.folder} does not hold pair {request.key} as it was asked for; run again")
    return release, row


def _decoded(release: Release, row: PairRow) -> Sample:
    """The pair's pictures. Raises Damaged."""
    from factory.trainer.catalog import Entry, Shape
    from factory.trainer.decode import Pixels, PreferenceSample, Raw

    entry = Entry(row.key, row.task, row.slice, Shape(row.frames, row.height, row.width), row.fps, row.shard, row.members)
    members = {member.name: memoryview(release.read_member(row, member.name, check=True)) for member in row.members}
    sample = Pixels()(Raw(position=-1, epoch=0, seed=0, entry=entry, members=members))
    assert not isinstance(sample, PreferenceSample)  # the command leaves them out
    return sample


@functools.lru_cache(maxsize=2)
def _opened(folder: Path) -> tuple[Release, dict[str, PairRow]]:
    release = Release.open(folder)
    return release, {row.key: row for row in release.rows()}


def _suffix(name: str) -> str:
    return ".zstd" if name.endswith(".zstd") else ".json" if name.endswith(".json") else ".txt"


def _models(asked: Encoders, bench: Workbench) -> tuple[Vae, TextEncoder | None, ImageEncoder | None]:
    import torch

    if not bench.gpus:
        torch.set_num_threads(1)  # a worker is one core, and the order of adding up is fixed
    device = "cuda" if bench.gpus and torch.cuda.is_available() else "cpu"

    def loaded(name: str, encoder: Encoder | None) -> Any:
        if encoder is None:
            return None
        folder = bench.clip(encoder.weights).parent if encoder.weights else None
        if folder and folder.name in PARTS[name]:
            folder = folder.parent
        return _model(name, str(folder or ""), device, encoder.dtype)

    return loaded("vae", asked.vae), loaded("text", asked.text), loaded("image", asked.image)


@functools.lru_cache(maxsize=3)
def _model(name: str, folder: str, device: str, dtype: str) -> Any:
    """A model in memory; a worker has one of each kind. `folder` is empty for a stand-in."""
    import torch

    from factory.trainer import encoders, vae

    if not folder:
        return vae.BlockTransformStandIn() if name == "vae" else encoders.HashedWordsStandIn()
    made = {"vae": vae.WanVae, "text": encoders.Umt5, "image": encoders.ClipPicture}[name]
    try:
        return made(folder, device, getattr(torch, dtype))
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError, OSError, ValueError, BadInput) as error:  # no pair would fare better; diffusers turns failed imports
        first = (str(error).splitlines() or [type(error).__name__])[0]  # into RuntimeError
        raise BadRecipe(f"--{name} can't be loaded on a worker: {first} Give another folder, or mend the worker's packages.") from error
