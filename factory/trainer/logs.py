"""What a run tells: a line on the terminal, scalars to TensorBoard, and to W&B where asked for."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from factory.trainer.config import LogConfig
from factory.trainer.flops import peak_of
from factory.trainer.parallel import Ranks
from manifests.errors import BadRecipe


class Window:
    """Counts since the last line: losses by task, tokens, operations, and how long the data was waited for."""

    def __init__(self) -> None:
        self.loss: defaultdict[str, float] = defaultdict(float)
        self.samples: Counter[str] = Counter()
        self.tokens = self.flops = self.waited_s = 0.0
        self.steps = 0
        self.began = time.perf_counter()

    def add(self, task: str, loss: float, tokens: float, flops: float) -> None:
        """One sample."""
        self.loss[task] += loss
        self.samples[task] += 1
        self.tokens += tokens
        self.flops += flops

    def restart(self) -> None:
        """What was done since the last step is no training: where nothing was counted yet, the clock begins now."""
        if not self.steps:
            self.began = time.perf_counter()


class Log:
    """Of the first rank; the others only add up with it."""

    def __init__(self, config: LogConfig, folder: Path, ranks: Ranks, names: tuple[str, ...], run: dict[str, Any]) -> None:
        """`names`: the tasks that there are, the same on all ranks."""
        import torch

        self._ranks, self._names = ranks, names
        name = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU"
        self._peak = config.peak_tflops * 1e12 if config.peak_tflops else peak_of(name)
        self._board: Any = None
        self._wandb: Any = None
        if ranks.first and config.tensorboard:
            self._board = _board(folder)
        if ranks.first and config.wandb_project:
            self._wandb = _wandb(config.wandb_project, folder, run)
        self.window = Window()

    def flush(self, step: int, last: dict[str, float]) -> dict[str, float]:
        """Add up over the ranks, tell, begin anew. `last` is of the last step (gradient norm, learning rate)."""
        window, seconds = self.window, time.perf_counter() - self.window.began
        mine = [
            *(window.loss[n] for n in self._names),
            *(float(window.samples[n]) for n in self._names),
            window.tokens,
            window.flops,
            window.waited_s,
        ]
        total = self._ranks.summed(mine)
        count = len(self._names)
        scalars = {f"loss/{name}": total[i] / total[count + i] for i, name in enumerate(self._names) if total[count + i]}
        scalars["loss"] = sum(total[:count]) / max(1.0, sum(total[count : 2 * count]))
        copies = self._ranks.world / self._ranks.data_world  # ranks of a context group counted the same samples
        scalars |= last | {
            "tokens_per_s": total[-3] / copies / seconds,
            "data_wait": total[-1] / self._ranks.world / seconds,
            "step_s": seconds / max(1, window.steps),
        }
        if self._peak:
            scalars["mfu"] = total[-2] / copies / seconds / (self._peak * self._ranks.world)
        self.tell(step, scalars)
        self.window = Window()
        return scalars

    def tell(self, step: int, scalars: dict[str, float]) -> None:
        """A line, and a point on every curve."""
        if not self._ranks.first:
            return
        print(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in scalars.items()), flush=True)
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)

    def close(self) -> None:
        """Write what is left."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BadRecipe("logs.tensorboard needs the package tensorboard; pip install 'motionpair[trainer]', or set it to false") from None
    return SummaryWriter(str(folder / "tensorboard"))


def _wandb(project: str, folder: Path, run: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise BadRecipe("logs.wandb_project needs the package wandb; pip install wandb, or leave it out") from None
    return wandb.init(project=project, dir=str(folder), config=run, resume="allow")
