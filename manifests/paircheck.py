"""What one sealed pair promises about itself, checked on its decoded members."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests import masks, media, preference
from manifests.errors import BadInput, Damaged
from manifests.latents import is_latent, latent_problems
from manifests.records import PREFERENCE, canonical_json
from manifests.release import PairRow, Release

U8 = NDArray[np.uint8]
REVERSE_DRIVEN = ("driving.mp4", "target.mp4")
MASK = "driving_mask.mp4"
_SAME_IN_JSON = ("key", "job", "slice", "task", "split", "group", "generator", "slots", "reference_in_target", "caption", "licence")


def pair_problems(release: Release, row: PairRow, decode: bool) -> list[tuple[str, str]]:
    """(member, what is wrong) of a pair whose bytes are known to be whole."""
    names = [m.name for m in row.members]
    if is_latent(row):
        return [*(_record(release, row) if "json" in names else ()), *latent_problems(release, row, decode)]
    needed = (*videos_of(row), "reference.png", "reference_mask.png", "json")
    if not set(needed) <= set(names) or len(row.references) != len(row.reference_masks):
        return [("", f"its members are {', '.join(names)}; a pair for {row.task} has {', '.join(needed)} and a mask for each reference")]
    if strange := sorted({name for name in names if name.endswith(".mp4")} - set(needed)):
        return [("", f"has {', '.join(strange)}, which no pair for {row.task} has")]
    try:
        problems = list(_record(release, row))
        if row.task == PREFERENCE:
            problems += _own(lambda: preference.record_problems(_json(release, row)))
        elif row.member("driving.mp4").sha256 == row.member("target.mp4").sha256:
            problems.append(("driving.mp4", "is the target's own file; in reverse driving it is the synthetic video"))
        return problems + list(_pictures(release, row)) if decode else problems
    except Damaged as error:
        return [("", error.message)]


def videos_of(row: PairRow) -> tuple[str, ...]:
    """Names of the videos that a pair of the row's task has."""
    return (*(preference.VIDEOS if row.task == PREFERENCE else REVERSE_DRIVEN), MASK)


def _json(release: Release, row: PairRow) -> Any:
    return json.loads(release.read_member(row, "json"))


def _own(look: Callable[[], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    """What a look at a preference pair's record finds; a record that is none was told already, or is told here."""
    try:
        return list(look())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [("json", f"is not a preference pair's record ({type(error).__name__}: {error})")]


def _record(release: Release, row: PairRow) -> Iterator[tuple[str, str]]:
    """KEY.json against the manifest."""
    try:
        record = _json(release, row)
        geometry = {name: getattr(row, name) for name in ("frames", "fps", "height", "width")}
        said = {name: record[name] for name in _SAME_IN_JSON}
        files = {name: (m["size"], m["sha256"]) for name, m in record["members"].items()}
        scores, lineage = canonical_json(record["scores"]).decode(), canonical_json(record["lineage"]).decode()
        differing = [name for name, value in said.items() if value != getattr(row, name)]
        differing += [name for name, value in geometry.items() if record["geometry"][name] != value]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield "json", f"is not a pair's record ({type(error).__name__}: {error})"
        return
    differing += [name for name, own in (("scores", scores), ("lineage", lineage)) if own != getattr(row, name)]
    if files != {m.name: (m.size, m.sha256) for m in row.members if m.name != "json"}:
        differing.append("members")
    if differing:
        yield "json", f"disagrees with the manifest about {', '.join(differing)}"


@dataclass
class _Decoded:
    videos: dict[str, U8] = field(default_factory=dict)
    pictures: dict[str, U8] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def _pictures(release: Release, row: PairRow) -> Iterator[tuple[str, str]]:
    seen = _decode(release, row)
    yield from seen.problems
    digests = [row.member(name).sha256 for name in videos_of(row)[:-1]]
    if len(set(digests)) == len(digests):  # else it was told already
        if row.task == PREFERENCE:
            yield from _own(lambda: preference.picture_problems(seen.videos, _json(release, row)))
        else:
            yield from _shows_its_target(seen)
    for name, mask_name in zip(row.references, row.reference_masks, strict=True):
        picture, mask = seen.pictures.get(name), seen.pictures.get(mask_name)
        if picture is not None and mask is not None and picture.shape != mask.shape:
            yield mask_name, f"is {_size(mask)}, its reference {_size(picture)}"
    for name in ("driving_mask.mp4", *row.reference_masks):
        mask = seen.videos.get(name) if name.endswith(".mp4") else seen.pictures.get(name)
        if mask is not None:
            which: masks.Side = "reference" if name.endswith(".png") else "driving"
            yield from ((name, what) for what in _mask_problems(mask, row, which))


def _shows_its_target(seen: _Decoded) -> Iterator[tuple[str, str]]:
    driving, target = (seen.videos.get(name) for name in REVERSE_DRIVEN)
    if driving is not None and target is not None and np.array_equal(driving, target):
        yield "driving.mp4", "shows the same as the target; in reverse driving it is the synthetic video"


def _mask_problems(mask: U8, row: PairRow, which: masks.Side) -> Iterator[str]:
    """Colours of a mask that its task does not allow: stray ones, the other polarity's background, slots that the pair does not have."""
    try:
        masks.validate_colours(mask, row.task, which)
    except BadInput as error:
        yield error.message
        return
    if strange := sorted(slot for slot in masks.slots_present(mask) if slot >= row.slots):
        yield f"uses binding slots {strange}, the pair has {row.slots}"


def _decode(release: Release, row: PairRow) -> _Decoded:
    seen = _Decoded()
    with tempfile.TemporaryDirectory(prefix="motionpair-") as folder:
        for name in (*videos_of(row), *row.references, *row.reference_masks):
            path = Path(folder, name)
            path.write_bytes(release.read_member(row, name))
            try:
                if name.endswith(".png"):
                    seen.pictures[name] = media.read_image(path)
                else:
                    _video(path, row, seen)
            except BadInput as error:
                seen.problems.append((name, f"can't be decoded: {error.message.replace(str(path), 'it')}"))
            path.unlink()
    return seen


def _video(path: Path, row: PairRow, seen: _Decoded) -> None:
    with media.Video(path) as video:
        if video.frames != row.frames or abs(video.fps - row.fps) > 0.01:
            what = f"has {video.frames} frames at {video.fps:g} fps, the manifest says {row.frames} at {row.fps:g}"
            seen.problems.append((path.name, what))
            return
        frames = np.stack(list(video))
        if video.decoded != row.frames:
            seen.problems.append((path.name, f"has {row.frames} frames of which {video.decoded} can be decoded"))
    if frames.shape[1:3] != (row.height, row.width):
        seen.problems.append((path.name, f"is {_size(frames[0])}, the manifest says {row.width}×{row.height}"))
    seen.videos[path.name] = frames


def _size(picture: U8) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
