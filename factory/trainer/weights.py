"""Published weights in and out: SCAIL-2's names and ComfyUI's prefixes, diffusers' names, and Wan2.1-I2V-14B as the start of training.

    weights = open_weights("Wan2.1-I2V-14B-720P")    # a .safetensors file, or a folder with one or many
    load(model, weights)                             # also into a model that is sharded over ranks: each keeps its own part
    save(model_state, "scail2.safetensors")          # SCAIL-2's names

Nothing is held in memory but the tensor that is being copied.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from factory.trainer.model import MARKED_CHANNELS
from manifests.errors import BadInput, Damaged

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.", "module.")
"""that other programs put before the names, ComfyUI's first"""
RENAMED: tuple[tuple[str, str], ...] = (
    ("time_embedding.0.", "condition_embedder.time_embedder.linear_1."),
    ("time_embedding.2.", "condition_embedder.time_embedder.linear_2."),
    ("time_projection.1.", "condition_embedder.time_proj."),
    ("text_embedding.0.", "condition_embedder.text_embedder.linear_1."),
    ("text_embedding.2.", "condition_embedder.text_embedder.linear_2."),
    ("img_emb.proj.0.", "condition_embedder.image_embedder.norm1."),
    ("img_emb.proj.1.", "condition_embedder.image_embedder.ff.net.0.proj."),
    ("img_emb.proj.3.", "condition_embedder.image_embedder.ff.net.2."),
    ("img_emb.proj.4.", "condition_embedder.image_embedder.norm2."),
    ("head.head.", "proj_out."),
    ("head.modulation", "scale_shift_table"),
)
"""published beginning of a name, ours; outside the blocks"""
RENAMED_IN_BLOCKS: tuple[tuple[str, str], ...] = (
    *((f"{theirs}.{a}.", f"{ours}.{b}.")
      for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
      for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"), ("norm_q", "norm_q"), ("norm_k", "norm_k"),
                   ("k_img", "add_k_proj"), ("v_img", "add_v_proj"), ("norm_k_img", "norm_added_k"))),
    ("norm3.", "norm2."),
    ("ffn.0.", "ffn.net.0.proj."),
    ("ffn.2.", "ffn.net.2."),
    ("modulation", "scale_shift_table"),
)  # fmt: skip
"""the same inside blocks.N"""
BLOCK = re.compile(r"(blocks\.\d+\.)(.*)")
VIDEO, POSE, MASK = "patch_embedding.", "patch_embedding_pose.", "patch_embedding_mask."
PUBLISHED_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
TOLD = 3
"""names that a message tells at most"""


class Stored(NamedTuple):
    """A tensor that is read when it is needed."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def ours_of(name: str) -> str:
    """A published parameter's name in our model; prefixes and diffusers' own names are understood."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return _renamed(name, RENAMED, RENAMED_IN_BLOCKS)


def published_of(name: str) -> str:
    """The inverse: SCAIL-2's name of one of our parameters."""
    return _renamed(name, [(b, a) for a, b in RENAMED], [(b, a) for a, b in RENAMED_IN_BLOCKS])


def _renamed(name: str, outside: Iterable[tuple[str, str]], inside: Iterable[tuple[str, str]]) -> str:
    block = BLOCK.fullmatch(name)
    start, rest = block.groups() if block else ("", name)
    for before, after in inside if block else outside:
        if rest.startswith(before):
            return start + after + rest[len(before) :]
    return name


def open_weights(place: str | Path) -> dict[str, Stored]:
    """Our name → tensor. Raises BadInput for a place without weights, Damaged for files that can't be read."""
    found: dict[str, Stored] = {}
    for file in _files(Path(place).expanduser()):
        for name, stored in _stored(file).items():
            ours = ours_of(name)
            if ours in found:
                raise BadInput(f"{place} has {ours} twice, also as {name} in {file.name}; give the files of one model")
            found[ours] = stored
    return found


def load(model: nn.Module, weights: Mapping[str, Stored]) -> list[str]:
    """Copy weights into a model. Returns lines that say what was made of Wan2.1's image-to-video model, where it is one.

    Raises BadInput in one line when names or shapes do not fit; the model is unchanged then.
    """
    there = {plain_name(name): p for name, p in model.named_parameters() if ".lora_" not in name}
    weights, told = _as_scail2(dict(weights), there)
    missing, unknown = sorted(there.keys() - weights.keys()), sorted(weights.keys() - there.keys())
    if missing or unknown:
        parts = [f"{len(names)} {what} ({_some(names)})" for names, what in ((missing, "missing"), (unknown, "unknown")) if names]
        raise BadInput(f"the weights do not fit this model: parameters {' and '.join(parts)}; give weights of its size", "wrong_weights")
    for name, parameter in there.items():
        if weights[name].shape != tuple(parameter.shape):
            sizes = f"{name} is {weights[name].shape}, expected {tuple(parameter.shape)}"
            raise BadInput(f"the weights do not fit this model: {sizes}; give weights of its size", "wrong_weights")
    with torch.no_grad():
        for name, parameter in there.items():
            copy_into(parameter, weights[name].read())
    return told


def plain_name(name: str) -> str:
    """A parameter's name without what checkpointing and adapters put into it."""
    return name.replace("_checkpoint_wrapped_module.", "").replace(".base_layer.", ".")


def copy_into(parameter: Tensor, whole: Tensor) -> None:
    """Copy a tensor into a parameter, or into this rank's part of one that is sharded."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if not isinstance(parameter, DTensor):
        parameter.copy_(whole)
        return
    shape, offset = compute_local_shape_and_global_offset(whole.shape, parameter.device_mesh, parameter.placements)
    parameter.to_local().copy_(whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))])


def save(state: Mapping[str, Tensor], file: str | Path, dtype: str = "bfloat16", metadata: Mapping[str, str] | None = None) -> None:
    """Write parameters under SCAIL-2's names as one .safetensors file."""
    from safetensors.torch import save_file

    as_type = PUBLISHED_DTYPES[dtype]
    out = {published_of(name): tensor.detach().to("cpu", as_type).contiguous() for name, tensor in state.items()}
    part = Path(file).with_name(f"{Path(file).name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    save_file(out, part, metadata={"format": "pt", **(metadata or {})})
    part.replace(file)


# --- Wan2.1 as the start of training


def _as_scail2(weights: dict[str, Stored], there: Mapping[str, Tensor]) -> tuple[dict[str, Stored], list[str]]:
    """Complete a model without driving videos and masks: its own latents and marks are the first 20 of its 36 input channels (a
    text-to-video model has 16, and marks begin at zero), the driving embedding begins as a copy of the video's, and masks begin at zero."""
    if any(name.startswith((POSE, MASK)) for name in weights) or f"{VIDEO}weight" not in weights or f"{POSE}weight" not in there:
        return weights, []
    shape, read = weights[f"{VIDEO}weight"]
    own = Stored((shape[0], MARKED_CHANNELS, *shape[2:]), lambda: _first_channels(read(), MARKED_CHANNELS))
    weights[f"{VIDEO}weight"] = weights[f"{POSE}weight"] = own
    if f"{VIDEO}bias" in weights:
        weights[f"{POSE}bias"] = weights[f"{VIDEO}bias"]
    for name in (f"{MASK}weight", f"{MASK}bias"):
        weights[name] = _zeros(tuple(there[name].shape))
    taken = f"the first {min(shape[1], MARKED_CHANNELS)} of {shape[1]} input channels"
    return weights, [f"start of training: {taken}, the driving embedding as a copy of them, masks at zero"]


def _first_channels(weight: Tensor, count: int) -> Tensor:
    missing = max(0, count - weight.shape[1])
    return torch.cat([weight[:, :count], weight.new_zeros(weight.shape[0], missing, *weight.shape[2:])], 1)


def _zeros(shape: tuple[int, ...]) -> Stored:
    return Stored(shape, lambda: torch.zeros(shape))


# --- files


def _files(place: Path) -> list[Path]:
    """The .safetensors files of a model, in the order of their names."""
    if place.is_file():
        found = [place]
    else:
        folder = next((place / part for part in ("transformer", "") if any((place / part).glob("*.safetensors"))), place)
        found = sorted(folder.glob("*.safetensors"))
    if not found or any(file.suffix != ".safetensors" for file in found):
        raise BadInput(f"{place} holds no weights; give a .safetensors file, or a folder with the files of one model", "no_weights")
    return found


def _stored(file: Path) -> dict[str, Stored]:
    """A file's tensors under its own names."""
    with _opened(file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        quantised = [name for name, part in slices.items() if part.get_dtype().startswith(("F8", "I8", "U8")) or "scale_weight" in name]
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    if quantised:
        raise BadInput(f"{file} is quantised ({_some(quantised)}); give weights in bfloat16, float16 or float32", "wrong_weights")
    return {name: Stored(shape, functools.partial(_read, file, name)) for name, shape in shapes.items()}


def _read(file: Path, name: str) -> Tensor:
    with _opened(file) as opened:
        tensor: Tensor = opened.get_tensor(name)
    return tensor


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{file} can't be read ({error}); fetch it again") from None


def _some(names: list[str]) -> str:
    return ", ".join(names[:TOLD]) + (", …" if len(names) > TOLD else "")
