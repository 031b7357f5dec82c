"""SAM 3D Body's side of `generators/poses/sam3d_body.py`, run by `generators/workers/child.py` in SAM 3D Body's own environment: its
repository, torch and NumPy, nothing of this project.

It asks the published estimator as its demo does, but with the people's boxes, masks and the lens from the message, so that no detector,
segmenter or estimator of the field of view is wanted. Names of error classes say what the owner is to do.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

held: dict[str, Any] = {}


class Transient(Exception):
    """Another machine may have it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def load(message: dict[str, Any]) -> dict[str, Any]:
    """Load the estimator. `repo`, `checkpoint` (model.ckpt), `mhr` (mhr_model.pt), `device`."""
    absent = [message[name] for name in ("checkpoint", "mhr") if not Path(message[name]).is_file()]
    if absent:
        raise Transient(f"not on this machine: {', '.join(absent)}", "no_weights")
    if message["repo"]:
        sys.path.insert(0, message["repo"])
    try:
        package = importlib.import_module("sam_3d_body")
    except ImportError as error:
        raise Transient(f"SAM 3D Body can't be imported from {message['repo'] or 'its environment'}: {error}", "no_library") from error
    model, settings = package.load_sam_3d_body(message["checkpoint"], device=message["device"], mhr_path=message["mhr"])
    held["estimator"] = package.SAM3DBodyEstimator(sam_3d_body_model=model, model_cfg=settings)
    return {}


def handle(message: dict[str, Any]) -> dict[str, Any]:
    """Everybody's body in each frame. `frames`, `masks`: files of bytes, T×H×W×3 RGB and N×H×W (or null); `shape`: [T, H, W]; `boxes`: for
    each frame a list of x0, y0, x1, y1, N in all; `focal`: of the lens, pixels. Writes `out`, an .npz with a row for each box: `vertices`,
    `places` (added to them and to the key points they are in the camera's space), `focals`, `points`; and `faces`."""
    import numpy as np
    import torch

    count, height, width = message["shape"]
    frames = np.fromfile(message["frames"], np.uint8).reshape(count, height, width, 3)
    masks = np.fromfile(message["masks"], np.uint8).reshape(-1, height, width) if message["masks"] else None
    lens = torch.tensor([[[message["focal"], 0.0, width / 2], [0.0, message["focal"], height / 2], [0.0, 0.0, 1.0]]])
    found: list[dict[str, Any]] = []
    row = 0
    try:
        for frame, boxes in zip(frames, message["boxes"], strict=True):
            if not boxes:
                continue
            here = masks[row : row + len(boxes)] if masks is not None else None
            said = held["estimator"].process_one_image(frame, bboxes=np.array(boxes, np.float32), masks=here, cam_int=lens)
            if len(said) != len(boxes):
                raise ValueError(f"SAM 3D Body answered for {len(said)} of {len(boxes)} boxes")
            found += said
            row += len(boxes)
    except RuntimeError as error:
        if "out of memory" in str(error) or "ALLOC_FAILED" in str(error):  # cuBLAS and cuDNN have no class for it
            raise MemoryError(str(error)) from error
        raise
    names = {"vertices": "pred_vertices", "places": "pred_cam_t", "focals": "focal_length", "points": "pred_keypoints_3d"}
    arrays: dict[str, Any] = {name: np.stack([np.asarray(one[key], np.float32) for one in found]) for name, key in names.items() if found}
    part = f"{message['out']}.part"
    with open(part, "wb") as file:
        np.savez(file, faces=np.asarray(held["estimator"].faces, np.int32), **arrays)
    os.replace(part, message["out"])
    return {"bodies": len(found)}
