"""What is dear to make is kept in folders named by what it was made from. Whoever changes a generator empties the folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from generators.poses.tracks import Bytes, People
from manifests import media
from manifests.records import digest_of


class Cache:
    """Folders of finished things."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, key: Any, build: Callable[[Path], None]) -> Path:
        """The folder of `key` (JSON values), filled by `build` if it is not there yet. A half-filled one never has its name."""
        place = self.root / digest_of(json.loads(json.dumps(key)))[:24]
        if place.exists():
            return place
        made = Path(tempfile.mkdtemp(dir=self.root, prefix="making-"))
        try:
            build(made)
            (made / "key.json").write_text(json.dumps(key))
            made.rename(place)
        except OSError:
            if not place.exists():  # somebody else was quicker
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return place


def save_people(people: People, path: Path) -> None:
    """As the factory keeps them."""
    with path.open("wb") as stream:
        people.save(stream)


def load_people(path: Path) -> People:
    """What `save_people` wrote."""
    with path.open("rb") as stream:
        return People.load(stream)


def save_bytes(array: Bytes, path: Path) -> None:
    """One array, compressed."""
    np.savez_compressed(path, array=array)


def load_bytes(path: Path) -> Bytes:
    """What `save_bytes` wrote."""
    with np.load(path, allow_pickle=False) as z:
        return np.asarray(z["array"], np.uint8)


def frames_of(path: Path) -> Bytes:
    """All frames of a file."""
    return media.read_frames(path)[0]
