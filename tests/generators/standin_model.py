"""A stand-in for a research repository's script: it takes the arguments that such a script takes, writes a moving picture, and fails in
the way that STANDIN_FAULT names. Nothing in it generates anything."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np

FAULT = os.environ.get("STANDIN_FAULT", "")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--clip", "--image", "--pose", "--mask", "--prompt", "--task", "--save_file", "--save_dir"):
        parser.add_argument(name, default="")
    for name in ("--frames", "--height", "--width", "--seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--fps", type=float, default=16.0)
    return parser.parse_args()


def write(path: Path, frames_THWC: np.ndarray, fps: float) -> None:
    height, width = frames_THWC.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-threads", "1", "-pix_fmt", "yuv420p", "-f", "mp4", str(path)]
    subprocess.run(command, input=frames_THWC.tobytes(), check=True)


def moving(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """A bright square that walks; the ground depends on the seed."""
    frames = np.full((count, height, width, 3), 60 + seed % 64, np.uint8)
    for t in range(count):
        left = (4 * t) % (width - 24)
        frames[t, 20:60, left : left + 24] = (250, 200, 40)
    return frames


def disturbed(frames: np.ndarray, fps: float) -> tuple[np.ndarray, float]:
    if FAULT == "too_few_frames":
        frames = frames[:3]
    if FAULT == "too_many_frames":
        frames = np.concatenate([frames, frames])
    if FAULT == "wrong_size":
        frames = frames[:, :64, :64]
    if FAULT == "wrong_fps":
        fps = 30.0
    if FAULT == "nan":
        with np.errstate(invalid="ignore"):
            frames = np.nan_to_num(np.full(frames.shape, np.nan)).astype(np.uint8)
    if FAULT == "black_end":
        frames[len(frames) // 2 :] = 0
    if FAULT == "frozen":
        frames[:] = frames[0]
    return frames, fps


def before(given: argparse.Namespace, out: Path) -> None:
    """What goes wrong before anything is written."""
    if FAULT == "cuda_oom":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\nterminating", file=sys.stderr)
        sys.exit(1)
    if FAULT == "killed":
        os.kill(os.getpid(), 9)
    if FAULT == "segfault":
        os.kill(os.getpid(), 11)
    if FAULT == "terminated":
        os.kill(os.getpid(), 15)
    if FAULT == "refuses":
        print("no face found in the reference", file=sys.stderr)
        sys.exit(65)
    if FAULT == "busy":
        sys.exit(75)
    if FAULT == "crash":
        raise RuntimeError("shapes do not match")
    if FAULT == "disk_full":
        print("OSError: [Errno 28] No space left on device", file=sys.stderr)
        sys.exit(1)
    if FAULT == "hangs_at_once":
        time.sleep(600)
    if FAULT == "skips_what_exists" and out.exists():
        print("already there, skipping")
        sys.exit(0)
    if FAULT == "floods":
        sys.stdout.write("x" * (4 << 20))
    if FAULT == "spoils_inputs":
        for path in (given.clip, given.image):
            Path(path).write_bytes(b"spoilt")


def after(out: Path, data: bytes) -> None:
    """What goes wrong with the file."""
    if FAULT == "nothing":
        out.unlink()
    if FAULT == "empty":
        out.write_bytes(b"")
    if FAULT == "half":
        out.write_bytes(data[: len(data) // 2])
    if FAULT == "damaged":
        out.write_bytes(data[:400] + bytes(700) + data[1100:])
    if FAULT == "text":
        out.write_text("<html>502 Bad Gateway</html>")
    if FAULT == "elsewhere":
        out.rename(out.with_name("result.mp4"))
    if FAULT == "link":
        out.rename(out.with_name("result.mp4"))
        out.symlink_to("result.mp4")
    if FAULT == "two":
        out.with_name("another.mp4").write_bytes(data)
    if FAULT == "leaves_a_child":
        subprocess.Popen(["bash", "-c", f"sleep 1; echo late > '{out}'; sleep 600"])
    if FAULT == "hangs_with_result":
        print(f"saved to {out}", flush=True)
        time.sleep(600)


def main() -> None:
    given = arguments()
    out = Path(given.save_file) if given.save_file else Path(given.save_dir) / f"{Path(given.clip).stem}_result.mp4"
    before(given, out)
    for step in range(3):
        print(f"\rstep {step + 1}/3", end="", file=sys.stderr, flush=True)
        if FAULT == "falls_silent" and step == 1:
            time.sleep(600)
    frames, fps = disturbed(moving(given.frames, given.height, given.width, given.seed), given.fps)
    write(out, frames, fps)
    after(out, out.read_bytes())


if __name__ == "__main__":
    main()
