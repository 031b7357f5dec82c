"""A stand-in for MoCha's package: the same classes, arguments and shapes, as its published script uses them. It paints a square over the
masked part of the source, in the reference's mean colour, and moves it along."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
import faults


class ModelManager:
    def __init__(self, torch_dtype: torch.dtype, device: str) -> None:
        assert (torch_dtype, device) == (torch.bfloat16, "cpu")
        self.paths: list[object] = []

    def load_models(self, paths: list[object]) -> None:
        assert isinstance(paths[0], list)
        assert all(Path(str(path)).is_file() for path in (*paths[0], *paths[1:]))
        self.paths = paths


class WanVideoMoChaPipeline:
    def __init__(self) -> None:
        self.dit = torch.nn.Linear(2, 2)

    @staticmethod
    def from_model_manager(manager: ModelManager, torch_dtype: object = None, device: str | None = None) -> WanVideoMoChaPipeline:
        assert len(manager.paths) == 3
        if os.environ.get("STANDIN_FAULT") == "never_loads":
            faults.process("hangs_at_once")
        with open(os.environ["STANDIN_STARTS"], "a") as starts:
            starts.write("loaded\n")
        return WanVideoMoChaPipeline()

    def to(self, device: object = None, dtype: object = None) -> WanVideoMoChaPipeline:
        return self

    def __call__(
        self, prompt: str, negative_prompt: str, source_video: torch.Tensor, source_mask: torch.Tensor, first_ref: torch.Tensor,
        second_ref: torch.Tensor | None, seed: int, height: int, width: int, num_frames: int, cfg_scale: float, num_inference_steps: int,
        sigma_shift: float, tiled: bool,
    ) -> list[Image.Image]:  # fmt: skip
        assert source_video.shape == (1, 3, num_frames, height, width), "the noise would have another length"
        assert num_frames % 4 == 1
        assert source_mask.shape == (1, 16, 1, height // 8, width // 8)
        assert set(source_mask.unique().tolist()) <= {-1.0, 1.0}
        assert all(ref.shape == (1, 3, 1, height, width) for ref in (first_ref, second_ref) if ref is not None)
        assert (cfg_scale, num_inference_steps, sigma_shift, tiled) == (5.0, 6, 5.0, True)
        with open(os.environ["STANDIN_STARTS"], "a") as starts:
            starts.write(f"{seed} {num_frames} {second_ref is not None} {prompt!r}\n")
        what = faults.fault()
        if what == "raises_oom":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if what == "cublas":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        if what == "raises":
            raise RuntimeError("shapes do not match")
        if what == "stops":
            os.kill(os.getpid(), 19)
        if what == "full":
            raise OSError(28, "No space left on device")
        faults.process(what)
        frames = self._painted(source_video, source_mask, first_ref)
        frames, _ = faults.disturbed(frames, 30.0, what)
        if what == "empty_list":
            frames = frames[:0]
        if what in ("nothing", "half", "empty"):
            _lose(what)
        return [Image.fromarray(frame) for frame in frames]

    def _painted(self, source: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
        frames = ((source[0].permute(1, 2, 3, 0).numpy() + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        inside = np.kron(mask[0, 0, 0].numpy() > 0, np.ones((8, 8), bool))
        colour = ((reference[0].numpy() + 1) * 127.5).mean(axis=(1, 2, 3)).astype(np.uint8)
        for t in range(len(frames)):
            frames[t][np.roll(inside, 2 * t, axis=1)] = colour
        return frames


def _lose(what: str) -> None:
    """A disk that loses what was written."""
    replace = os.replace

    def losing(part: str, out: str) -> None:
        os.replace = replace
        data = Path(part).read_bytes()
        if what != "nothing":
            Path(part).write_bytes(data[: len(data) // 2] if what == "half" else b"")
            replace(part, out)

    os.replace = losing
