"""The parts of diffusers that the model is made of."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def wan() -> ModuleType:
    """diffusers' module of Wan's transformer: WanTransformerBlock, WanTimeTextImageEmbedding, FP32LayerNorm."""
    hide_broken_torchvision()
    return importlib.import_module("diffusers.models.transformers.transformer_wan")


def hide_broken_torchvision() -> None:
    """A torchvision that was built for another torch than the installed one fails when it is imported, and takes transformers and
    diffusers with it. Nothing here needs it, so such a one counts as not installed."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except (RuntimeError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]
