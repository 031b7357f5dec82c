"""`motionpair train`: train on latent releases, in this process or by torchrun."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A configuration in YAML; docs/training.md has the keys.")],
    ranks: Annotated[int, typer.Option(min=1, help="Processes on this machine, one a GPU; more start by torchrun.")] = 1,
) -> None:
    """Train a model. Asked for again, it goes on from the newest checkpoint."""
    from factory.console import plainly
    from manifests.errors import BadRecipe

    with plainly("Run the same command again to resume."):
        try:
            from factory.trainer.config import load_config
            from factory.trainer.train import run
        except ImportError as error:
            raise BadRecipe(f"training needs the package {error.name}; pip install 'motionpair[trainer]'.") from None
        asked = load_config(config)  # mistakes are told once, not by every process
        if ranks == 1:
            run(asked)
            return
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "factory.trainer.train"]
    sys.stdout.flush()
    os.execv(sys.executable, [*launch, str(config)])
