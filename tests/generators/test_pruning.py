"""Networks without the parts that nobody reads."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from generators import weights
from generators.poses.pruning import pruned

Outputs = dict[tuple[int, ...], bytes]


def answer(network: bytes) -> tuple[Outputs, int]:
    """Every output's bytes by its shape, and how many operators run."""
    interpreter = Interpreter(model_content=network)
    operators = len(interpreter._get_ops_details())
    interpreter.allocate_tensors()
    picture = np.random.default_rng(5).random((1, 256, 256, 3), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    return {tuple(d["shape"].tolist()): interpreter.get_tensor(d["index"]).tobytes() for d in interpreter.get_output_details()}, operators


@pytest.mark.parametrize("kept", [{(1, 195)}, {(1, 195), (1, 117), (1, 1)}, {(1, 256, 256, 1), (1, 1)}])
def test_what_is_left_computes_the_same_bytes(kept: set[tuple[int, ...]]) -> None:
    whole = weights.path_of("pose_landmark").read_bytes()
    everything, all_operators = answer(whole)
    left, operators = answer(pruned(whole, kept))
    assert left == {shape: everything[shape] for shape in kept}
    assert operators < all_operators
