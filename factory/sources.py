"""Files of clips and pictures: found, grouped, digested. After this the rest of the house knows digests only."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from factory.samples import SampleSet, fetch_samples
from manifests.errors import BadRecipe
from manifests.ledger import Ledger
from manifests.recipe import Recipe, Source
from manifests.records import Digest

CHUNK_BYTES = 1 << 20
NO_FILES = "no_files"
"""code of the BadRecipe for a place without files"""


@dataclass(frozen=True)
class FoundFile:
    """One file of a source or gallery."""

    path: Path
    digest: Digest
    group: str
    """source group: the subfolder, or the digest for a file that stands alone"""
    licence: str = "unknown"
    spans_per_clip: int = 100

    @property
    def character(self) -> str:
        """What a picture shares with the other views of the same character: `NAME@VIEW.png` lie in one folder. Empty without a view."""
        name, at, _ = self.path.stem.rpartition("@")
        return str(self.path.parent / name) if at and name else ""


@dataclass(frozen=True)
class BadFile:
    """A file that can't be used, and why."""

    path: Path
    reason: str
    message: str

    @property
    def name(self) -> str:
        """The file's name as it can be printed and stored."""
        return os.fsencode(self.path.name).decode("utf-8", "replace")


class Finder:
    """Resolves a recipe's places. The samples are fetched when a place asks for them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._samples: SampleSet | None = None
        self.bad: list[BadFile] = []

    def clips(self, recipe: Recipe) -> list[FoundFile]:
        """All clip files, each content once (the first by group name keeps it)."""
        found: list[FoundFile] = []
        for source in recipe.sources:
            found += self._digested(self._files(source.clips), source.group_by == "folder", source)
        kept = _distinct(found)
        names = {f.digest: f.path.name for f in kept}
        paths = {f.path for f in kept}
        self.bad += [BadFile(f.path, "same_content", f"has the same bytes as {names[f.digest]}") for f in found if f.path not in paths]
        return kept

    def pictures(self, recipe: Recipe) -> dict[str, list[FoundFile]]:
        """Role → gallery files."""
        places = {"character": recipe.gallery.characters, "clothing": recipe.gallery.clothing, "scene": recipe.gallery.scenes}
        source = Source(clips="-")
        return {role: _distinct(self._digested(self._files(place), True, source)) for role, place in places.items() if place}

    def _files(self, place: str) -> list[tuple[Path, str]]:
        """(file, first folder below the place) of a folder, file, glob or `samples:` name, hidden files left out."""
        root = self._root(place)
        if root.is_file():
            return [(root, "")]
        if root.is_dir():
            base, found = root, sorted(root.rglob("*"))
        else:
            fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), root.parts))
            base, found = Path(*fixed), [Path(p) for p in sorted(glob.glob(str(root), recursive=True))]
        out = []
        for path in found:
            parts = path.relative_to(base).parts
            if path.is_file() and not any(part.startswith(".") for part in parts):
                out.append((path, parts[0] if len(parts) > 1 else ""))
        if not out:
            raise BadRecipe(f"{place}: no files there. Give a folder, a file or a glob, or samples:clips.", NO_FILES)
        return out

    def _root(self, place: str) -> Path:
        scheme, _, name = place.partition(":")
        if scheme == "samples":
            if name not in ("clips", "characters", "scenes"):
                raise BadRecipe(f"{place}: known are samples:clips, samples:characters and samples:scenes.")
            self._samples = self._samples or fetch_samples()
            return getattr(self._samples, name)  # type: ignore[no-any-return]
        if "://" in place:
            raise BadRecipe(f"{place}: this version reads clips and pictures from local or mounted folders; mount or copy it first.")
        return Path(place).expanduser()

    def _digested(self, files: Iterable[tuple[Path, str]], by_folder: bool, source: Source) -> list[FoundFile]:
        listed = list(files)
        with ThreadPoolExecutor(4) as threads:
            digests = list(threads.map(self._digest, (path for path, _ in listed)))
        out = []
        for (path, folder), digest in zip(listed, digests, strict=True):
            if digest is not None:
                group = folder if by_folder and folder else digest
                out.append(FoundFile(path.resolve(), digest, group, source.licence, source.spans_per_clip))
        return out

    def _digest(self, path: Path) -> str | None:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            self.bad.append(BadFile(path, "bad_name", "its name is not valid UTF-8; rename it"))
            return None
        try:
            stat = path.stat()
            known = self._ledger.source_digest(str(path.resolve()), stat.st_size, stat.st_mtime_ns)
            if known:
                return known
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
            self._ledger.remember_source(str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest.hexdigest())
            return digest.hexdigest()
        except OSError as e:
            self.bad.append(BadFile(path, "unreadable", f"can't be read: {e.strerror}"))
            return None


def _distinct(found: list[FoundFile]) -> list[FoundFile]:
    """One file per content: the same bytes under two names are one clip."""
    by_digest: dict[str, FoundFile] = {}
    for file in sorted(found, key=lambda f: (f.group, str(f.path)), reverse=True):
        by_digest[file.digest] = file
    return sorted(by_digest.values(), key=lambda f: f.digest)
