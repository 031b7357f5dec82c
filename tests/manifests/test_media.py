"""Videos: time, geometry, inspection, colours and exact bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from bars import BAR_PX, ffmpeg, noise, numbered, numbers, sha

from manifests import media
from manifests.errors import BadInput, BadOutput
from manifests.records import Geometry, Span

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
    with pytest.raises(BadOutput, match="too short"):
        media.conform(tmp_path / "two_less.mp4", tmp_path / "never.mp4", geometry)
    (tmp_path / "text.mp4").write_text("done!")
    with pytest.raises(BadOutput) as caught:
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
