"""Video files out, through ffmpeg. Public names are reached through `manifests.media`.

The same frames always give the same bytes: a fixed number of threads (x264's frame threads do not depend on timing), bit-exact flags, no
metadata, code paths that do not depend on the CPU.
"""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import IO

import ffmpeg
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from manifests.errors import MotionpairError, Transient
from manifests.files import out_of_space, replacing

Image = npt.NDArray[np.uint8]

# RGB → YUV is computed as BT.709 limited range and tagged as such. Players, decord and OpenCV all follow the tag; without one they
# guess BT.601. Measured on saturated colours at crf 12: mean error 0.7, largest 2 of 255, in decord, OpenCV and ffmpeg alike.
# Exact rounding also keeps swscale from using faster code that differs between CPUs.
_SCALE = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
_TAG = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
_YUV = {
    "c:v": "libx264", "preset": "faster", "threads": 2, "vf": f"{_SCALE},format=yuv420p,{_TAG}", "pix_fmt": "yuv420p",
    "colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv",
}  # fmt: skip
_RGB = {"c:v": "libx264rgb", "preset": "medium", "threads": 1, "pix_fmt": "rgb24"}
_COMMON = {
    "x264-params": "cpu-independent=1", "map_metadata": -1, "fflags": "+bitexact", "flags:v": "+bitexact",
    "movflags": "+faststart", "an": None, "f": "mp4",
}  # fmt: skip
_DISK = re.compile(r"no space left|disk quota exceeded|file too large|permission denied|read-only file system", re.IGNORECASE)


def write_video(path: Path, frames_THWC: Iterable[Image], fps: float, crf: int = 10) -> None:
    """Write RGB frames (an array or any iterable of (H, W, 3) uint8, even sizes) as H.264 yuv420p mp4; whole or not at all.

    Raises ValueError for frames of another kind, OutOfSpace when the disk takes no more, Transient when ffmpeg is killed,
    MotionpairError with ffmpeg's last line for anything else.
    """
    _encode(Path(path), frames_THWC, fps, {**_YUV, "crf": crf}, multiple=2)


def write_lossless(path: Path, frames_THWC: Iterable[Image], fps: float) -> None:
    """As `write_video`, but of any size and decoded to exactly the bytes written (H.264 in RGB). For masks."""
    _encode(Path(path), frames_THWC, fps, {**_RGB, "crf": 0}, multiple=1)


def _encode(path: Path, frames: Iterable[Image], fps: float, options: dict[str, object], multiple: int) -> None:
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None or fps <= 0:
        raise ValueError(
            f"a video needs at least one frame and a positive rate, got fps {fps} and {'no' if first is None else 'some'} frames"
        )
    height, width = first.shape[:2]
    if height % multiple or width % multiple or min(height, width) < 16:
        raise ValueError(f"frames must be at least 16 px and a multiple of {multiple} in each direction, got {width}×{height}")
    with replacing(path) as part, tempfile.TemporaryFile() as complaints:
        rate = Fraction(fps).limit_denominator(1001)
        source = ffmpeg.input("pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=str(rate), threads=1)
        # "file:" and an absolute path: no name can be taken for an option or a protocol.
        target = source.output(f"file:{part}", **_COMMON, **options).global_args("-hide_banner", "-nostdin", "-loglevel", "error", "-y")
        status = _run(
            target.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe()), _raw(itertools.chain([first], iterator), first.shape), complaints
        )
        if status:
            complaints.seek(0)
            raise _failure(path, status, complaints.read().decode(errors="replace"))


def _raw(frames: Iterable[Image], shape: tuple[int, ...]) -> Iterator[memoryview]:
    for i, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.shape != shape or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"frame {i} is {frame.dtype} {frame.shape}, expected uint8 {(*shape[:2], 3)}")
        yield np.ascontiguousarray(frame).data.cast("B")


def _run(command: list[str], chunks: Iterable[memoryview], complaints: IO[bytes]) -> int:
    """Feed ffmpeg and wait for it. It ends with us: its input is our pipe, which closes when this process goes."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints)
    assert child.stdin is not None
    try:
        # A broken pipe means that ffmpeg has given up; its exit status and last line say why.
        with suppress(BrokenPipeError):
            for chunk in chunks:
                child.stdin.write(chunk)
        with suppress(BrokenPipeError):
            child.stdin.close()
        return child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        with suppress(BrokenPipeError):
            child.stdin.close()


def _failure(path: Path, status: int, complaints: str) -> MotionpairError:
    """ffmpeg tells a full disk from its own faults by words only; a file-size limit kills it."""
    last = next((line.strip() for line in reversed(complaints.splitlines()) if line.strip()), f"exit status {status}")
    disk = _DISK.search(complaints)
    if disk or status == -signal.SIGXFSZ:
        return out_of_space(path, disk.group(0).lower() if disk else "file too large")
    if status < 0:
        return Transient(f"ffmpeg was ended by signal {-status} while writing {path}; it is tried again", "ffmpeg_killed")
    return MotionpairError(f"ffmpeg could not write {path}: {last}", "ffmpeg_failed")
