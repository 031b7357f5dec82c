"""Video and picture files in and out: one door for everything the project reads or writes.

Layout is T, H, W, C everywhere, colours are RGB, samples are uint8. Time is seconds from the first frame that is shown. The one
resampler is `sample_indices`; the one decoder is `Video`; pictures live in `manifests.pictures` and the encoder in `manifests.encode`,
and are imported from here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import decord
import numpy as np
import numpy.typing as npt

from manifests import soundness
from manifests.containers import MAX_SIDE_PX, MISSING_ALLOWED, examine
from manifests.encode import write_lossless, write_video
from manifests.errors import BadInput, BadOutput
from manifests.pictures import Image, contact_sheet, encode_png, read_image, read_image_rgba, write_png
from manifests.records import Geometry, Span

__all__ = [
    "Frames", "Image", "Inspection", "Probe", "Video", "conform", "contact_sheet", "encode_png", "frames_within", "inspect", "probe",
    "read_clip", "read_frames", "read_image", "read_image_rgba", "read_instants", "read_span", "resized", "sample_indices", "stream_clip",
    "write_lossless", "write_png", "write_video",
]  # fmt: skip

Frames = npt.NDArray[np.uint8]
"""THWC, RGB"""
Floats = npt.NDArray[np.float64]

MAX_DURATION_S = 7200.0
MAX_RESULT_BYTES = 8 << 30
HALF_MS = 0.0005
"""two instants closer than this are the same instant: containers round to milliseconds, decord to float32"""

decord.logging.set_level(decord.logging.QUIET)


@dataclass(frozen=True)
class Probe:
    """What is known of a video without decoding it all."""

    frames: int
    """that are shown; what an edit list hides is not counted"""
    fps: float
    """mean rate: frames / duration_s"""
    width: int
    height: int
    duration_s: float
    """until the last frame's display ends"""


@dataclass(frozen=True)
class Inspection(Probe):
    """What is known of a video after every frame was decoded."""

    decoded_frames: int
    """fewer than `frames`: up to two at the end are missing, and the last one stands in for them"""
    black_share: float
    """share of frames whose mean luma is under 16 of 255"""
    black_run: int
    """the longest run of them"""
    frozen_share: float
    """share of frames (the first left out) that can't be told from the one before"""
    frozen_run: int
    """the longest run of them"""
    decoder_errors: int
    """complaints of the decoder, up to 100: damage that it conceals"""


def sample_indices(timestamps_s: npt.ArrayLike, count: int, fps: float, start_s: float = 0.0) -> npt.NDArray[np.int64]:
    """Which source frame is on display at each of `count` instants start_s + i / fps. Shape (count,).

    A frame is on display from its timestamp until the next one's, so the answer is the last frame whose timestamp is at most the
    instant (plus half a millisecond). Every instant is computed from i, nothing is added up, so there is no drift at any pair of rates.
    Instants before the first frame get the first, instants behind the end the last: `frames_within` says how many are covered.
    """
    starts = np.asarray(timestamps_s, np.float64)
    if starts.ndim != 1 or len(starts) == 0 or fps <= 0 or count < 0:
        raise ValueError(f"expected timestamps (N,), count ≥ 0 and fps > 0; got {starts.shape}, {count}, {fps}")
    instants = start_s + np.arange(count) / fps
    return np.maximum(np.searchsorted(starts, instants + HALF_MS, side="right") - 1, 0).astype(np.int64)


def frames_within(duration_s: float, fps: float, start_s: float = 0.0) -> int:
    """How many of the instants start_s + i / fps lie before a clip of this duration ends."""
    return max(0, math.ceil((duration_s - start_s - HALF_MS) * fps))


class Video:
    """An open video. Frames are decoded one after the other, forwards only; use it as a context manager.

    Raises BadInput when opened: missing, not_a_file, unreadable, not_a_video, truncated, too_large.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.missing = examine(self.path).missing_frames
        # Two passes: how many frames are hidden by an edit list is known only once the file is open, and decord takes them for damage.
        self._reader = self._open(MISSING_ALLOWED)
        hidden, self.starts_s = _display_starts(self._raw_starts(), float(self._reader.get_avg_fps()), self.path)
        if hidden:
            self._reader = self._open(MISSING_ALLOWED + hidden)
        # decord counts hidden frames when it seeks but not when it decodes: only reading from the beginning finds the right frame.
        self._seekable = hidden == 0
        self.frames = len(self.starts_s)
        self.decoded = 0
        self._shape: tuple[int, ...] | None = None
        self.duration_s = round(float(self.starts_s[-1]) + self._last_frame_s(), 6)
        self.fps = round(self.frames / self.duration_s, 4)
        if self.duration_s > MAX_DURATION_S:
            raise BadInput(f"{self.path} lasts {self.duration_s:.0f} s, allowed are {MAX_DURATION_S:.0f}; cut it into parts", "too_large")

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader = None

    def __iter__(self) -> Iterator[Image]:
        return self.pick(np.arange(self.frames))

    def pick(self, indices: npt.NDArray[np.int64]) -> Iterator[Image]:
        """The frames at these indices (never decreasing), decoding on from the first one. To be called once.

        Up to two frames that are missing at the end are made up for by the last one there is; more raise BadInput("truncated").
        """
        if len(indices) and (indices[0] < 0 or indices[-1] >= self.frames or (np.diff(indices) < 0).any()):
            raise ValueError(f"indices must not decrease and lie in 0..{self.frames - 1}")
        # The last frame that must be there. It is always decoded before those behind it, so that a failure there is known to be theirs.
        needed = self.frames - MISSING_ALLOWED - 1
        at = max(0, min(int(indices[0]), needed)) if len(indices) and self._seekable else 0
        frame, shown, ended = None, -1, False
        for index in map(int, indices):
            while shown < index and not ended:
                aim = min(index, needed) if at <= needed else index
                got = self._decode(at, aim)
                if got is None and (frame is None or at <= needed):
                    raise self._truncated(aim)
                ended = got is None
                frame, shown, at = (frame, shown, at) if got is None else (got, aim, aim + 1)
            assert frame is not None
            yield frame

    def _decode(self, at: int, index: int) -> Image | None:
        """Frame `index` when the decoder stands before frame `at` (or has not started and may seek); None when it can't be had."""
        try:
            if self._shape is None and at > 0:
                self._reader.seek_accurate(at)
            if self._seekable and index > at:
                self._reader.skip_frames(index - at)
                self.decoded += index - at
            while not self._seekable and at < index:
                self._reader.next()
                self.decoded, at = self.decoded + 1, at + 1
            frame = np.asarray(self._reader.next().asnumpy(), np.uint8)
        except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration):
            return None
        self.decoded += 1
        if self._shape not in (None, frame.shape):
            raise BadInput(f"{self.path} changes its size from {self._shape} to {frame.shape}; cut it there", "changing_size")
        if max(frame.shape[:2]) > MAX_SIDE_PX:
            raise BadInput(f"{self.path} is {frame.shape[1]}×{frame.shape[0]} px, allowed are sides up to {MAX_SIDE_PX}", "too_large")
        self._shape = frame.shape
        return frame

    def _open(self, tolerance: int) -> Any:
        # An absolute path can't be taken for an option or a protocol ("-x.mp4", "concat:a.mp4"). More threads than one fail on some files.
        try:
            return decord.VideoReader(os.path.abspath(self.path), num_threads=1, fault_tol=tolerance)
        except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError) as e:
            if self.missing:
                raise BadInput(f"{self.path} is cut off: {self.missing} frames are incomplete; fetch the file again", "truncated") from e
            raise BadInput(f"{self.path} can't be opened as a video; give a playable mp4, mov, mkv, webm or avi", "not_a_video") from e

    def _raw_starts(self) -> Floats:
        return np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)[:, 0]

    def _last_frame_s(self) -> float:
        """The last frame is taken to be shown as long as most others: containers often do not say."""
        return float(np.median(np.diff(self.starts_s))) if self.frames > 1 else 1 / float(self._reader.get_avg_fps())

    def _truncated(self, index: int) -> BadInput:
        got = f"frame {index} of the {self.frames} that it declares can't be decoded"
        return BadInput(f"{self.path} is cut off or damaged: {got}; fetch or make the file again", "truncated")


def _display_starts(raw_s: Floats, avg_fps: float, path: Path) -> tuple[int, Floats]:
    """How many leading frames are hidden, and when each of the others is first shown, from 0 on.

    Hidden frames have negative timestamps: an edit list cuts between key frames and keeps what the decoder needs. Timestamps that do not
    increase are broken; the mean rate replaces them. Those of a constant rate come as float32 or whole milliseconds; they are made exact.
    """
    usable = bool(np.isfinite(raw_s).all() and (np.diff(raw_s) > 0).all())
    if not usable or len(raw_s) == 1:
        if not 0 < avg_fps <= 1000:
            raise BadInput(f"{path} has neither usable timestamps nor a frame rate; remux it", "not_a_video")
        return 0, np.arange(len(raw_s)) / avg_fps
    hidden = int((raw_s < -HALF_MS).sum()) % len(raw_s)
    starts = raw_s[hidden:] - raw_s[hidden]
    mean_rate = (len(starts) - 1) / starts[-1] if len(starts) > 1 else avg_fps
    for rate in (avg_fps, mean_rate):
        if rate > 0 and np.abs(np.arange(len(starts)) / rate - starts).max() <= 2 * HALF_MS:
            return hidden, np.arange(len(starts)) / rate
    return hidden, starts


def probe(path: Path) -> Probe:
    """Count, rate, size and duration; decodes one frame. Raises BadInput as `Video` does."""
    with Video(path) as video:
        frame = next(video.pick(np.zeros(1, np.int64)))
        return _probed(video, frame)


def _probed(video: Video, frame: Image) -> Probe:
    return Probe(video.frames, video.fps, frame.shape[1], frame.shape[0], video.duration_s)


def inspect(path: Path) -> Inspection:
    """Decode every frame and say what is there. Raises BadInput as `Video` does, and when more than two frames can't be decoded."""
    black: list[bool] = []
    frozen: list[bool] = []
    before = None
    with Video(path) as video:
        for frame in video:
            small = soundness.thumbnail(frame)
            black.append(soundness.is_black(small))
            if before is not None:
                frozen.append(soundness.show_the_same(before, small))
            before = small
        seen = _probed(video, frame)
    return Inspection(
        **asdict(seen), decoded_frames=video.decoded, black_share=sum(black) / seen.frames, black_run=soundness.longest_run(black),
        frozen_share=sum(frozen) / max(1, len(frozen)), frozen_run=soundness.longest_run(frozen),
        decoder_errors=soundness.decoder_errors(path),
    )  # fmt: skip


def read_frames(path: Path, max_frames: int = 1000) -> tuple[Frames, float]:
    """Every frame at the file's own size and rate: (frames_THWC, fps). Raises BadInput("too_large") when there are over `max_frames`."""
    with Video(path) as video:
        if video.frames > max_frames:
            raise BadInput(f"{path} has {video.frames} frames, allowed here are {max_frames}; use read_clip or read_span", "too_large")
        return _stack(iter(video), video.frames, path), video.fps


def stream_clip(
    path: Path,
    fps: float,
    *,
    max_side: int | None = None,
    short_side: int | None = None,
    start_s: float = 0.0,
    count: int | None = None,
) -> Iterator[Image]:
    """Frames of a clip at a rate of `fps`, one at a time, scaled down by area (never up) to a longest or a shortest side.

    `count` frames from `start_s` on; without it, all until the clip ends. Raises BadInput as `Video` does, too_few_frames when the clip
    is shorter, truncated when it can't be decoded that far.
    """
    with Video(path) as video:
        for frame in video.pick(_clip_indices(video, fps, start_s, count)):
            yield _shrunk(frame, max_side, short_side)


def read_clip(
    path: Path,
    fps: float,
    *,
    max_side: int | None = None,
    short_side: int | None = None,
    start_s: float = 0.0,
    count: int | None = None,
) -> Frames:
    """`stream_clip` as one array frames_THWC. Raises BadInput("too_large") when that would take more than 8 GB."""
    with Video(path) as video:
        indices = _clip_indices(video, fps, start_s, count)
        return _stack((_shrunk(frame, max_side, short_side) for frame in video.pick(indices)), len(indices), path)


def _clip_indices(video: Video, fps: float, start_s: float, count: int | None) -> npt.NDArray[np.int64]:
    have = frames_within(video.duration_s, fps, start_s)
    wanted = max(1, have) if count is None else count
    if wanted > have:
        raise _too_short(video.path, wanted, have, fps, start_s)
    return sample_indices(video.starts_s, wanted, fps, start_s)


def read_span(path: Path, span: Span, count: int | None = None) -> Frames:
    """A span's frames_THWC, exactly geometry.frames (or its first `count`) × height × width: sampled by timestamp, cropped, scaled.

    Raises BadInput as `Video` does, too_few_frames when the clip ends before the span, bad_crop when the crop is not inside the picture.
    """
    g = span.geometry
    with Video(path) as video:
        indices = _clip_indices(video, g.fps, span.start_s, g.frames if count is None else count)
        return _stack((_fitted(frame, _checked(span.crop, frame, path), g) for frame in video.pick(indices)), len(indices), path)


def read_instants(path: Path, span: Span, grid_frames: Sequence[int]) -> Frames:
    """Single frames of the span's clip, cropped and scaled like the span: frames_THWC, one for each number on the span's time grid.

    `grid_frames` must not decrease and may lie outside the span; those outside the clip are left out. Raises BadInput as `read_span`.
    """
    g = span.geometry
    with Video(path) as video:
        have = frames_within(video.duration_s, g.fps)
        numbers = [n for n in grid_frames if 0 <= n < have]
        if not numbers:
            return np.empty((0, g.height, g.width, 3), np.uint8)
        picked = video.pick(sample_indices(video.starts_s, have, g.fps)[numbers])
        return _stack((_fitted(frame, _checked(span.crop, frame, path), g) for frame in picked), len(numbers), path)


def conform(src: Path, dst: Path, geometry: Geometry) -> None:
    """Turn a generator's video of any size and rate into the pair's geometry, and write it as `write_video` does.

    Time starts at the source's first frame; frames are chosen by timestamp; the picture is scaled to cover and cropped at the centre.
    Raises BadOutput when the source can't be read or ends more than one output frame too early (one is filled by the last frame).
    """
    try:
        with Video(src) as video:
            have = frames_within(video.duration_s, geometry.fps)
            if have < geometry.frames - 1:
                raise _too_short(src, geometry.frames, have, geometry.fps, 0.0)
            picked = video.pick(sample_indices(video.starts_s, geometry.frames, geometry.fps))
            write_video(dst, (_fitted(frame, _cover(frame, geometry), geometry) for frame in picked), geometry.fps)
    except BadInput as e:
        raise BadOutput(f"the generator's video is not usable: {e.message}", e.code) from e


def _too_short(path: Path, wanted: int, have: int, fps: float, start_s: float) -> BadInput:
    asked = f"{wanted} frames at {fps:g} fps from {start_s:.3f} s were asked"
    return BadInput(f"{path} is too short: {asked}, it covers {have}; ask for fewer or choose a longer clip", "too_few_frames")


def _stack(frames: Iterator[Image], count: int, path: Path) -> Frames:
    """`count` frames as one array, which is laid out when the first frame shows its size."""
    out: Frames | None = None
    for i, frame in enumerate(frames):
        if out is None:
            if count * frame.size > MAX_RESULT_BYTES:
                what = f"{count} frames of {frame.shape[1]}×{frame.shape[0]} px take {count * frame.size / 2**30:.1f} GB of memory"
                raise BadInput(
                    f"{path}: {what}, allowed are {MAX_RESULT_BYTES >> 30}; ask for a shorter part or a smaller side", "too_large"
                )
            out = np.empty((count, *frame.shape), np.uint8)
        out[i] = frame
    if out is None:
        raise BadInput(f"{path} has no frames there; ask for at least one", "too_few_frames")
    return out


def _shrunk(frame: Image, max_side: int | None, short_side: int | None) -> Image:
    h, w = frame.shape[:2]
    scale = min(1.0, (max_side or math.inf) / max(h, w), (short_side or math.inf) / min(h, w))
    height, width = max(1, round(h * scale)), max(1, round(w * scale))
    # Halving by area is several times quicker than any other factor and gives the same means up to rounding.
    while frame.shape[0] % 2 == frame.shape[1] % 2 == 0 and frame.shape[0] >= 2 * height and frame.shape[1] >= 2 * width:
        frame = resized(frame, frame.shape[0] // 2, frame.shape[1] // 2)
    return resized(frame, height, width)


def resized(frame: Image, height: int, width: int) -> Image:
    """By area when shrinking (no aliasing), cubic when growing."""
    if frame.shape[:2] == (height, width):
        return frame
    how = cv2.INTER_AREA if height <= frame.shape[0] and width <= frame.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (width, height), interpolation=how), np.uint8)


def _fitted(frame: Image, crop: tuple[int, int, int, int], geometry: Geometry) -> Image:
    x0, y0, x1, y1 = crop
    return resized(frame[y0:y1, x0:x1], geometry.height, geometry.width)


def _checked(crop: tuple[int, int, int, int], frame: Image, path: Path) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = crop
    h, w = frame.shape[:2]
    if not (0 <= x0 < x1 <= w and 0 <= y0 < y1 <= h):
        raise BadInput(f"the crop {crop} does not lie inside {path} ({w}×{h} px); index the clip again", "bad_crop")
    return crop


def _cover(frame: Image, geometry: Geometry) -> tuple[int, int, int, int]:
    """The largest centred box with the geometry's aspect."""
    h, w = frame.shape[:2]
    box_w = min(w, max(1, round(h * geometry.width / geometry.height)))
    box_h = min(h, max(1, round(w * geometry.height / geometry.width)))
    x0, y0 = (w - box_w) // 2, (h - box_h) // 2
    return x0, y0, x0 + box_w, y0 + box_h
