"""Writing videos: any name, full disks, failing and orphaned encoders."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from bars import noise, numbered, numbers, sha

from manifests import media
from manifests.errors import BadInput, MotionpairError, OutOfSpace, Transient


@pytest.mark.parametrize("name", ["-x y..mp4", "a b.mp4", "..mp4", "concat:x.mp4", "50%d.mp4", "ünï'\"$(x).mp4", "l" * 240 + ".mp4"])
def test_any_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    media.write_video(path, numbered(5), 16)
    assert numbers(media.read_frames(path)[0]) == [0, 1, 2, 3, 4]
    assert media.inspect(path).decoded_frames == 5
    media.write_png(path, numbered(1)[0])
    assert media.read_image(path).shape == (64, 160, 3)
    assert os.listdir(tmp_path) == [name]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    media.write_video(path, numbered(5), 16)
    before = sha(path)
    bad = [*numbered(4), np.zeros((64, 96, 3), np.uint8)]
    with pytest.raises(ValueError, match="frame 4"):
        media.write_video(path, bad, 16)
    for frames in ([], numbered(3)[:, :63], numbered(3).astype(np.float32), numbered(3)[..., :1]):
        with pytest.raises(ValueError):
            media.write_video(path, frames, 16)
    assert sha(path) == before
    assert os.listdir(tmp_path) == ["v.mp4"]


def limited(code: str, folder: Path, file_bytes: int) -> str:
    """Run code in a process that may not write files larger than that; returns what it prints."""
    lines = f"""
        import resource, sys
        from pathlib import Path
        import numpy as np
        from manifests import media
        from manifests.errors import OutOfSpace
        resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}))
        frames = np.random.default_rng(0).integers(0, 256, (24, 128, 128, 3), dtype=np.uint8)
        try:
            {code}
        except OutOfSpace as e:
            print("OutOfSpace", e)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(lines)], cwd=Path.cwd(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert os.listdir(folder) == [], "nothing half-written stays"
    return done.stdout


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    for code in ("media.write_lossless(Path({!r}), frames, 16)", "media.write_png(Path({!r}), frames[0])"):
        said = limited(code.format(str(tmp_path / "v")), tmp_path, 20_000)
        assert said.startswith("OutOfSpace"), said
        assert "file too large" in said.lower()
        assert "run again" in said


def fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An executable in ffmpeg's place: a real full disk needs root."""
    tool = folder / "ffmpeg"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tool))


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("cat >/dev/null; echo 'x: No space left on device' >&2; exit 1", OutOfSpace, "no space left"),
        ("echo 'av_write: No space left on device' >&2; exit 228", OutOfSpace, "no space left"),
        ("echo 'first line' >&2; echo 'Unknown encoder libx264' >&2; exit 1", MotionpairError, "Unknown encoder"),
        ("kill -9 $$", Transient, "signal 9"),
    ],
)
def test_ffmpegs_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[Exception], words: str) -> None:
    fake_ffmpeg(tmp_path, monkeypatch, script)
    with pytest.raises(error, match=words) as caught:
        media.write_video(tmp_path / "v.mp4", noise(40, 128, 128), 16)
    assert type(caught.value) is error
    assert os.listdir(tmp_path) == ["ffmpeg"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MotionpairError, match="gone"):
        media.write_video(tmp_path / "gone" / "v.mp4", numbered(5), 16)
    with pytest.raises(MotionpairError, match="folder"):
        media.write_png(tmp_path / "gone" / "p.png", numbered(1)[0])


def test_ffmpeg_ends_when_the_frames_fail(tmp_path: Path) -> None:
    def frames():  # type: ignore[no-untyped-def]
        yield from numbered(3)
        raise BadInput("the source broke", "truncated")

    with pytest.raises(BadInput, match="the source broke"):
        media.write_video(tmp_path / "v.mp4", frames(), 16)
    assert os.listdir(tmp_path) == []


def test_ffmpeg_ends_when_its_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ffmpeg(tmp_path, monkeypatch, f"touch '{tmp_path}/started'; cat >/dev/null; touch '{tmp_path}/ended'")
    lines = """
        import sys, time
        from pathlib import Path
        import numpy as np
        from manifests import media
        def frames():
            while True:
                yield np.zeros((32, 32, 3), np.uint8)
                time.sleep(0.01)
        media.write_video(Path(sys.argv[1]), frames(), 16)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(lines), tmp_path / "v.mp4"])
    try:
        assert appears(tmp_path / "started")
        assert not (tmp_path / "ended").exists()
    finally:
        parent.kill()
        parent.wait()
    assert appears(tmp_path / "ended")


def appears(path: Path) -> bool:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.exists()
