"""What a stand-in for a published model's program can do wrong, named by STANDIN_FAULT; STANDIN_FAULT_ONCE names a file that a fault leaves
behind, after which all is well, and STANDIN_FAULT_FILE one that holds the next fault. Nothing here generates anything: the picture is a
bright square that walks over noise."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np

CUDA = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\nterminating"


def fault() -> str:
    """That which is due."""
    if given := os.environ.get("STANDIN_FAULT_FILE"):
        what = Path(given).read_text()
        Path(given).write_text("")
        return what
    once = os.environ.get("STANDIN_FAULT_ONCE", "")
    if once and Path(once).exists():
        return ""
    if once and os.environ.get("STANDIN_FAULT"):
        Path(once).touch()
    return os.environ.get("STANDIN_FAULT", "")


def moving(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """T×H×W×3."""
    rng = np.random.default_rng(seed)
    ground = np.kron(rng.integers(30, 120, (height // 8, width // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    frames = np.repeat(ground[None], count, axis=0)
    side = height // 3
    for t in range(count):
        left = round((width - side) * t / max(1, count - 1))
        frames[t, side : 2 * side, left : left + side] = (250, 200, 40)
    return frames


def disturbed(frames: np.ndarray, fps: float, what: str) -> tuple[np.ndarray, float]:
    """The video as the fault has it."""
    if what == "too_few_frames":
        frames = frames[: len(frames) // 2]
    if what == "too_many_frames":
        frames = np.concatenate([frames, frames])
    if what == "wrong_size":
        frames = frames[:, : frames.shape[1] // 4 * 2, : frames.shape[2] // 4 * 2]
    if what == "turned":
        frames = frames.transpose(0, 2, 1, 3)
    if what == "wrong_fps":
        fps *= 1.5
    if what == "nan":
        with np.errstate(invalid="ignore"):
            frames = np.nan_to_num(np.full(frames.shape, np.nan)).astype(np.uint8)
    if what == "black_end":
        frames = frames.copy()
        frames[len(frames) // 2 :] = 0
    if what == "frozen":
        frames = np.repeat(frames[:1], len(frames), axis=0)
    return np.ascontiguousarray(frames), fps


def process(what: str) -> None:
    """What goes wrong before anything is written."""
    if what == "cuda_oom":
        print(CUDA, file=sys.stderr)
        sys.exit(1)
    for name, number in (("killed", 9), ("segfault", 11), ("terminated", 15)):
        if what == name:
            os.kill(os.getpid(), number)
    if what == "crash":
        raise RuntimeError("shapes do not match")
    if what == "disk_full":
        print("OSError: [Errno 28] No space left on device", file=sys.stderr)
        sys.exit(1)
    if what == "hangs_at_once":
        time.sleep(600)
    if what == "floods":
        sys.stdout.write("x" * (4 << 20))


def write(path: Path, frames: np.ndarray, fps: float) -> None:
    """As research repositories do: straight to its name."""
    height, width = frames.shape[1:3]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        "-y",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
    ]
    command += ["-r", str(fps), "-i", "-", "-threads", "1", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-f", "mp4", str(path)]
    subprocess.run(command, input=frames.tobytes(), check=True)


def size_of(png: Path) -> tuple[int, int]:
    """Height and width."""
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), "no PNG"
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def frames_in(video: Path) -> tuple[int, float]:
    """How many frames, and their rate."""
    reader = imageio_ffmpeg.read_frames(str(video))
    fps = next(reader)["fps"]
    return sum(1 for _ in reader), fps


def size_in(video: Path) -> tuple[int, int]:
    """Height and width."""
    reader = imageio_ffmpeg.read_frames(str(video))
    width, height = next(reader)["source_size"]
    reader.close()
    return height, width


def spoil(path: Path, what: str) -> None:
    """What goes wrong with the file."""
    data = path.read_bytes()
    if what == "nothing":
        path.unlink()
    if what == "empty":
        path.write_bytes(b"")
    if what == "half":
        path.write_bytes(data[: len(data) // 2])
    if what == "damaged":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes(700) + data[middle + 700 :])
    if what == "text":
        path.write_text("<html>502 Bad Gateway</html>")
    if what == "elsewhere":
        path.rename(path.with_name("result.mp4"))
    if what == "link":
        path.rename(path.with_name("result.mp4"))
        path.symlink_to("result.mp4")
    if what == "leaves_a_child":
        subprocess.Popen(["bash", "-c", f"sleep 1; echo late > '{path}'; sleep 600"])
    if what == "hangs_with_result":
        print(f"saved to {path}", flush=True)
        time.sleep(600)
