"""Sources → spans and candidates: what the plan is made of, and its Parquet form."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from factory.memo import Memo
from factory.plan import PlannedSpan, split_gallery
from factory.sources import BadFile, FoundFile
from factory.steps import Charge
from factory.work import clips
from factory.work.spans import SpanInfo
from manifests.errors import BadRecipe, MotionpairError, OutOfSpace
from manifests.files import replacing
from manifests.recipe import Recipe
from manifests.records import Candidate

FIRST = Charge("0" * 64)
"""place in the queue: all indexing is equal"""


@dataclass
class Index:
    """What is known of a recipe's material."""

    clips: list[tuple[FoundFile, clips.ClipIndex]] = field(default_factory=list)
    gallery: list[Candidate] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)

    @property
    def spans(self) -> list[PlannedSpan]:
        return [PlannedSpan(info=info, group=f.group, licence=f.licence) for f, clip in self.clips for info in clip.spans]


async def index_clips(memo: Memo, recipe: Recipe, found: Sequence[FoundFile], tick: Callable[[], None] = lambda: None) -> Index:
    """Index every clip; those that can't be used are listed with a reason."""
    index = Index()

    async def one(file: FoundFile) -> None:
        request = clips.IndexRequest(source=file.digest, geometry=recipe.geometry, spans_per_clip=file.spans_per_clip)
        try:
            index.clips.append((file, await memo.call(clips.index_clip, request, FIRST, "cpu")))
        except (OutOfSpace, BadRecipe):
            raise
        except MotionpairError as e:
            index.bad.append(BadFile(file.path, e.code, e.message))
        tick()

    await _all(one(f) for f in found)
    index.clips.sort(key=lambda pair: pair[0].digest)
    index.bad.sort(key=lambda b: str(b.path))
    return index


async def index_gallery(memo: Memo, recipe: Recipe, found: dict[str, list[FoundFile]], index: Index) -> None:
    """Add the gallery's candidates to the index, each on its side of the split."""
    candidates: list[Candidate] = []
    characters = {f.digest: f.character for f in found.get("character", ()) if f.character}

    async def one(role: str, file: FoundFile) -> None:
        request = clips.PictureRequest.model_validate({"picture": file.digest, "role": role})
        try:
            seen = await memo.call(clips.index_picture, request, FIRST, "cpu")
        except (OutOfSpace, BadRecipe):
            raise
        except MotionpairError as e:
            index.bad.append(BadFile(file.path, e.code, e.message))
            return
        candidates.append(
            Candidate.model_validate(
                {"picture": file.digest, "role": role, "group": file.group, "split": "train", "person": seen.person,
                 "appearance": seen.appearance, "size": seen.size, "stature_px": seen.stature_px}
            )
        )  # fmt: skip

    await _all(one(role, f) for role, files in sorted(found.items()) for f in files)
    index.gallery = split_gallery(_with_views(candidates, characters), recipe.seed, recipe.split)
    index.bad.sort(key=lambda b: str(b.path))


def _with_views(candidates: Sequence[Candidate], characters: Mapping[str, str]) -> list[Candidate]:
    """Each character picture with the other usable pictures of the same character. `characters`: picture → what its views share."""
    same: dict[str, list[str]] = {}
    for c in candidates:
        if c.role == "character" and c.picture in characters:
            same.setdefault(characters[c.picture], []).append(c.picture)

    def others(c: Candidate) -> tuple[str, ...]:
        views = same.get(characters.get(c.picture, ""), []) if c.role == "character" else []
        return tuple(sorted(v for v in views if v != c.picture))

    return [c.model_copy(update={"views": others(c)}) for c in candidates]


async def _all(work: object) -> None:
    """Run coroutines together; the first error ends the others and comes out bare."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:  # type: ignore[attr-defined]
                group.create_task(coroutine)
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None


SCHEMA = pa.schema(
    [
        ("source", pa.string()), ("file", pa.string()), ("group", pa.string()), ("licence", pa.string()), ("eligible", pa.bool_()),
        ("reason", pa.string()), ("message", pa.string()), ("start_frame", pa.int64()), ("start_s", pa.float64()),
        ("frames", pa.int32()), ("fps", pa.float64()), ("height", pa.int32()), ("width", pa.int32()),
        ("crop", pa.list_(pa.int32())), ("shot", pa.list_(pa.int64())), ("people", pa.int32()), ("motion", pa.float64()),
        ("framing", pa.string()), ("yaw_deg", pa.float64()), ("visible_joints", pa.int32()),
        ("stature_px", pa.float64()),
    ]
)  # fmt: skip
"""One row a span; a clip without any has one row with its reason. Sources are digests; `file` is the name when it was indexed. What is
said of a person is said of the tallest: motion in body heights per second, yaw away from the camera, stature at the pair's geometry."""


def _seen(info: SpanInfo) -> dict[str, object]:
    main = info.main
    return {
        "people": info.people, "motion": main.motion, "framing": main.framing, "yaw_deg": abs(main.yaw_deg),
        "visible_joints": len(main.visible_joints), "stature_px": main.stature_px,
    }  # fmt: skip


def write_index(index: Index, path: Path) -> None:
    """The index as Parquet."""
    rows: list[dict[str, object]] = []
    for file, clip in index.clips:
        for info in clip.spans:
            about = {"source": file.digest, "file": file.path.name, "group": file.group, "licence": file.licence}
            where = {"start_frame": info.span.start_frame, "start_s": info.span.start_s, "crop": info.span.crop, "shot": info.shot}
            rows.append({**about, "eligible": True, "reason": "", "message": "", **where, **info.span.geometry.model_dump(), **_seen(info)})
    rows += [{"file": b.name, "eligible": False, "reason": b.reason, "message": b.message} for b in index.bad]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part)
    except OSError as e:
        raise OutOfSpace(f"can't write {path}: {e.strerror or e}. Free some room or choose another place.") from e
