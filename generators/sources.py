"""Programs of somebody else in the step key: by what they say, not by where they lie."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

SUFFIXES = frozenset({".py", ".yaml", ".yml", ".json", ".sh"})
SOURCE_BYTES = 4 << 20
"""larger files are data"""
OTHER_FOLDERS = frozenset({"samples", "results", "outputs", "examples", "checkpoints", "__pycache__"})
"""where research repositories keep what they read and write; hidden folders are passed over too"""


@functools.cache
def digest_of_sources(folder: str) -> str:
    """Of the names and contents of all sources and settings below a folder; the folder's own name where it is not on this machine.

    Read once by each process: reading a repository for every key of a long plan would take minutes.
    """
    root = Path(folder)
    if not root.is_dir():
        return root.name
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in SUFFIXES):
        within = path.relative_to(root)
        aside = any(part in OTHER_FOLDERS or part.startswith(".") for part in within.parts[:-1])
        if not aside and path.is_file() and path.stat().st_size <= SOURCE_BYTES:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{within.as_posix()}\0{content}\0".encode())
    return digest.hexdigest()


@functools.cache
def digest_of_file(path: str) -> str:
    """Of a file's content; its name where it is not on this machine. Read once by each process."""
    file = Path(path)
    if not file.is_file():
        return file.name
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@functools.cache
def digest_of_weights(path: str) -> str:
    """Of a file or folder of weights, as `diffusion.fingerprint`; its name where it is not on this machine. Read once by each process."""
    from generators.diffusion import fingerprint

    place = Path(path)
    return fingerprint(place) if place.exists() else place.name
