"""Sample clips, characters and scenes, so that everything can be tried before anything is collected.

The clips come out of two registry packages by digest. Some pictures are frames of them; the other characters and the scenes are drawn
by code. A character's folder is its group: people of the `lab` clips stand in `characters/lab`, so a plan can keep them apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from generators import weights
from generators.images import drawn
from generators.weights import Weight
from manifests.errors import Damaged
from manifests.files import replacing
from manifests.media import Video, encode_png

LAYOUT = 2
"""raise it when any file of the set changes"""
INDEX = "samples.json"
PICTURE_PX = 896
"""height of a drawn character"""
SCENE_PX = (960, 1280)
"""height and width of a scene"""

Progress = Callable[[str, int, int], None]
"""called before each file with its name, its number (from 0) and how many there are"""


@dataclass(frozen=True)
class SampleSet:
    """Where the samples lie."""

    clips: Path
    """`<group>/NAME.mp4`"""
    characters: Path
    """`<group>/NAME.png`, or `<group>/NAME@VIEW.png` for each view of a character that is shown from several sides"""
    scenes: Path
    """`NAME.png`"""


@dataclass(frozen=True)
class _File:
    name: str
    """path inside the set, with slashes"""
    make: Callable[[], bytes]
    licence: str
    origin: str
    sha256: str = ""
    """known beforehand; empty for what is made here"""


_POSE2SIM = "wheel:pose2sim==0.10.49!"
_SPORTS2D = "wheel:sports2d==0.8.34!"


def _weight(uri: str, sha256: str, size: int) -> Weight:
    project = "Pose2Sim" if uri.startswith(_POSE2SIM) else "Sports2D"
    return Weight(uri=uri, sha256=sha256, size=size, licence="BSD-3-Clause", origin=f"{project}, David Pagnon and contributors")


CLIPS: dict[str, Weight] = {
    "clips/lab/single-cam01.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_SinglePerson/videos/cam01.mp4",
        "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
        387775,
    ),
    "clips/lab/single-cam02.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_SinglePerson/videos/cam02.mp4",
        "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
        540548,
    ),
    "clips/lab/single-cam03.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_SinglePerson/videos/cam03.mp4",
        "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
        1709101,
    ),
    "clips/lab/single-cam04.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_SinglePerson/videos/cam04.mp4",
        "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
        1772999,
    ),
    "clips/lab/multi-cam01.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_MultiPerson/videos/cam01.mp4", "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53", 764061
    ),
    "clips/lab/multi-cam02.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_MultiPerson/videos/cam02.mp4", "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b", 610385
    ),
    "clips/lab/multi-cam03.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_MultiPerson/videos/cam03.mp4", "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99", 801091
    ),
    "clips/lab/multi-cam04.mp4": _weight(
        _POSE2SIM + "Pose2Sim/Demo_MultiPerson/videos/cam04.mp4", "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09", 877130
    ),
    "clips/park/walk.mp4": _weight(
        _SPORTS2D + "Sports2D/Demo/demo.mp4", "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039", 3968304
    ),
}
"""Cameras of one room with one man are one group, so one folder."""

LICENCES: dict[str, Weight] = {
    "licences/pose2sim.txt": _weight(
        _POSE2SIM + "pose2sim-0.10.49.dist-info/licenses/LICENSE", "7f8a9ede713463b96d261a39c3ec404748c8e4f528c795e5f8cb18898ed944cf", 1521
    ),
    "licences/sports2d.txt": _weight(
        _SPORTS2D + "sports2d-0.8.34.dist-info/licenses/LICENSE", "7f8a9ede713463b96d261a39c3ec404748c8e4f528c795e5f8cb18898ed944cf", 1521
    ),
}


@dataclass(frozen=True)
class _Still:
    """A picture cut out of a clip."""

    clip: str
    frame: int
    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1 in the clip's pixels"""


STILLS: dict[str, _Still] = {
    "characters/lab/woman.png": _Still("clips/lab/multi-cam03.mp4", 4, (50, 440, 520, 1160)),
    "characters/park/man.png": _Still("clips/park/walk.mp4", 8, (450, 10, 850, 480)),
    "characters/park/walker.png": _Still("clips/park/walk.mp4", 100, (800, 470, 1200, 980)),
}
"""Frames, chosen by eye, in which a person shows all limbs."""

Kind = Literal["mannequin", "robot"]
ALL_ROUND: tuple[drawn.View, ...] = ("front", "left", "right", "back")
DRAWN: tuple[tuple[Kind, int, tuple[drawn.View, ...]], ...] = (
    ("mannequin", 1, ("front",)), ("mannequin", 3, ("front",)), ("mannequin", 4, ALL_ROUND), ("mannequin", 5, ALL_ROUND),
    ("mannequin", 6, ALL_ROUND), ("mannequin", 8, ALL_ROUND), ("robot", 1, ALL_ROUND), ("robot", 2, ALL_ROUND), ("robot", 4, ("front",)),
    ("mannequin", 9, ("left",)), ("mannequin", 10, ("right",)), ("robot", 5, ("left",)),
)  # fmt: skip
"""Kind, seed and views of each character. Only figures that the pose model reads as turned away from behind are shown all round."""
SCENES: dict[str, int] = {"studio-0": 0, "dusk-1": 1, "room-2": 2, "studio-3": 3, "dusk-4": 4, "room-5": 5}


def fetch_samples(destination: Path | None = None, progress: Progress | None = None) -> SampleSet:
    """The sample set, complete and checked, in `destination` (default: the cache).

    What is there and whole is kept, so a second call only reads; what is missing or damaged is made anew. With a filled cache nothing
    is downloaded. Raises Transient when the network failed, Damaged when a package holds other bytes, OutOfSpace or MotionpairError
    when the folder can't be written.
    """
    root = destination or weights.cache_dir() / "samples" / f"v{LAYOUT}"
    files = _files(root)
    known = _read_index(root)
    broken = [f for f in files if not _whole(root / f.name, f.sha256 or known.get(f.name, ""))]
    if broken or known.keys() != {f.name for f in files}:
        needed = {f.name for f in broken} | ({s.clip for n, s in STILLS.items() if n in {f.name for f in broken}})
        _bring(w for name, w in {**CLIPS, **LICENCES}.items() if name in needed)
        for i, file in enumerate(broken):
            if progress:
                progress(file.name, i, len(broken))
            data = file.make()
            _write(root / file.name, data)
            known[file.name] = hashlib.sha256(data).hexdigest()
        index = {f.name: f.sha256 or known[f.name] for f in files}
        _write(root / INDEX, json.dumps(index, indent=1, sort_keys=True).encode())
    return SampleSet(root / "clips", root / "characters", root / "scenes")


def builtin_weights() -> dict[str, Path]:
    """All built-in weights as local files, by their short names; fetched where missing."""
    _bring(weights.WEIGHTS.values())
    return {name: weights.fetch(weight) for name, weight in weights.WEIGHTS.items()}


def _files(root: Path) -> list[_File]:
    """Everything in the set, in the order it is made: stills need their clips."""
    files = [_File(n, partial(_fetched, w), w.licence, w.uri, w.sha256) for n, w in {**CLIPS, **LICENCES}.items()]
    for name, still in STILLS.items():
        source = CLIPS[still.clip]
        files.append(_File(name, partial(_cut, still, root), source.licence, f"frame {still.frame} of {still.clip}"))
    for number, (kind, seed, views) in enumerate(DRAWN, 1):
        for view in views:
            name = f"characters/drawn-{number}/{_stem(kind, seed, view, len(views) > 1)}.png"
            files.append(_File(name, partial(_drawn, kind, seed, view), "Apache-2.0", "drawn by motionpair"))
    for stem, seed in SCENES.items():
        files.append(_File(f"scenes/{stem}.png", partial(_scene, seed), "Apache-2.0", "drawn by motionpair"))
    notice = _notice(files)
    return [*files, _File("NOTICE.txt", lambda: notice, "Apache-2.0", "motionpair", hashlib.sha256(notice).hexdigest())]


def _bring(wanted: Iterable[Weight]) -> None:
    """Download what the cache lacks or holds damaged, each package once."""
    missing = []
    for weight in wanted:
        cached = weights.cache_dir() / "weights" / weight.sha256
        if not _whole(cached, weight.sha256):
            cached.unlink(missing_ok=True)
            missing.append(weight)
    weights.fetch_members(missing)


def _fetched(weight: Weight) -> bytes:
    return weights.fetch(weight).read_bytes()


def _cut(still: _Still, root: Path) -> bytes:
    with Video(root / still.clip) as video:
        frame = next(video.pick(np.array([still.frame])))
    x0, y0, x1, y1 = still.crop
    if y1 > frame.shape[0] or x1 > frame.shape[1]:
        raise Damaged(f"{still.clip} is {frame.shape[1]}×{frame.shape[0]}, too small for the crop {still.crop}")
    return encode_png(np.ascontiguousarray(frame[y0:y1, x0:x1]))


def _stem(kind: Kind, seed: int, view: drawn.View, several: bool) -> str:
    """A drawing's file name. NAME@VIEW where there are several views, by which the index knows them as one character."""
    if several:
        return f"{kind}-{seed}@{view}"
    return f"{kind}-{seed}" if view == "front" else f"{kind}-{seed}-{view}"


def _drawn(kind: Kind, seed: int, view: drawn.View) -> bytes:
    paint = drawn.mannequin if kind == "mannequin" else drawn.robot
    return encode_png(paint(seed, PICTURE_PX, view))


def _scene(seed: int) -> bytes:
    return encode_png(drawn.scene(seed, *SCENE_PX))


def _notice(files: list[_File]) -> bytes:
    lines = [
        "Samples of motionpair: where each file comes from and under which licence it may be used.",
        "The clips are the demonstration videos of Pose2Sim and Sports2D; their licence texts lie in licences/.",
        "Everything marked Apache-2.0 was drawn by motionpair's own code.",
        "",
    ]
    return "\n".join([*lines, *(f"{f.name}\t{f.licence}\t{f.origin}" for f in files), ""]).encode()


def _read_index(root: Path) -> dict[str, str]:
    """File name → SHA-256 as it was made here; empty when the index is missing or no index."""
    try:
        found: Any = json.loads((root / INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _whole(path: Path, sha256: str) -> bool:
    """Whether the file is there with exactly these bytes."""
    try:
        return bool(sha256) and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
