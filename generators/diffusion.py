"""What the adapters of diffusers' pipelines share: options, loading, seeds, and arrays in and out.

Nothing here imports torch or diffusers before a pipeline is loaded.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from generators.base import Capabilities, Options
from manifests.errors import BadOutput, Transient
from manifests.media import Frames, Image

EXTRA = "pip install 'motionpair[diffusers]'"
END_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)


class DiffusionOptions(Options):
    """What all diffusers adapters let a recipe set."""

    weights: str
    """`hf:OWNER/NAME` (a repository of the hub, or of its local cache) or `file:FOLDER`: what `from_pretrained` takes"""
    revision: str = ""
    """branch, tag or commit of the repository; a commit makes the step key say exactly which weights"""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    device: str = Field(default="cuda", pattern=r"^(cpu|cuda(:\d+)?|mps|xpu)$")
    offload: Literal["none", "model", "layers"] = "none"
    """keep what is not in use in the machine's memory: whole models, or single layers (slow)"""


REQUIRES = ("torch", "diffusers", "transformers", "accelerate")


def without_gpu(can: Capabilities, options: Options) -> Capabilities:
    """Whoever sets `device: cpu` needs no GPU."""
    on_cpu = isinstance(options, DiffusionOptions) and options.device == "cpu"
    return can.model_copy(update={"gpus": 0.0}) if on_cpu else can


def keyed(options: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's options as they enter the step key: a folder of weights counts by what lies in it, where it is on this machine."""
    source = str(options.get("weights", ""))
    folder = Path(source.removeprefix("file:")).expanduser()
    if not source.startswith("file:") or not folder.is_dir():
        return dict(options)
    return {**options, "weights": f"sha256:{fingerprint(folder)}"}


def fingerprint(folder: Path) -> str:
    """A digest of weights in a folder (or one file): names and sizes of all files, the whole of small ones, both ends of large ones.

    Reading all of 60 GB would take minutes each time a plan is made; weights of the same size that differ only in the middle do not occur.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as f:
            digest.update(f.read(END_BYTES))
            f.seek(max(END_BYTES, size - END_BYTES))
            digest.update(f.read(END_BYTES))
    return digest.hexdigest()


def load(pipeline: str, options: DiffusionOptions, kept_in_float32: tuple[str, ...] = ()) -> Any:
    """The diffusers pipeline of this class, on its device.

    Raises Transient when the libraries or the weights can't be had here: another machine, or this one later, may have them.
    """
    torch, diffusers = library("torch"), library("diffusers")
    dtype = getattr(torch, options.dtype)
    try:
        made = getattr(library("diffusers"), pipeline)
    except (ImportError, RuntimeError, AttributeError) as e:
        raise Transient(f"diffusers {diffusers.__version__} can't give {pipeline}: {_first_line(e)} Mend it: {EXTRA}", "no_library") from e
    source = options.weights
    if source.startswith("file:") and not (Path(source[5:]).expanduser() / "model_index.json").is_file():
        raise Transient(f"{source}: no folder with a model_index.json here; give one that `save_pretrained` wrote", "no_weights")
    try:
        pipe = made.from_pretrained(
            str(Path(source[5:]).expanduser()) if source.startswith("file:") else source.removeprefix("hf:"),
            revision=options.revision or None,
            dtype={"default": dtype, **dict.fromkeys(kept_in_float32, torch.float32)},
        )
    except OSError as e:
        if e.errno in FULL:
            raise
        raise Transient(f"{source} can't be loaded: {_first_line(e)} Check its name, the network and `hf auth login`", "no_weights") from e
    pipe.set_progress_bar_config(disable=True)
    if options.offload == "none":
        pipe.to(options.device)
    else:
        {"model": pipe.enable_model_cpu_offload, "layers": pipe.enable_sequential_cpu_offload}[options.offload](device=options.device)
    return pipe


def library(name: str) -> Any:
    """An imported library. Raises Transient when it is not installed on this machine."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise Transient(f"{name} is not installed here: {EXTRA}", "no_library") from e


def _first_line(error: Exception) -> str:
    """One line, as errors are printed."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def seeded(seed: int) -> Any:
    """torch's generator of random numbers. It is the CPU's, so a seed means the same noise on any device."""
    return library("torch").Generator(device="cpu").manual_seed(seed % 2**63)


def to_pil(frames_THWC: Iterable[Image]) -> list[Any]:
    """Frames or pictures (RGB) as PIL images, which is what pipelines take."""
    image = library("PIL.Image")
    return [image.fromarray(np.ascontiguousarray(frame)) for frame in frames_THWC]


def to_bytes(made: npt.NDArray[np.floating[Any]], shape: tuple[int, ...], name: str) -> Frames | Image:
    """A pipeline's answer (0 to 1) as uint8. Raises BadOutput when it has another shape or holds what is no number."""
    if made.shape != shape:
        raise BadOutput(f"{name} gave an array of {made.shape}, asked was {shape}", "bad_shape")
    if not np.isfinite(made).all():
        raise BadOutput(f"{name} gave values that are no numbers; try dtype: bfloat16 or float32", "not_finite")
    return np.asarray(np.round(np.clip(made, 0, 1) * 255), np.uint8)
