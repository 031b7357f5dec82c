"""Video files that are cut off, damaged, or made to do harm."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from bars import ffmpeg

from manifests import media
from manifests.errors import BadInput


def refused(path: Path, code: str) -> None:
    """Every reader refuses the file, for the same reason."""
    readers = (media.inspect, media.read_frames, lambda p: media.read_clip(p, 16), lambda p: list(media.stream_clip(p, 16)))
    for read in readers:
        with pytest.raises(BadInput) as caught:
            read(path)
        assert caught.value.code == code, caught.value
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["moov_first.mp4", "moov_last.mp4", "v.mkv", "v.avi"])
def test_cut_off_files(long_clip: Path, tmp_path: Path, kind: str, share: float) -> None:
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    codec = ["-c:v", "mpeg4"] if kind == "v.avi" else ["-c", "copy"]
    ffmpeg("-i", long_clip, *codec, *(["-movflags", "+faststart"] if kind == "moov_first.mp4" else []), whole)
    assert media.inspect(whole).decoded_frames == 60
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * share)])
    refused(cut, "truncated")


def test_damage_in_the_middle_is_not_made_up_for(long_clip: Path, tmp_path: Path) -> None:
    data = bytearray(long_clip.read_bytes())
    data[len(data) // 2 : -8] = bytes(len(data) - 8 - len(data) // 2)
    (tmp_path / "holes.mp4").write_bytes(data)
    refused(tmp_path / "holes.mp4", "truncated")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not_a_video"),
        (b"this is a text file\n" * 50, "not_a_video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n", "not_a_video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not_a_video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(40), "not_a_video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(12) + b"\xff\xff\xff\xffmdat" + bytes(500), "truncated"),
        (b"\x00\x00\x00\x14ftypisom" + bytes(8) + b"\x00\x00\x00\x10moov\x00\x00\x00\x08trak", "not_a_video"),
        (b"\x1aE\xdf\xa3" + bytes(200), "not_a_video"),
        (b"RIFF\xff\x00\x00\x00AVI " + bytes(20), "truncated"),
        (b"G" + bytes(187) + b"G" + bytes(187) + b"G" + bytes(187), "not_a_video"),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    refused(tmp_path / "v.mp4", code)


def test_sound_without_pictures(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", tmp_path / "a.mp4")
    refused(tmp_path / "a.mp4", "not_a_video")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", tmp_path / "a.mkv")
    refused(tmp_path / "a.mkv", "not_a_video")


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, "not_a_file")
    refused(tmp_path / "absent.mp4", "missing")
    refused(Path("/dev/zero"), "not_a_file")


def test_a_huge_video_is_refused_by_its_header(long_clip: Path, tmp_path: Path) -> None:
    data = bytearray(long_clip.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    assert struct.unpack_from(">HH", data, at) == (96, 96)
    struct.pack_into(">HH", data, at, 20000, 20000)
    (tmp_path / "huge.mp4").write_bytes(data)
    refused(tmp_path / "huge.mp4", "too_large")


def test_an_index_that_declares_billions_of_frames(long_clip: Path, tmp_path: Path) -> None:
    data = bytearray(long_clip.read_bytes())
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 1, 0xFFFFFFF0)
    (tmp_path / "many.mp4").write_bytes(data)
    refused(tmp_path / "many.mp4", "too_large")
    data = bytearray(long_clip.read_bytes())
    struct.pack_into(">I", data, data.index(b"stts") + 12, 0xFFFFFFF0)
    (tmp_path / "many.mp4").write_bytes(data)
    refused(tmp_path / "many.mp4", "too_large")


def test_a_table_with_more_entries_than_bytes(long_clip: Path, tmp_path: Path) -> None:
    """The decoder reads on behind the table, allocates what it finds there, and ends the process."""
    for name in (b"stts", b"stss", b"stco"):
        data = bytearray(long_clip.read_bytes())
        struct.pack_into(">I", data, data.index(name) + 8, 162)
        (tmp_path / "wrong.mp4").write_bytes(data)
        refused(tmp_path / "wrong.mp4", "not_a_video")


def test_random_damage_never_raises_anything_else(long_clip: Path, tmp_path: Path) -> None:
    whole, outcomes = long_clip.read_bytes(), set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        head = min(len(whole), 2500) if seed % 2 else len(whole)
        for at in rng.integers(0, head, 6):
            data[at] = rng.integers(0, 256)
        (tmp_path / "v.mp4").write_bytes(data)
        try:
            seen = media.inspect(tmp_path / "v.mp4")
            outcomes.add("read" if seen.frames - seen.decoded_frames <= 2 else "read in part")
        except BadInput as e:
            outcomes.add(e.code)
    assert outcomes <= {"read", "truncated", "not_a_video", "too_large", "changing_size"}
    assert len(outcomes) > 1
