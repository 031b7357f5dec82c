"""A release as latents: autoencoder, text encoder and CLIP run once over it, on Ray workers, and what they make is sealed as a release.

One step a pair, through the memo like every other: killed and asked for again, it goes on; asked for with another encoder, or for the
next revision of the release, it makes what changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factory.engine import Engine
from factory.memo import Memo
from factory.pool import Quarantined
from factory.steps import Charge
from factory.trainer.augment import Augmentation
from factory.work.latents import PARTS, LatentRequest, encode_latents
from factory.workplace import Workplace
from manifests.errors import BadInput, BadRecipe, Rejected, Transient
from manifests.latents import Encoder, Encoders, LatentPair, is_latent
from manifests.ledger import Ledger
from manifests.recipe import PoolSpec, load_recipe
from manifests.records import PREFERENCE, Artifact, Pair, digest_of
from manifests.release import LEFT_OUT, LeftOut, PairRow, Release, ReleaseMeta
from manifests.sealing import write_release

STAND_IN, NONE = "stand-in", "none"
POOL = "latents"
LIBRARIES = {"vae": ("torch", "diffusers"), "text": ("torch", "transformers"), "image": ("torch", "transformers")}
CLASSES = {"vae": "AutoencoderKLWan", "text": "UMT5EncoderModel", "image": "CLIPVisionModel"}


# --- the command


@dataclass(frozen=True)
class LatentsAsked:
    """What the command was given."""

    release: Path
    out: Path
    vae: str = STAND_IN
    """`stand-in`, a folder, or hf:OWNER/NAME"""
    text: str = STAND_IN
    """the same, or `none`"""
    image: str = NONE
    """`none`, a folder, or hf:OWNER/NAME"""
    workers: int = 1
    gpus: float = 0.0
    accelerator: str | None = None
    dtype: str = "float32"
    """of umT5 and CLIP; the autoencoder is always run in float32"""
    level: int = 22
    seed: int = 0
    address: str | None = None


@dataclass(frozen=True)
class Lost:
    """A pair that has no latents."""

    key: str
    listed: LeftOut
    why: str


@dataclass
class LatentsMade:
    """What it came to."""

    release: Path
    new_revision: bool
    pairs: int
    ran: int
    reused: int
    lost: list[Lost] = field(default_factory=list)


async def make_latents(asked: LatentsAsked, progress: Callable[[int, int], None] = lambda done, of: None) -> LatentsMade:
    """Encode every pair of a pixel release and seal the latents as the next revision in `out/release`.

    Raises BadRecipe for encoders that are not there, BadInput for a release that can't be encoded.
    """
    source = Release.open(asked.release)
    rows = sorted((row for row in source.rows() if row.task != PREFERENCE), key=lambda row: row.key)
    if not rows:
        raise BadInput(f"{source.folder} holds preference pairs alone, which are trained on as pixels; give a release with other pairs")
    if any(map(is_latent, rows)):
        raise BadInput(f"{source.folder} is a latent release already; give the pixel release that it was made from")
    place = Workplace(asked.out)
    with place.opened() as ledger:
        files: dict[str, str] = {}
        made_with = await asyncio.to_thread(_encoders, asked, ledger, files)
        for row in rows:
            files[row.member("target.mp4").sha256] = str(source.shard_path(row.shard).resolve())
        pool = PoolSpec(workers=(asked.workers, asked.workers), gpus=asked.gpus, accelerator=asked.accelerator)
        recipe = load_recipe("quickstart").model_copy(update={"pools": {POOL: pool}})
        async with Engine(recipe, place.store, ledger, files, asked.address) as engine:
            memo = Memo(place.store, ledger, engine)
            pairs, lost = await _encoded(rows, source, made_with, memo, 4 * asked.workers, progress)
        if not pairs:
            raise BadInput(f"no pair has latents; {next(failures(lost))}", "nothing_to_seal")
        ran, reused = sum(memo.ran.values()), sum(memo.reused.values())
        root = asked.out / "release"
        before = set(root.iterdir()) if root.is_dir() else set()
        folder = await asyncio.to_thread(write_release, root, pairs, place.store, _meta(source, made_with, lost))
    return LatentsMade(folder, folder not in before, len(pairs), ran, reused, lost)


async def _encoded(
    rows: list[PairRow], source: Release, made_with: Encoders, memo: Memo, lanes: int, progress: Callable[[int, int], None]
) -> tuple[list[tuple[Pair, int]], list[Lost]]:
    """(pair, block) of those that have latents, in the source's order, and those that have none."""
    found: dict[str, Pair | Lost] = {}
    blocks = {shard.name: shard.block for shard in source.info.shards}
    waiting = iter(rows)

    async def lane() -> None:
        for row in waiting:
            found[row.key] = await _one(row, source, made_with, memo)
            progress(len(found), len(rows))

    await asyncio.gather(*(lane() for _ in range(lanes)))
    made = [(pair, blocks[row.shard]) for row in source.rows() if isinstance(pair := found.get(row.key), Pair)]
    return made, [left for row in rows if isinstance(left := found[row.key], Lost)]


async def _one(row: PairRow, source: Release, made_with: Encoders, memo: Memo) -> Pair | Lost:
    request = LatentRequest(key=row.key, members={m.name: m.sha256 for m in row.members}, encoders=made_with)

    def lost(state: str, reason: str, why: str) -> Lost:
        return Lost(row.key, LeftOut(job=row.job, slice=row.slice, split=row.split, state=state, reason=reason), why)

    try:
        answer = await memo.call(encode_latents, request, Charge(row.key, row.job, row.slice), POOL)
    except Rejected as error:
        return lost("rejected", error.code, error.message)
    except Quarantined as error:
        return lost("quarantined", "quarantined", error.message)
    except Transient as error:
        return lost("undecided", error.code, error.message)
    return _pair(source, row, answer.members, made_with)


def _pair(source: Release, row: PairRow, latents: dict[str, Artifact], made_with: Encoders) -> LatentPair:
    """The pixel release's pair with latents for files."""
    record = json.loads(source.read_member(row, "json", check=True))
    said = record.pop("members")
    files = {name: Artifact(digest=m["sha256"], size=m["size"], suffix=Path(name).suffix) for name, m in said.items()}
    record["made_of"] = {name: artifact.digest for name, artifact in files.items()}
    videos = {"driving": files["driving.mp4"], "target": files["target.mp4"], "driving_mask": files["driving_mask.mp4"]}
    pictures = {
        "references": [files[name] for name in row.references],
        "reference_masks": [files[name] for name in row.reference_masks],
    }
    return LatentPair.model_validate(record | videos | pictures | {"latents": latents, "encoders": made_with})


def _preferred(source: Release) -> set[str]:
    """Slices of preference pairs, which have no latents: they are a few hundred steps of training, and need three videos each."""
    return {name for tasks in source.info.counts.values() for name in tasks.get(PREFERENCE, {})}


def _meta(source: Release, made_with: Encoders, lost: list[Lost]) -> ReleaseMeta:
    info = source.info
    before = [LeftOut.model_validate_json(line) for line in (source.folder / LEFT_OUT).read_bytes().splitlines() if line]
    quotas = {name: quota for name, quota in info.quotas.items() if name not in _preferred(source)}
    return ReleaseMeta(
        name=f"{info.name} latents",
        recipe=digest_of({"recipe": info.recipe, "encoders": made_with.model_dump(mode="json")}),
        mix=info.mix,
        quotas=quotas,
        complete=info.complete and not lost,
        left_out=(*before, *(one.listed for one in lost)),
        shard_mb=info.shard_mb,
    )


# --- encoders by name


def _encoders(asked: LatentsAsked, ledger: Ledger, files: dict[str, str]) -> Encoders:
    """What was asked for, by digest; where it lies goes to `files`."""
    if asked.vae == NONE:
        raise BadRecipe("--vae none: latents need an autoencoder; give stand-in, a folder or hf:OWNER/NAME.")
    if asked.image == STAND_IN:
        raise BadRecipe("--image stand-in: there is none; give none (the reference's pixels are always there), a folder or hf:OWNER/NAME.")
    how = Augmentation()
    return Encoders(
        vae=_encoder("vae", asked.vae, "float32", ledger, files),
        text=None if asked.text == NONE else _encoder("text", asked.text, asked.dtype, ledger, files),
        image=None if asked.image == NONE else _encoder("image", asked.image, asked.dtype, ledger, files),
        seed=asked.seed, scale=how.scale, stretch=how.stretch, shift=how.shift, level=asked.level,
    )  # fmt: skip


def _encoder(name: str, place: str, dtype: str, ledger: Ledger, files: dict[str, str]) -> Encoder:
    if place == STAND_IN:
        return Encoder(kind=STAND_IN, versions=_versions(("torch",)))
    folder = _folder(place)
    parts = [folder / part for part in PARTS[name] if (folder / part).is_dir()]
    listed = [path for part in parts or [folder] for path in sorted(part.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    anchor = next((path for path in listed if path.name == "config.json"), None)
    if anchor is None:
        raise BadRecipe(f"--{name} {place}: no {CLASSES[name]} there (no config.json); give a folder that save_pretrained wrote.")
    weights = digest_of([[path.relative_to(folder).as_posix(), _digest(path, ledger)] for path in listed])
    files[weights] = str(anchor.absolute())
    return Encoder.model_validate({"kind": CLASSES[name], "weights": weights, "dtype": dtype, "versions": _versions(LIBRARIES[name])})


def _folder(place: str) -> Path:
    """A folder of this machine. Raises BadRecipe."""
    if not place.startswith("hf:"):
        return Path(place).expanduser()
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise BadRecipe(f"{place}: needs the package huggingface_hub; pip install 'motionpair[trainer]'.") from None
    try:
        return Path(snapshot_download(place.removeprefix("hf:")))
    except Exception as error:  # the hub's own errors are of many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadRecipe(f"{place} can't be fetched: {first}. Give a folder instead, or check name and network.") from error


def _digest(path: Path, ledger: Ledger) -> str:
    """Of a file; read once and remembered as long as size and time stand."""
    stat, where = path.stat(), str(path.resolve())
    known = ledger.source_digest(where, stat.st_size, stat.st_mtime_ns)
    if known is None:
        with path.open("rb") as stream:
            known = hashlib.file_digest(stream, "sha256").hexdigest()
        ledger.remember_source(where, stat.st_size, stat.st_mtime_ns, known)
    return known


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    try:
        return {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError as error:
        raise BadRecipe(f"the package {error.name} is needed here; pip install 'motionpair[trainer]'.") from None


def failures(lost: Sequence[Lost]) -> Iterator[str]:
    """A line a kind of failure: how many, and the first of them."""
    kinds: dict[tuple[str, str], list[Lost]] = {}
    for one in lost:
        kinds.setdefault((one.listed.state, one.listed.reason), []).append(one)
    for (state, reason), of_kind in sorted(kinds.items()):
        first = (of_kind[0].why.splitlines() or [""])[0]
        yield f"{state} ({reason}): {len(of_kind)} pairs have no latents, the first is {of_kind[0].key}: {first}"
