"""What a media file says of itself in its first bytes: kind, size in pixels, and whether its end is missing. Nothing is decoded here.

It is the first thing done to any foreign file. Play lists, text and pictures never reach the video decoder (a play list could make it
open other files), bombs are refused by their header, and a file that was cut off is told apart from a file that is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from manifests.errors import BadInput

MAX_SIDE_PX = 8192
MAX_SAMPLES = 4_000_000
"""of one video track: two hours at more than 500 fps"""
MAX_INDEX_BYTES = 256 << 20
MISSING_ALLOWED = 2
"""frames that may be missing at a clip's end: many cutting tools leave one or two behind"""

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_MP4_FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"pnot"}
_ENTRY_BYTES = {b"stts": 8, b"ctts": 8, b"stss": 4, b"stsc": 12, b"stco": 4, b"co64": 8}
"""The decoder allocates what these tables declare, and a failed allocation ends the whole process."""
_SAMPLE_ENTRY_BYTES = 78
"""before the boxes of an avc1 entry (ISO/IEC 14496-12, 12.1.3)"""
_PROFILES_8_BIT_420 = (66, 77, 100)
"""H.264's Baseline, Main and High: what their decoders take is 4:2:0 with 8 bits"""
_BT709 = b"nclx" + struct.pack(">HHHB", 1, 1, 1, 0)
_UPRIGHT = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
"""a track's matrix that neither turns nor mirrors"""


@dataclass(frozen=True)
class Container:
    """What the header says."""

    kind: str
    """mp4 (and mov), matroska (and webm), avi, flv, mpeg_ts, mpeg_ps"""
    missing_frames: int = 0
    """of the video track's frames, those whose bytes lie behind the end of the file (known for mp4 only)"""


def regular_file(path: Path, noun: str, empty_code: str) -> int:
    """Size in bytes of a readable, non-empty regular file. Raises BadInput (missing, not_a_file, unreadable, `empty_code`) otherwise."""
    try:
        if not path.is_file():
            code = "not_a_file" if path.exists() else "missing"
            raise BadInput(f"{path} {'is no regular file' if path.exists() else 'does not exist'}; give the path of {noun}", code)
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
    except OSError as e:
        raise BadInput(f"{path} can't be read ({e.strerror}); check its permissions", "unreadable") from e
    if size == 0:
        raise BadInput(f"{path} is empty (0 bytes); give {noun}", empty_code)
    return size


def examine(path: Path) -> Container:
    """Read a video file's header. Raises BadInput: missing, not_a_file, unreadable, not_a_video, truncated, too_large."""
    size = regular_file(path, "a video file", "not_a_video")
    with path.open("rb") as stream:
        head = stream.read(512)
        kind = _kind(head)
        if kind is None:
            raise BadInput(
                f"{path} is no video: its first bytes belong to no known container; use mp4, mov, mkv, webm or avi", "not_a_video"
            )
        if kind == "mp4":
            return _examine_mp4(path, stream, size)
        end = {"matroska": _matroska_end, "avi": _avi_end}.get(kind, lambda _: None)(head)
    if end is not None and end > size:
        raise _truncated(path, f"it holds {size} of the {end} bytes that its header declares")
    return Container(kind)


def is_plain(path: Path) -> bool:
    """Whether a file is an mp4 of the kind that `encode.write_video` makes, so that every decoder reads the same pixels out of it:
    one track, H.264 with 4:2:0 in 8 bits, tagged BT.709 in limited range, square pixels, upright, at a constant rate, and nothing told of
    who made it and when. For files that `examine` let pass."""
    with path.open("rb") as stream:
        index, _ = _find_index(stream, path.stat().st_size)
    try:
        return index is not None and _is_plain(index)
    except (struct.error, ValueError, IndexError):
        return False


def _is_plain(index: bytes) -> bool:
    inside = dict(_boxes(index))
    tracks = [content for name, content in _boxes(index) if name == b"trak"]
    tables = _video_tables(index)
    if tables is None or len(tracks) != 1 or set(inside) - {b"mvhd", b"trak", b"udta"} or set(dict(_boxes(tracks[0]))) & {b"udta", b"meta"}:
        return False
    told = _child(inside.get(b"udta", b""), b"meta")[4:]  # ffmpeg writes an empty list
    entries = list(_boxes(tables[b"stsd"][8:]))
    if any(content for name, content in _boxes(told) if name != b"hdlr") or len(entries) != 1 or entries[0][0] != b"avc1":
        return False
    about = dict(_boxes(entries[0][1][_SAMPLE_ENTRY_BYTES:]))
    header = _child(tracks[0], b"tkhd")
    return (
        set(about) <= {b"avcC", b"colr", b"btrt"}
        and about[b"avcC"][1] in _PROFILES_8_BIT_420
        and about[b"colr"] == _BT709
        and header[-44:-8] == _UPRIGHT
        and not any(inside[b"mvhd"][4:12])  # no time of making
        and int.from_bytes(tables[b"stts"][4:8], "big") == 1
    )


def _kind(head: bytes) -> str | None:
    if head[4:8] in _MP4_FIRST:
        return "mp4"
    if head[:4] == _EBML.to_bytes(4, "big"):
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:3] == b"FLV":
        return "flv"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg_ps"
    if head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return "mpeg_ts"
    return None


def _truncated(path: Path, what: str) -> BadInput:
    return BadInput(f"{path} is cut off: {what}; fetch or make the file again", "truncated")


def _avi_end(head: bytes) -> int | None:
    declared = int.from_bytes(head[4:8], "little")
    return declared + 8 if declared else None


def _matroska_end(head: bytes) -> int | None:
    """End of the Segment element in bytes, None when it is open-ended (live recordings) or not where it should be. RFC 8794, RFC 9559."""
    at = 4
    length, at = _vint(head, at)
    if length is None:
        return None
    at += length
    if head[at : at + 4] != _SEGMENT.to_bytes(4, "big"):
        return None
    length, at = _vint(head, at + 4)
    return None if length is None else at + length


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML length and the position behind it; None for "unknown" (all ones) and for lengths outside `data`."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    if first == 0 or at + width > len(data):
        return None, at
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width


def _examine_mp4(path: Path, stream: BinaryIO, size: int) -> Container:
    index, overrun = _find_index(stream, size)
    if index is None:
        if overrun:
            raise _truncated(path, "its index (moov) is missing and its last box runs past the end of the file")
        raise BadInput(f"{path} is no playable video: it has no index (moov); remux or make the file again", "not_a_video")
    try:
        tables = _video_tables(index)
        missing = 0 if tables is None else _samples_behind(tables, size)
    except (struct.error, ValueError, IndexError):
        # A malformed index is the decoder's to judge; only bombs and cut-off files are this module's.
        return Container("mp4")
    if tables is None:
        raise BadInput(f"{path} has no video track; give a file with pictures", "not_a_video")
    _refuse_bomb(path, tables)
    fragmented = b"mvex" in {name for name, _ in _boxes(index)}
    if missing > MISSING_ALLOWED or (fragmented and overrun):
        raise _truncated(path, f"the bytes of {missing} frames are missing" if missing else "its last fragment is incomplete")
    return Container("mp4", missing)


def _refuse_bomb(path: Path, tables: dict[bytes, bytes]) -> None:
    width, height = _size_px(tables)
    if max(width, height) > MAX_SIDE_PX:
        raise BadInput(f"{path} is {width}×{height} px, allowed are sides up to {MAX_SIDE_PX}; scale it down first", "too_large")
    for name, entry_bytes in _ENTRY_BYTES.items():
        table = tables.get(name, bytes(8))
        if 8 + int.from_bytes(table[4:8], "big") * entry_bytes > len(table):
            what = f"its table {name.decode()} declares more entries than it holds"
            raise BadInput(f"{path} is no playable video: {what}; remux or make the file again", "not_a_video")
    count = max(_sample_count(tables), int(_u32(tables.get(b"stts", b"")[8:])[::2].sum()))
    if count > MAX_SAMPLES:
        raise BadInput(f"{path} declares {count} frames, allowed are {MAX_SAMPLES}; cut it first", "too_large")


def _find_index(stream: BinaryIO, size: int) -> tuple[bytes | None, bool]:
    """The moov box's content, and whether any top-level box runs past the end of the file."""
    at, index, overrun = 0, None, False
    while at + 8 <= size:
        stream.seek(at)
        head = stream.read(16)
        length, start = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = size - at
        if length < start:
            break
        overrun |= at + length > size
        if head[4:8] == b"moov" and index is None and at + length <= size and length <= MAX_INDEX_BYTES:
            stream.seek(at + start)
            index = stream.read(length - start)
        at += length
    return index, overrun


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the boxes that stand one after the other in `data` (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        if length < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def _child(data: bytes, *names: bytes) -> bytes:
    for name in names:
        data = next((content for found, content in _boxes(data) if found == name), b"")
    return data


def _video_tables(index: bytes) -> dict[bytes, bytes] | None:
    """The sample tables of the first video track: stsd, stsz, stsc, stco or co64. None when there is none."""
    for name, track in _boxes(index):
        if name == b"trak" and _child(track, b"mdia", b"hdlr")[8:12] == b"vide":
            return dict(_boxes(_child(track, b"mdia", b"minf", b"stbl")))
    return None


def _size_px(tables: dict[bytes, bytes]) -> tuple[int, int]:
    """Width and height in the first sample description; zeros when it is too short to say."""
    entry = tables.get(b"stsd", b"")
    return int.from_bytes(entry[40:42], "big"), int.from_bytes(entry[42:44], "big")


def _sample_count(tables: dict[bytes, bytes]) -> int:
    return int.from_bytes(tables.get(b"stsz", b"")[8:12], "big")


def _u32(data: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(data[: len(data) // 4 * 4], ">u4").astype(np.int64)


def _samples_behind(tables: dict[bytes, bytes], size: int) -> int:
    """How many of the track's samples end behind `size`: chunk offsets plus the sizes before them in their chunk."""
    stsz, count = tables.get(b"stsz", b""), _sample_count(tables)
    if not 0 < count <= MAX_SAMPLES:
        return 0
    fixed = int.from_bytes(stsz[4:8], "big")
    sizes = np.full(count, fixed, np.int64) if fixed else _u32(stsz[12 : 12 + 4 * count])
    if b"co64" in tables:
        offsets = np.frombuffer(tables[b"co64"][8 : 8 + (len(tables[b"co64"]) - 8) // 8 * 8], ">u8").astype(np.int64)
    else:
        offsets = _u32(tables.get(b"stco", b"")[8:])
    runs = _u32(tables.get(b"stsc", b"")[8:]).reshape(-1, 3)
    firsts = np.append(runs[:, 0] - 1, len(offsets))
    per_chunk = np.repeat(runs[:, 1], np.diff(firsts))
    if len(sizes) != count or len(per_chunk) != len(offsets) or int(per_chunk.sum()) != count:
        raise ValueError("the sample tables disagree")
    ends = np.cumsum(sizes)
    before = np.append(0, ends)[np.append(0, np.cumsum(per_chunk)[:-1])]
    return int((np.repeat(offsets - before, per_chunk) + ends > size).sum())
