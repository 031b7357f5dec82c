"""Checkpoints by torch's distributed format: each rank writes its parts, and any number of ranks can read them.

OUT/checkpoints/00000250/    .metadata is written last: a folder without it is one that was interrupted, and is not looked at
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from manifests.errors import BadInput, Damaged

METADATA, ABOUT = ".metadata", "about.json"


class Ema:
    """A running mean of the weights that are trained, in float32 and sharded as they are."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.mean = {name: p.detach().clone() for name, p in get_model_state_dict(model, options=_options(model)).items()}

    def update(self, model: nn.Module) -> None:
        """After an optimizer step."""
        now = get_model_state_dict(model, options=_options(model))
        for name, mean in self.mean.items():
            mean.lerp_(now[name].detach(), 1 - self.decay)


def _options(model: nn.Module) -> StateDictOptions:
    """With adapters, only they are state."""
    return StateDictOptions(ignore_frozen_params=any(not p.requires_grad for p in model.parameters()), strict=False)


class Checkpoints:
    """Those of one run, in a folder."""

    def __init__(self, folder: Path, keep: int, background: bool, first_rank: bool) -> None:
        self.folder, self._keep, self._background, self._first = folder, keep, background, first_rank
        self._group = dist.new_group(backend="gloo") if background else None  # its messages must not mix with training's
        self._writing: Any = None

    def newest(self) -> Path | None:
        """The last complete one."""
        return max((p.parent for p in self.folder.glob(f"*/{METADATA}") if p.parent.name.isdecimal()), default=None)

    def save(
        self, model: nn.Module, optimizer: Any, ema: Ema | None, stream: Mapping[str, Any], step: int, about: Mapping[str, Any]
    ) -> None:
        """Write, or begin to. Waits for the one before."""
        self.wait()
        target = self.folder / f"{step:08d}"
        if self._first:
            target.mkdir(parents=True, exist_ok=True)
            (target / ABOUT).write_text(json.dumps({**about, "step": step, "stream": dict(stream)}))
        dist.barrier()
        state = _state(model, optimizer, ema)
        if self._background:
            self._writing = dcp.async_save(_held(state), checkpoint_id=target, process_group=self._group)
        else:
            dcp.save(state, checkpoint_id=target)
            self._prune()

    def wait(self) -> None:
        """Until what is being written is there."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None
            self._prune()

    def load(self, folder: Path, model: nn.Module, optimizer: Any, ema: Ema | None, about: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """The step and the stream's state. Raises BadInput for a checkpoint of another model, Damaged for one that can't be read."""
        said = about_of(folder)
        other = [f"{name} {said.get(name)!r}, now {value!r}" for name, value in about.items() if said.get(name) != value]
        if other:
            raise BadInput(f"{folder} was trained with {'; '.join(other)}; go on with what it says, or in another folder")
        state = _state(model, optimizer, ema)
        dcp.load(state, checkpoint_id=folder)
        set_model_state_dict(model, state["model"], options=_options(model))
        set_optimizer_state_dict(model, optimizer, state["optimizer"], options=_options(model))
        if ema is not None:
            ema.mean = state["ema"]
        return said["step"], said["stream"]

    def _prune(self) -> None:
        if not self._first:
            return
        complete = sorted(p.parent for p in self.folder.glob(f"*/{METADATA}"))
        for old in complete[: -self._keep]:
            shutil.rmtree(old)


def about_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about itself: step, stream, model, objective."""
    try:
        said: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{folder / ABOUT} can't be read ({error}); take an earlier checkpoint") from None
    return said


def load_model(folder: Path, model: nn.Module, ema: bool = False) -> None:
    """The weights alone, into a model that is not sharded; `ema`: their running mean."""
    name = "ema" if ema else "model"
    state = {name: get_model_state_dict(model)}
    with warnings.catch_warnings():  # that nobody else reads along
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(state, checkpoint_id=folder, no_dist=True)
    set_model_state_dict(model, state[name])


def _state(model: nn.Module, optimizer: Any, ema: Ema | None) -> dict[str, Any]:
    options = _options(model)
    state = {
        "model": get_model_state_dict(model, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }
    return state | ({"ema": ema.mean} if ema is not None else {})


def _held(state: Any) -> Any:
    """The state as it is now. Tensors on a GPU are copied by `async_save`; on a CPU it would write what training goes on to change."""
    if isinstance(state, Tensor):
        return state.detach().clone() if state.device.type == "cpu" else state
    if isinstance(state, Mapping):
        return {name: _held(value) for name, value in state.items()}
    return [_held(value) for value in state] if isinstance(state, list | tuple) else state


def gathered(model: nn.Module) -> dict[str, Tensor]:
    """The whole of what is trained, on the CPU of the first rank; empty on the others."""
    options = _options(model)
    full = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=options.ignore_frozen_params)
    with torch.no_grad():
        state: dict[str, Tensor] = get_model_state_dict(model, options=full)
    return state
