"""What generators leave behind, on its way into the store: the one coding of a release, and nothing that is not whole."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from moving import GEOMETRY, frames_of, stored_video_request, walkers

from factory import steps
from factory.work.making import Synthetic, generate_video
from factory.workbench import Workbench
from manifests import containers, media

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
TAGS = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
H264 = f"-c:v libx264 -crf 5 {TAGS} -map_metadata -1 -fflags +bitexact"
PLAIN = f"{H264} -pix_fmt yuv420p"
CODINGS = {
    "MPEG-4 as OpenCV writes it": f"-c:v mpeg4 -q:v 2 {TAGS}",
    "H.265": f"-c:v libx265 -x265-params log-level=none:crf=5 {TAGS}",
    "VP9 in a Matroska file": f"-c:v libvpx-vp9 -crf 5 -b:v 0 {TAGS} -f webm",
    "4:4:4": f"{H264} -pix_fmt yuv444p",
    "10 bits": f"{H264} -pix_fmt yuv420p10le",
    "no colour tags": "-c:v libx264 -crf 5 -pix_fmt yuv420p -fflags +bitexact",
    "full range": f"{PLAIN} -vf scale=out_range=pc -color_range pc",
    "sound": f"-f lavfi -i sine=d=1 -map 0:v -map 1:a {PLAIN}",
    "a prompt in its metadata": f"{PLAIN} -metadata comment=/home/me/workflow",
    "oblong pixels": f"{PLAIN} -aspect 1:1",
    "an uneven rate": f"{PLAIN} -vf setpts='N/16/TB+if(eq(N\\,4)\\,0.02/TB\\,0)' -fps_mode vfr -video_track_timescale 1600",
}
"""each but the first three is `PLAIN` but for one thing"""


def writer(how: str, **more: Any) -> dict[str, Any]:
    """An entry whose program copies the clip in some coding."""
    argv = [FFMPEG, "-loglevel", "error", "-nostdin", "-y", "-i", "{clip}", *shlex.split(how), "{out}"]
    return {"argv": argv, "modes": ["animation"], "code_licence": "MIT", "weights_licence": "none", "timeout_s": 60, **more}


def made(tmp_path: Path, options: dict[str, Any]) -> Path:
    bench = Workbench(str(tmp_path / "store"), {})
    request = stored_video_request(bench, tmp_path / "material", "command", options)
    reply = bench.run("generate_video", request.model_dump(mode="json"), steps.key_of(generate_video, request))
    assert reply.get("status") == "ok", reply
    return bench.store.local_path(Synthetic.model_validate(reply["answer"]).video, tmp_path)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_video_of_another_coding_is_brought_to_that_of_the_release(coding: str, tmp_path: Path) -> None:
    kept = made(tmp_path, writer(CODINGS[coding]))
    assert containers.is_plain(kept)
    probe = media.probe(kept)
    assert (probe.frames, probe.fps, probe.height, probe.width) == (GEOMETRY.frames, GEOMETRY.fps, GEOMETRY.height, GEOMETRY.width)
    far = np.abs(media.read_frames(kept)[0].astype(int) - frames_of(walkers()))
    assert far.mean() < 5, "the same pictures; a decoder that is told no matrix guesses one"
    assert b"workflow" not in kept.read_bytes()


def test_a_video_that_is_as_released_stays_byte_for_byte(tmp_path: Path) -> None:
    copy = [sys.executable, "-c", "import shutil, sys; shutil.copy(*sys.argv[1:])", "{clip}", "{out}"]
    kept = made(tmp_path, writer("", argv=copy))
    again = tmp_path / "again.mp4"
    media.write_video(again, media.read_frames(tmp_path / "material" / "clip.mp4")[0], GEOMETRY.fps)
    assert kept.read_bytes() == again.read_bytes()


def test_what_only_looks_like_ours_is_kept_too(tmp_path: Path) -> None:
    """So that each of the codings above is refused for the one thing that it is."""
    clip, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    media.write_video(clip, frames_of(walkers()), GEOMETRY.fps)
    subprocess.run([FFMPEG, "-loglevel", "error", "-nostdin", "-i", clip, *shlex.split(PLAIN), other], check=True, timeout=60)
    assert containers.is_plain(other)
    for of_input, of_output in (("-display_rotation 180", ""), ("", "-metadata creation_time=2026-01-01T00:00:00Z")):
        command = [FFMPEG, "-loglevel", "error", "-nostdin", "-y", *of_input.split(), "-i", other, "-c", "copy", *of_output.split(), clip]
        subprocess.run(command, check=True, timeout=60)
        assert not containers.is_plain(clip), of_input + of_output
