"""ONNX files with the inputs and outputs of DWPose's two networks, made by hand: what they answer is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 640
POSE_WH = (288, 384)
CELLS = sum((SIDE // stride) ** 2 for stride in (8, 16, 32))


def _save(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], outputs: dict[str, tuple[int, ...]],
          side_hw: tuple[int, int]) -> Path:  # fmt: skip
    graph = helper.make_graph(
        nodes, "hand_made", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *side_hw])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def constant(path: Path, answers: dict[str, np.ndarray], side_hw: tuple[int, int]) -> Path:
    """Whatever the picture: its sum times zero is added, so that it is an input all the same."""
    nodes = [helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0), helper.make_node("Mul", ["sum", "zero"], ["nothing"])]
    nodes += [helper.make_node("Add", [f"{name}_said", "nothing"], [name]) for name in answers]
    constants = {f"{name}_said": value.astype(np.float32) for name, value in answers.items()} | {"zero": np.float32(0.0).reshape(())}
    return _save(path, nodes, constants, {name: value.shape for name, value in answers.items()}, side_hw)


def yolox_answer(boxes: Sequence[tuple[float, ...]], classes: int = 3) -> np.ndarray:
    """1×8400×(5 + classes): raw values that decode to (x0, y0, x1, y1, score, class) in pixels of the network's square."""
    out = np.zeros((1, CELLS, 5 + classes), np.float32)
    for x0, y0, x1, y1, score, kind in boxes:
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        row = int(y // 8) * (SIDE // 8) + int(x // 8)
        while out[0, row, 4]:  # taken by another box: a neighbour may say the same
            row += 1
        column, line = row % (SIDE // 8), row // (SIDE // 8)
        out[0, row, :4] = x / 8 - column, y / 8 - line, np.log((x1 - x0) / 8), np.log((y1 - y0) / 8)
        out[0, row, 4], out[0, row, 5 + int(kind)] = 1.0, score
    return out


def detector(path: Path, boxes: Sequence[tuple[float, ...]]) -> Path:
    """Always sees these."""
    return constant(path, {"output": yolox_answer(boxes)}, (SIDE, SIDE))


def blue_detector(path: Path, box: tuple[float, ...]) -> Path:
    """Sees a person in the box, as surely as the first channel is bright over the whole square."""
    said = yolox_answer([(*box, 1.0, 0)])
    scale = np.zeros_like(said)
    scale[..., 4] = said[..., 4]
    said[..., 4] = 0
    nodes = [
        helper.make_node("Slice", ["input", "from", "to", "axis"], ["first"]),
        helper.make_node("ReduceMean", ["first"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["share"]),
        helper.make_node("Mul", ["scale", "share"], ["sure"]),
        helper.make_node("Add", ["said", "sure"], ["output"]),
    ]
    constants = {
        "from": np.array([0]), "to": np.array([1]), "axis": np.array([1]),
        "full": np.float32(255).reshape(()), "said": said, "scale": scale,
    }  # fmt: skip
    return _save(path, nodes, constants, {"output": said.shape}, (SIDE, SIDE))


def simcc_answer(points_133x2: np.ndarray, scores_133: np.ndarray) -> dict[str, np.ndarray]:
    """Peaks at these places, in pixels of the network's picture."""
    out = {}
    for axis, (name, side) in enumerate(zip(("simcc_x", "simcc_y"), POSE_WH, strict=True)):
        rows = np.zeros((1, len(points_133x2), 2 * side), np.float32)
        at = np.clip(np.round(2 * points_133x2[:, axis]).astype(int), 0, 2 * side - 1)
        rows[0, np.arange(len(at)), at] = scores_133
        out[name] = rows
    return out


def pose(path: Path, points_133x2: np.ndarray, scores_133: np.ndarray) -> Path:
    """Always gives these points, in pixels of its own picture."""
    return constant(path, simcc_answer(points_133x2, scores_133), POSE_WH[::-1])


def brightest(path: Path) -> Path:
    """All 133 points lie where the first channel is brightest."""
    nodes = [helper.make_node("Slice", ["input", "from", "to", "axis"], ["first"])]
    for name, along in (("x", 2), ("y", 3)):
        nodes += [
            helper.make_node("ReduceMax", ["first"], [f"{name}_most"], axes=[along], keepdims=0),
            helper.make_node(
                "Resize",
                [f"{name}_most", "", f"{name}_twice"],
                [f"{name}_fine"],
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            ),
            helper.make_node("Expand", [f"{name}_fine", f"{name}_shape"], [f"simcc_{name}"]),
        ]
    constants = {
        "from": np.array([0]), "to": np.array([1]), "axis": np.array([1]),
        "x_twice": np.array([1, 1, 2], np.float32),
        "y_twice": np.array([1, 1, 2], np.float32),
        "x_shape": np.array([1, 133, 2 * POSE_WH[0]]), "y_shape": np.array([1, 133, 2 * POSE_WH[1]]),
    }  # fmt: skip
    shapes = {"simcc_x": (1, 133, 2 * POSE_WH[0]), "simcc_y": (1, 133, 2 * POSE_WH[1])}
    return _save(path, nodes, constants, shapes, POSE_WH[::-1])
