"""Videos: time, colour, exactness, hostile files, full disks. Pictures stand at the end."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from manifests import media
from manifests.errors import BadAnswer, BadInput, MotionpairError, OutOfSpace, Transient
from manifests.records import Geometry, Span

BITS, BAR_PX = 10, 16


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def numbered(count: int, height: int = 64) -> np.ndarray:
    """Frames that show their own number as white and black bars. Shape (count, height, 160, 3)."""
    bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
    row = np.repeat(bits * 255, BAR_PX, axis=1).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[:, None, :, None], (count, height, BITS * BAR_PX, 3)))


def numbers(frames: np.ndarray) -> list[int]:
    """Read the bars again, whatever the frames' size."""
    bars = np.stack([cv2.resize(frame, (BITS, 1), interpolation=cv2.INTER_AREA)[0, :, 0] for frame in frames])
    return [int(n) for n in ((bars > 127) << np.arange(BITS)).sum(1)]


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one numbered video per rate, 2.5 s each."""
    folder = tmp_path_factory.mktemp("made")
    for name, fps in (("24", 24), ("29.97", 30000 / 1001), ("30", 30), ("60", 60)):
        media.write_video(folder / f"{name}.mp4", numbered(round(2.5 * fps)), fps)
    return folder


# ---------------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("source_fps", [12.5, 16, 24, 30000 / 1001, 30, 50, 60])
def test_sampling_never_drifts(source_fps: float) -> None:
    stamps = np.arange(round(source_fps * 600)) / source_fps
    picked = media.sample_indices(stamps.astype(np.float32), 9000, 16)
    lag_s = np.arange(9000) / 16 - stamps[picked]
    assert lag_s.min() >= -media.HALF_MS - 1e-4
    assert lag_s.max() < 1 / source_fps + 1e-4


def test_sampling_follows_real_timestamps_and_clamps() -> None:
    stamps = [0.0, 0.1, 0.5, 0.5625]
    assert media.sample_indices(stamps, 5, 8).tolist() == [0, 1, 1, 1, 2]
    assert media.sample_indices(stamps, 3, 8, start_s=-0.2).tolist() == [0, 0, 0]
    assert media.sample_indices(stamps, 2, 1, start_s=0.5).tolist() == [2, 3]
    with pytest.raises(ValueError):
        media.sample_indices([], 1, 16)


def test_frames_within_counts_the_instants_before_the_end() -> None:
    assert media.frames_within(5.0, 16) == 80
    assert media.frames_within(81 / 16, 16) == 81
    assert media.frames_within(5.0, 16, start_s=4.9) == 2
    assert media.frames_within(5.0, 16, start_s=6) == 0


@pytest.mark.parametrize("name", ["24", "29.97", "30", "60"])
def test_each_output_frame_shows_the_right_instant(made: Path, name: str) -> None:
    fps = {"29.97": 30000 / 1001}.get(name) or float(name)
    shown = numbers(media.read_clip(made / f"{name}.mp4", 16))
    assert shown == [int((i / 16 + 1e-4) * fps) for i in range(41 if name == "29.97" else 40)], "29.97 fps: 2.5025 s"
    shown = numbers(media.read_clip(made / f"{name}.mp4", 16, start_s=1.25, count=17))
    assert shown == [int((1.25 + i / 16 + 1e-4) * fps) for i in range(17)]


def test_variable_frame_rate(made: Path, tmp_path: Path) -> None:
    """Frames dropped at random places: what is shown at each instant is the last frame that was kept."""
    kept = [n for n in range(75) if n % 3 and n % 7 and n not in range(30, 40)]
    choose = "+".join(f"eq(n\\,{n})" for n in kept)
    ffmpeg("-i", made / "30.mp4", "-vf", f"select='{choose}'", "-fps_mode", "vfr", "-c:v", "libx264", "-crf", 10, tmp_path / "vfr.mp4")
    shown = numbers(media.read_clip(tmp_path / "vfr.mp4", 16))
    first = kept[0] / 30
    expected = [max(n for n in kept if n / 30 <= first + i / 16 + 1e-4) for i in range(len(shown))]
    assert shown == expected
    assert len(shown) == media.frames_within(media.probe(tmp_path / "vfr.mp4").duration_s, 16)


def test_frames_that_an_edit_list_hides_are_not_shown(made: Path, tmp_path: Path) -> None:
    """A cut without re-encoding starts at a key frame and hides what comes before the cut."""
    ffmpeg("-ss", 1.0, "-i", made / "30.mp4", "-c", "copy", tmp_path / "cut.mp4")
    seen = media.inspect(tmp_path / "cut.mp4")
    assert (seen.frames, seen.decoded_frames) == (45, 45)
    assert numbers(media.read_frames(tmp_path / "cut.mp4")[0]) == list(range(30, 75))
    assert numbers(media.read_clip(tmp_path / "cut.mp4", 30, start_s=0.5, count=3)) == [45, 46, 47]


def test_a_span_is_sampled_cropped_and_scaled(made: Path) -> None:
    geometry = Geometry(frames=17, height=96, width=320)
    span = Span(source="0" * 64, start_frame=4, geometry=geometry, crop=(0, 16, 160, 64))
    frames = media.read_span(made / "30.mp4", span)
    assert frames.shape == (17, 96, 320, 3)
    assert numbers(frames) == [int((0.25 + i / 16 + 1e-4) * 30) for i in range(17)]
    assert np.array_equal(media.read_span(made / "30.mp4", span, count=1), frames[:1])
    half = span.model_copy(update={"crop": (0, 0, 5 * BAR_PX, 64)})
    assert numbers(cv2.resize(f, (160, 64)) for f in media.read_span(made / "30.mp4", half))[0] != numbers(frames)[0]


def test_single_instants_are_those_of_the_span(made: Path) -> None:
    span = Span(source="0" * 64, start_frame=4, geometry=Geometry(frames=17, height=64, width=160), crop=(0, 0, 160, 64))
    frames = media.read_instants(made / "30.mp4", span, [-3, 0, 4, 4, 20, 39, 40, 900])
    assert numbers(frames) == [int((n / 16 + 1e-4) * 30) for n in (0, 4, 4, 20, 39)]
    assert np.array_equal(frames[1], media.read_span(made / "30.mp4", span)[0])
    assert media.read_instants(made / "30.mp4", span, [40]).shape == (0, 64, 160, 3)


def test_a_span_outside_the_clip_or_the_picture_is_refused(made: Path) -> None:
    geometry = Geometry(frames=37, height=64, width=160)
    late = Span(source="0" * 64, start_frame=4, geometry=geometry, crop=(0, 0, 160, 64))
    with pytest.raises(BadInput, match="covers 36") as caught:
        media.read_span(made / "30.mp4", late)
    assert caught.value.code == "too_few_frames"
    for crop in ((0, 0, 161, 64), (-1, 0, 160, 64), (8, 8, 8, 64)):
        with pytest.raises(BadInput) as caught:
            media.read_span(made / "30.mp4", late.model_copy(update={"start_frame": 0, "crop": crop}))
        assert caught.value.code == "bad_crop"


def test_conform_changes_size_and_rate(made: Path, tmp_path: Path) -> None:
    media.conform(made / "30.mp4", tmp_path / "out.mp4", Geometry(frames=37, height=128, width=320))
    seen = media.inspect(tmp_path / "out.mp4")
    assert (seen.frames, seen.height, seen.width, seen.fps) == (37, 128, 320, 16)
    assert numbers(media.read_frames(tmp_path / "out.mp4")[0]) == [int((i / 16 + 1e-4) * 30) for i in range(37)]


def test_conform_covers_and_crops_the_centre(tmp_path: Path) -> None:
    frames = np.zeros((9, 64, 256, 3), np.uint8)
    frames[:, :, 96:160] = 255
    media.write_video(tmp_path / "wide.mp4", frames, 16)
    media.conform(tmp_path / "wide.mp4", tmp_path / "square.mp4", Geometry(frames=9, height=64, width=64))
    assert media.read_frames(tmp_path / "square.mp4")[0][:, 4:-4, 4:-4].min() > 240


def test_conform_forgives_one_missing_frame_and_no_more(tmp_path: Path) -> None:
    geometry = Geometry(frames=17, height=64, width=160)
    media.write_video(tmp_path / "one_less.mp4", numbered(16), 16)
    media.conform(tmp_path / "one_less.mp4", tmp_path / "out.mp4", geometry)
    assert numbers(media.read_frames(tmp_path / "out.mp4")[0]) == [*range(16), 15]
    media.write_video(tmp_path / "two_less.mp4", numbered(15), 16)
    with pytest.raises(BadAnswer, match="too short"):
        media.conform(tmp_path / "two_less.mp4", tmp_path / "never.mp4", geometry)
    (tmp_path / "text.mp4").write_text("done!")
    with pytest.raises(BadAnswer) as caught:
        media.conform(tmp_path / "text.mp4", tmp_path / "never.mp4", geometry)
    assert caught.value.code == "not_a_video"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one_less.mp4", "out.mp4", "text.mp4", "two_less.mp4"]


def test_sizes_of_read_clip(made: Path) -> None:
    assert media.read_clip(made / "24.mp4", 8, max_side=80).shape == (20, 32, 80, 3)
    assert media.read_clip(made / "24.mp4", 8, short_side=48, count=3).shape == (3, 48, 120, 3)
    assert media.read_clip(made / "24.mp4", 8, short_side=500).shape == (20, 64, 160, 3), "never scaled up"
    streamed = np.stack(list(media.stream_clip(made / "24.mp4", 8, short_side=30)))
    assert np.array_equal(streamed, media.read_clip(made / "24.mp4", 8, short_side=30))


def test_asking_for_too_much(made: Path) -> None:
    with pytest.raises(BadInput) as caught:
        media.read_clip(made / "24.mp4", 16, count=41)
    assert caught.value.code == "too_few_frames"
    with pytest.raises(BadInput) as caught:
        media.read_clip(made / "24.mp4", 16, start_s=3)
    assert caught.value.code == "too_few_frames"
    with pytest.raises(BadInput) as caught:
        media.read_frames(made / "24.mp4", max_frames=59)
    assert caught.value.code == "too_large"
    assert media.read_frames(made / "24.mp4", max_frames=60)[1] == 24


# -------------------------------------------------------------------------------------------------------------- inspect


def test_inspect_sees_black_and_frozen_frames(tmp_path: Path) -> None:
    frames = numbered(20)
    frames[:5] = 0
    frames[10:15] = frames[10]
    media.write_video(tmp_path / "v.mp4", frames, 16)
    seen = media.inspect(tmp_path / "v.mp4")
    assert seen.black_share == pytest.approx(5 / 20)
    assert seen.frozen_share == pytest.approx(8 / 19)
    assert (seen.black_run, seen.frozen_run, seen.decoder_errors) == (5, 4, 0)
    assert media.probe(tmp_path / "v.mp4") == media.Probe(20, 16, 160, 64, 1.25)


def test_a_small_moving_part_is_not_frozen(tmp_path: Path) -> None:
    frames = np.full((9, 512, 512, 3), 90, np.uint8)
    for i, frame in enumerate(frames):
        frame[250:262, 250 + 4 * i : 262 + 4 * i] = 220
    media.write_video(tmp_path / "v.mp4", frames, 16)
    assert media.inspect(tmp_path / "v.mp4").frozen_share == 0


def test_grain_on_a_frozen_frame_is_no_motion(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = noise(1, 128, 192)[np.zeros(9, int)].astype(np.float32)
    media.write_video(tmp_path / "v.mp4", np.clip(still * 0.5 + 60 + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8), 16)
    assert media.inspect(tmp_path / "v.mp4").frozen_share == 1


def test_concealed_damage_is_counted(long_clip: Path, tmp_path: Path) -> None:
    """Every frame is decoded, many of them smeared."""
    data = bytearray(long_clip.read_bytes())
    for at in np.random.default_rng(1).integers(data.index(b"mdat") + 800, len(data) - 10, 20):
        data[at] ^= 0x5A
    (tmp_path / "v.mp4").write_bytes(data)
    seen = media.inspect(tmp_path / "v.mp4")
    assert seen.decoded_frames == seen.frames == 60
    assert 0 < seen.decoder_errors <= 100
    assert media.inspect(long_clip).decoder_errors == 0


def test_one_frame_and_rotated_videos(tmp_path: Path) -> None:
    media.write_video(tmp_path / "one.mp4", numbered(1), 16)
    assert media.inspect(tmp_path / "one.mp4").decoded_frames == 1
    media.write_video(tmp_path / "flat.mp4", numbered(5), 16)
    ffmpeg("-display_rotation", 90, "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "upright.mp4")
    seen = media.probe(tmp_path / "upright.mp4")
    assert (seen.width, seen.height) == (64, 160)


# -------------------------------------------------------------------------------------------------- colours, exact bytes


def test_colours_survive_in_decord_opencv_and_ffmpeg(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255,) * 3, (0,) * 3, (128,) * 3]
    frames = np.concatenate([np.full((5, 64, 32, 3), c, np.uint8) for c in colours], axis=2)
    media.write_video(tmp_path / "c.mp4", frames, 16)
    inner = np.tile((np.arange(32) >= 6) & (np.arange(32) < 26), len(colours))
    capture = cv2.VideoCapture(str(tmp_path / "c.mp4"))
    by_opencv = np.stack([capture.read()[1][..., ::-1] for _ in range(5)])
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "c.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    by_ffmpeg = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8).reshape(frames.shape)
    for name, back in (("decord", media.read_frames(tmp_path / "c.mp4")[0]), ("opencv", by_opencv), ("ffmpeg", by_ffmpeg)):
        error = np.abs(back.astype(int) - frames)[:, :, inner]
        assert error.mean() < 1, name
        assert error.max() <= 4, name


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47)])
def test_lossless_is_exact_on_noise(tmp_path: Path, height: int, width: int) -> None:
    frames = noise(7, height, width)
    media.write_lossless(tmp_path / "n.mp4", frames, 16)
    back, fps = media.read_frames(tmp_path / "n.mp4")
    assert np.array_equal(back, frames)
    assert fps == 16


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = noise(9, 64, 96)
    for name in ("a", "another name"):
        media.write_video(tmp_path / f"{name}.mp4", frames, 16)
        media.write_lossless(tmp_path / f"{name} lossless.mp4", iter(frames), 16)
        media.write_png(tmp_path / f"{name}.png", frames[0])
    for kind in (".mp4", " lossless.mp4", ".png"):
        assert sha(tmp_path / f"a{kind}") == sha(tmp_path / f"another name{kind}")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index stands first"
    assert b"Lavf" not in data


def test_rates_are_kept(tmp_path: Path) -> None:
    for fps in (16, 24000 / 1001, 25, 29.97, 30000 / 1001, 60):
        media.write_video(tmp_path / "v.mp4", numbered(12), fps)
        assert media.probe(tmp_path / "v.mp4").fps == pytest.approx(fps, abs=2e-4)


# ------------------------------------------------------------------------------------------------------- names and disks


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


# --------------------------------------------------------------------------------------------------------- hostile videos


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "v.mp4"
    media.write_video(path, noise(1, 96, 96)[np.zeros(60, int)] // 2 + numbered(60, 96)[:, :, :96] // 2, 30)
    return path


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


# --------------------------------------------------------------------------------------------------------------- pictures


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, orientation, 0) + bytes(4)


def corners() -> np.ndarray:
    """A picture whose four corners differ: 32 × 48, grey levels 0, 80, 160, 240 clockwise from the top left."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, 24:], image[16:, 24:], image[16:, :24] = 80, 160, 240
    return image


def test_png_round_trip(tmp_path: Path) -> None:
    for channels in (3, 4):
        image = np.random.default_rng(channels).integers(0, 256, (40, 30, channels), dtype=np.uint8)
        media.write_png(tmp_path / "p.png", image)
        assert (tmp_path / "p.png").read_bytes() == media.encode_png(image)
        back = media.read_image_rgba(tmp_path / "p.png")
        assert np.array_equal(back[..., :channels], image)
        if channels == 3:
            assert (back[..., 3] == 255).all()
            assert np.array_equal(media.read_image(tmp_path / "p.png"), image)
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError):
            media.encode_png(bad)


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    image = np.zeros((16, 48, 4), np.uint8)
    image[..., 0], image[:, 16:32, 3], image[:, 32:, 3] = 200, 128, 255
    media.write_png(tmp_path / "p.png", image)
    row = media.read_image(tmp_path / "p.png")[8, ::16].tolist()
    assert row == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_and_sixteen_bit_become_eight_bit_rgb(tmp_path: Path, channels: int) -> None:
    deep = np.full((16, 16, channels), 0x8081, np.uint16)
    deep[0, 0, :3] = 0xFFFF
    if channels == 4:
        deep[..., 3] = 0xFFFF
    assert cv2.imwrite(str(tmp_path / "p.png"), deep)
    image = media.read_image(tmp_path / "p.png")
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.uint8
    assert (image[1, 1] == 0x81 - 1).all()
    assert (image[0, 0] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_exif_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = corners()
    # Stored so that applying the orientation gives the upright picture: the inverse of what the standard says a reader must do.
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    stored = np.ascontiguousarray(undo[orientation](upright))
    data = bytes(cv2.imencode(kind, stored, [cv2.IMWRITE_WEBP_QUALITY, 101] if kind == ".webp" else [])[1])
    block = exif(orientation, ">" if orientation % 2 else "<")
    if kind == ".jpg":
        body = b"Exif\0\0" + block
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    elif kind == ".png":
        data = data[:33] + png_chunk(b"eXIf", block) + data[33:]
    else:
        h, w = stored.shape[:2]
        head = b"VP8X" + struct.pack("<II", 10, 0x08) + (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")
        data = b"WEBP" + head + data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
        data = b"RIFF" + struct.pack("<I", len(data)) + data
    (tmp_path / f"p{kind}").write_bytes(data)
    seen = media.read_image(tmp_path / f"p{kind}")
    assert seen.shape == upright.shape
    assert np.abs(seen.astype(int) - upright).mean() < 3


def refused_picture(path: Path, code: str) -> None:
    for read in (media.read_image, media.read_image_rgba):
        with pytest.raises(BadInput) as caught:
            read(path)
        assert caught.value.code == code, caught.value


def test_bombs_are_refused_before_decoding(tmp_path: Path) -> None:
    size = 60_000
    body = zlib.compress(bytes(1 << 20))
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    (tmp_path / "b.png").write_bytes(png + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))
    refused_picture(tmp_path / "b.png", "too_large")
    jpeg = bytearray(cv2.imencode(".jpg", corners())[1])
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, size, size)
    (tmp_path / "b.jpg").write_bytes(jpeg)
    refused_picture(tmp_path / "b.jpg", "too_large")
    (tmp_path / "b.bmp").write_bytes(b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, size, -size, 1, 24, 0) + bytes(64))
    refused_picture(tmp_path / "b.bmp", "too_large")


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".bmp"])
def test_cut_off_pictures(tmp_path: Path, kind: str) -> None:
    data = bytes(cv2.imencode(kind, noise(1, 64, 64)[0])[1])
    whole, cut = tmp_path / f"w{kind}", tmp_path / f"c{kind}"
    whole.write_bytes(data)
    assert media.read_image(whole).shape == (64, 64, 3)
    for share in (0.003, 0.5, 0.97):
        cut.write_bytes(data[: max(4, int(len(data) * share))])
        with pytest.raises(BadInput) as caught:
            media.read_image(cut)
        assert caught.value.code in {"truncated", "not_an_image"}


def test_what_is_no_picture(tmp_path: Path) -> None:
    cases = {"empty": b"", "text": b"hello\n" * 40, "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "jpeg": b"\xff\xd8\xff\xd9" * 9}
    for name, content in cases.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(BadInput) as caught:
            media.read_image(tmp_path / f"{name}.png")
        assert caught.value.code in {"not_an_image", "truncated"}
    refused_picture(tmp_path, "not_a_file")
    refused_picture(tmp_path / "absent.png", "missing")
    media.write_png(tmp_path / "small.png", np.zeros((64, 15, 3), np.uint8))
    refused_picture(tmp_path / "small.png", "too_small")


def test_contact_sheet() -> None:
    rows = [[np.full((100, 50, 3), 200, np.uint8)] * 3, [np.full((40, 80, 3), (255, 0, 0), np.uint8)]]
    sheet = media.contact_sheet(rows, ["driving — 3 frames", "target"], height_px=60, gap_px=4)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (24 + 60 + 4) + 4, max(3 * 34 + 4, 120 + 4, 20 + 9 * 18), 3)
    assert (sheet[50, 10] == 200).all()
    assert sheet[140, 60].tolist() == [255, 0, 0]
    assert sheet[4:28].max() > 150, "the label is drawn"
    assert media.contact_sheet(rows, height_px=60, gap_px=4).shape[0] == 2 * 64 + 4
    with pytest.raises(ValueError):
        media.contact_sheet(rows, ["one"])
