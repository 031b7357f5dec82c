"""What test_training.py runs on several ranks: they are forked off one process that has imported everything, which takes seconds.

python ranks.py FOLDER
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from tiny_training import inputs, lively, numbers

from factory.trainer import adapters, dpo, parallel, train
from factory.trainer.adapters import LoraConfig
from factory.trainer.config import ParallelConfig, load_config
from factory.trainer.dpo import DpoConfig
from factory.trainer.flow import Batch, losses
from factory.trainer.model import Inputs, Scail2
from factory.trainer.weights import plain_name


def batch(tasks: tuple[str, ...], seed: int) -> Batch:
    given = inputs(tasks, more=1, frames=1, height=4, width=12, seed=seed)  # type: ignore[arg-type]
    shape = (len(tasks), 16, 1, 4, 12)  # 39 tokens: no number of ranks divides them
    return Batch(given, numbers(seed + 10, *shape), (numbers(seed + 11, *shape) > -1).float(), (numbers(seed + 12, *shape) > 1).float(),
                 tasks, ("key",) * len(tasks))  # fmt: skip


SAMPLES = [batch(("animation",), 0), batch(("replacement",), 50)]


for each in SAMPLES:
    each.inputs.noisy_B20THW[:, 16:] = 0  # no history


def preference_of(model: Scail2) -> torch.Tensor:
    """The DPO loss of a contest: the loser's video is the winner's and 1 less everywhere."""
    winner = SAMPLES[0]
    noisy = winner.inputs.noisy_B20THW.clone()
    noisy[:, :16] -= 1 - winner.inputs.sigma_B.view(-1, 1, 1, 1, 1)
    given = Inputs(**{**vars(winner.inputs), "noisy_B20THW": noisy})
    loser = Batch(**{**vars(winner), "inputs": given, "velocity_B16THW": winner.velocity_B16THW + 1})
    return dpo.preference(model, model, adapters.adapters_off(model), winner, loser, DpoConfig(beta=5, sft=0.1)).loss


def gradients(model: Scail2) -> dict[str, torch.Tensor]:
    return {plain_name(name): parallel.whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


def prepared(lora: bool = False) -> Scail2:
    model = lively()
    if lora:
        adapters.add_adapters(model, LoraConfig(rank=2))
        with torch.no_grad():
            for i, (name, p) in enumerate(model.named_parameters()):
                if ".lora_" in name:
                    p.copy_(0.3 * numbers(500 + i, *p.shape))
    return model


def alone() -> dict[str, dict[str, torch.Tensor]]:
    """Without any of it: one process, no sharding."""
    found = {}
    model = prepared()
    (sum(losses(model(b.inputs), b).sum() for b in SAMPLES) / 2).backward()
    found["flow"] = gradients(model)
    model = prepared(lora=True)
    preference_of(model).sum().backward()
    found["dpo"] = gradients(model)
    return found


def spread(config: ParallelConfig) -> dict[str, dict[str, torch.Tensor]]:
    """The same numbers on these ranks."""
    found = {}
    with parallel.started(config) as ranks:
        for what in ("flow", "dpo"):
            model = prepared(lora=what == "dpo")
            parallel.share_sequences(model, ranks, config)
            parallel.checkpoint_activations(model, config)
            parallel.compile_blocks(model, config)
            parallel.shard(model, ranks, config)
            mine = SAMPLES[ranks.data_rank :: ranks.data_world]
            if what == "flow":
                (sum(losses(model(b.inputs), b).sum() for b in mine) / len(mine)).backward()
            else:
                preference_of(model).sum().backward()
            found[what] = gradients(model)
    return found


def worst(found: dict[str, dict[str, torch.Tensor]], expected: dict[str, dict[str, torch.Tensor]]) -> dict[str, float]:
    """Largest difference of any gradient, of the largest one there is."""
    out = {}
    for what, gradients in expected.items():
        assert found[what].keys() == gradients.keys(), sorted(found[what].keys() ^ gradients.keys())
        largest = max(float(g.abs().max()) for g in gradients.values())
        out[what] = max(float((found[what][name] - g).abs().max()) for name, g in gradients.items()) / largest
    return out


def import_all() -> None:
    """What is otherwise imported where it is used, and so in each child."""
    import torch._dynamo  # noqa: F401
    from torch.distributed import fsdp  # noqa: F401
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper  # noqa: F401
    from torch.distributed.tensor import _utils  # noqa: F401

    prepared(lora=True)


def on_ranks(world: int, job: Callable[[int], None]) -> None:
    """Fork, and run a job on each rank as torchrun would. Raises when one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
                )
                torch.set_num_threads(1)
                job(rank)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        raise SystemExit(f"a job on {world} ranks failed")


def main() -> None:
    import_all()
    folder = Path(sys.argv[1])
    jobs = json.loads((folder / "jobs.json").read_text())

    def reference(_: int) -> None:
        torch.save(alone(), folder / "alone.pt")

    on_ranks(1, reference)
    for name, (world, options) in jobs["spread"].items():

        def job(rank: int, name: str = name, options: dict[str, object] = options) -> None:
            found = spread(ParallelConfig.model_validate(options))
            if rank == 0:
                (folder / f"{name}.json").write_text(json.dumps(worst(found, torch.load(folder / "alone.pt"))))

        on_ranks(world, job)
    for world, config in jobs["train"]:
        on_ranks(world, lambda _, config=config: train.run(load_config(config)))  # type: ignore[misc]


if __name__ == "__main__":
    main()
