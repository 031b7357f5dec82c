"""Make the registry's torchvision importable beside a CPU build of torch.

It is linked against CUDA; beside a CPU torch its compiled part does not load, and then its import fails because two operators are not
there, which takes transformers and diffusers with it. Nothing that we use needs the two; declared by name only, they are enough.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_libraries: list[Any] = []


def declare_operators() -> None:
    """Declare what torchvision's Python part wants to find."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is first imported, and not before: torch takes two seconds to import."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision" and not _libraries:
            import torch

            if not torch.backends.cuda.is_built():
                declare_operators()
        return None


def install() -> None:
    """Does nothing where torchvision or torch are absent."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())
