"""What is evaluated: generated videos by key, and beside each its ground truth, driving video and reference picture.

A folder holds files named by key (`KEY.mp4`, `KEY.driving.mp4`, `KEY.reference.png`) or one folder a key, as SCAIL-2's published case
folders are (`KEY/GT.mp4`). A release is read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol

from manifests.errors import BadInput
from manifests.release import PairRow, Release, resolve

Role = Literal["truth", "driving", "reference", "generated"]
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
INSIDE: dict[str, Role] = {
    "GT": "truth", "target": "truth", "rendered_v2": "driving", "driving": "driving", "ref": "reference", "reference": "reference",
    "generated": "generated",
}  # fmt: skip
"""Names, without their ending, of the files in a key's own folder; the first of a role that is there counts."""
ENDINGS: dict[str, Role] = {
    ".target": "truth", ".GT": "truth", ".driving": "driving", ".reference": "reference", ".generated": "generated",
}  # fmt: skip
OTHERS = re.compile(r"\.(driving_mask|reference_mask(_\d+)?|reference_\d+)$")
"""files of a pair that nothing is compared with"""


@dataclass(frozen=True)
class Case:
    """What belongs to one key. A path is None where there is no such file."""

    key: str
    truth: Path | None = None
    driving: Path | None = None
    reference: Path | None = None
    generated: Path | None = None

    def having(self, role: Role) -> Path | None:
        found: Path | None = getattr(self, role)
        return found


class Truth(Protocol):
    """Where cases come from."""

    def keys(self) -> Sequence[str]: ...

    def case(self, key: str) -> Case:
        """Raises BadInput when its files can't be had."""
        ...


class Folder:
    """A folder of files named by key, or of folders so named."""

    def __init__(self, folder: Path, unnamed: Role) -> None:
        """`unnamed`: what `KEY.mp4` is. Raises BadInput for what is no folder, and when a key has two files of one role."""
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder; give one with files named KEY.mp4, or with one folder a key")
        found: dict[str, dict[str, Path]] = {}
        for path in sorted(folder.iterdir()):
            for key, role, file in _inside(path) if path.is_dir() else _named(path, unnamed):
                other = found.setdefault(key, {}).get(role)
                if other is not None:
                    raise BadInput(f"{folder}: {other.name} and {file.name} are both the {role} of {key}; leave one of them")
                found[key][role] = file
        self._cases = {key: Case(key, **files) for key, files in sorted(found.items())}

    def keys(self) -> Sequence[str]:
        return tuple(self._cases)

    def case(self, key: str) -> Case:
        return self._cases[key]


def _named(path: Path, unnamed: Role) -> Iterator[tuple[str, Role, Path]]:
    """(key, role, file) of a file that lies in the folder itself."""
    kinds = VIDEOS if path.suffix.lower() in VIDEOS else PICTURES if path.suffix.lower() in PICTURES else ()
    if not kinds or path.name.startswith(".") or OTHERS.search(path.stem):
        return
    ending = next((e for e in ENDINGS if path.stem.endswith(e)), "")
    role = ENDINGS.get(ending, unnamed)
    if (role == "reference") == (kinds is PICTURES):  # a picture without that ending is nothing of ours
        yield path.stem.removesuffix(ending), role, path


def _inside(folder: Path) -> Iterator[tuple[str, Role, Path]]:
    """...of a key's own folder."""
    seen: set[Role] = set()
    for name, role in INSIDE.items():
        for ending in PICTURES if role == "reference" else VIDEOS:
            path = folder / f"{name}{ending}"
            if role not in seen and path.is_file():
                seen.add(role)
                yield folder.name, role, path


class Pairs:
    """The pairs of a release; their files are taken out of the shards when they are asked for."""

    def __init__(self, release: Release, scratch: Path) -> None:
        self._release, self._scratch = release, scratch
        self._rows = {row.key: row for row in release.rows()}

    def keys(self) -> Sequence[str]:
        return tuple(sorted(self._rows))

    def case(self, key: str) -> Case:
        row = self._rows[key]
        return Case(key, self._file(row, "target.mp4"), self._file(row, "driving.mp4"), self._file(row, "reference.png"))

    def _file(self, row: PairRow, member: str) -> Path | None:
        if all(m.name != member for m in row.members):
            return None
        path = self._scratch / f"{row.key}.{member}"
        if not path.exists():
            path.write_bytes(self._release.read_member(row, member, check=True))
        return path


def open_truth(path: Path, scratch: Path) -> Truth:
    """A release, one of its revisions, or a folder of files; a release's files are put into `scratch`. Raises BadInput, Damaged."""
    try:
        resolve(path)
    except BadInput:
        return Folder(path, "truth")
    return Pairs(Release.open(path), scratch)


def open_generated(path: Path) -> dict[str, Path]:
    """Generated videos by key. Raises BadInput when there is none."""
    cases = Folder(path, "generated")
    found = {key: video for key in cases.keys() if (video := cases.case(key).generated) is not None}  # noqa: SIM118
    if not found:
        raise BadInput(f"{path} holds no video; name them KEY.mp4, or KEY/generated.mp4, by the keys of the ground truth")
    return found


def roles_of(case: Case) -> tuple[str, ...]:
    """What of a case there is."""
    return tuple(f.name for f in fields(case) if f.name != "key" and getattr(case, f.name) is not None)
