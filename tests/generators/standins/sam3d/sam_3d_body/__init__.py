"""A stand-in for SAM 3D Body's package: the two names that its demo uses, with their arguments and answers. It looks at boxes and lens: in
each box stands the same figure, 1.75 m tall, as an egg with 70 points. The file STANDIN_FAULT_FILE says what it does wrong."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

TALL_M = 1.75


def egg(rings: int = 24, around: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (metres around the middle) and triangles of a closed surface."""
    polar = np.linspace(0, np.pi, rings + 1)[:, None]
    turn = np.linspace(0, 2 * np.pi, around, endpoint=False)[None]
    unit = np.stack([np.sin(polar) * np.cos(turn), -np.cos(polar) * np.ones_like(turn), np.sin(polar) * np.sin(turn)], axis=-1)
    vertices = (unit * [0.25, TALL_M / 2, 0.15]).reshape(-1, 3)
    faces = []
    for ring in range(rings):
        for k in range(around):
            a, b = ring * around + k, ring * around + (k + 1) % around
            faces += [(a, b, a + around), (b, b + around, a + around)]
    return vertices, np.array(faces)


HEIGHTS_M = {0: -0.6, 1: -0.63, 3: -0.61, 5: -0.5, 7: -0.3, 9: -0.05, 11: 0.38, 13: 0.74, 15: 0.8, 17: 0.8}
"""of a standing figure's nose, eyes, ears, shoulders, elbows, hips, knees, ankles, toes and heels, downwards from the hips"""


def points() -> np.ndarray:
    """70 places of a standing figure with its arms at its sides, all different; its left is at the picture's right."""
    k = np.arange(70.0)
    out = np.stack([0.1 + 0.0005 * k, -0.05 + 0.002 * k, -0.01 * (k % 3)], axis=1)
    out[21:42, 0] *= -1
    for first, y in HEIGHTS_M.items():
        out[first : first + 3, 1] = y
        out[first : first + 2, 0] = (0.04, -0.04) if first in (1, 3, 11, 13) else (0.12, -0.12)
    out[0, 0], out[15:18, 0], out[18:21] = 0.0, 0.05, out[15:18] * [-1, 1, 1]
    return out


def place_in(box: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Where the figure stands so that it fills the box from top to bottom."""
    z = lens[0, 0] * TALL_M / (box[3] - box[1])
    middle = (box[:2] + box[2:]) / 2
    return np.array([(middle[0] - lens[0, 2]) * z / lens[0, 0], (middle[1] - lens[1, 2]) * z / lens[1, 1], z])


def load_sam_3d_body(checkpoint_path: str = "", device: str = "cuda", mhr_path: str = "") -> tuple[Any, Any]:
    assert Path(checkpoint_path).is_file()
    assert Path(mhr_path).is_file()
    return {"device": device}, {}


class SAM3DBodyEstimator:
    def __init__(self, sam_3d_body_model: Any, model_cfg: Any, human_detector: Any = None, human_segmentor: Any = None,
                 fov_estimator: Any = None) -> None:  # fmt: skip
        self.faces = egg()[1]

    def process_one_image(self, img: np.ndarray, bboxes: Any = None, masks: Any = None, cam_int: Any = None,
                          inference_type: str = "full") -> list[dict[str, Any]]:  # fmt: skip
        assert img.dtype == np.uint8
        assert img.ndim == 3
        assert masks is None or masks.shape == (len(bboxes), *img.shape[:2])
        lens = cam_int.numpy()[0]
        print("Running inference ...")
        fault = Path(os.environ["STANDIN_FAULT_FILE"]).read_text()
        if fault == "hangs":
            time.sleep(3600)
        if fault == "dies":
            os._exit(9)
        if fault == "killed":
            os.kill(os.getpid(), 9)
        if fault == "oom":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if fault == "raises":
            raise KeyError("img_ori")
        out = []
        for box in bboxes if fault != "few" else bboxes[:0]:
            focal = lens[0, 0] * (2.0 if fault == "other_lens" else 1.0)
            other = lens * np.array([[2.0, 1, 1], [1, 2.0, 1], [1, 1, 1]]) if fault == "other_lens" else lens
            vertices, keys, at = egg()[0], points(), place_in(np.asarray(box, float), other)
            if fault == "nan":
                vertices = vertices * np.nan
            if fault == "shape":
                keys = keys[:17]
            if fault == "behind":
                at = -at
            out.append(
                {"bbox": box, "focal_length": np.float32(focal), "pred_vertices": vertices, "pred_cam_t": at, "pred_keypoints_3d": keys}
            )
        sys.stdout.flush()
        return out
