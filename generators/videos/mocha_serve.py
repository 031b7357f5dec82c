"""MoCha's side of `generators/videos/mocha.py`, run by `generators/workers/child.py` in MoCha's own environment: Python 3.10, its
repository, torch and NumPy, nothing of this project.

It does what the published script does, with checkpoints from the message instead of from its text, and always with the true number of
frames: noise of another length than the source runs without an error and spoils the result. Pictures come and go as raw bytes, so nothing
is coded on the way and no rate is written. Names of error classes say what the owner is to do.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

held: dict[str, Any] = {}
SCALE = 8
"""pixels of a cell of the latent, in which the mask is given"""
CHANNELS = 16
"""of the latent: the mask is repeated for each"""


class Transient(Exception):
    """Another machine may have it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def load(message: dict[str, Any]) -> dict[str, Any]:
    """Load the pipeline. `repo`, `wan` (folder of Wan2.1-T2V-14B), `checkpoint`, `device`."""
    sys.path.insert(0, message["repo"])
    try:
        torch, diffsynth = importlib.import_module("torch"), importlib.import_module("diffsynth")
    except ImportError as error:
        raise Transient(f"MoCha can't be imported from {message['repo']}: {error}", "no_library") from error
    wan = Path(message["wan"])
    shards = sorted(map(str, wan.glob("diffusion_pytorch_model*.safetensors")))
    others = [wan / "models_t5_umt5-xxl-enc-bf16.pth", wan / "Wan2.1_VAE.pth"]
    absent = [str(path) for path in (*others, Path(message["checkpoint"])) if not path.is_file()]
    if absent or not shards:
        raise Transient(f"not on this machine: {', '.join(absent) or f'{wan}/diffusion_pytorch_model*.safetensors'}", "no_weights")
    manager = diffsynth.ModelManager(torch_dtype=torch.bfloat16, device="cpu")
    manager.load_models([shards, *map(str, others)])
    pipe = diffsynth.WanVideoMoChaPipeline.from_model_manager(manager, device=message["device"])
    pipe.dit.load_state_dict(torch.load(message["checkpoint"], map_location="cpu", weights_only=True), strict=True)
    pipe.to(message["device"])
    pipe.to(dtype=torch.bfloat16)
    held["pipe"] = pipe
    return {}


def handle(message: dict[str, Any]) -> dict[str, Any]:
    """One character replaced. Files hold bytes, RGB: `source` T×H×W×3, `first` and `second` (may be null) H×W×3, `mask` H×W. Writes `out`
    like `source`; answers with its shape."""
    import numpy as np

    frames, height, width = message["shape"]
    second = message.get("second")
    try:
        made = held["pipe"](
            prompt=message["prompt"], negative_prompt=message["negative"], source_video=_video(message["source"], frames, height, width),
            source_mask=_mask(message["mask"], height, width), first_ref=_video(message["first"], 1, height, width),
            second_ref=_video(second, 1, height, width) if second else None, seed=message["seed"], height=height, width=width,
            num_frames=frames, cfg_scale=message["guidance"], num_inference_steps=message["steps"], sigma_shift=message["shift"],
            tiled=True,
        )  # fmt: skip
    except RuntimeError as error:
        if "out of memory" in str(error) or "ALLOC_FAILED" in str(error):  # cuBLAS and cuDNN have no class for it
            raise MemoryError(str(error)) from error
        raise
    pictures = np.stack([np.asarray(picture.convert("RGB"), np.uint8) for picture in made])
    part = f"{message['out']}.part"
    with open(part, "wb") as file:
        file.write(pictures.tobytes())
    os.replace(part, message["out"])
    return {"shape": list(pictures.shape)}


def _video(path: str, frames: int, height: int, width: int) -> Any:
    """1×3×T×H×W, from -1 to 1."""
    import numpy as np
    import torch

    pixels = np.fromfile(path, np.uint8).reshape(frames, height, width, 3)
    return torch.from_numpy(pixels.transpose(3, 0, 1, 2).astype(np.float32) / 127.5 - 1.0)[None]


def _mask(path: str, height: int, width: int) -> Any:
    """1×16×1×h×w in the latent's cells: 1 where most of a cell is white, else -1."""
    import numpy as np
    import torch

    white = np.fromfile(path, np.uint8).reshape(height // SCALE, SCALE, width // SCALE, SCALE).mean(axis=(1, 3)) > 127.5
    cells = np.where(white, np.float32(1), np.float32(-1))
    return torch.from_numpy(np.repeat(cells[None, None, None], CHANNELS, axis=1))
