"""Train SCAIL-2, from two CPU cores to many GPUs with the same code.

    motionpair train config.yaml
    torchrun --nproc-per-node 8 -m factory.trainer.train config.yaml

One process a GPU (or one on CPUs). The same command goes on from the newest checkpoint in `out`, also with another number of ranks. Nothing
here draws random numbers but the first weights: noise, σ, augmentation and text drop belong to each sample and its epoch (conditioning.py),
and the order of samples to the seed (stream.py), so there is no other state.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from factory.trainer import adapters, checkpoint, dpo, parallel, weights
from factory.trainer.augment import Augmentation
from factory.trainer.conditioning import Conditioned, Conditioning, FromLatents
from factory.trainer.config import DrawsConfig, TrainConfig, load_config
from factory.trainer.flops import Tokens, tokens_of, training_flops
from factory.trainer.flow import Batch, collate, losses
from factory.trainer.logs import Log
from factory.trainer.model import Scail2, build
from factory.trainer.parallel import Ranks
from factory.trainer.preferences import Contest, FromPreferences
from factory.trainer.probe import fixed_losses, fixed_samples
from factory.trainer.reading import plain_memory
from factory.trainer.stream import Source, Stream
from manifests.errors import BadRecipe, MotionpairError

Work = tuple[Batch, Batch | None]
"""a batch; for DPO, the winners and the losers"""


class Trainer:
    """One run on one rank."""

    def __init__(self, config: TrainConfig, ranks: Ranks) -> None:
        """Build or resume. Raises BadRecipe, BadInput or Damaged for what can't be trained."""
        self.config, self.ranks, self.out = config, ranks, Path(config.out)
        self.step = 0
        self.stream = self._stream()
        self.model, self.reference = self._models()
        self.optimizer = self._optimizer()
        self.ema = checkpoint.Ema(self.model, config.optimizer.ema) if config.optimizer.ema else None
        saving = config.checkpoints
        self.checkpoints = checkpoint.Checkpoints(self.out / "checkpoints", saving.keep, saving.background, ranks.first)
        self._resume()
        tasks = tuple(dict.fromkeys(task for task, _ in self.stream.schedule.mix.sources))
        self._probed = self._probe_samples(tasks)
        self._first_probe: dict[str, float] = {}
        self.log = Log(config.logs, self.out, ranks, tasks, config.model_dump(mode="json"))

    # --- building

    def _stream(self) -> Stream:
        data = self.config.data
        each, left = divmod(data.global_batch, self.ranks.data_world * data.micro_batch)
        if left:
            parts = f"{self.ranks.data_world} data ranks × micro_batch {data.micro_batch}"
            raise BadRecipe(f"data.global_batch {data.global_batch} is no multiple of {parts}; change one of them")
        self.micro_steps = each
        how = conditioning_of(self.config.draws)
        return Stream(
            [Source(release) for release in data.releases], data.split, data.seed, self.ranks.data_rank, self.ranks.data_world, 0,
            data.micro_batch, mix=data.mix, tasks=data.tasks, shapes=data.shapes,
            decode=FromPreferences(how) if self.config.objective == "dpo" else FromLatents(how),
            threads=data.threads, prefetch_bytes=int(data.prefetch_gb * 2**30), cache=data.cache, cache_bytes=int(data.cache_gb * 2**30),
            allocate=_pinned if self.ranks.device.type == "cuda" else plain_memory,
        )  # fmt: skip

    def _models(self) -> tuple[Scail2, Scail2 | None]:
        """The model that is trained, and for DPO without adapters a frozen copy."""
        config, ranks = self.config, self.ranks
        chosen = config.model
        model = build(chosen.config(), chosen.seed, "meta" if chosen.weights else "cpu")
        if config.lora:
            adapters.add_adapters(model, config.lora)
        reference = copy.deepcopy(model).requires_grad_(False) if config.objective == "dpo" and not config.lora else None
        for each in (model, reference):
            if each is None:
                continue
            parallel.share_sequences(each, ranks, config.parallel)
            parallel.checkpoint_activations(each, config.parallel)
            parallel.compile_blocks(each, config.parallel)
            parallel.shard(each, ranks, config.parallel)
            if chosen.weights:
                each.to_empty(device=ranks.device)
                self._tell(weights.load(each, weights.open_weights(chosen.weights)))
        if config.lora:
            adapters.initialise_adapters(model, chosen.seed)
        return model, reference

    def _optimizer(self) -> torch.optim.Optimizer:
        said = self.config.optimizer
        trained = [p for p in self.model.parameters() if p.requires_grad]
        fused = self.ranks.device.type == "cuda"
        return torch.optim.AdamW(trained, lr=said.lr, betas=said.betas, weight_decay=said.weight_decay, fused=fused)

    def _about(self) -> dict[str, Any]:
        """What a checkpoint must have been trained with, so that this run may go on from it."""
        config = self.config
        lora = config.lora.model_dump() if config.lora else None
        return {
            "model": config.model.config().model_dump(), "objective": config.objective, "lora": lora,
            "global_batch": config.data.global_batch, "ema": config.optimizer.ema is not None,
        }  # fmt: skip

    def _resume(self) -> None:
        newest = self.checkpoints.newest()
        if newest is None:
            return
        self.step, stream = self.checkpoints.load(newest, self.model, self.optimizer, self.ema, self._about())
        self.stream.load_state_dict(stream)
        self._tell([f"goes on from {newest}"])

    def _probe_samples(self, tasks: Sequence[str]) -> list[Conditioned]:
        asked, data = self.config.probe, self.config.data
        sources = [Source(release) for release in data.releases]
        return fixed_samples(sources, asked.split, tasks, asked.pairs, data.seed, data.shapes) if asked else []

    # --- training

    def train(self) -> None:
        """All steps that are left."""
        every, total = self.config.checkpoints.every_steps, self.config.total_steps
        try:
            self.probe()
            while self.step < total:
                last = self.train_step()
                if self.step % self.config.logs.every_steps == 0 or self.step == total:
                    self.log.flush(self.step, last)
                if self.config.probe and (self.step % self.config.probe.every_steps == 0 or self.step == total):
                    self.probe()
                if self.step % every == 0 or self.step == total:
                    self.save()
        finally:
            self.checkpoints.wait()
            self.log.close()
            self.stream.close()

    def train_step(self) -> dict[str, float]:
        """`global_batch` samples, one update."""
        count = self.config.data.global_batch // self.ranks.data_world
        for i in range(self.micro_steps):
            work = self._work()
            for number, (batch, other) in enumerate(work):
                last = i == self.micro_steps - 1 and number == len(work) - 1
                self.model.set_requires_gradient_sync(last)
                loss_B = self._losses(batch.to(self.ranks.device), other.to(self.ranks.device) if other else None)
                (loss_B.sum() / count).backward()
                self._count(batch, loss_B.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip)
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model)
        self.step += 1
        self.log.window.steps += 1
        return {"grad_norm": float(parallel.whole(norm)), "lr": rate}

    def _work(self) -> list[Work]:
        """A micro-batch, as batches that have one shape each. All ranks have equally many, as all take part in gathering the weights: where
        one has fewer, its last comes again with a loss of zero."""
        began = time.perf_counter()
        samples = [next(self.stream) for _ in range(self.config.data.micro_batch)]
        self.log.window.waited_s += time.perf_counter() - began
        work = self._collated(samples)
        if self.config.data.micro_batch > 1:
            empty = [(_silenced(batch), other) for batch, other in work[-1:]]
            work += empty * (self.ranks.largest(len(work)) - len(work))
        return work

    def _collated(self, samples: Sequence[Any]) -> list[Work]:
        model = self.model.config
        if samples and isinstance(samples[0], Contest):
            sides = [collate([pair[side] for pair in samples], model) for side in (0, 1)]
            return list(zip(*sides, strict=True))
        return [(batch, None) for batch in collate(samples, model)]

    def _losses(self, batch: Batch, loser: Batch | None) -> Tensor:
        """Of each sample, float32."""
        if loser is None:
            return losses(self.model(batch.inputs), batch)
        without = contextlib.nullcontext() if self.reference is not None else adapters.adapters_off(self.model)
        found = dpo.preference(self.model, self.reference or self.model, without, batch, loser, self.config.dpo)
        return found.loss

    def _count(self, batch: Batch, loss_B: Tensor) -> None:
        if not batch.keys:
            return
        frames, height, width = batch.velocity_B16THW.shape[2:]
        tokens = tokens_of(frames, height, width, batch.inputs.references_B20RHW.shape[2])
        flops = self._flops(tokens)
        for task, loss in zip(batch.tasks, loss_B.tolist(), strict=True):
            self.log.window.add(task, loss, tokens.all, flops)

    def _flops(self, tokens: Tokens) -> float:
        """Useful operations of a sample; a preference pair has two videos, and a forward pass each of the reference model."""
        once = training_flops(self.model.config, tokens)
        return once if self.config.objective == "flow" else 2 * once + 2 * once / 3

    def _learning_rate(self) -> float:
        said = self.config.optimizer
        return said.lr * min(1.0, (self.step + 1) / (said.warmup_steps + 1))

    def probe(self) -> None:
        """Losses at fixed σ and noise, told with how far they have fallen since this process began."""
        if not self.config.probe:
            return
        found = fixed_losses(self.model, self.model.config, self._probed, self.config.probe.sigmas)
        self._first_probe = self._first_probe or found
        self.log.tell(self.step, {f"probe/{task}": loss for task, loss in found.items()})
        if found is not self._first_probe:
            fallen = ", ".join(f"{task} {100 * (1 - loss / self._first_probe[task]):.1f} %" for task, loss in found.items())
            self._tell([f"step {self.step}  at fixed σ and noise fallen by: {fallen}"])
        self.log.window.restart()

    # --- saving

    def save(self) -> None:
        """A checkpoint, and what is asked for as published weights."""
        self.checkpoints.save(self.model, self.optimizer, self.ema, self.stream.state_dict(), self.step, self._about())
        export = self.config.checkpoints.export
        if export == "all" or (export == "last" and self.step == self.config.total_steps):
            self.export(self.out / f"{'lora' if self.config.lora else 'model'}-{self.step:08d}.safetensors")

    def export(self, file: Path) -> None:
        """Weights (the adapters, where there are some) under published names, by the first rank."""
        state = checkpoint.gathered(self.model)
        if self.ranks.first:
            named = adapters.adapter_state(state) if self.config.lora else state
            weights.save(named, file)

    def _tell(self, lines: list[str]) -> None:
        if self.ranks.first:
            for line in lines:
                print(line, flush=True)


def conditioning_of(draws: DrawsConfig) -> Conditioning:
    """The configuration's probabilities as conditioning.py takes them."""
    moved = Augmentation(end_to_end=draws.augment_end_to_end, pose=draws.augment_pose)
    return Conditioning(draws.text_drop, draws.history, draws.history_of_chunks, moved)


def _silenced(batch: Batch) -> Batch:
    """A batch that takes part and teaches nothing."""
    return Batch(**{**vars(batch), "loss_mask_B16THW": torch.zeros_like(batch.loss_mask_B16THW), "tasks": (), "keys": ()})


def _pinned(size: int) -> Any:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def run(config: TrainConfig) -> None:
    """Train as one of torchrun's processes, or alone."""
    with parallel.started(config.parallel) as ranks:
        Trainer(config, ranks).train()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the run failed, 2 the request can't be met."""
    given = list(sys.argv[1:] if argv is None else argv)
    if len(given) != 1:
        print("usage: torchrun -m factory.trainer.train CONFIG.yaml", file=sys.stderr)
        return 2
    try:
        run(load_config(given[0]))
    except MotionpairError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadRecipe) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
