"""VMAF, by the libvmaf inside imageio-ffmpeg's ffmpeg."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg

from factory.evaluation.metrics import VMAF, Seen, Values
from manifests.errors import MotionpairError
from manifests.media import Frames

MODEL = "vmaf_v0.6.1"
LOG = "vmaf.json"


class VmafMeter:
    """Netflix's model for 1080p television, at the truth's size and without scaling; the mean over the frames."""

    metrics = (VMAF,)
    needs_truth = True

    def lacking(self) -> str:
        return "" if _has_libvmaf() else "the ffmpeg of imageio-ffmpeg has no libvmaf; install another version of it"

    def measure(self, seen: Seen) -> Values:
        return {"vmaf": vmaf(seen.pair.generated_THWC, seen.pair.truth_THWC, seen.pair.fps)}


@functools.cache
def _has_libvmaf() -> bool:
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    return " libvmaf " in done.stdout


def vmaf(made_THWC: Frames, true_THWC: Frames, fps: float) -> float:
    """Mean VMAF of `made_THWC` against `true_THWC`, 0 to 100. Frames go through yuv420p (BT.709), as VMAF was trained on it.

    Raises MotionpairError("vmaf_failed") with ffmpeg's last line.
    """
    height, width = made_THWC.shape[1:3]
    with tempfile.TemporaryDirectory(prefix="motionpair-vmaf-") as folder:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "error"]
        for name, frames_THWC in (("made.rgb", made_THWC), ("true.rgb", true_THWC)):
            frames_THWC.tofile(Path(folder) / name)
            command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", name]
        to_yuv = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+bitexact,format=yuv420p"
        graph = f"[0:v]{to_yuv}[a];[1:v]{to_yuv}[b];[a][b]libvmaf=model=version={MODEL}:log_fmt=json:log_path={LOG}:n_threads=1"
        done = subprocess.run(
            [*command, "-lavfi", graph, "-f", "null", "-"], cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        log = Path(folder) / LOG
        if done.returncode or not log.exists():
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise MotionpairError(f"ffmpeg could not compute VMAF: {last}", "vmaf_failed")
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])
